"""The microscope over all runs of ``experiments.multitask``: does plain ft collapse the representation, and does mft?

Features of the same test molecules (half in, half out of domain) in the pretrained model and in the model of every
seed of every mode, of atoms and of pairs; of each number the values of the seeds, their mean and standard deviation,
and the interval over structures of every seed. What the numbers can and cannot show: ``mlipjax.representation``.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.multitask.runs import Experiment, Run
from mlipjax import tree
from mlipjax.files import digest, plain, write_atomic
from mlipjax.models import NequIPConfig, load
from mlipjax.nn.readouts import GROUP
from mlipjax.potential import Model
from mlipjax.representation import (
    Comparison,
    Estimate,
    Members,
    atom_elements,
    atom_structures,
    choose_pairs,
    choose_structures,
    collapse_marks,
    compare,
    edge_messages,
    environment_classes,
    node_features,
    tsne_maps,
    usable,
)
from mlipjax.system import System
from mlipjax.typing import Params

REFERENCE = "pretrained"
FILE = "representation.json"
ATOMS = 800
RESAMPLES = 30
MAPS = functools.partial(tsne_maps, seeds=(0,), perplexities=(30.0,))
"""One map of every model: what a map's seed changes shows in the spread over runs."""

COLUMNS = ("features", "number", "mode", "pretrained", "mean over seeds", "standard deviation", "seeds")
CAPTION = (
    "All numbers of the microscope. Separation indices judge given classes and cannot say why they moved; distances, "
    "angles of channels and Q mean nothing between models without common ancestors, so scratch has none; a t-SNE index "
    "is of one map per model."
)

_ANCESTRY = ("wasserstein", "sliced_wasserstein", "angle_channels", "q_before_under_after")
"""Numbers that mean something only for models that come from the reference: not for scratch."""


def examine(experiment: Experiment) -> dict[str, Any]:
    """Compare the models of all finished runs of the main size with the pretrained one, or read what was found.

    A folder whose runs were made before is examined as it is; found numbers are kept in ``OUT/representation.json``
    and made anew if a model or the structures change.

    Returns:
        ``nodes`` and ``edges`` (see ``over_seeds``; ``None`` if the architecture has none or there are too few pairs of
        a class), or ``skipped``: why nothing can be compared.
    """
    config = experiment.config
    runs = [run for run in experiment.runs() if run.n == config.n_train]
    systems = _structures(experiment)
    print_of = _fingerprint(config.out, runs, systems)
    file = config.out / FILE
    if file.exists() and (found := json.loads(file.read_text()))["fingerprint"] == print_of:
        return found
    members = Members(environment_classes(systems), atom_structures(systems), atom_elements(systems))
    models = {REFERENCE: experiment.model.params} | {run.name: _backbone(config.out, run) for run in runs}
    if why := _too_few(members):
        found: dict[str, Any] = {"skipped": why}
    else:
        own = {name: experiment.model._replace(params=params) for name, params in models.items()}
        features = {name: node_features(model, systems) for name, model in own.items()}
        nodes = compare(features, members, n_resamples=RESAMPLES, maps=MAPS)
        found = {"nodes": over_seeds(nodes, runs), "edges": _edges(experiment, models, systems, runs)}
    found["fingerprint"] = print_of
    write_atomic(file, json.dumps(found, indent=1))
    return found


