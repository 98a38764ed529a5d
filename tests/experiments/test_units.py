"""Units of experiments: order, resuming, errors, and the same numbers from any number of processes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from experiments.lab.units import Unit, default_workers, run_units

ROOT = Path(__file__).resolve().parents[2]
QUIET = Console(file=io.StringIO())


def number(log, value):
    with open(log, "a") as file:
        file.write(f"{value}\n")
    return {"value": value, "process": os.getpid()}


def total(log, *parts):
    return number(log, sum(part["value"] for part in parts))


def threads():
    import jax
    import jax.numpy as jnp

    jnp.ones(3).sum().block_until_ready()
    return {"asked": os.environ["PJRT_NPROC"], "cache": jax.config.jax_compilation_cache_dir}


def broken(kind):
    raise {"value": ValueError("two\nlines"), "bug": KeyError("a bug")}[kind]


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def stalls(log):
    number(log, "begun")
    time.sleep(60)
    return {}


def tree(log):
    leaves = [Unit(f"leaf-{i}", number, (log, i)) for i in range(4)]
    return [Unit("sum", total, (log,), given=tuple(leaf.name for leaf in leaves)), *leaves, leaves[0]]


@pytest.mark.parametrize("workers", [1, 2])
def test_units_wait_for_others_and_are_computed_once(tmp_path, workers):
    log = tmp_path / "log"
    for _ in range(2):
        found = run_units(tree(log), tmp_path / "units", QUIET, workers)
        assert {name: unit["value"] for name, unit in found.items()} == {
            "sum": 6, "leaf-0": 0, "leaf-1": 1, "leaf-2": 2, "leaf-3": 3,
        }  # fmt: skip
        assert list(found) == ["sum", "leaf-0", "leaf-1", "leaf-2", "leaf-3"]
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "6"]
    assert (found["sum"]["process"] == os.getpid()) == (workers == 1)
    assert found["sum"]["seconds"] >= 0.0


def test_only_what_is_missing_is_computed(tmp_path):
    log = tmp_path / "log"
    run_units(tree(log), tmp_path / "units", QUIET, 1)
    (tmp_path / "units" / "leaf-2.json").unlink()
    log.unlink()
    run_units(tree(log), tmp_path / "units", QUIET, 1)
    assert log.read_text().split() == ["2"]


def test_worker_processes_have_a_share_of_the_cores_and_one_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIPJAX_CACHE", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)  # that of the tests
    units = [Unit(f"t{i}", threads) for i in range(2)]
    found = run_units(units, tmp_path / "units", QUIET, 2)
    assert {unit["asked"] for unit in found.values()} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    (cache,) = {unit["cache"] for unit in found.values()}
    assert Path(cache).parent == tmp_path / "programs"


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_name_their_unit(tmp_path, workers):
    with pytest.raises(RuntimeError, match=r"^bad: two\nlines"):
        run_units([Unit("bad", broken, ("value",))], tmp_path, QUIET, workers)
    with pytest.raises(KeyError, match="a bug"):  # a bug keeps its kind and its traceback
        run_units([Unit("bad", broken, ("bug",))], tmp_path, QUIET, workers)
    assert list(tmp_path.glob("*.json")) == []


def test_a_failure_does_not_wait_for_other_units_and_keeps_finished_ones(tmp_path):
    log = tmp_path / "log"
    units = [Unit("slow", stalls, (log,)), Unit("fine", number, (log, 1)), Unit("bad", broken, ("value",), ("fine",))]
    units[2] = Unit("bad", _broken_after, given=("fine",))
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"^bad: after fine"):
        run_units(units, tmp_path / "units", QUIET, 2)
    assert time.monotonic() - started < 40.0
    assert json.loads((tmp_path / "units" / "fine.json").read_text())["value"] == 1


def _broken_after(fine):
    raise ValueError("after fine")


def test_a_process_that_dies_is_one_line(tmp_path):
    units = [Unit("lost", dies), Unit("other", dies)]
    with pytest.raises(RuntimeError, match=r"a process died while computing .*--workers 1 needs less"):
        run_units(units, tmp_path, QUIET, 2)


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one process"):
        run_units([], tmp_path, QUIET, 0)
    with pytest.raises(ValueError, match="wait for ghost, which nothing makes"):
        run_units([Unit("a", dies, (), ("ghost",))], tmp_path, QUIET, 1)
    assert 1 <= default_workers() <= 4


_DRIVER = """
import io, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from rich.console import Console
from test_units import Unit, number, run_units, stalls
if __name__ == "__main__":
    log = Path({log!r})
    slow = stalls if sys.argv[1] == "stall" else number
    units = [Unit("one", number, (log, 1)), Unit("two", slow, (log,) if slow is stalls else (log, 2))]
    run_units(units, Path({folder!r}), Console(file=io.StringIO()), 2)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_resumes(tmp_path):
    log, folder, script = tmp_path / "log", tmp_path / "units", tmp_path / "driver.py"
    script.write_text(
        _DRIVER.format(tests=str(Path(__file__).parent), root=str(ROOT), log=str(log), folder=str(folder))
    )
    process = subprocess.Popen([sys.executable, str(script), "stall"])
    deadline = time.monotonic() + 120.0
    while not ((folder / "one.json").exists() and log.exists() and "begun" in log.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    log.unlink()
    subprocess.run([sys.executable, str(script), "go"], check=True, timeout=120)
    assert log.read_text().split() == ["2"]  # one was kept; the stalled process ended with its parent
    assert sorted(file.name for file in folder.glob("*.json")) == ["one.json", "two.json"]
