"""S2: Cr migrating in Sb2Te3 as a probe of interpolation and extrapolation at once.

Claim (arXiv 2509.00090): universal, scratch and fine-tuned models all get equilibrium right; barriers tell them apart,
fine-tuning wins on migration and can lose on interlayer sliding; latent encodings do not overlap.

    python -m experiments.migration                       # two cores, under 20 minutes
    python -m experiments.migration --preset full         # three seeds, all paths in full, for a GPU
    python -m experiments.migration --oracle ase:my_dft:make_calculator

Geometry is that of the published images (``MLIPJAX_DATA``; not shipped). Reference is the *oracle*: unless the user
gives a DFT calculator it is a stronger universal model, and "error" means distance from that model, not from nature.
Training data follow S1: dynamics with the universal model from both ends of one path (61 atoms: in domain), frames
relabelled by the oracle, fine-tuned. The 81-atom paths are never seen in training (out of domain) and never pooled with
the 61-atom one. The publication's own energies are unconverged candidates, drawn for orientation only. The same command
again resumes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import _migration_data as data
from experiments import _migration_report as report
from experiments._entry import claim_folder, run_experiment, settings_of
from experiments._migration_latent import compare_latent
from experiments._migration_probes import Prober
from mlipjax import runtime, tree
from mlipjax.data import Dataset
from mlipjax.files import write_atomic
from mlipjax.finetune import FinetuneSettings
from mlipjax.finetune.single import finetune
from mlipjax.models import load
from mlipjax.oracles import Labeller, Teacher, make_oracle
from mlipjax.potential import Potential
from mlipjax.probes.result import plain
from mlipjax.system import System
from mlipjax.typing import Params

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "seeds": 1, "labels": 16, "epochs": 6, "scratch_epochs": 12, "n_images": 5, "max_steps": 50, "fmax": 0.1,
        "crystal_steps": 60, "sliding_points": 5, "paths": (data.ID_PATH, "neb_81_1"), "every": 15,
    },
    "full": {
        "seeds": 3, "labels": 200, "epochs": 60, "scratch_epochs": 200, "n_images": 10, "max_steps": 500,
        "fmax": 0.05, "crystal_steps": 500, "sliding_points": 13, "paths": (data.ID_PATH, *data.OOD_PATHS), "every": 50,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare universal, fine-tuned and scratch models on migration and sliding.

    Attributes:
        preset: sizes that are not given: "quick" for two cores, "full" for an accelerator.
        model: universal model that samples and is fine-tuned.
        others: more universal models, zero-shot (names or files).
        oracle: labels and reference: teacher:MODEL, or ase:MODULE:FACTORY for DFT.
        temperature: K, of the one-temperature arm.
        temperatures: K, of the several-temperature arm.
        labels: frames of every arm.
        valid: frames of the validation trajectory.
        every: steps between frames.
        timestep: fs.
        scratch_percent: part of the labels that the second scratch model gets.
        epochs, scratch_epochs: passes over the training frames.
        learning_rate: of fine-tunes; by default the strategy's.
        batch_size: frames per optimiser step.
        arms: which of the trained models; by default all.
        seeds: fine-tunes per arm.
        paths: published paths that are probed; the first one must be the 61-atom one.
        n_images: images of self-consistent bands, ends included (of published ones at most).
        fmax: eV/Å, of bands.
        lattice_fmax: eV/Å, of the crystal.
        max_steps: evaluations at most, of ends and of bands each.
        crystal_steps: evaluations at most, of the crystal.
        sliding_points: shifts along each vector.
        out: folder of the run.
    """

    preset: Literal["quick", "full"] = "quick"
    model: str = "nequix-mp-1"
    others: tuple[str, ...] = ("nequix-omat-1",)
    oracle: str = "teacher:nequix-oam-1-pft"
    temperature: float = 600.0
    temperatures: tuple[float, ...] = (300.0, 600.0, 900.0)
    labels: int = 0
    valid: int = 4
    every: int = 0
    timestep: float = 2.0
    scratch_percent: float = 50.0
    epochs: int = 0
    scratch_epochs: int = 0
    learning_rate: float | None = 2e-4
    batch_size: int = 4
    arms: tuple[str, ...] = ()
    seeds: int = 0
    paths: tuple[str, ...] = ()
    n_images: int = 0
    fmax: float = 0.0
    lattice_fmax: float = 0.03
    max_steps: int = 0
    crystal_steps: int = 0
    sliding_points: int = 0
    out: Path = Path("runs/migration")

    def resolved(self) -> Config:
        """Fill what was not given from the preset."""
        preset = PRESETS[self.preset]
        return dataclasses.replace(self, **{name: getattr(self, name) or value for name, value in preset.items()})


