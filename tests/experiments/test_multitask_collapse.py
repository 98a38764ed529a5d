"""The microscope of experiments.multitask: an answer with known truth, and folders that were finished before."""

import json
import types

import numpy as np
import pytest
from tiny_nequip import SMALLEST, molecule, random_params

from experiments import _multitask_collapse as collapse
from experiments._multitask_figures import collapse_panels
from experiments._multitask_report import write
from experiments._multitask_runs import Run
from mlipjax.data.properties import PropertyData
from mlipjax.models import nequip, save
from mlipjax.representation import Members, compare

SEEDS = 3
RUNS = [Run(mode, 50, seed) for seed in range(SEEDS) for mode in ("scratch", "ft", "lp", "mft")]
STRUCTURES = 30


def examined(ft):
    """What is found where the features of ft are ``ft(features, classes, rng)`` and those of mft hardly change."""
    rng = np.random.default_rng(0)
    structure = np.repeat(np.arange(STRUCTURES), 6)
    classes = np.tile(["A", "A", "B", "B", "C", "C"], STRUCTURES)
    centres = {name: 3.0 * rng.normal(size=8) for name in "ABC"}
    start = np.array([centres[name] for name in classes]) + rng.normal(size=(len(classes), 8))
    makers = {
        "scratch": lambda: start @ np.linalg.qr(rng.normal(size=(8, 8)))[0],
        "ft": lambda: ft(start, classes, rng),
        "lp": lambda: start,
        "mft": lambda: start + 0.05 * rng.normal(size=start.shape),
    }
    features = {collapse.REFERENCE: start} | {run.name: makers[run.mode]() for run in RUNS}
    comparison = compare(features, Members(classes, structure), n_resamples=20, tsne_seeds=(0,), perplexities=(10.0,))
    nodes = collapse.over_seeds(comparison, RUNS)
    return {"nodes": nodes, "edges": None}


def collapsed(start, classes, rng):
    """Classes a quarter as far apart, and within them two directions in place of eight."""
    directions = np.linalg.qr(rng.normal(size=(8, 2)))[0]
    result = np.zeros_like(start)
    for name in np.unique(classes):
        own = start[classes == name]
        middle = own.mean(axis=0)
        result[classes == name] = 0.25 * middle + 2.0 * (own - middle) @ directions @ directions.T
    return result + 1e-2 * rng.normal(size=start.shape)


@pytest.fixture(scope="module")
def found():
    return examined(collapsed)


def test_a_collapse_that_mft_prevents_is_seen_in_every_seed(found):
    modes = found["nodes"]["modes"]
    assert [modes[mode]["collapsed"] for mode in ("scratch", "ft", "lp", "mft")] == [None, 3, 0, 0]
    text, alarm = collapse.answer(found)
    assert "Plain ft collapses the representation in 3 of 3 seeds, mft in none: mft prevents it here." in text
    assert not alarm
    ratio = modes["ft"]["numbers"]["effective_rank_within_ratio"]
    assert ratio["mean"] == pytest.approx(np.mean(ratio["seeds"]))
    assert ratio["std"] == pytest.approx(np.std(ratio["seeds"], ddof=1))
    assert ratio["mean"] < 0.6
    assert "effective rank within classes, ratio 0." in text


def test_numbers_that_need_common_ancestors_are_not_given_for_scratch(found):
    modes = found["nodes"]["modes"]
    assert {"cka", "cka_within", "davies_bouldin_tsne_ratio", "effective_rank"} <= set(modes["scratch"]["numbers"])
    assert not any("wasserstein" in key for key in modes["scratch"]["numbers"])
    # a linear probe has the features it started from
    assert modes["lp"]["numbers"]["wasserstein_standardised"]["seeds"] == [0.0] * SEEDS
    assert modes["lp"]["numbers"]["cka"]["mean"] == pytest.approx(1.0)
    assert modes["lp"]["numbers"]["davies_bouldin_tsne_ratio"]["mean"] == 1.0


def test_without_a_collapse_there_is_nothing_to_prevent_and_with_one_in_both_it_warns(found):
    text, alarm = collapse.answer(examined(lambda start, *_: 1.1 * start))
    assert "does not collapse the representation here: there is nothing for mft to prevent" in text
    assert not alarm
    modes = found["nodes"]["modes"]
    both = {"nodes": {**found["nodes"], "modes": {**modes, "mft": modes["ft"]}}}
    text, alarm = collapse.answer(both)
    assert "mft does not prevent it" in text
    assert alarm


def test_the_figure_has_every_seed_and_the_table_every_number(found):
    figure = collapse_panels(found["nodes"])
    titles = [panel.get_ylabel() for panel in figure.axes]
    assert "Davies-Bouldin ratio" in titles
    points = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None)]
    assert len(points) == len(RUNS)
    rows = collapse.rows(found)
    assert all(len(row) == len(collapse.COLUMNS) for row in rows)
    assert len(rows) == sum(len(part["numbers"]) for part in found["nodes"]["modes"].values())
    json.dumps(found, allow_nan=False)


@pytest.fixture
def finished(tmp_path):
    """An experiment whose runs were made before."""
    potential = nequip(SMALLEST)
    params = random_params(potential, dtype=np.float32)
    runs = [Run("ft", 4, 0), Run("mft", 4, 0)]
    for seed, run in enumerate(runs):
        save(tmp_path / "runs" / run.name, potential, random_params(potential, seed + 1, np.float32))
    data = PropertyData.from_systems([molecule(seed) for seed in range(8)], "gap", np.arange(8.0))
    config = types.SimpleNamespace(out=tmp_path, n_train=4)
    bench = types.SimpleNamespace(id_test=data, ood_test=data)
    return types.SimpleNamespace(config=config, bench=bench, potential=potential, params=params, runs=lambda: runs)


def test_a_finished_folder_is_examined_once_and_again_when_a_model_changes(finished, monkeypatch):
    monkeypatch.setattr(collapse, "TSNE", {"tsne_seeds": ()})
    first = collapse.examine(finished)
    assert first["nodes"]["classes"] == {"C4": 16, "H": 64, "O2": 16}
    assert set(first["edges"]["modes"]) == {"ft", "mft"}
    assert first["nodes"]["modes"]["ft"]["numbers"]["cka"]["mean"] < 0.999
    file = finished.config.out / collapse.FILE
    stamp = file.stat().st_mtime_ns
    assert collapse.examine(finished) == json.loads(json.dumps(first))
    assert file.stat().st_mtime_ns == stamp
    save(finished.config.out / "runs" / "ft-4-0", finished.potential, finished.params)
    again = collapse.examine(finished)
    assert again["nodes"]["modes"]["ft"]["numbers"]["cka"]["mean"] == pytest.approx(1.0)
    assert again["nodes"]["modes"]["mft"] == first["nodes"]["modes"]["mft"]


def test_too_few_structures_are_said_and_nothing_is_made_up(finished):
    few = finished.bench.id_test.subset([0])
    finished.bench = types.SimpleNamespace(id_test=few, ood_test=few)
    found = collapse.examine(finished)
    assert "fewer than two environment classes" in found["skipped"]
    assert collapse.answer(found)[0].startswith("The microscope could not look at the features")
    assert collapse.rows(found) == []


def test_the_report_shows_what_was_found(found, tmp_path):
    from test_multitask_report import results

    made, predictions, targets = results()
    made["representation"] = found
    write(tmp_path, made, predictions, targets, "python -m experiments.multitask")
    page = (tmp_path / "report.html").read_text()
    assert "mft prevents it here" in page
    assert "Representation: nodes" in page
    assert (tmp_path / "representation_nodes.png").exists()
