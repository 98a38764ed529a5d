"""Labels in parallel: computed once, failures retried and counted, workers replaced, killed runs resumed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from recorded_calculators import LOG, PAUSE, logged

from mlipjax.oracles import AseOracle, Failure, Labeller, LabelStore, LennardJones, SerialExecutor, attempt, label_key
from mlipjax.system import Labels, System

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FACTORY = "recorded_calculators:recorded"


def pair(number=18, distance=4.0):
    return System(
        np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]),
        np.array([number, 18]),
        np.zeros((3, 3)),
        (False, False, False),
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder where the recorded calculator logs its calls, here and in worker processes."""
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv(LOG, str(log))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{HERE}")
    return log


def test_each_structure_is_computed_once(folder, tmp_path):
    systems = [pair(distance=3.5 + 0.1 * k) for k in range(4)]
    seen = []
    with Labeller(AseOracle(FACTORY), tmp_path / "labels.db", executor=SerialExecutor()) as labeller:
        results = labeller.label([*systems, systems[0]], lambda *progress: seen.append(progress[:2]))
        assert labeller.counts.computed == logged(folder, "end") == 4
        assert results[4] is results[0]
        labeller.label(systems)
        assert labeller.counts.reused == 4
    with Labeller(AseOracle(FACTORY), tmp_path / "labels.db", executor=SerialExecutor()) as labeller:
        again = labeller.label(systems)
    assert logged(folder, "end") == 4
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [float(r.energy) for r in again] == [float(r.energy) for r in results[:4]]


def test_another_oracle_has_its_own_labels(folder, tmp_path):
    store = LabelStore(tmp_path / "labels.db")
    energies = []
    for factory in (FACTORY, FACTORY + "_twice_as_deep"):
        with Labeller(AseOracle(factory), store, executor=SerialExecutor()) as labeller:
            energies.append(float(labeller.label([pair()])[0].energy))
            assert labeller.counts.computed == 1
    np.testing.assert_allclose(energies[1], 2 * energies[0])


def test_label_is_committed_before_it_is_reported(folder, tmp_path):
    path = tmp_path / "labels.db"
    stored = []
    with Labeller(AseOracle(FACTORY), path, executor=SerialExecutor()) as labeller:
        labeller.label([pair(), pair(distance=5.0)], lambda done, *_: stored.append(len(LabelStore(path)) == done))
    assert stored == [True, True]


def test_failures_are_retried_once_recorded_and_skipped(folder, tmp_path):
    oracle, systems = AseOracle(FACTORY), [pair(2), pair(), pair(5)]
    with Labeller(oracle, tmp_path / "labels.db", executor=SerialExecutor()) as labeller:
        refused, good, unlucky = labeller.label(systems)
    assert refused == Failure("RuntimeError: no convergence", 2)
    assert isinstance(good, Labels)
    assert isinstance(unlucky, Labels)  # boron fails once and succeeds when tried again
    assert (labeller.counts.computed, labeller.counts.failed, labeller.counts.retried) == (2, 1, 2)
    with Labeller(oracle, tmp_path / "labels.db", executor=SerialExecutor()) as labeller:
        assert labeller.label(systems)[0] == refused
    assert logged(folder, "start2") == 2


def test_an_interrupted_retry_is_completed_not_repeated(folder, tmp_path):
    oracle, store = AseOracle(FACTORY), LabelStore(tmp_path / "labels.db")
    key = label_key(pair(2), oracle.identity)
    store.add_failure(key, pair(2), "killed before the second attempt", oracle="ase")
    with Labeller(oracle, store, executor=SerialExecutor()) as labeller:
        assert labeller.label([pair(2)])[0].attempts == 2
    assert logged(folder, "start2") == 1


def test_numbers_that_are_not_finite_are_failures(folder):
    with Labeller(AseOracle("recorded_calculators:not_a_number"), executor=SerialExecutor()) as labeller:
        (failure,) = labeller.label([pair()])
    assert "energy is not finite" in failure.reason


