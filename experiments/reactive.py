"""S1: universal models as they come, and fine-tuned on a few labels, on reactions, jumps and growth.

Claim (arXiv 2606.23214): zero-shot, universal models miss reactive and high-barrier events, because their surfaces are
too soft; their dynamics still visit what a material needs, so that relabelling a few of the frames and fine-tuning, in
one shot or in rounds, gives the accuracy that training from scratch on as few labels does not.

    python -m experiments.reactive                       # two cores, 19 minutes
    python -m experiments.reactive --preset full         # more systems, labels and seeds; for an accelerator
    python -m experiments.reactive --model ase:my_module:make_calculator     # a further model, zero-shot

Parts, each for every model: published DFT frames of formate on Cu(110), with whole stretches of the trajectory held
out (errors, softening, and fine-tunes against labels); barriers of events on a common path and on the model's own (all
images in one batch); the S vacancy in MoS2 by the workflow of S1 (dynamics of the first model, subsample, relabel by
the oracle, fine-tune: one-shot, iterative, from scratch); growth of sodium from its melt. The oracle is the strongest
native model, not DFT: where no published number is at hand, errors are relative to it and say so. Every finished part
is kept, so the same command again resumes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from experiments import _reactive_parts as parts
from experiments import _reactive_report as report
from experiments._entry import claim_folder, run_experiment, settings_of
from experiments._units import run_units
from mlipjax import runtime
from mlipjax.files import write_atomic
from mlipjax.models.foreign import is_foreign, refusal

NATIVE = ("nequix-mp-1", "nequix-omat-1", "nequix-oam-1-pft")

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "events": ("o-mos2", "v-mos2", "h2-cu111"),
        "labels": (10,),
        "epochs": 10,
        "scratch_epochs": 16,
        "seeds": 1,
        "test": 22,
        "images": 5,
        "band_steps": 50,
        "workflow_labels": 8,
        "workflow_steps": 120,
        "growth_steps": 250,
        "surface_steps": 0,
    },
    "full": {
        "events": ("o-mos2", "o-mose2", "o-mote2", "o-ws2", "o-wse2", "o-wte2", "v-mos2", "h2-cu111", "li-lifepo4"),
        "labels": (10, 50, 200),
        "epochs": 60,
        "scratch_epochs": 120,
        "seeds": 3,
        "test": 22,
        "images": 7,
        "band_steps": 400,
        "workflow_labels": 40,
        "workflow_steps": 2000,
        "growth_steps": 10_000,
        "surface_steps": 20_000,
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Universal and fine-tuned models on reactions, jumps and growth.

    Attributes:
        preset: sizes that are not given.
        model: further models for the zero-shot comparison: native ones, or ase:module:factory.
        natives: native models; the first drives the dynamics and is fine-tuned, the last is the oracle.
        events: barriers to find.
        labels: frames of formate on Cu(110) to fine-tune on.
        epochs, scratch_epochs: of fine-tunes, and of training from scratch.
        seeds: of fine-tunes.
        test: held-out frames of formate, about; whole stretches of the trajectory.
        images: of a band.
        band_steps: evaluations of a band at most.
        workflow_labels: labels of the S-vacancy workflow.
        workflow_steps: MD steps they are drawn from.
        growth_steps: MD steps of the growth of sodium; 0 for none.
        surface_steps: MD steps of formate on hot copper (bond events, g(r), diffusion, spectrum); 0 for none.
        formate: whether the published frames are used (``MLIPJAX_DATA``).
        workers: processes that compute side by side; by default one per core, four at most, and one on an accelerator.
        out: folder of the run.
    """

    preset: Literal["quick", "full"] = "quick"
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    natives: tuple[str, ...] = NATIVE
    events: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    epochs: int | None = None
    scratch_epochs: int | None = None
    seeds: int | None = None
    test: int | None = None
    images: int | None = None
    band_steps: int | None = None
    workflow_labels: int | None = None
    workflow_steps: int | None = None
    growth_steps: int | None = None
    surface_steps: int | None = None
    formate: bool = True
    workers: int | None = None
    out: Path = Path("runs/reactive")

    def resolved(self) -> Config:
        """Fill what was not given from the preset.

        Raises:
            ValueError: for a foreign calculator where a native model is needed, or an unknown event.
        """
        preset = PRESETS[self.preset]
        given = {name: getattr(self, name) for name in preset}
        for name in self.natives:
            if is_foreign(name):
                raise refusal(name)
        if len(self.natives) < 2:
            raise ValueError(f"found natives={self.natives}; expected at least two: one to fine-tune, and the oracle.")
        unknown = [name for name in self.events if name not in parts.EVENTS]
        if unknown:
            raise ValueError(f"no event is called {', '.join(unknown)}; there are {', '.join(parts.EVENTS)}.")
        filled = {name: preset[name] if value in (None, ()) else value for name, value in given.items()}
        return dataclasses.replace(self, **filled)


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures."""
    console = Console()
    parts.check(config)
    settings = settings_of(config, apart=("out", "workers"))
    claim_folder(config.out, settings)
    done = run_units(parts.units_of(config), config.out / "units", console, config.workers)
    results = {"settings": settings, **parts.collect(config, done), "versions": runtime.versions()}
    report.write(config.out, results, command=" ".join(["python -m experiments.reactive", *sys.argv[1:]]))
    write_atomic(config.out / "results.json", json.dumps(results, indent=1))
    for system, rows in report.brief(results).items():
        table = Table(*report.BRIEF_COLUMNS, title=system)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(report.verdict(results)[0])
    console.print(f"report: {config.out / 'report.html'}")


def run(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_experiment(main, Config, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run())
