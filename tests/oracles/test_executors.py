"""Executors by name, what their workers do first, and who is blamed when one is lost."""

import itertools
import os
import tempfile
import time
from concurrent.futures import BrokenExecutor, CancelledError

import numpy as np
import pytest
from test_labeller import FACTORY, folder, pair  # noqa: F401

from mlipjax.oracles import AseOracle, Failure, Labeller, LabelStore, LennardJones, label_key, make_executor
from mlipjax.oracles.dispatch import MAX_LOST, check
from mlipjax.oracles.set_up import SetUpError, WorkerSetUp, make_ready
from mlipjax.system import Labels

FRAMES = [pair(distance=3.5 + 0.1 * k) for k in range(5)]


class KilledWorker(Exception):
    """As Dask's; ``Dispatcher`` knows neither."""


class Polled:
    """A job that is no ``Future``, like submitit's: done the third time it is asked, with a value or an error."""

    def __init__(self, outcome):
        self.outcome, self.asked = outcome, 0

    def done(self):
        self.asked += 1
        return self.asked > 2

    def result(self):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def exception(self):
        return self.outcome if isinstance(self.outcome, BaseException) else None

    def cancel(self):
        pass


class Scripted:
    """An executor that loses jobs when told so; ``seen`` are the frames under way at each submission."""

    def __init__(self, lose=lambda number, system: None):
        self.lose, self.running, self.seen, self.number = lose, [], [], itertools.count()

    def submit(self, function, *arguments):
        system = None if function is check else arguments[1]
        self.running = [job for job in self.running if job.asked < 3]
        error = self.lose(next(self.number), system)
        job = Polled(function(*arguments) if error is None else error)
        self.running.append(job)
        self.seen.append(len(self.running))
        return job


def made():
    return Scripted()


def nothing():
    return None


def is_bad(system):
    return system is not None and bool(np.array_equal(system.positions, FRAMES[2].positions))


def test_jobs_that_are_no_futures_are_polled():
    with Labeller(LennardJones(), executor=Scripted()) as labeller:
        energies = [float(label.energy) for label in labeller.label(FRAMES)]
    with Labeller(LennardJones()) as labeller:
        assert energies == [float(label.energy) for label in labeller.label(FRAMES)]


def test_only_what_is_lost_alone_while_workers_answer_is_charged(tmp_path):
    """All that was under way with the guilty one is lost with it; each runs again alone, and only one is lost again."""
    first = len(FRAMES)
    executor = Scripted(lambda number, system: KilledWorker("lost") if number < first or is_bad(system) else None)
    store, oracle = LabelStore(tmp_path / "labels.db"), LennardJones()
    with Labeller(oracle, store, executor=executor) as labeller:
        results = labeller.label(FRAMES)
    assert [isinstance(result, Labels) for result in results] == [True, True, False, True, True]
    assert results[2] == Failure("the worker process died (killed, out of memory or crashed): KilledWorker: lost", 2)
    assert [store.failures(label_key(frame, oracle.identity)) is None for frame in FRAMES] == [
        *(True, True, False, True, True),
    ]
    assert set(executor.seen[first:]) == {1}  # suspects and checks run alone


@pytest.mark.parametrize("error", [CancelledError(), type("CommClosedError", (OSError,), {})("lost connection")])
def test_a_job_that_was_taken_away_is_no_attempt(tmp_path, error):
    executor, store = Scripted(lambda number, system: error if number < 12 else None), LabelStore(tmp_path / "l.db")
    with Labeller(LennardJones(), store, executor=executor, retries=0) as labeller:
        results = labeller.label(FRAMES)
        assert all(isinstance(result, Labels) for result in results)
        assert labeller.counts.failed == labeller.counts.retried == 0
    assert not any(store.failures(label_key(frame, LennardJones().identity)) for frame in FRAMES)


def test_workers_that_are_lost_without_a_structure_are_the_ones_to_blame(tmp_path):
    store, oracle = LabelStore(tmp_path / "labels.db"), LennardJones()
    executor = Scripted(lambda number, system: KilledWorker("no memory"))
    with (
        Labeller(oracle, store, executor=executor, retries=0) as labeller,
        pytest.raises(BrokenExecutor, match=r"not even without a structure.*no memory"),
    ):
        labeller.label(FRAMES)
    assert not any(store.failures(label_key(frame, oracle.identity)) for frame in FRAMES)
    # for a while they did not answer: whoever was under way at that moment is tried again
    executor = Scripted(lambda number, system: KilledWorker("away") if number < 2 * MAX_LOST else None)
    with Labeller(oracle, store, executor=executor) as labeller:
        assert all(isinstance(result, Labels) for result in labeller.label(FRAMES))


def test_no_more_jobs_are_under_way_than_are_asked_for(folder):  # noqa: F811
    seen = make_executor("test_executors:made,jobs=2")
    executor = seen.start()
    workers = seen.__class__(**{**seen.__dict__, "start": lambda: executor})
    with Labeller(AseOracle(FACTORY), executor=workers) as labeller:
        labeller.label(FRAMES)
    assert max(executor.seen) == 2