@pytest.mark.parametrize("executor", [SerialExecutor, lambda: ThreadPoolExecutor(2)], ids=["main thread", "threads"])
def test_timeout(folder, executor):
    start = time.perf_counter()
    with executor() as pool, Labeller(AseOracle(FACTORY), executor=pool, timeout=3.0, retries=0) as labeller:
        slow, quick = labeller.label([pair(3), pair()])
        assert time.perf_counter() - start < 40
        assert slow == Failure("timeout after 3 s", 1)
        assert isinstance(quick, Labels)


class SwallowsInterruptions:
    """An oracle whose first interruption is lost, as one raised inside a destructor is."""

    jittable, name, identity = False, "stubborn", "stubborn"

    def label(self, system):
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)


def test_a_lost_interruption_is_repeated():
    start = time.perf_counter()
    outcome = attempt(SwallowsInterruptions(), pair(), timeout=0.2)
    assert outcome.reason == "timeout after 0.2 s"
    assert time.perf_counter() - start < 20


def test_any_executor_gives_the_same_labels(folder):
    systems = [pair(distance=3.5 + 0.1 * k) for k in range(6)]
    energies = []
    with ThreadPoolExecutor(3) as threads:
        for executor in (threads, SerialExecutor()):
            with Labeller(AseOracle(FACTORY), executor=executor) as labeller:
                energies.append([float(r.energy) for r in labeller.label(systems)])
        assert threads.submit(int, "7").result() == 7  # a given executor stays open
    assert energies[0] == energies[1]


def test_only_the_structure_that_kills_its_worker_is_lost(folder, tmp_path):
    systems = [pair(distance=3.5), pair(4), pair(distance=3.6)]
    with Labeller(AseOracle(FACTORY), tmp_path / "labels.db", n_workers=2, retries=0) as labeller:
        results = labeller.label(systems)
    assert [isinstance(result, Labels) for result in results] == [True, False, True]
    assert "worker process died" in results[1].reason
    assert (labeller.counts.computed, labeller.counts.failed) == (2, 1)
    assert LabelStore(tmp_path / "labels.db").failures(label_key(pair(4), AseOracle(FACTORY).identity)).count == 1


def test_calculations_that_hang_are_ended(folder):
    # lithium sleeps and can be interrupted; carbon cannot, so its process has to go
    with Labeller(AseOracle(FACTORY), n_workers=1, timeout=1.0, retries=0) as labeller:
        sleeping, deaf = labeller.label([pair(3), pair(6)])
    assert sleeping.reason == "timeout after 1 s"
    assert "worker process died" in deaf.reason


def wait_until_quiet(folder):
    """Wait for what a killed program's worker still does, if anything."""
    before, now = -1, 0
    while before != now:
        time.sleep(1.5)
        before, now = now, logged(folder, "start18") + logged(folder, "end18")


def test_kill_9_while_labelling_then_rerun(folder, tmp_path, monkeypatch):
    code = f"""
        import sys
        from mlipjax.oracles import AseOracle, Labeller
        from test_labeller import pair
        if __name__ == "__main__":
            with Labeller(AseOracle("{FACTORY}"), sys.argv[1], n_workers=1) as labeller:
                labeller.label([pair(distance=3.5 + 0.01 * k) for k in range(8)], lambda n, *_: print(n, flush=True))
            print("computed", labeller.counts.computed)
    """
    script, path = tmp_path / "script.py", tmp_path / "labels.db"
    script.write_text(textwrap.dedent(code))
    monkeypatch.setenv(PAUSE, "0.2")
    command = [sys.executable, str(script), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for _ in range(3):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    committed = len(LabelStore(path))
    assert 3 <= committed < 8
    wait_until_quiet(folder)
    ended = logged(folder, "end18")
    rerun = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"computed {8 - committed}" in rerun.stdout
    assert logged(folder, "end18") == ended + 8 - committed
    assert ended <= committed + 1  # at most the calculation under way when the kill came
    assert len(LabelStore(path)) == 8


def test_settings_that_make_no_sense_are_refused(tmp_path):
    for settings, message in (
        ({"n_workers": 0}, "n_workers"),
        ({"timeout": 0.0}, "timeout"),
        ({"retries": -1}, "retries"),
    ):
        with pytest.raises(ValueError, match=message):
            Labeller(LennardJones(), **settings)
