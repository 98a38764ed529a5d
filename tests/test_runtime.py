import ctypes
import os
import subprocess
import sys
from importlib import metadata

import jax
import numpy as np
import pytest

import mlipjax
from mlipjax import runtime


def test_versions_name_everything_a_result_depends_on():
    report = runtime.versions()
    assert report["mlipjax"] == runtime.__version__
    assert report["jax"] == jax.__version__
    assert report["orbax-checkpoint"] == metadata.version("orbax-checkpoint")
    assert report["devices"].startswith(jax.default_backend())
    assert all(report.values())
    lines = runtime.describe(report).splitlines()
    assert len(lines) == len(report)
    assert lines[0].split() == ["mlipjax", runtime.__version__]


def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "mlipjax"
    package.mkdir()
    (package / "runtime.py").write_text("")
    monkeypatch.setattr(runtime, "__file__", str(package / "runtime.py"))
    assert runtime.git_commit() is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = runtime.git_commit()
    assert len(commit) == 40
    (package / "runtime.py").write_text("changed")
    assert runtime.git_commit() == f"{commit}+changes"


def test_the_bad_jax_is_known_on_cpu_only():
    assert "jax-ml/jax#39103" in runtime.known_problems("0.10.2", "cpu")[0]
    assert runtime.known_problems("0.10.2", "gpu") == []
    assert runtime.known_problems("0.10.1", "cpu") == []


PAGE_FAULTS = """
import resource, sys, threading
from mlipjax import runtime
if sys.argv[1] == "set up":
    assert runtime.setup_allocator()

def use_memory(n_calls):
    for _ in range(n_calls):
        bytearray(100_000_000)  # zeroed, so every page is touched

def faults(n_calls):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    worker = threading.Thread(target=use_memory, args=(n_calls,))
    worker.start()
    worker.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(faults(10))
"""


@pytest.mark.skipif(
    not hasattr(ctypes, "CDLL") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="no glibc"
)
def test_freed_memory_stays_with_the_process():
    """Ten times 100 MB in a thread: without the setting every page faults again, with it none should."""

    def run(mode):
        done = subprocess.run([sys.executable, "-c", PAGE_FAULTS, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert run("set up") * 10 < run("leave")


def test_elsewhere_the_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert runtime.setup_allocator() is False


def test_dtypes():
    assert runtime.select_dtype("float32") == np.float32
    with jax.enable_x64(False):
        assert runtime.select_dtype("float64") == np.float64
    with pytest.raises(ValueError, match="'bfloat16' is not supported; choose float32"):
        runtime.select_dtype("bfloat16")


def test_an_accelerator_that_jax_does_not_see_is_told_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert runtime.idle_accelerator(tmp_path, {}) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    told = runtime.idle_accelerator(tmp_path, {})
    assert "an NVIDIA GPU" in told
    assert f'pip install "jax[cuda12]=={jax.__version__}"' in told
    # who asked for the CPU knows
    assert runtime.idle_accelerator(tmp_path, {"JAX_PLATFORMS": "cpu"}) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert runtime.idle_accelerator(tmp_path, {}) is None


def test_devices():
    assert runtime.select_device() == jax.devices()[0]
    assert runtime.select_device("cpu") == jax.devices("cpu")[0]
    assert runtime.select_device("cpu:0") == jax.devices("cpu")[0]
    for name in ("cpu:99", "abacus", "cpu:x"):
        with pytest.raises(ValueError, match=f"no device '{name}' here; JAX sees .*cpu:0"):
            runtime.select_device(name)


def test_importing_the_package_changes_no_setting():
    program = (
        "import jax; before = dict(jax.config.values); import mlipjax, mlipjax.runtime, mlipjax.report;"
        "assert dict(jax.config.values) == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert mlipjax.__name__ == "mlipjax"


PROGRAM = """
import sys, jax, jax.numpy as jnp
from mlipjax import runtime
runtime.keep_programs(sys.argv[1], int(sys.argv[2]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
loaded = []
jax.monitoring.register_event_listener(lambda event, **_: loaded.append(event) if "cache_hits" in event else None)
print(float(jax.jit(lambda x: jnp.sin(x @ x).sum())(jnp.ones((9, 9)))), len(loaded))
"""


def value_and_loaded(folder, most_bytes=2**30, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}  # those of the tests
    environment = {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", PROGRAM, str(folder), str(most_bytes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr == ""
    value, loaded = done.stdout.split()
    return float(value), int(loaded)


def test_programs_are_kept_for_the_next_process_damaged_ones_are_made_again_and_old_ones_make_room(tmp_path):
    value, loaded = value_and_loaded(tmp_path)
    assert loaded == 0
    again, loaded = value_and_loaded(tmp_path)
    assert again == value
    assert loaded > 0
    (folder,) = tmp_path.iterdir()  # one kind of processor
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])  # of a process that was killed
    assert value_and_loaded(tmp_path) == (value, 0)
    assert value_and_loaded(tmp_path, 0) == (value, 0)  # no room for any


def test_no_programs_are_kept_where_jax_was_told_otherwise_or_the_folder_cannot_be_made(tmp_path):
    value_and_loaded(tmp_path / "a", JAX_ENABLE_COMPILATION_CACHE="0")
    value_and_loaded(tmp_path / "b", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "file").touch()
    value_and_loaded(tmp_path / "file" / "below")


def test_programs_are_forgotten_before_linux_runs_out_of_maps(monkeypatch):
    @jax.jit
    def double(x):
        return 2 * x

    double(1.0)
    runtime.release_programs()  # few programs, or those of other tests: kept or not
    double(1.0)
    assert double._cache_size() == 1
    monkeypatch.setattr(runtime, "_MANY_MAPS", 10)
    runtime.release_programs()
    assert double._cache_size() == 0
