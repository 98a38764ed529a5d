"""The parts of ``experiments.migration``: what is computed, unit by unit, and what the report is made of."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lab.units import Results, Unit
from experiments.migration import data
from experiments.migration.config import ID_PATH, Config
from experiments.migration.latent import compare_latent
from experiments.migration.probes import fixed_path, path_row, probe_crystal, probe_path
from mlipjax.data import Dataset, read_dataset, write_store
from mlipjax.files import plain
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.single import finetune
from mlipjax.models import load
from mlipjax.models.foreign import is_foreign, refusal
from mlipjax.oracles import Labeller, make_oracle
from mlipjax.potential import Model
from mlipjax.probes.evaluator import load_evaluator

ARMS = {
    "fine-tuned, one T": ("naive", "single", 100.0),
    "fine-tuned, several T": ("naive", "several", 100.0),
    "scratch": ("scratch", "several", 100.0),
    "scratch, part of the data": ("scratch", "several", None),
}
"""Strategy, training set, percent of it (``None``: as configured)."""

TEACHER = "teacher:"


def units_of(config: Config) -> list[Unit]:
    """Everything that is computed, the awaited parts first and the short ones last."""
    units = [Unit("labels", _label, (config,))]
    for name, model in _universal_models(config).items():
        units += _probes(config, name, _probe_universal, (config, model))
    for seed in range(config.seeds):
        for arm in _arms(config):
            training = Unit(_key("train", arm, str(seed)), _train, (config, arm, seed), ("labels",))
            probes = _probes(config, f"{arm}-{seed}", _probe_tuned, (config, arm, seed), (training.name,))
            units += [training, *probes]
    trained = tuple(unit.name for unit in units if unit.make is _train)
    return [*units, Unit("latent", _latent, (config,), trained)]


def check(config: Config) -> None:
    """Refuse what cannot be run, before the first hour of it.

    Raises:
        ValueError: if the first path is not the one that training starts from, an arm does not exist, the model to
            fine-tune is a foreign calculator, or a model cannot be loaded.
    """
    if config.paths[0] != ID_PATH:
        found = config.paths[0]
        raise ValueError(f"the first of --paths is {found}; it must be {ID_PATH}, where training starts.")
    if unknown := set(config.arms) - set(ARMS):
        raise ValueError(f"found the arms {sorted(unknown)}; there are: {'; '.join(ARMS)}.")
    if is_foreign(config.model):
        raise refusal(config.model)
    for name in _universal_models(config).values():
        load_evaluator(name)


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of the units, by model."""
    rows = {
        name: [_row(config, done, name)] for name in _universal_models(config) if name != "oracle"
    }  # in the order of tables: universal models, then arms
    rows |= {arm: [_row(config, done, f"{arm}-{seed}") for seed in range(config.seeds)] for arm in _arms(config)}
    paths = [data.load_path(name) for name in config.paths]
    is_model = config.oracle.startswith(TEACHER)
    return {
        "oracle": config.oracle,
        "oracle_is_model": is_model,
        "arms": {arm: ARMS[arm][0] for arm in _arms(config)},
        "n_labels": done["labels"]["n_labels"],
        "paths": {
            path.name: {
                "in_domain": path.in_domain,
                "n_atoms": path.images[0].n_atoms,
                "candidate_eV": path.candidate_eV,
            }
            for path in paths
        },
        "reference": _row(config, done, "oracle") if is_model else done["labels"]["reference"],
        "models": rows,
        "latent": done["latent"],
    }


def _arms(config: Config) -> list[str]:
    return list(config.arms or ARMS)


def _universal_models(config: Config) -> dict[str, str]:
    """Models that are probed as they are: name in tables -> name to load."""
    oracle = {"oracle": config.oracle.removeprefix(TEACHER)} if config.oracle.startswith(TEACHER) else {}
    return {Path(config.model).name: config.model} | oracle | {Path(name).name: name for name in config.others}


def _key(*parts: str) -> str:
    return "-".join(parts).replace(",", "").replace(" ", "_")


def _probes(
    config: Config, name: str, make: Any, arguments: tuple[Any, ...], after: tuple[str, ...] = ()
) -> list[Unit]:
    """A unit for each path, and one for the crystal."""
    return [Unit(_key("probe", name, part), make, (*arguments, part), after) for part in (*config.paths, "crystal")]


