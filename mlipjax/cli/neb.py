"""``mlipjax neb``: the minimum-energy path and barrier between two structures."""

from __future__ import annotations

from mlipjax.cli.call import call
from mlipjax.cli.options.structures import Neb
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table, fixed
from mlipjax.data.write import check_name, write_atoms
from mlipjax.probes import NEBResult
from mlipjax.report import save_figure
from mlipjax.verbs import neb
from mlipjax.verbs.inputs import folder_and_file
from mlipjax.verbs.neb import images_of


def run(command: Neb) -> None:
    """Relax the band and print barrier and images."""
    folder, written = folder_and_file(command.out, command.write, "images.extxyz")
    if written is not None:
        check_name(written)
    console = make_console(quiet=command.quiet)
    with Working(console, "compiling and relaxing") as working:
        result = call(
            neb,
            command,
            on_step=lambda step, force: working.say(f"evaluation {step}: largest force {force:.3f} eV/Å"),
        )
    console.print(_table(result), result.verdict)
    report = result.as_dict() | {
        "model": command.model,
        "dtype": command.dtype,
        "n_images": len(result.energies_eV),
        "relative_energies_eV": result.energies_eV - result.energies_eV[0],
        "relative_fixed_path_energies_eV": result.fixed_path_energies_eV - result.fixed_path_energies_eV[0],
    }
    if written is not None:
        write_atoms(written, images_of(result))
        console.print(f"images with energies: {written}")
    for figure in (command.figure, None if folder is None else folder / "neb.png"):
        if figure is not None:
            save_figure(result.figure(), figure)
            console.print(f"figure: {figure}")
    for file in (command.json, None if folder is None else folder / "results.json"):
        write_json(file, report)


def _table(result: NEBResult) -> Table:
    energies, given = (values - values[0] for values in (result.energies_eV, result.fixed_path_energies_eV))
    rows = [
        (
            str(index),
            fixed(result.distance_A[index], 3),
            fixed(energies[index], 4),
            fixed(given[index], 4),
            fixed(result.image_fmax_eV_per_A[index], 3),
            "yes" if result.image_converged[index] else "no",
        )
        for index in range(len(energies))
    ]
    return Table(("image", "path (Å)", "energy (eV)", "as given (eV)", "fmax (eV/Å)", "converged"), rows)
