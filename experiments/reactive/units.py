"""The parts of ``experiments.reactive``: what is computed, unit by unit, and what the report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.lab.units import Results, Unit
from experiments.reactive.config import Config
from experiments.reactive.dynamics import GROWTH, HOT, SURFACE_FS, file_name, growth, half_molten_start, surface
from experiments.reactive.models import Model, barrier, path_of
from experiments.reactive.structures import EVENTS, sodium
from experiments.reactive.tuning import learn, load_formate, most_changed, report_on, tune
from experiments.reactive.workflow import VACANCY, Workflow
from mlipjax.data import Dataset
from mlipjax.files import plain
from mlipjax.md import SimulationStopped
from mlipjax.models.foreign import is_foreign


def units_of(config: Config) -> list[Unit]:
    """Everything that is computed: what others wait for first, what is short last, so that no process is idle."""
    parts = [_growth_units(config)] if config.growth_steps else []
    parts.append(_barrier_units(config, config.events))
    if config.workflow_labels:
        parts.append(_workflow_units(config))
    if config.formate:
        parts.append(_formate_units(config))
    if config.surface_steps and config.formate:
        parts.append(
            [
                Unit(f"surface-{file_name(name)}", surface, (name, config.test, config.surface_steps))
                for name in _natives(config)
            ]
        )
    return [unit for part in parts for unit in part]


def check(config: Config) -> None:
    """Load every model once: a name that does not exist should not be found out after an hour.

    Raises:
        ValueError: for a model that cannot be loaded.
    """
    # those of the user first: a wrong name should not wait for downloads either
    for name in reversed(_names(config)):
        Model.load(name)


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of the units as parts of the report."""
    content: dict[str, Any] = {
        "models": _names(config),
        "driver": config.natives[0],
        "oracle": config.natives[-1],
        "events": {name: _event_part(config, name, done) for name in config.events},
        "formate": _formate_part(config, done) if config.formate else None,
        "workflow": _workflow_part(config, done) if config.workflow_labels else None,
        "growth": None,
        "surface": None,
    }
    if config.growth_steps:
        found = {name: done[f"growth-{file_name(name)}"] for name in _natives(config)}
        content["growth"] = {"models": found, "temperature_K": GROWTH, "n_atoms": sodium().n_atoms}
    if config.surface_steps and config.formate:
        found = {name: done[f"surface-{file_name(name)}"] for name in _natives(config)}
        content["surface"] = {"models": found, "temperature_K": HOT, "ps": config.surface_steps * SURFACE_FS / 1000.0}
    return content


def _names(config: Config) -> list[str]:
    return list(dict.fromkeys([*config.natives, *config.model]))


def _natives(config: Config) -> list[str]:
    return [name for name in _names(config) if not is_foreign(name)]


def _barrier_name(event: str, model: str) -> str:
    return f"barrier-{event}-{file_name(model)}"


def _barrier_units(config: Config, events: Sequence[str]) -> list[Unit]:
    """Every event with every model; the oracle first, because its path is the common one."""
    oracle, options = config.natives[-1], _band_options(config)
    units = [Unit(_barrier_name(event, oracle), _barrier, (oracle, event, options)) for event in events]
    for event in events:
        units += [
            Unit(_barrier_name(event, name), _barrier, (name, event, options), given=(_barrier_name(event, oracle),))
            for name in _names(config)
            if name != oracle
        ]
    return units


def _barrier(name: str, event: str, options: dict[str, Any], reference: dict[str, Any] | None = None) -> dict[str, Any]:
    about = EVENTS[event]()
    return barrier(Model.load(name), about, path_of(about, reference), **options)


def _band_options(config: Config) -> dict[str, Any]:
    return {"n_images": config.images, "fmax": 0.1, "max_steps": config.band_steps}


def _event_part(config: Config, event: str, done: Results) -> dict[str, Any]:
    about = EVENTS[event]()
    rows = {name: _slim(done[_barrier_name(event, name)]) for name in _names(config)}
    return {"what": about.what, "published_eV": about.published_eV, "models": rows}


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """Without positions, which the parts on disk keep."""
    own = row.get("own")
    return {**row, "own": {k: v for k, v in own.items() if k != "positions"}} if own else row


def _formate_arms(config: Config) -> list[tuple[str, int, int]]:
    """Arm, labels and seed of every fine-tune on the published frames."""
    available = len(load_formate(config.test).pool)
    counts = sorted({min(n, available) for n in config.labels})
    seeds = range(config.seeds)
    return [(arm, n, seed) for seed in seeds for n in counts for arm in ("iterative", "scratch", "one-shot")]


def _formate_name(arm: str, model: str, labels: int, seed: int) -> str:
    return f"formate-{arm}-{file_name(model)}-{labels}-{seed}"