def _structures(experiment: Experiment) -> list[System]:
    """Test structures with about ``ATOMS`` atoms, half of them out of domain."""
    chosen = []
    for data in (experiment.bench.id_test, experiment.bench.ood_test):
        systems = list(data.systems)
        chosen += [systems[index] for index in choose_structures(systems, ATOMS // 2)]
    return chosen


def _fingerprint(out: Path, runs: Sequence[Run], systems: Sequence[System]) -> str:
    models = (
        part for run in runs for part in (run.name, (out / "runs" / run.name / "params.safetensors").read_bytes())
    )
    atoms = (np.asarray(part) for system in systems for part in (system.positions, system.atomic_numbers))
    return digest(f"{ATOMS} {RESAMPLES} {MAPS and MAPS.keywords}", *models, *atoms)


def _backbone(out: Path, run: Run) -> Params:
    """Parameters of a run without its heads, so that all models share compiled programs."""
    params = tree.cast(load(str(out / "runs" / run.name))[1], "float32")
    return {name: group for name, group in params.items() if not name.startswith(GROUP)}


def _too_few(members: Members) -> str | None:
    """Reason why classes of so few structures cannot be compared, if they cannot."""
    try:
        usable(members.classes, members.structure)
    except ValueError as error:
        return str(error)
    return None


def _edges(
    experiment: Experiment, models: Mapping[str, Params], systems: Sequence[System], runs: Sequence[Run]
) -> dict[str, Any] | None:
    potential = experiment.model.potential
    if not isinstance(potential.config, NequIPConfig):
        return None
    pairs = choose_pairs(systems, potential.cutoff)
    members = Members(pairs.classes, pairs.structure)
    if _too_few(members):
        return None
    features = {name: edge_messages(Model(potential, params), systems, pairs) for name, params in models.items()}
    return over_seeds(compare(features, members, n_resamples=RESAMPLES, maps=None), runs)


def over_seeds(comparison: Comparison, runs: Sequence[Run]) -> dict[str, Any]:
    """Numbers of every mode over its seeds, relative to the first model of a comparison; JSON types.

    Returns:
        ``n_members``, ``n_structures``, ``classes``; ``pretrained``: its own numbers; ``modes``: by mode, ``numbers``
        (by name: ``mean``, ``std`` over seeds, ``seeds``, ``confidence_95`` over structures of each) and ``collapsed``:
        seeds that bear both marks of a collapse (``None`` for scratch).
    """
    modes: dict[str, Any] = {}
    for mode in dict.fromkeys(run.mode for run in runs):
        names = [run.name for run in runs if run.mode == mode]
        keys = list(_numbers(comparison, names[0]))
        if mode == "scratch":
            keys = [key for key in keys if not key.startswith(_ANCESTRY)]
        found = [_numbers(comparison, name) for name in names]
        modes[mode] = {
            "n_seeds": len(names),
            # a model without a past can have lost nothing
            "collapsed": None if mode == "scratch" else _collapsed(comparison, names),
            "numbers": {key: _spread([numbers[key] for numbers in found]) for key in keys},
        }
    reference = _numbers(comparison, comparison.models[0])
    # what is not defined (NaN) becomes None
    return plain({
        "n_members": comparison.n_members,
        "n_structures": comparison.n_structures,
        "classes": comparison.classes,
        REFERENCE: {key: {"value": e.value, "confidence_95": [e.low, e.high]} for key, e in reference.items()},
        "modes": modes,
    })  # fmt: skip


def _collapsed(comparison: Comparison, names: Sequence[str]) -> int:
    return sum(all(collapse_marks(comparison.drift[name])) for name in names)


def _numbers(comparison: Comparison, name: str) -> dict[str, Estimate]:
    """All numbers of a model: scores, drift, and indices of its t-SNE map with their ratio to the reference's."""
    numbers = comparison.scores[name] | comparison.drift.get(name, {})
    if comparison.maps:
        reference, mine = (comparison.maps[model][0] for model in (comparison.models[0], name))
        ratio = mine.davies_bouldin / reference.davies_bouldin
        tsne = {"davies_bouldin_tsne": mine.davies_bouldin, "silhouette_tsne": mine.silhouette}
        tsne |= {"davies_bouldin_tsne_ratio": ratio} if name != comparison.models[0] else {}
        numbers |= {key: Estimate(value, math.nan, math.nan) for key, value in tsne.items()}
    return numbers


def _spread(estimates: Sequence[Estimate]) -> dict[str, Any]:
    values = [estimate.value for estimate in estimates]
    return {
        "mean": np.mean(values),
        "std": np.std(values, ddof=1) if len(values) > 1 else None,
        "seeds": values,
        "confidence_95": [[estimate.low, estimate.high] for estimate in estimates],
    }


def answer(found: Mapping[str, Any]) -> tuple[str, bool]:
    """Say if plain ft collapses the representation and mft prevents it; alarming if mft collapses in most seeds."""
    if "skipped" in found:
        return f"The microscope could not look at the features: {found['skipped']}", False
    nodes = found["nodes"]
    sentences = [
        f"Features of {nodes['n_members']} atoms of {nodes['n_structures']} test structures in "
        f"{len(nodes['classes'])} classes, relative to the pretrained model (mean over seeds ± standard deviation):"
    ]
    for mode, part in nodes["modes"].items():
        numbers = part["numbers"]
        shown = [
            f"{words} {_text(numbers[key])}"
            for key, words in (
                ("davies_bouldin_original_ratio", "Davies-Bouldin ratio"),
                ("davies_bouldin_standardised_ratio", "standardised"),
                ("davies_bouldin_tsne_ratio", "on t-SNE (the paper's)"),
                ("effective_rank_within_ratio", "effective rank within classes, ratio"),
                ("cka_within", "CKA within classes"),
            )
            if key in numbers
        ]
        marks = "" if part["collapsed"] is None else f", marks of a collapse in {_seeds(part)}"
        sentences.append(f"{mode}: {', '.join(shown)}{marks};")
    sentences[-1] = sentences[-1].removesuffix(";") + "."
    ft, mft = (nodes["modes"].get(mode) for mode in ("ft", "mft"))
    if ft is None or mft is None:
        return " ".join(sentences), False
    moved = [part["numbers"]["wasserstein_standardised"]["mean"] for part in (ft, mft)]
    if ft["collapsed"] == 0:
        sentences.append("Plain ft does not collapse the representation here: there is nothing for mft to prevent.")
    elif mft["collapsed"] == 0:
        sentences.append(f"Plain ft collapses the representation in {_seeds(ft)}, mft in none: mft prevents it here.")
    else:
        sentences.append(f"Collapse in {_seeds(ft)} of ft and {_seeds(mft)} of mft: mft does not prevent it here.")
    sentences.append(f"Features move by {moved[0]:.2f} (ft) and {moved[1]:.2f} (mft) standard deviations per channel.")
    return " ".join(sentences), 2 * mft["collapsed"] > mft["n_seeds"]


def _seeds(part: Mapping[str, Any]) -> str:
    return f"{part['collapsed']} of {part['n_seeds']} seeds"


def _text(number: Mapping[str, Any]) -> str:
    if number["mean"] is None:
        return "unknown"
    return f"{number['mean']:.2f}" + ("" if number["std"] is None else f" ± {number['std']:.2f}")


def rows(found: Mapping[str, Any]) -> list[list[Any]]:
    """One row of a table for each kind of features, number and mode."""
    result = []
    for kind in ("nodes", "edges"):
        part = found.get(kind) or {"modes": {}}
        for mode, values in part["modes"].items():
            for key, number in values["numbers"].items():
                start = part[REFERENCE].get(key, {}).get("value")
                result.append([kind, key, mode, start, number["mean"], number["std"], str(values["n_seeds"])])
    return result
