"""The parts of ``experiments.reactive``, in order, each kept on disk once it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments._reactive_models import Model, barrier, path_of
from experiments._reactive_structures import EVENTS, half_molten, sodium
from experiments._reactive_tuning import Published, Recipe, load_formate, most_changed, report_on, tune
from experiments._reactive_workflow import VACANCY, Workflow
from mlipjax.data import Dataset
from mlipjax.md import SimulationStopped, make_ensemble, run
from mlipjax.models.foreign import is_foreign
from mlipjax.probes.order import crystal_order
from mlipjax.probes.relax import ProbeDiverged, relax
from mlipjax.probes.result import plain
from mlipjax.probes.trajectory import Trajectory
from mlipjax.system import System

if TYPE_CHECKING:
    from experiments.reactive import Config

Units = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]

_MELT, _GROWTH = 900.0, 300.0  # K: sodium melts at 371 K
_TIMESTEP_NA = 4.0  # fs
_Q6_CUTOFF = 4.95  # Å: two shells of bcc sodium


def run_all(config: Config, units: Units) -> dict[str, Any]:
    """Everything: results by part."""
    models = {name: Model.load(name) for name in dict.fromkeys([*config.natives, *config.model])}
    results: dict[str, Any] = {"models": list(models), "driver": config.natives[0], "oracle": config.natives[-1]}
    results["formate"] = formate(config, models, units) if config.formate else None
    results["events"] = events(config, models, units)
    results["workflow"] = workflow(config, models, units) if config.workflow_labels else None
    results["growth"] = growth(config, models, units) if config.growth_steps else None
    return results


def formate(config: Config, models: dict[str, Model], units: Units) -> dict[str, Any]:
    """Published frames: all models zero-shot, the first one fine-tuned, trained from scratch, and in two rounds."""
    published = load_formate(config.test or 22)
    few = published.pool.subset(range(min(config.labels)))
    rows = [
        _formate_row("zero-shot", name, 0, 0, units, lambda model=model: report_on(model, published, few))
        for name, model in models.items()
    ]
    driver = models[config.natives[0]]
    for seed in range(config.seeds or 1):
        recipe = Recipe(config.epochs or 1, config.scratch_epochs or 1, 2, seed)
        for n in sorted({min(n, len(published.pool)) for n in config.labels}):
            arms: dict[str, Callable[[Path], tuple[Model, Dataset]]] = {
                "one-shot": lambda out, n=n, r=recipe: _one_shot(driver, published, n, "naive", r, out),
                "scratch": lambda out, n=n, r=recipe: _one_shot(driver, published, n, "scratch", r, out),
                "iterative": lambda out, n=n, r=recipe: _in_rounds(driver, published, n, r, out),
            }
            for arm, train in arms.items():
                folder = config.out / "models" / f"formate-{arm}-{n}-{seed}"

                def make(train: Any = train, folder: Path = folder) -> dict[str, Any]:
                    model, used = train(folder)
                    return report_on(model, published, used)

                rows.append(_formate_row(arm, driver.name, n, seed, units, make))
    groups = sorted({info["group"] for info in published.test.infos})
    return {"rows": rows, "n_test": len(published.test), "test_groups": groups, "n_pool": len(published.pool)}


def _formate_row(arm: str, model: str, labels: int, seed: int, units: Units, make: Any) -> dict[str, Any]:
    name = f"formate-{arm}-{_file(model)}-{labels}-{seed}"
    return {"arm": arm, "model": model, "labels": labels, "seed": seed, **units(name, make)}


def _one_shot(
    start: Model, published: Published, n: int, strategy: str, recipe: Recipe, out: Path
) -> tuple[Model, Dataset]:
    used = published.pool.subset(range(n))
    return tune(start, used, strategy, recipe, out), used


def _in_rounds(start: Model, published: Published, n: int, recipe: Recipe, out: Path) -> tuple[Model, Dataset]:
    """Half of the labels at random, the other half where the first fine-tune changed forces most."""
    half = n // 2
    first = published.pool.subset(range(half))
    model = tune(start, first, "naive", recipe, out / "round-1")
    rest = published.pool.subset(range(half, len(published.pool)))
    chosen = most_changed(start, model, rest, n - half)
    used = first + rest.subset(chosen)
    return tune(start, used, "naive", recipe, out / "round-2"), used


def events(config: Config, models: dict[str, Model], units: Units) -> dict[str, Any]:
    """Barriers of every event with every model; the oracle first, because its path is the common one."""
    results = {}
    oracle, options = models[config.natives[-1]], _band_options(config)
    for name in config.events:
        event = EVENTS[name]()
        reference = units(f"barrier-{name}-{_file(oracle.name)}", lambda e=event: _safe(oracle, e, None, options))
        path = None if "failed" in reference else path_of(event, reference)
        rows = {}
        for model_name, model in models.items():
            rows[model_name] = reference
            if model is not oracle:
                unit = f"barrier-{name}-{_file(model_name)}"
                rows[model_name] = units(unit, lambda m=model, e=event, p=path: _safe(m, e, p, options))
        results[name] = {"what": event.what, "published_eV": event.published_eV, "models": _slim(rows)}
    return results


def _band_options(config: Config) -> dict[str, Any]:
    return {"n_images": config.images or 5, "fmax": 0.1, "max_steps": config.band_steps or 60}


def _safe(model: Model, event: Any, path: list[System] | None, options: dict[str, Any]) -> dict[str, Any]:
    """A barrier, or why there is none: a model that breaks down is a result, not the end of the run."""
    try:
        return barrier(model, event, path, **options)
    except (ProbeDiverged, RuntimeError, ValueError) as error:
        return {"failed": " ".join(str(error).split())}


def _slim(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Without positions, which the parts on disk keep."""
    return {
        name: {
            **row,
            **({"own": {k: v for k, v in row["own"].items() if k != "positions"}} if row.get("own") else {}),
        }
        for name, row in rows.items()
    }


