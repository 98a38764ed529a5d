"""``mlipjax compare-representations``: what fine-tuning did to the features of atoms, in the end and along the way."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mlipjax.cli.options.judging import CompareRepresentations
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Pieces
from mlipjax.cli.tables import Table
from mlipjax.data import Dataset
from mlipjax.finetuning.snapshots import run_models
from mlipjax.locks import folder_alone
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.representation import (
    Comparison,
    Estimate,
    Members,
    atom_elements,
    atom_structures,
    choose_pairs,
    choose_structures,
    compare,
    edge_messages,
    environment_classes,
    node_features,
    old_data_residual,
    tsne_maps,
)
from mlipjax.verbs.inputs import described, told_paths
from mlipjax.verbs.read import read_structures


def run(command: CompareRepresentations) -> None:
    """Compute, print and write."""
    with folder_alone(command.out):
        _compare_and_write(command)


def _compare_and_write(command: CompareRepresentations) -> None:
    if command.tsne_seeds is None:
        command = dataclasses.replace(command, tsne_seeds=0 if command.run else 3)
    _check(command)
    models, runs = (
        _load_runs(command.run) if command.run else ({_name(model): load(model) for model in command.model}, {})
    )
    dataset = read_structures(command.data)
    chosen = choose_structures(dataset.systems, command.max_atoms, command.seed)
    dataset = dataset.subset(chosen)
    old = None
    if command.old is not None:
        old = read_structures(command.old)
        known = [i for i, system in enumerate(old.systems) if np.isin(system.atomic_numbers, dataset.elements).all()]
        if not known:
            raise ValueError(f"no structure of {command.old} has only elements of {described(command.data)}.")
        old = old.subset(known)
        old = old.subset(choose_structures(old.systems, command.max_atoms, command.seed))
    results: dict[str, Any] = {"layer": command.layer, "n_structures": len(dataset), "n_atoms": _atoms(dataset)}
    comparisons: dict[str, Comparison] = {}
    console = make_console(quiet=command.quiet)
    pieces = Pieces(console)
    with pieces.progress:
        if command.kind != "edges":
            comparisons["nodes"], results["old_data_q"] = _nodes(command, models, dataset, old, pieces)
        if command.kind != "nodes":
            comparisons["edges"] = _edges(command, models, dataset, pieces)
    results |= {kind: comparison.summary() for kind, comparison in comparisons.items()}
    results |= {"model": list(command.model), "data": told_paths(command.data), "old": command.old}
    results |= {"dtype": command.dtype, "run": list(command.run), "runs": runs}
    for kind, comparison in comparisons.items():
        _print_numbers(console, kind, comparison)
    write_json(command.json, results)
    if command.out is not None:
        from mlipjax.cli._compare_report import write

        write_json(command.out / "results.json", results)
        write(command.out, comparisons, results, " ".join(["mlipjax", *sys.argv[1:]]))
    from mlipjax.cli._compare_report import verdict

    console.print(verdict(comparisons, results)[0])


def _check(command: CompareRepresentations) -> None:
    if command.run and command.model:
        raise ValueError("give either --model, two or more times, or --run: a run brings its own models.")
    if not command.run and len(command.model) < 2:
        raise ValueError(
            f"--model is given {len(command.model)} time(s): two or more are compared, the first before; or give --run."
        )
    names = [_run_name(folder) for folder in command.run] or [_name(model) for model in command.model]
    if len(set(names)) < len(names):
        what = "runs" if command.run else "models"
        raise ValueError(f"two of the {what} are called the same, {', '.join(names)}: rename a folder.")
    if not command.perplexities:
        raise ValueError("--perplexities are numbers of neighbours, one or more; found none.")


def _name(model: str) -> str:
    return Path(model).stem if model.endswith(".nqx") else Path(model).name


def _run_name(folder: Path) -> str:
    return folder.resolve().name


def _load_runs(
    folders: Sequence[Path],
) -> tuple[Mapping[str, Model], dict[str, dict[str, int]]]:
    """Models of all runs by name, and of each run the steps of its models in order, the one that was kept last."""
    models, runs = {}, {}
    for folder in folders:
        found, run = list(run_models(folder)), _run_name(folder)
        names = [f"{run} kept" if one.final else f"{run} {one.step}" for one in found]
        models |= {name: load(one.path) for name, one in zip(names, found, strict=True)}
        runs[run] = {name: one.step for name, one in zip(names, found, strict=True)}
    return models, runs


def _atoms(dataset: Dataset) -> int:
    return sum(system.n_atoms for system in dataset.systems)


def _nodes(
    command: CompareRepresentations,
    models: Mapping[str, Model],
    dataset: Dataset,
    old: Dataset | None,
    pieces: Pieces,
) -> tuple[Comparison, dict[str, Any] | None]:
    options: Any = {"layer": command.layer, "dtype": command.dtype, "batch_size": command.batch_size}
    elements = atom_elements(dataset.systems)
    members = Members(environment_classes(dataset.systems), atom_structures(dataset.systems), elements)
    features = _of_models(
        models,
        lambda model: node_features(model, dataset.systems, **options),
        "features of atoms",
        pieces,
    )
    residuals = None
    if old is not None:
        residuals = {}
        of_old = _of_models(
            models,
            lambda model: node_features(model, old.systems, **options),
            "features of old structures",
            pieces,
        )
        for number, (name, found) in enumerate(of_old.items()):
            pieces("old structures in the charts of models", number, len(models))
            estimate = old_data_residual(
                features[name], elements, found, atom_elements(old.systems), atom_structures(old.systems),
                n_components=command.components, n_resamples=command.resamples,
            )  # fmt: skip
            residuals[name] = {"value": estimate.value, "confidence_95": [estimate.low, estimate.high]}
        residuals = {"n_structures": len(old), "n_atoms": _atoms(old), **residuals}
    return _compare(command, features, members, command.tsne_seeds or 0, pieces, "atoms"), residuals


def _edges(
    command: CompareRepresentations, models: Mapping[str, Model], dataset: Dataset, pieces: Pieces
) -> Comparison:
    options: Any = {"layer": command.layer, "dtype": command.dtype, "batch_size": command.batch_size}
    cutoff = min(potential.cutoff for potential, _ in models.values())
    pairs = choose_pairs(dataset.systems, cutoff, per_structure=command.pairs, seed=command.seed)
    features = _of_models(
        models,
        lambda model: edge_messages(model, dataset.systems, pairs, **options),
        "messages of pairs",
        pieces,
    )
    # beside nodes no t-SNE: the paper has none of edges, and it would double the time
    seeds = command.tsne_seeds if command.kind == "edges" else None
    return _compare(command, features, Members(pairs.classes, pairs.structure), seeds or 0, pieces, "pairs")


def _of_models(
    models: Mapping[str, Model], compute: Callable[..., np.ndarray], what: str, pieces: Pieces
) -> dict[str, np.ndarray]:
    """Results of each model, by its name."""
    found = {}
    for number, (name, model) in enumerate(models.items()):
        pieces(what, number, len(models))
        found[name] = compute(model)
    pieces(what, len(models), len(models))
    return found


def _compare(
    command: CompareRepresentations,
    features: dict[str, np.ndarray],
    members: Members,
    seeds: int,
    pieces: Pieces,
    what: str,
) -> Comparison:
    return compare(
        features,
        members,
        n_resamples=command.resamples,
        maps=functools.partial(tsne_maps, perplexities=command.perplexities, seeds=range(seeds)) if seeds else None,
        n_components=command.components,
        seed=command.seed,
        on_part=lambda piece, done, total: pieces(f"{what}: {piece}", done, total),
    )


def _print_numbers(console: Console, kind: str, comparison: Comparison) -> None:
    """All numbers with their intervals, models side by side as far as the console is wide."""
    what = f"{kind}: {comparison.n_members} in {comparison.n_structures} structures, {len(comparison.classes)} classes"
    models = comparison.models
    rows = [
        [key, *(show(comparison.scores[name][key]) for name in models)]
        for key in next(iter(comparison.scores.values()))
    ]
    for key in dict.fromkeys(key for drift in comparison.drift.values() for key in drift):
        rows.append([key, *(show(comparison.drift.get(name, {}).get(key)) for name in models)])
    console.print(Table(("number", *models), rows, what))


def show(value: Estimate | None) -> str:
    """A number with its interval, as short as its precision allows."""
    if value is None or not np.isfinite(value.value):
        return "–"
    if not np.isfinite(value.low):
        return f"{value.value:.3g}"
    return f"{value.value:.3g} [{value.low:.3g}, {value.high:.3g}]"
