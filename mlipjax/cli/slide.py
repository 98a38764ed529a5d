"""``mlipjax slide``: the energy of sliding the layers of a crystal over each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlipjax.cli.options.structures import Slide
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table, fixed
from mlipjax.probes import GammaSurface, SlidingProfile, SlidingSettings, gamma_surface, slide
from mlipjax.report import save_figure
from mlipjax.verbs.inputs import check_known, open_native, unconstrained


def run(command: Slide) -> None:
    """Compute and print."""
    system = unconstrained(command.structure, "layers slide and relax along their normal as a whole")
    opened = open_native(command.model, command.head)
    check_known(opened, command.structure, system.atomic_numbers)
    settings = SlidingSettings(
        relaxed=command.relaxed,
        fmax=command.fmax,
        max_steps=command.steps,
        interface=command.interface,
        bond_factor=command.bond_factor,
        head=opened.head,
        dtype=command.dtype,
    )
    console = make_console(quiet=command.quiet)
    with Working(console, "compiling and sliding") as working:
        options: Any = {"settings": settings, "on_structures": lambda n, of: working.say(f"{n} of {of} shifts")}
        result: SlidingProfile | GammaSurface
        if command.surface is None:
            result = slide(opened.model, system, vector=command.vector, n_points=command.points, **options)
        else:
            result = gamma_surface(opened.model, system, n=command.surface, reduce=command.symmetry, **options)
    if isinstance(result, SlidingProfile):
        console.print(_table(result))
    console.print(result.verdict)
    if command.figure is not None:
        save_figure(result.figure(), command.figure)
    write_json(
        command.json,
        result.as_dict() | {"model": command.model, "structure": command.structure, "dtype": command.dtype},
    )


def _table(result: SlidingProfile) -> Table:
    headings = ("shift (Å)", "rigid (meV/Å²)", "relaxed (meV/Å²)", "opening (Å)")
    columns = (result.shift_A, result.rigid_meV_per_A2, result.relaxed_meV_per_A2, result.opening_A)
    # what was not computed has no column
    kept = [k for k, column in enumerate(columns) if np.isfinite(column).any()]
    rows = [[fixed(columns[k][row], 3) for k in kept] for row in range(len(result.shift_A))]
    return Table([headings[k] for k in kept], rows, "energy of sliding")