ARMS = {
    "fine-tuned, one T": ("naive", "single", 100.0),
    "fine-tuned, several T": ("naive", "several", 100.0),
    "scratch": ("scratch", "several", 100.0),
    "scratch, part of the data": ("scratch", "several", None),
}
"""Strategy, training set, percent of it (``None``: as configured)."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run."""

    config: Config
    console: Console
    paths: list[data.MigrationPath]
    crystal: System
    potential: Potential
    params: Params

    @classmethod
    def open(cls, config: Config, console: Console) -> Experiment:
        """Read model and paths.

        Raises:
            ValueError: if the first path is not the one that training starts from, or an arm does not exist.
        """
        if config.paths[0] != data.ID_PATH:
            raise ValueError(
                f"the first of --paths is {config.paths[0]}; it must be {data.ID_PATH}, where training starts."
            )
        if unknown := set(config.arms) - set(ARMS):
            raise ValueError(f"found the arms {sorted(unknown)}; there are: {'; '.join(ARMS)}.")
        potential, params = load(config.model)
        paths = [data.load_path(name) for name in config.paths]
        return cls(config, console, paths, data.pristine(), potential, tree.cast(params, "float32"))

    def run(self) -> dict[str, Any]:
        """Everything, in order; what is on disk already is not done again."""
        c = self.config
        oracle = make_oracle(c.oracle)
        with Labeller(oracle, c.out / "labels.db") as labeller:
            self.console.print("sampling and labelling")
            sets = data.training_sets(data.Sampler(c, self.potential, self.params), labeller, c)
            reference = self._reference(oracle, labeller)
        base = Path(c.model).name
        rows = {base: [self._probed(base, Prober(self.potential), self.params)]}
        rows |= {Path(name).name: [self._universal(name)] for name in c.others}
        tuned: dict[str, list[Params]] = {}
        prober = Prober(self.potential)
        for arm in c.arms or ARMS:
            tuned[arm] = [self._tuned(arm, sets, seed) for seed in range(c.seeds)]
            rows[arm] = [self._probed(f"{arm}-{seed}", prober, params) for seed, params in enumerate(tuned[arm])]
        latent = compare_latent(self, {base: self.params} | {arm: params[0] for arm, params in tuned.items()})
        return {
            "oracle": c.oracle,
            "oracle_is_model": isinstance(oracle, Teacher),
            "arms": {arm: ARMS[arm][0] for arm in tuned},
            "n_labels": {name: len(part) for name, part in sets.items()},
            "paths": {
                path.name: {
                    "in_domain": path.in_domain,
                    "n_atoms": path.images[0].n_atoms,
                    "candidate_eV": path.candidate_eV,
                }
                for path in self.paths
            },
            "reference": reference,
            "models": rows,
            "latent": latent,
        }

    def _reference(self, oracle: Any, labeller: Labeller) -> dict[str, Any]:
        """The oracle's own answers: all probes if it is a model of this package, else energies of the images."""
        if isinstance(oracle, Teacher):
            return self._probed("oracle", Prober(oracle.potential), oracle.params)
        paths = {}
        for path in self.paths:
            labels: Any = labeller.label(path.images)
            levels = np.array([label.energy for label in labels])
            paths[path.name] = {
                "profile_eV": levels - levels[0],
                "fixed_path_barrier_eV": float(levels.max() - levels[0]),
                "forces_eV_per_A": [label.forces for label in labels],
            }
        return plain({"paths": paths, "crystal": {"failed": "the oracle is not a model of this package"}})

    def _universal(self, name: str) -> dict[str, Any]:
        potential, params = load(name)
        return self._probed(Path(name).name, Prober(potential), params)

    def _probed(self, name: str, prober: Prober, params: Params) -> dict[str, Any]:
        c = self.config
        file = c.out / "probes" / f"{name.replace(' ', '_')}.json"
        if file.exists():
            return json.loads(file.read_text())
        row: dict[str, Any] = {"paths": {}}
        for path in self.paths:
            self.console.print(f"{name}: {path.name}")
            row["paths"][path.name] = prober.path(params, path, c.n_images, c.fmax, c.max_steps)
        self.console.print(f"{name}: crystal")
        row["crystal"] = prober.sliding(params, self.crystal, c)
        row = plain(row)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(row))
        return row

    def _tuned(self, arm: str, sets: dict[str, Dataset], seed: int) -> Params:
        c = self.config
        strategy, part, percent = ARMS[arm]
        percent = c.scratch_percent if percent is None else percent
        scratch = strategy == "scratch"
        settings = FinetuneSettings(
            strategy=strategy,  # pyright: ignore[reportArgumentType]
            e0s="estimate",
            epochs=c.scratch_epochs if scratch else c.epochs,
            batch_size=c.batch_size,
            learning_rate=None if scratch else c.learning_rate,
            seed=seed,
            anchor="none",
            # a scratch model has no error before training that could be too large
            allow_e0_mismatch=scratch,
        )
        self.console.print(f"training: {arm}, seed {seed}")
        train = sets[part] if percent == 100.0 else data.thinned(sets[part], percent)
        folder = data.model_folder(c.out, arm.replace(",", "").replace(" ", "-"), seed)
        result = finetune(self.potential, self.params, train, sets["valid"], settings=settings, out=folder)
        return tree.cast(result.params, "float32")


def main(config: Config) -> None:
    """Run, print and report."""
    console = Console()
    claim_folder(config.out, settings_of(config))
    results = plain(Experiment.open(config, console).run())
    summary = report.summarise(results)
    everything = {"summary": summary, **results, "config": settings_of(config), "versions": runtime.versions()}
    write_atomic(config.out / "results.json", json.dumps(plain(everything), indent=1, allow_nan=False))
    command = " ".join(["python", "-m", "experiments.migration", *sys.argv[1:]])
    report.write(config.out, results, summary, command, runtime.versions())
    table = Table(title="distance from the oracle")
    for column in report.COLUMNS:
        table.add_column(column, justify="right", overflow="fold")
    for row in report.rows_of(summary):
        table.add_row(
            *["–" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        )
    console.print(table)
    console.print(report.verdict(results, summary), highlight=False)
    console.print(f"report: {config.out / 'report.html'}")


if __name__ == "__main__":
    raise SystemExit(run_experiment(main, Config, __doc__))
