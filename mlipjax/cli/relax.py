"""``mlipjax relax``: positions and cells at rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.options.structures import Relax
from mlipjax.cli.output import LeftOut, make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table
from mlipjax.data.write import check_name, write_atoms
from mlipjax.verbs import Relaxation, relax
from mlipjax.verbs.inputs import described, name_of, told_paths


def run(command: Relax) -> None:
    """Relax, print and write."""
    if command.write is not None:
        check_name(command.write)
    console, left_out = make_console(quiet=command.quiet), LeftOut()
    with Working(console, f"relaxing {name_of(command.structure)}") as working:
        found: Any = call(  # a list: structures of a file
            relax,
            command,
            keep_path=command.out is not None,
            leave_out=left_out,
            on_step=lambda step, force: working.say(f"evaluation {step}: largest force {force:.3g} eV/Å"),
        )
    numbers = [left_out.number(place) for place in range(len(found))]
    _print(console, command, dict(zip(numbers, found, strict=True)))
    results: dict[str, Any] = {
        "model": command.model,
        "structure": told_paths(command.structure),
        "cell": command.cell,
        "dtype": command.dtype,
        "converged": all(one.converged for one in found),
        "structures": [one.as_dict() for one in found],
        **({"left_out": left_out} if left_out else {}),
    }
    _write(console, command, found)
    write_json(command.json, results)
    if command.out is not None:
        write_json(command.out / "results.json", results)
    left_out.refuse(described(command.structure))


def _print(console: Console, command: Relax, found: dict[int, Relaxation]) -> None:
    if len(found) <= _IN_FULL:
        for index, one in found.items():
            console.print(table(one, f"structure {index}: " if len(found) > 1 else ""))
    else:
        console.print(summary(found))
    for index, one in found.items():
        if len(found) <= _IN_FULL or not one.converged:
            console.print(one_line(index, one, command.fmax))


def _write(console: Console, command: Relax, found: list[Relaxation]) -> None:
    for file in (command.write, None if command.out is None else command.out / "relaxed.extxyz"):
        if file is not None:
            write_atoms(file, (one.atoms for one in found))
            console.print(f"relaxed structures: {file}")
    if command.out is not None:
        write_atoms(command.out / "path.extxyz", (atoms for one in found for atoms in one.path))
        console.print(f"all structures on the way: {command.out / 'path.extxyz'}")


_IN_FULL = 5
"""So many structures get a table each; more of them get a line each."""


def table(relaxation: Relaxation, name: str) -> Table:
    """One structure before and after."""
    found = relaxation.as_dict()
    title = f"{name}{found['formula']}, {found['n_atoms']} atoms"
    return Table(("", "before", "after"), list(_rows(found["before"], found["after"])), title)


def _rows(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    def both(key: str, digits: str, index: int | None = None) -> tuple[str, str]:
        first, second = (one[key] if index is None else one[key][index] for one in (before, after))
        return format(first, digits), format(second, digits)

    yield "energy (eV)", *both("energy_eV", ".6f")
    yield "largest force (eV/Å)", *both("max_force_eV_per_A", ".4f")
    if "lengths_A" in before:
        for index, axis in enumerate("abc"):
            yield f"{axis} (Å)", *both("lengths_A", ".4f", index)
        for index, angle in enumerate(("alpha", "beta", "gamma")):
            yield f"{angle} (°)", *both("angles_deg", ".3f", index)
        yield "volume (Å³)", *both("volume_A3", ".3f")
    if "stress_GPa" in before:
        for index, axis in enumerate(("xx", "yy", "zz", "yz", "xz", "xy")):
            yield f"stress {axis} (GPa)", *both("stress_GPa", ".3f", index)
    if "space_group" in before:
        yield (
            "space group (0.01 Å)",
            str(before["space_group"] or "none found"),
            str(after["space_group"] or "none found"),
        )


def summary(found: Mapping[int, Relaxation]) -> Table:
    """Many structures by their numbers, a line each."""
    rows = []
    for index, one in found.items():
        change = "-"
        if one.atoms.cell.rank == 3:
            change = f"{100 * (one.atoms.cell.volume / one.initial.cell.volume - 1):+.2f}"
        rows.append(
            (
                str(index),
                one.atoms.get_chemical_formula(),
                f"{one.energy_change:+.4f}",
                change,
                f"{one.fmax:.4f}",
                "yes" if one.converged else "NO",
            )
        )
    headings = ("", "formula", "energy change (eV)", "volume change (%)", "fmax (eV/Å)", "converged")
    return Table(headings, rows, name_columns=2)


def one_line(index: int, relaxation: Relaxation, fmax: float) -> str:
    """Return whether a structure is converged, and what it gained."""
    what = "energy" if relaxation.pressure == 0.0 else "enthalpy"
    gained = f"{what} changed by {relaxation.energy_change:+.4f} eV"
    if relaxation.initial.cell.rank == 3:
        change = relaxation.atoms.cell.volume / relaxation.initial.cell.volume - 1
        gained += f", volume by {100 * change:+.2f} %"
    reached = f"after {relaxation.steps} evaluations, largest force {relaxation.fmax:.4f} eV/Å"
    if relaxation.converged:
        return f"structure {index}: converged {reached}; {gained}"
    return f"structure {index}: NOT CONVERGED {reached} (asked for {fmax:g}): raise --steps or --fmax; {gained}"
