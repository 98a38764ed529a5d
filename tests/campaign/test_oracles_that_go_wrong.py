"""Calculators that go wrong in forty ways: nothing bad is stored, and what can go on goes on."""

import dataclasses
import os

import jax
import numpy as np
import pytest
from campaign.faulty_calculators import OUTCOMES
from finetuning.loop_case import CONFIG, case, start

from mlipjax.finetuning.host import HostLoop
from mlipjax.oracles import AseOracle, Failure, Labeller, LabelStore
from mlipjax.oracles.workers import SerialExecutor
from mlipjax.system import System

# what closes the standard output closes that of pytest too
SERIAL = [name for name, outcome in OUTCOMES.items() if outcome != "death" and name != "closes_stdout"]


def systems(n=3):
    rng = np.random.default_rng(0)
    numbers = np.array([1, 8, 1, 8], np.int32)
    return [System(rng.normal(size=(4, 3)), numbers, np.zeros((3, 3)), (False,) * 3) for _ in range(n)]


def oracle(name):
    return AseOracle(f"campaign.faulty_calculators:{name}")


def labelled(labeller, given):
    """Labels; an interruption by a calculator must not end whoever asked for them, pytest included."""
    try:
        return labeller.label(given)
    except (KeyboardInterrupt, SystemExit) as error:
        pytest.fail(f"{type(error).__name__} of a calculator ends the program")


def check_outcomes(name, found, given, store):
    """Right labels or reasons, in the results and in the store when it is opened again."""
    outcome = OUTCOMES[name]
    again = LabelStore(store)
    assert len(found) == len(given)
    if outcome == "label":
        for system, labels in zip(given, found, strict=True):
            assert not isinstance(labels, Failure), labels
            np.testing.assert_array_equal(labels.forces, -np.asarray(system.positions))
            assert float(labels.energy) == pytest.approx(0.5 * np.sum(np.asarray(system.positions) ** 2), rel=1e-12)
        assert len(again) == len(given)
        for (stored, labels), system in zip(again.systems(), given, strict=True):
            np.testing.assert_array_equal(stored.positions, system.positions)
            np.testing.assert_array_equal(labels.forces, -np.asarray(system.positions))
    else:
        assert all(isinstance(result, Failure) for result in found)
        assert all(result.reason and len(result.reason) < 10_000 for result in found)
        assert len(again) == 0


@pytest.fixture
def surroundings():
    """State that a calculator in the same process may change, put back afterwards."""
    folder, environment, errors = os.getcwd(), dict(os.environ), np.geterr()
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    np.seterr(**errors)


@pytest.mark.slow
@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("name", SERIAL)
def test_in_the_same_process(name, tmp_path, capfd):
    given = systems()
    labeller = Labeller(oracle(name), tmp_path / "labels.db", executor=SerialExecutor(), timeout=10.0, retries=0)
    if name == "hangs":
        given = given[:1]
    folder = os.getcwd()
    found = labelled(labeller, given)
    assert os.getcwd() == folder
    check_outcomes(name, found, given, tmp_path / "labels.db")
    # a second call computes no label again
    assert labelled(labeller, given) is not None
    assert labeller.counts.computed == (len(given) if OUTCOMES[name] == "label" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OUTCOMES))
def test_in_processes_of_their_own(name, tmp_path):
    given = systems()[: 1 if OUTCOMES[name] == "death" or name == "hangs" else 3]
    store = tmp_path / "labels.db"
    with Labeller(oracle(name), store, n_workers=1, timeout=20.0, retries=0) as labeller:
        found = labeller.label(given)
    check_outcomes(name, found, given, store)


@dataclasses.dataclass
class Sometimes:
    """An oracle that is a faulty calculator for every other structure and a good one for the rest."""

    faulty: str
    calls: int = 0

    jittable = False
    name = "sometimes"
    identity = "sometimes"

    def label(self, system):
        self.calls += 1
        return oracle(self.faulty if self.calls % 2 else "good").label(system)


@pytest.mark.slow
@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("name", [name for name in SERIAL if name != "hangs"])
def test_the_loop_goes_on_with_the_labels_that_are_good(name, tmp_path, capfd):
    # the calculators have another energy zero than the model
    setup, _, params, controls = case(dataclasses.replace(CONFIG, estimate_shift=True))
    labeller = Labeller(Sometimes(name), tmp_path / "labels.db", executor=SerialExecutor(), retries=0)
    loop = HostLoop(setup, labeller, controls, tmp_path / "run")
    try:
        result = loop.run(start(setup, params, controls), 1)
    except (KeyboardInterrupt, SystemExit) as error:
        pytest.fail(f"{type(error).__name__} of a calculator ends the loop")
    made = [record["labels_made"] for record in result.history if record["stage"] == "label"]
    assert made == [4 if OUTCOMES[name] == "label" else 2]
    assert len(LabelStore(tmp_path / "labels.db")) == sum(made)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(result.state.train.params))


@pytest.mark.slow
def test_a_loop_without_any_good_label_ends_in_one_line(tmp_path):
    setup, _, params, controls = case()
    labeller = Labeller(oracle("forces_nan"), tmp_path / "labels.db", executor=SerialExecutor(), retries=0)
    with pytest.raises(RuntimeError, match="none of 4 labels succeeded"):
        HostLoop(setup, labeller, controls, tmp_path / "run").run(start(setup, params, controls), 1)
    assert len(LabelStore(tmp_path / "labels.db")) == 0