def _row(config: Config, done: Results, name: str) -> dict[str, Any]:
    found = {path: done[_key("probe", name, path)] for path in config.paths}
    return {"paths": found, "crystal": done[_key("probe", name, "crystal")]}


@functools.cache
def _universal(name: str) -> Model:
    """A universal model, once in each process: fine-tunes of it run in the programs compiled for it."""
    return load(name).cast("float32")


@functools.cache
def _sets(config: Config) -> dict[str, Dataset]:
    """Training sets by name; sampled and labelled if they are not on disk, where units side by side read them."""
    folders = {name: config.out / "sets" / name for name in data.SETS}
    if not all(folder.exists() for folder in folders.values()):
        with Labeller(make_oracle(config.oracle), config.out / "labels.db") as labeller:
            made = data.training_sets(data.Sampler(config, _universal(config.model)), labeller, config)
        for name in [name for name, folder in folders.items() if not folder.exists()]:
            write_store(folders[name], made[name])
    return {name: read_dataset(folder) for name, folder in folders.items()}


def _label(config: Config) -> dict[str, Any]:
    """Sample and label; for an oracle that is no model of this package, also the images of all paths."""
    counts = {name: len(part) for name, part in _sets(config).items()}
    if config.oracle.startswith(TEACHER):
        return {"n_labels": counts}
    paths = {}
    with Labeller(make_oracle(config.oracle), config.out / "labels.db") as labeller:
        for path in map(data.load_path, config.paths):
            labels: Any = labeller.label(path.images)
            levels = np.array([label.energy for label in labels])
            paths[path.name] = path_row(levels, [label.forces for label in labels])
    crystal = {"failed": "the oracle is not a model of this package"}
    return plain({"n_labels": counts, "reference": {"paths": paths, "crystal": crystal}})


def _probe_universal(config: Config, model: str, part: str) -> dict[str, Any]:
    if is_foreign(model):
        return plain(_probe_foreign(model, part))
    return _probed(config, _universal(model), part, band=True)


def _probe_foreign(model: str, part: str) -> dict[str, Any]:
    """A foreign calculator is asked for the published images only: its own bands and lattice would take hours."""
    if part == "crystal":
        return {"failed": "a foreign calculator: published images only"}
    return fixed_path(load_evaluator(model), data.load_path(part).images)


def _probe_tuned(config: Config, arm: str, seed: int, part: str) -> dict[str, Any]:
    return _probed(config, _tuned(config, arm, seed), part, band=seed < config.band_seeds)


def _probed(config: Config, model: Model, part: str, band: bool) -> dict[str, Any]:
    if part == "crystal":
        return plain(probe_crystal(model, data.pristine(), config))
    return plain(probe_path(model, data.load_path(part), config, band))


def _train(config: Config, arm: str, seed: int) -> dict[str, Any]:
    strategy, part, percent = ARMS[arm]
    percent = config.scratch_percent if percent is None else percent
    scratch = strategy == "scratch"
    settings = FinetuneSettings(
        strategy=strategy,  # pyright: ignore[reportArgumentType]
        optimizer="adam",  # as in the runs that are kept
        e0s="estimate",
        epochs=config.scratch_epochs if scratch else config.epochs,
        batch_size=config.batch_size,
        learning_rate=None if scratch else config.learning_rate,
        seed=seed,
        anchor="none",
        # a scratch model has no error before training that could be too large
        allow_e0_mismatch=scratch,
    )
    sets = _sets(config)
    train = sets[part] if percent == 100.0 else data.thinned(sets[part], percent)
    finetune(_universal(config.model), train, sets["valid"], settings=settings, out=_folder(config, arm, seed))
    return {"n_train": len(train), "strategy": strategy, "seed": seed}


def _folder(config: Config, arm: str, seed: int) -> Path:
    return data.model_folder(config.out, arm.replace(",", "").replace(" ", "-"), seed)


def _tuned(config: Config, arm: str, seed: int) -> Model:
    """A finished fine-tune; its network is that of the universal model, and energy zeros cancel."""
    return _universal(config.model)._replace(params=load(_folder(config, arm, seed)).cast("float32").params)


def _latent(config: Config) -> dict[str, Any]:
    tuned = {arm: [_tuned(config, arm, seed) for seed in range(config.seeds)] for arm in _arms(config)}
    images = data.load_path(config.paths[0]).images
    return compare_latent(Path(config.model).name, _universal(config.model), images, tuned)
