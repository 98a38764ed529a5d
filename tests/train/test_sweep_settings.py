"""A sweep in one program is the same settings run one by one, whatever the width and the number of devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sweep_case

from mlipjax.losses import LossWeights
from mlipjax.potential import Model
from mlipjax.train import evaluate
from mlipjax.train.sweep import Setting, batch_orders, collect_errors, error_sums, grid, hyper_of, over_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def case():
    return sweep_case.case()


@pytest.fixture(scope="module")
def separate(case):
    """Every setting by itself, in the plain program of one run."""
    run = jax.jit(case.run)
    arguments = zip(case.states, case.orders, case.hypers, strict=True)
    ends = [sweep_case.numbers(*run(state, order, hyper, case.batches)) for state, order, hyper in arguments]
    return {name: np.stack([end[name] for end in ends]) for name in ends[0]}


@pytest.mark.parametrize("width", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_mapped_runs_equal_separate_ones(case, separate, width):
    together = sweep_case.numbers(*sweep_case.mapped(case, width))
    for name, value in separate.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_settings_differ_in_what_they_say(case, separate):
    start = {
        jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(case.states[0].params)
    }
    rows = {setting: row for row, setting in enumerate(sweep_case.SETTINGS)}

    def moved(setting, name):
        return np.abs(separate[name][rows[setting]] - start[name]).max()

    bottom, top = "['layer_0']['kernel']", "['layer_1']['kernel']"
    free, frozen = Setting(0, 1e-3, 1.0, 0), Setting(0, 1e-3, 1.0, 1)
    assert moved(free, bottom) > 0.0
    assert moved(frozen, bottom) == moved(frozen, "['embedding']['embedding']") == 0.0
    assert moved(frozen, top) > 0.0
    # Adam's first steps are as long as the rate: half the ratio moves the top half as far, the bottom a quarter
    slow = Setting(0, 1e-3, 0.5, 0)
    assert moved(slow, top) / moved(free, top) == pytest.approx(0.5, rel=0.2)
    assert moved(slow, bottom) / moved(free, bottom) == pytest.approx(0.25, rel=0.2)
    # seeds see the same batches in another order
    one, other = rows[free], rows[Setting(1, 1e-3, 1.0, 0)]
    assert sorted(case.orders[one]) == sorted(case.orders[other])
    assert not np.array_equal(separate[top][one], separate[top][other])


@pytest.mark.slow
def test_four_devices_compute_what_one_does():
    environment = dict(os.environ)
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false"
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, str(ROOT / "tests" / "train" / "sweep_case.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4 devices agree"


@pytest.mark.slow
def test_mapped_errors_are_those_of_evaluate(case):
    """Three settings with different parameters, against the reports of ``mlipjax evaluate``."""
    from tiny_potential import init_params, labelled_dataset

    data = labelled_dataset((6, 6), 0) + labelled_dataset((6, 6), 1) + labelled_dataset((6, 6), 2)
    params = [init_params(case.potential, seed) for seed in range(3)]
    sums = over_settings(error_sums(case.potential), 2)(sweep_case.stack(params), case.batches)
    errors = collect_errors(sums, case.batches)
    for row in range(3):
        found = errors.summary(row)
        report = evaluate(Model(case.potential, params[row]), data, dtype="float64")
        assert found["n_frames"] == report["n_frames"] == 6
        for name in (
            "force_rmse_meV_per_A",
            "force_mae_meV_per_A",
            "energy_rmse_meV_per_atom",
            "energy_std_meV_per_atom",
        ):
            assert found[name] == pytest.approx(report[name], rel=1e-9), name
        low, high = found["confidence_95"]["force_rmse_meV_per_A"]
        assert low < found["force_rmse_meV_per_A"] < high


def test_orders_depend_on_seed_and_epoch_alone():
    setting = Setting(3, 1e-3, 1.0, 0)
    orders = batch_orders(setting, 10, 4)
    assert [sorted(order) for order in orders.tolist()] == [list(range(10))] * 4
    np.testing.assert_array_equal(batch_orders(setting._replace(learning_rate=1.0), 10, 2), orders[:2])
    assert len({tuple(order) for order in orders.tolist()}) == 4
    assert len(grid((0, 1, 2), (1e-3, 1e-2), (1.0,), (0, 1))) == 12


def test_more_frozen_layers_than_there_are_is_an_error(case):
    rules = case.optimizer.config.rules
    with pytest.raises(ValueError, match="3 frozen layers are too many: the model has no layer_2"):
        hyper_of(Setting(0, 1e-3, 1.0, 3), rules, LossWeights())
