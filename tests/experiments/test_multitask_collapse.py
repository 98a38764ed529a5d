"""The microscope over the runs of experiments.multitask: who collapsed, in how many seeds, and what is said of it."""

import numpy as np
import pytest

from experiments import _multitask_collapse as collapse
from experiments._multitask_figures import collapse_panels
from experiments._multitask_runs import Run
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
    return compare(models, members, n_resamples=20, tsne_seeds=())


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


def test_too_few_structures_are_said_and_alarm_nobody():
    said, alarm = collapse.answer({"skipped": "only one class has enough members"})
    assert "only one class" in said
    assert not alarm
