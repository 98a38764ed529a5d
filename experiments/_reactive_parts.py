"""The parts of ``experiments.reactive``, in order, each kept on disk once it is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments._reactive_dynamics import file_name, growth, surface
from experiments._reactive_models import Model, barrier, path_of
from experiments._reactive_structures import EVENTS
from experiments._reactive_tuning import Published, Recipe, load_formate, most_changed, report_on, tune
from experiments._reactive_workflow import VACANCY, Workflow
from mlipjax.data import Dataset
from mlipjax.md import SimulationStopped
from mlipjax.probes.relax import ProbeDiverged
from mlipjax.probes.result import plain
from mlipjax.system import System

if TYPE_CHECKING:
    from experiments.reactive import Config

Units = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def run_all(config: Config, units: Units) -> dict[str, Any]:
    """Everything: results by part."""
    models = {name: Model.load(name) for name in dict.fromkeys([*config.natives, *config.model])}
    results: dict[str, Any] = {"models": list(models), "driver": config.natives[0], "oracle": config.natives[-1]}
    results["events"] = events(config, models, units)
    results["formate"] = formate(config, models, units) if config.formate else None
    results["workflow"] = workflow(config, models, units) if config.workflow_labels else None
    steps, oracle = config.growth_steps, models[config.natives[-1]]
    results["growth"] = growth(models, oracle, steps, units) if steps else None
    hot = config.surface_steps if config.formate else 0
    results["surface"] = surface(models, load_formate(config.test or 22).pool, hot, units) if hot else None
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
    name = f"formate-{arm}-{file_name(model)}-{labels}-{seed}"
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
        reference = units(f"barrier-{name}-{file_name(oracle.name)}", lambda e=event: _safe(oracle, e, None, options))
        path = None if "failed" in reference else path_of(event, reference)
        rows = {}
        for model_name, model in models.items():
            rows[model_name] = reference
            if model is not oracle:
                unit = f"barrier-{name}-{file_name(model_name)}"
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
    reference = units(f"barrier-{VACANCY}-{file_name(oracle.name)}", lambda: _safe(oracle, event, None, options))
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
