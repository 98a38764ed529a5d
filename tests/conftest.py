"""Settings and fixtures of the whole test suite."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Most of the time is compilation. Without optimisation, and with XLA's older emitters of loops in place of those that
# go through MLIR, a program is compiled in a third of the time. `.ci/run` repeats the comparisons with published models
# with XLA_FLAGS="", as a user compiles.
# One thread per process: kernels this small only get slower with more, and test processes share the machine.
# The same for OpenMP: of two processes with two threads each on two cores, most wait for the others and spin meanwhile.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1",
)
# What one process of this run has compiled, the others load: test processes, which inherit the folder from the first,
# and what tests start. XLA says of each such program, wrongly, that it may not run on this machine: not at level 3.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mlipjax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# a checkout may have reference data beside it; the package itself looks nowhere but where this says
os.environ.setdefault("MLIPJAX_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
# a sum of (N,) and (N, 1) is a mistake more often than it is meant: broadcasting between ranks is written out
jax.config.update("jax_numpy_rank_promotion", "raise")
# annotations of shapes are checked with every call and, by the letters of axes, against each other
install_import_hook("mlipjax", "shapes.checked")

# tracing makes many small objects that stay: looking through all of them so often takes a quarter of its time
gc.set_threshold(100_000, 20, 20)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public reference data, named by ``MLIPJAX_DATA``; without it the test is skipped."""
    folder = (ROOT / os.environ["MLIPJAX_DATA"]).resolve()
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set MLIPJAX_DATA to the folder that holds them")
    return folder


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file() -> Iterator[None]:
    """Forget compiled programs after a file once they are many: jit keeps those of all potentials."""
    from mlipjax import runtime  # after the hook

    yield
    runtime.release_programs()