def test_labels_come_while_the_caller_does_something_else(folder, tmp_path):  # noqa: F811
    path = tmp_path / "labels.db"
    with Labeller(AseOracle(FACTORY), path, executor=Scripted()) as labeller:
        assert labeller.concurrent
        assert labeller.collect(FRAMES) == [None] * len(FRAMES)
        labeller.start(FRAMES[:3])
        labeller.start(FRAMES)
        for _ in range(1000):
            if len(LabelStore(path)) == len(FRAMES):
                break
            time.sleep(0.01)
        assert all(isinstance(result, Labels) for result in labeller.collect(FRAMES))
        assert labeller.counts.computed == len(FRAMES)
        labeller.label(FRAMES)
        assert (labeller.counts.computed, labeller.counts.reused) == (len(FRAMES), 0)
    with Labeller(LennardJones()) as labeller:
        labeller.start(FRAMES)
        assert not labeller.concurrent
        assert labeller.collect(FRAMES) == [None] * len(FRAMES)


def test_an_error_of_the_workers_reaches_the_caller():
    executor = Scripted(lambda number, system: KilledWorker("no memory"))
    with Labeller(LennardJones(), executor=executor) as labeller:
        labeller.start(FRAMES)
        with pytest.raises(BrokenExecutor, match="no memory"):
            labeller.label(FRAMES)


REFUSED = {
    "dsak": "unknown executor 'dsak'; expected local",
    "local:0": "from 1 to 10000, found '0'",
    "local:many": "found 'many'",
    "local:2,threads=x": "threads in 'local:2,threads=x' must be int, found 'x'",
    "local:2,threads=0": "threads in 'local:2,threads=0' must be more than 0",
    "local:2,partition=short": "cannot read 'partition=short'.*settings are jobs, timeout, threads",
    "local,scratch": "cannot read 'scratch'",
    "local,set_up=no.such": "cannot import 'no'",
    "dask": "which dask\\? expected dask:ADDRESS",
    "submitit": "which submitit\\? expected submitit:FOLDER",
    "executorlib:few": "found 'few'",
    "no_such_module:made": "cannot import 'no_such_module'",
    "test_executors:absent": "has no function 'absent'",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_names_and_settings_that_mean_nothing_are_refused(spec):
    with pytest.raises(ValueError, match=REFUSED[spec]) as caught:
        make_executor(spec)
    assert "\n" not in str(caught.value)


def test_a_factory_must_give_something_that_submits():
    with (
        Labeller(AseOracle(FACTORY), executor="test_executors:nothing") as labeller,
        pytest.raises(ValueError, match="returned NoneType, which has no submit"),
    ):
        labeller.label(FRAMES)
    with pytest.raises(TypeError, match="found int"):
        Labeller(AseOracle(FACTORY), executor=3)
    with pytest.raises(ValueError, match="local:2"):
        Labeller(AseOracle(FACTORY), executor="dask:x", n_workers=2)


def touch():
    with open(os.environ["MLIPJAX_TEST_TOUCH"], "a") as file:
        file.write("ready\n")


def test_a_worker_is_made_ready_once(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TMPDIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back at the end
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("MLIPJAX_TEST_TOUCH", str(tmp_path / "touched"))
    monkeypatch.setenv("PLACE", str(tmp_path))
    set_up = WorkerSetUp(threads=2, scratch="$PLACE/deep/scratch", function="test_executors:touch")
    make_ready(set_up)
    make_ready(WorkerSetUp(threads=2, scratch="$PLACE/deep/scratch", function="test_executors:touch"))
    assert (tmp_path / "touched").read_text() == "ready\n"
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert tempfile.gettempdir() == str(tmp_path / "deep/scratch")


def test_environment_modules_reach_the_worker(tmp_path, monkeypatch):
    profile = tmp_path / ".bash_profile"
    profile.write_text('module() { [ "$2" = gone ] && { echo no such module; return 1; }; export LOADED="$*"; }\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOADED", "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    WorkerSetUp(modules=("gcc/12", "cp2k"))()
    assert os.environ["LOADED"] == "load gcc/12 cp2k"
    with pytest.raises(SetUpError, match="module load gone: no such module"):
        WorkerSetUp(modules=("gone",))()


def test_a_worker_that_cannot_be_made_ready_blames_no_structure(tmp_path):
    store, oracle = LabelStore(tmp_path / "labels.db"), AseOracle(FACTORY)
    workers = make_executor(f"test_executors:made,scratch={__file__}/inside")
    with (
        Labeller(oracle, store, executor=workers) as labeller,
        pytest.raises(BrokenExecutor, match=r"cannot be.*NotADirectoryError"),
    ):
        labeller.label(FRAMES)
    assert not any(store.failures(label_key(frame, oracle.identity)) for frame in FRAMES)