def workflow(config: Config, models: dict[str, Model], units: Units) -> dict[str, Any]:
    """The S vacancy: frames of the first model's dynamics, relabelled by the oracle; three ways to learn from them."""
    driver, oracle = models[config.natives[0]], models[config.natives[-1]]
    event, n, options = EVENTS[VACANCY](), config.workflow_labels or 10, _band_options(config)
    reference = units(f"barrier-{VACANCY}-{_file(oracle.name)}", lambda: _safe(oracle, event, None, options))
    if "failed" in reference:
        return {"failed": reference["failed"]}
    task = Workflow(driver, oracle, event, path_of(event, reference), n, config.workflow_steps or 1)

    def judged(make: Callable[[], Model], labels: int) -> dict[str, Any]:
        try:
            model = make()
        except SimulationStopped as error:  # dynamics that break down are a result too
            return {"failed": " ".join(str(error).split()), "labels": labels}
        return plain({**_safe(model, event, task.path, options), **task.judge(model), "labels": labels})

    rows = {"zero-shot": [units("workflow-zero-shot", lambda: judged(lambda: driver, 0))]}
    for seed in range(config.seeds or 1):
        recipe = Recipe(config.epochs or 1, config.scratch_epochs or 1, 2, seed)
        for arm in ("one-shot", "scratch", "iterative"):
            folder = config.out / "models" / f"vacancy-{arm}-{seed}"

            def make(arm: str = arm, recipe: Recipe = recipe, folder: Path = folder) -> dict[str, Any]:
                return judged(lambda: task.learn(arm, recipe, folder), n)

            rows.setdefault(arm, []).append(units(f"workflow-{arm}-{seed}", make))
    arms = {arm: [_slim({"": row})[""] for row in found] for arm, found in rows.items()}
    return {"what": event.what, "labels": n, "arms": arms}


def growth(config: Config, models: dict[str, Model], units: Units) -> dict[str, Any]:
    """Half-molten sodium at 300 K: the melt is made once, by the oracle; native models only."""
    oracle, solid = models[config.natives[-1]], sodium()
    steps = config.growth_steps or 1

    def melt() -> dict[str, Any]:
        (liquid,) = _simulate(oracle, _shaken(solid), 250, _MELT, 250)
        return {"positions": half_molten(solid, liquid).positions.tolist()}

    start = dataclasses.replace(solid, positions=np.array(units("growth-melt", melt)["positions"]))
    results = {}
    for name, model in models.items():
        if not is_foreign(name):
            results[name] = units(f"growth-{_file(name)}", lambda m=model: _grow(m, start, steps))
    return {"models": results, "temperature_K": _GROWTH, "n_atoms": start.n_atoms}


def _grow(model: Model, start: System, steps: int) -> dict[str, Any]:
    # contacts where crystal and melt were joined are eased first
    eased = relax(*model.parts(), [start], fmax=0.1, max_steps=15).systems[0]
    every = max(1, steps // 40)
    try:
        frames = _simulate(model, eased, steps, _GROWTH, every)
    except SimulationStopped as error:
        return {"failed": " ".join(str(error).split())}
    result = crystal_order(Trajectory.from_systems(frames, every * _TIMESTEP_NA / 1000.0), _Q6_CUTOFF)
    return result.as_dict()


def _simulate(model: Model, start: System, steps: int, temperature: float, every: int) -> list[System]:
    frames: list[System] = []

    def keep(state: Any, info: Any) -> None:
        frames.extend(dataclasses.replace(start, positions=np.asarray(p, float)) for p in info.frames.position[0])

    ensemble = make_ensemble("nvt", timestep_fs=_TIMESTEP_NA, temperature_K=temperature, friction_per_ps=5.0)
    key = jax.random.key(0)
    run(*model.parts(), start, ensemble, steps, key=key, frame_every=every, on_chunk=keep)
    return frames


def _shaken(system: System) -> System:
    """Far from its lattice, so that it melts at once when hot."""
    noise = np.random.default_rng(0).normal(size=np.shape(system.positions))
    return dataclasses.replace(system, positions=np.asarray(system.positions) + 0.45 * noise)


def _file(name: str) -> str:
    """A model's name as part of a file's name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
