"""Entry point: see ``experiments/pretrain/config.py``."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.lab.embedded import read
from experiments.lab.entry import run_experiment
from experiments.lab.record import Number
from experiments.lab.run import Outcome, Run
from experiments.lab.training import FinetuneDisplay, element_table, error_table
from experiments.pretrain.config import Config
from mlipjax.data import Dataset, Example, split_dataset
from mlipjax.finetuning import FinetuneSettings, finetune
from mlipjax.graph import neighbor_table
from mlipjax.models import NequIPConfig, nequip, save
from mlipjax.potential import Model, Potential
from mlipjax.system import Labels
from mlipjax.train import evaluate
from mlipjax.typing import Params


def main(config: Config) -> None:
    """Train, evaluate on held-out groups, save."""
    run = Run(config, claim=False)  # the fine-tune keeps others out of its folder
    console = run.console
    dataset = read(config.data)
    split = split_dataset(dataset, valid=0.05, test=0.05, group_key="group", seed=config.seed)
    console.print(f"{len(dataset)} structures; {split.describe()}")
    potential = build(split.train, dataset.elements, config)
    params = None
    if config.denoise_epochs:
        params = denoise(potential, split.train, split.valid, config, console)
    settings = FinetuneSettings(
        # a denoised model is trained on as a fine-tune: same optimiser, but it keeps its parameters
        strategy="scratch" if params is None else "naive",
        optimizer="adam",
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        allow_e0_mismatch=True,
        anchor="none",  # what a denoised model knows is not worth retaining
        ignore=("units", "sign"),  # nor are its forces a measure of units
    )
    result = _train(potential, params, split.train, split.valid, settings, config.out, console)
    save(config.out, result.potential, result.params)
    parts = {"held-out groups": split.test, **by_family(split.test)}
    reports = {name: evaluate(result.model, part) for name, part in parts.items()}
    results = {"n_train": len(split.train), "test": reports.pop("held-out groups"), "test_by_family": reports}
    run.finish(run.results(results), outcome(results))


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run says."""
    test = results["test"]
    n = test["n_frames"]
    return Outcome(
        verdict=f"{results['n_train']} training structures; errors are of {n} structures of groups that were held out.",
        answer="measured",
        numbers={
            "force MAE": Number(test["force_mae_meV_per_A"], "meV/Å", n),
            "energy MAE": Number(test["energy_mae_meV_per_atom"], "meV/atom", n),
        },
        brief=[error_table({"held-out groups": test, **results["test_by_family"]}), element_table(test)],
    )


def build(train: Dataset, species: tuple[int, ...], config: Config) -> Potential:
    """A potential of these elements whose constants (isolated atoms, scale, neighbours) fit the training data."""
    counts = np.array([[np.sum(s.atomic_numbers == z) for z in species] for s in train.systems], float)
    energies = np.array([labels.energy for labels in train.labels])
    # per atom, so that large structures do not decide; minimum norm where compositions are rank-deficient
    sizes = counts.sum(axis=1)
    e0s = np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=None)[0]
    forces = np.concatenate([labels.forces for labels in train.labels])
    neighbors = [neighbor_table(system, config.cutoff).mask.sum(axis=1).mean() for system in train.systems]
    return nequip(
        NequIPConfig(
            species=species,
            cutoff=config.cutoff,
            hidden_irreps=config.hidden_irreps,
            lmax=config.lmax,
            n_layers=config.n_layers,
            radial_hidden=(32, 32),
            embedding=config.embedding,
            per_species_skip=config.per_species_skip,
            zbl=config.zbl,
            avg_n_neighbors=float(np.mean(neighbors)),
            # the RMS force is the natural unit of energy differences (NequIP, Batzner et al. 2022)
            scale=float(np.sqrt(np.mean(forces**2))),
        ),
        e0s,
    )


def denoise(potential: Potential, train: Dataset, valid: Dataset, config: Config, console: Console) -> Params:
    """First stage: learn to undo Gaussian displacements; returns the parameters."""
    rng = np.random.default_rng(config.seed)
    train, valid = (noised(part, config.denoise_sigma, potential.config.scale, rng) for part in (train, valid))
    settings = FinetuneSettings(
        strategy="scratch",
        epochs=config.denoise_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        energy_weight=0.0,
        stress_weight=0.0,
        seed=config.seed,
    )
    # beside the run and not in it: a fine-tune wants a folder of its own
    folder = config.out.with_name(f"{config.out.name}-denoise")
    return _train(potential, None, train, valid, settings, folder, console).params


def noised(dataset: Dataset, sigma: float, force_scale: float, rng: np.random.Generator) -> Dataset:
    """Displace atoms and label them with forces that point back, of RMS ``force_scale`` eV/Å per component."""
    examples = []
    for system, labels, info in dataset:
        noise = rng.normal(size=system.positions.shape)
        noise -= noise.mean(axis=0)
        moved = dataclasses.replace(system, positions=system.positions + sigma * noise)
        forces = -force_scale * noise
        examples.append(Example(moved, Labels.create(len(noise), energy=labels.energy, forces=forces), info))
    return Dataset.from_examples(examples)


def by_family(dataset: Dataset) -> dict[str, Dataset]:
    """The parts of a data set by kind of structure."""
    families = sorted({info["family"] for info in dataset.infos})
    return {
        name: dataset.subset(i for i, info in enumerate(dataset.infos) if info["family"] == name) for name in families
    }


def _train(
    potential: Potential,
    params: Params | None,
    train: Dataset,
    valid: Dataset,
    settings: FinetuneSettings,
    out: Path,
    console: Console,
) -> Any:
    import jax

    if params is None:
        params = potential.init(jax.random.key(settings.seed))
    display = FinetuneDisplay(console)
    with display.progress:
        return finetune(Model(potential, params), train, valid, settings=settings, out=out, listener=display)


run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
