"""The microscope over the runs of experiments.multitask: who collapsed, in how many seeds, and what is said of it."""

import json
import types

import numpy as np
import pytest
from tiny_nequip import SMALLEST, molecule, random_params

from experiments.multitask import collapse
from experiments.multitask.figures import collapse_panels
from experiments.multitask.runs import Run
from mlipjax.data.properties import label_property
from mlipjax.models import nequip, save
from mlipjax.potential import Model
from mlipjax.representation import Members, compare

N_STRUCTURES, PER_STRUCTURE, WIDTH = 24, 6, 8
RUNS = [Run(mode, 100, seed) for seed in range(2) for mode in ("scratch", "ft", "lp", "mft")]


def comparison(kept_by_mft):
    """Three classes of atoms; ft keeps two directions within classes and a tenth of the distance between them."""
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(3), N_STRUCTURES * PER_STRUCTURE // 3)
    structure = np.repeat(np.arange(N_STRUCTURES), PER_STRUCTURE)
    centers = 6.0 * np.eye(WIDTH)[:3]
    within = rng.normal(size=(len(label), WIDTH))
    flat = np.where(np.arange(WIDTH) < 2, 1.0, 0.02)

    def features(distance, directions):
        return distance * centers[label] + within * directions

    models = {collapse.REFERENCE: features(1.0, np.ones(WIDTH))}
    for run in RUNS:
        models[run.name] = {
            "scratch": rng.normal(size=(len(label), WIDTH)) + centers[label],
            "ft": features(0.1, flat),
            "lp": models[collapse.REFERENCE],
            "mft": features(1.0, np.ones(WIDTH)) if kept_by_mft else features(0.1, flat),
        }[run.mode]
    members = Members(np.array(["C4", "H", "O1"])[label], structure, np.array([6, 1, 8])[label])
    return compare(models, members, n_resamples=20, maps=None)


@pytest.mark.parametrize("kept_by_mft", [True, False])
def test_a_collapse_is_counted_over_seeds_and_alarms_only_where_mft_has_it_too(kept_by_mft):
    nodes = collapse.over_seeds(comparison(kept_by_mft), RUNS)
    collapsed = {mode: part["collapsed"] for mode, part in nodes["modes"].items()}
    assert collapsed == {"scratch": None, "ft": 2, "lp": 0, "mft": 0 if kept_by_mft else 2}
    said, alarm = collapse.answer({"nodes": nodes, "edges": None})
    assert ("mft prevents it here" in said) == kept_by_mft
    assert alarm != kept_by_mft


def test_a_frozen_backbone_has_not_moved_and_scratch_has_no_distance_from_a_model_it_does_not_come_from():
    modes = collapse.over_seeds(comparison(kept_by_mft=True), RUNS)["modes"]
    lp = modes["lp"]["numbers"]
    assert lp["cka_within"]["mean"] == pytest.approx(1.0, abs=1e-6)
    assert lp["wasserstein_standardised"]["seeds"] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert lp["davies_bouldin_original_ratio"]["std"] == pytest.approx(0.0, abs=1e-9)
    assert "wasserstein_standardised" not in modes["scratch"]["numbers"]


def test_the_figure_and_the_table_hold_every_mode():
    found = {"nodes": collapse.over_seeds(comparison(kept_by_mft=True), RUNS), "edges": None}
    ticks = [label.get_text() for label in collapse_panels(found["nodes"]).axes[0].get_xticklabels()]
    assert ticks == ["scratch", "ft", "lp", "mft"]
    assert {row[2] for row in collapse.rows(found)} == set(ticks)


@pytest.fixture
def finished(tmp_path):
    """An experiment whose runs were made before."""
    potential = nequip(SMALLEST)
    params = random_params(potential, dtype=np.float32)
    runs = [Run("ft", 4, 0), Run("mft", 4, 0)]
    for seed, run in enumerate(runs):
        save(tmp_path / "runs" / run.name, potential, random_params(potential, seed + 1, np.float32))
    data = label_property([molecule(seed) for seed in range(8)], "gap", np.arange(8.0))
    config = types.SimpleNamespace(out=tmp_path, n_train=4)
    bench = types.SimpleNamespace(id_test=data, ood_test=data)
    return types.SimpleNamespace(config=config, bench=bench, model=Model(potential, params), runs=lambda: runs)


def test_what_cannot_be_compared_for_another_reason_is_an_error(finished):
    params = finished.model.params
    broken = {**params, "layer_0": {**params["layer_0"]}}
    broken["layer_0"]["linear_up"] = {"0e": np.full_like(broken["layer_0"]["linear_up"]["0e"], np.nan)}
    finished.model = finished.model._replace(params=broken)
    with pytest.raises(ValueError, match="not finite"):
        collapse.examine(finished)
    assert not (finished.config.out / collapse.FILE).exists()


def test_a_finished_folder_is_examined_once_and_again_when_a_model_changes(finished, monkeypatch):
    monkeypatch.setattr(collapse, "MAPS", None)
    first = collapse.examine(finished)
    assert first["nodes"]["classes"] == {"C4": 16, "H": 64, "O2": 16}
    assert set(first["edges"]["modes"]) == {"ft", "mft"}
    assert first["nodes"]["modes"]["ft"]["numbers"]["cka"]["mean"] < 0.999
    file = finished.config.out / collapse.FILE
    stamp = file.stat().st_mtime_ns
    assert collapse.examine(finished) == json.loads(json.dumps(first))
    assert file.stat().st_mtime_ns == stamp
    save(finished.config.out / "runs" / "ft-4-0", finished.model.potential, finished.model.params)
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
