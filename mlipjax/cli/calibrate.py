"""``mlipjax calibrate``: error bars of a model, saved in its folder."""

from __future__ import annotations

from mlipjax.cli.call import call
from mlipjax.cli.options.training import Calibrate
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.verbs import calibrate
from mlipjax.verbs.inputs import name_of, told_paths


def run(command: Calibrate) -> None:
    """Calibrate and say what was found."""
    console = make_console(quiet=command.quiet)
    with Working(console, f"calibrating error bars on {name_of(command.valid)}"):
        report = call(calibrate, command)
    held_out = f"{report['n_valid']} structures of {report['n_groups']} groups"
    if report["method"] == "llpr":
        console.print(
            f"last layer of {report['n_features']} features, {report['n_determined']:.0f} of them determined by "
            f"{report['n_train']} training structures"
        )
    else:
        console.print(f"committee of {report['members']} models")
    console.print(
        f"scales from {held_out}: {report['energy_scale']:.3g} for energies, {report['force_scale']:.3g} for forces"
    )
    console.print(f"error bars: {report['file']} (--uncertainty {report['method']})")
    told = {name: told_paths(getattr(command, name)) for name in ("train", "valid", "members")}
    write_json(command.json, {**report, "model": command.model, **told})