def _formate_units(config: Config) -> list[Unit]:
    """Published frames: all models zero-shot, the first one fine-tuned, trained from scratch, and in two rounds."""
    driver = config.natives[0]
    zero = [Unit(_formate_name("zero-shot", name, 0, 0), _formate_as_is, (config, name)) for name in _names(config)]
    tuned = [Unit(_formate_name(arm, driver, n, s), _formate_tuned, (config, arm, n, s)) for arm, n, s in
             _formate_arms(config)]  # fmt: skip
    return tuned + zero


def _formate_as_is(config: Config, name: str) -> dict[str, Any]:
    published = load_formate(config.test)
    return report_on(Model.load(name), published, published.pool.subset(range(min(config.labels))))


def _formate_tuned(config: Config, arm: str, n: int, seed: int) -> dict[str, Any]:
    published, driver = load_formate(config.test), Model.load(config.natives[0])

    def rest(model: Model, count: int) -> Dataset:
        """Place where the first fine-tune changed forces most."""
        others = published.pool.subset(range(n // 2, len(published.pool)))
        return others.subset(most_changed(driver, model, others, count))

    def fit(data: Dataset, strategy: str, part: str) -> Model:
        return tune(driver, data, strategy, config, seed, config.out / "models" / f"formate-{arm}-{n}-{seed}" / part)

    model, used = learn(arm, n, lambda count: published.pool.subset(range(count)), rest, fit)
    return report_on(model, published, used)


def _formate_part(config: Config, done: Results) -> dict[str, Any]:
    driver = config.natives[0]
    arms = [("zero-shot", name, 0, 0) for name in _names(config)]
    arms += [(arm, driver, n, seed) for arm, n, seed in _formate_arms(config)]
    rows = [
        {"arm": arm, "model": model, "labels": n, "seed": seed, **done[_formate_name(arm, model, n, seed)]}
        for arm, model, n, seed in arms
    ]
    published = load_formate(config.test)
    groups = sorted({info["group"] for info in published.test.infos})
    return {"rows": rows, "n_test": len(published.test), "test_groups": groups, "n_pool": len(published.pool)}


_ARMS = ("iterative", "one-shot", "scratch")
"""Of the workflow, besides the model as it is."""


def _workflow_units(config: Config) -> list[Unit]:
    """The S vacancy: frames of the first model's dynamics, relabelled by the oracle; three ways to learn from them."""
    reference, own = (_barrier_name(VACANCY, config.natives[i]) for i in (-1, 0))
    barriers = [unit for unit in _barrier_units(config, [VACANCY]) if unit.name in (reference, own)]
    arms = [(arm, seed) for seed in range(config.seeds) for arm in _ARMS]
    tuned = [
        Unit(f"workflow-{arm}-{seed}", _workflow_arm, (config, arm, seed), given=(reference,)) for arm, seed in arms
    ]
    zero = Unit("workflow-zero-shot-0", _workflow_arm, (config, "zero-shot", 0), given=(reference, own))
    return [*barriers, *tuned, zero]


def _workflow(config: Config, reference: dict[str, Any]) -> Workflow | None:
    """What all arms share, if the oracle found a path."""
    driver, oracle, event = Model.load(config.natives[0]), Model.load(config.natives[-1]), EVENTS[VACANCY]()
    if (path := path_of(event, reference)) is None:
        return None
    return Workflow(driver, oracle, event, path, config.workflow_labels, config.workflow_steps)


def _workflow_arm(
    config: Config, arm: str, seed: int, reference: dict[str, Any], own: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One way to learn; of the model as it is, which has learnt nothing, the barrier is known already."""
    if (task := _workflow(config, reference)) is None:
        return {"failed": reference["failed"], "labels": 0}
    if own is not None:
        return plain({**own, **task.judge(task.driver), "labels": 0})
    try:
        model = task.learn(arm, config, seed, config.out / "models" / f"vacancy-{arm}-{seed}")
    except SimulationStopped as error:  # dynamics that break down are a result too
        return {"failed": " ".join(str(error).split()), "labels": task.labels}
    found = barrier(model, task.event, task.path, **_band_options(config))
    return plain({**found, **task.judge(model), "labels": task.labels})


def _workflow_part(config: Config, done: Results) -> dict[str, Any]:
    seeds = range(config.seeds)
    arms = {"zero-shot": [_slim(done["workflow-zero-shot-0"])]}
    arms |= {arm: [_slim(done[f"workflow-{arm}-{seed}"]) for seed in seeds] for arm in _ARMS}
    return {"what": EVENTS[VACANCY]().what, "labels": config.workflow_labels, "arms": arms}


def _growth_units(config: Config) -> list[Unit]:
    """Half-molten sodium: the melt is made once, by the oracle; native models only."""
    melt, steps = Unit("growth-melt", half_molten_start, (config.natives[-1],)), config.growth_steps
    return [melt, *(Unit(f"growth-{file_name(n)}", growth, (n, steps), given=(melt.name,)) for n in _natives(config))]
