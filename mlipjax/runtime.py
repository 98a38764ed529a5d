"""Set-up of a program, once, at its start: allocator, precision, device; and its report about itself.

Only entry points (command line, experiments, benchmarks, tests) set up anything; importing mlipjax changes nothing.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax._version import __version__
from mlipjax.files import digest, plain, write_atomic

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "jax-md", "orbax-checkpoint", "ase", "numpy")

_ACCELERATORS = {"gpu": ("proc/driver/nvidia/version", "dev/nvidia0"), "tpu": ("dev/accel0",)}
"""Files of the drivers."""

_WORTH_KEEPING_S = 0.2
"""Seconds of compilation from which on a program is kept."""
_MANY_MAPS, _LARGE_BYTES = 20_000, 3_000_000_000
"""From which on programs are forgotten."""

# from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def versions() -> dict[str, str]:
    """Return what a result depends on: versions of the stack, git commit of a checkout, platform and devices."""
    report = {"mlipjax": __version__}
    if commit := git_commit():
        report["git commit"] = commit
    report["python"] = platform.python_version()
    report |= {name: _version_of(name) for name in _PACKAGES}
    report["platform"] = platform.platform()
    kinds = [device.platform if device.device_kind.lower() == device.platform else
             f"{device.platform}: {device.device_kind}" for device in jax.devices()]  # fmt: skip
    report["devices"] = ", ".join(kinds)
    return report


def write_results(path: str | os.PathLike[str], results: Mapping[str, Any]) -> None:
    """Write results as JSON, together with the versions they depend on.

    Arrays become lists. JSON has no NaN and no infinity: they become ``null``.
    """
    write_atomic(path, json.dumps(plain({**results, "versions": versions()}), indent=1, allow_nan=False) + "\n")


def git_commit() -> str | None:
    """Return the commit of the checkout this package runs from, with ``+changes`` if files differ from it.

    ``None`` if it was installed, or git is not at hand.
    """
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if commit and changes else commit


def _git(checkout: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def known_problems(jax_version: str, platform_name: str) -> list[str]:
    """Return one line for each known way in which this version of the stack computes wrong numbers."""
    problems = []
    if jax_version == "0.10.2" and platform_name == "cpu":
        problems.append(
            "jax 0.10.2 computes wrong numbers on CPUs (jax-ml/jax#39103: jitted vmap of matrix @ row over more "
            "than 16384 rows); install another version, for instance jax 0.10.1."
        )
    return problems


def idle_accelerator(root: str | os.PathLike[str] = "/", environment: Mapping[str, str] = os.environ) -> str | None:
    """One line if this machine has an accelerator and JAX was installed without what it takes; ``None`` if all is well.

    pip raises ``jax`` and leaves its plugin for GPUs behind, or out: JAX then computes on the CPU without a word.

    Args:
        root: folder in which /dev and /proc lie.
        environment: variables of the process.
    """
    if jax.default_backend() != "cpu" or environment.get("JAX_PLATFORMS"):
        return None
    there = [name for name, marks in _ACCELERATORS.items() if any((Path(root) / mark).exists() for mark in marks)]
    if not there:
        return None
    name, extra = ("an NVIDIA GPU", "cuda12") if there[0] == "gpu" else ("a TPU", "tpu")
    return (
        f"this machine has {name}, which JAX {jax.__version__} does not see: everything runs on the CPU. "
        f'pip install "jax[{extra}]=={jax.__version__}" installs what is missing.'
    )


def setup_allocator() -> bool:
    """Keep glibc from handing freed memory back to the kernel; return whether that could be arranged.

    XLA on CPUs allocates its temporaries anew in every call. By default glibc maps and unmaps the large ones each
    time, and the kernel clears every page again: 33 000 page faults, 0.07-0.1 s of system time, for one training
    gradient of 64 atoms with 134 MB of temporaries. With these settings there are none from the second call on.
    Elsewhere than on glibc (macOS, Windows, musl) this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    settings = {
        _M_ARENA_MAX: 1,  # XLA computes in threads of its own; only the main arena can grow beyond 64 MiB
        _M_MMAP_THRESHOLD: 2**30,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: 2**26,
    }
    return all([mallopt(name, value) == 1 for name, value in settings.items()])


def keep_programs(folder: str | os.PathLike[str], most_bytes: int = 2**30) -> None:
    """Keep compiled programs on disk: the next process loads them, in a third of the time or less, with the same bits.

    They lie apart by kind of processor and version of JAX. Those used longest ago make room for new ones. A damaged
    one, or a disk that takes no more, costs the compilation that it would have saved and nothing else.

    Nothing changes if JAX was told where to keep programs (``JAX_COMPILATION_CACHE_DIR``), or to keep none
    (``JAX_ENABLE_COMPILATION_CACHE=0``), or ``folder`` cannot be written to.

    Args:
        folder: of all kinds of processors; it is made.
        most_bytes: of those of this processor.
    """
    if jax.config.values["jax_compilation_cache_dir"] or not jax.config.values["jax_enable_compilation_cache"]:
        return
    mine = Path(folder) / f"{_processor()}-jax-{jax.__version__}"
    try:
        mine.mkdir(parents=True, exist_ok=True)
        _make_room(mine, most_bytes)
    except OSError:
        return
    if not os.access(mine, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(mine))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_S)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)


def release_programs() -> None:
    """Forget compiled programs if this process holds many: those needed again are read from disk, or compiled.

    Linux gives a process 65 530 memory maps, of which a large program takes some hundred; one loop of molecular
    dynamics and training took 9 000. Where none is left XLA ends the process ("Unable to allocate section memory"),
    however much memory there is. To be called between parts of long work that need different programs.
    """
    try:
        maps = Path("/proc/self/maps").read_bytes().count(b"\n")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux
        return
    if maps > _MANY_MAPS or pages * os.sysconf("SC_PAGE_SIZE") > _LARGE_BYTES:
        jax.clear_caches()


def _processor() -> str:
    """A name for processors that run each other's machine code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.split(":")[0].strip() in ("flags", "Features")), "")
    known = f"{platform.machine()} {platform.processor()} {' '.join(sorted(features.split()))}"
    return f"{platform.machine()}-{digest(known)[:12]}"


def _make_room(folder: Path, most_bytes: int) -> None:
    files = [(file.stat(), file) for file in folder.iterdir() if file.is_file()]
    total = sum(status.st_size for status, _ in files)
    for status, file in sorted(files, key=lambda pair: max(pair[0].st_atime, pair[0].st_mtime)):
        if total <= most_bytes:
            return
        file.unlink(missing_ok=True)
        total -= status.st_size


def prepare_process() -> None:
    """Set up Python and the C library for a process that will trace, compile and compute.

    Tracing makes many small objects that stay. Looking through all of them for circles of garbage a hundred times
    less often takes a quarter off its time (a training step of nequix-mp-1: 11.8 to 8.6 s).
    """
    setup_allocator()
    gc.set_threshold(100_000, 20, 20)


def enable_x64() -> None:
    """Let JAX compute in float64 where asked to; call it before the first array is made."""
    jax.config.update("jax_enable_x64", True)


def select_dtype(name: str) -> np.dtype:
    """Return the dtype called ``float32`` or ``float64``; the latter switches JAX's 64-bit mode on.

    Raises:
        ValueError: for any other name.
    """
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype {name!r} is not supported; choose float32 (fast) or float64 (reference).")
    if name == "float64":
        enable_x64()
    return jnp.dtype(name)


def select_device(name: str | None = None) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    """Return a device by name, such as ``cpu``, ``gpu`` or ``gpu:1``; ``None`` for JAX's default.

    Use it as ``with jax.default_device(select_device("gpu")): ...``. There is no fallback to another device.

    Raises:
        ValueError: if there is no such device, saying which there are.
    """
    if name is None:
        return jax.devices()[0]
    kind, _, index = name.partition(":")
    try:
        return jax.devices(kind)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError):
        present = ", ".join(f"{device.platform}:{device.id}" for device in jax.devices())
        raise ValueError(
            f"no device {name!r} here; JAX sees {present}. Choose one of these, or install the matching jaxlib."
        ) from None


def use_device(name: str) -> None:
    """Let everything that follows run on a kind of device, or on one of them (``gpu:1``); ``auto``: JAX's choice.

    Raises:
        ValueError: if there is no such device, saying which there are.
    """
    if name == "auto":
        return
    if name == "cpu":
        jax.config.update("jax_platforms", "cpu")  # before the first array: no accelerator is taken into use at all
    device = select_device(name)
    # all devices of JAX's own choice share the work (mlipjax.devices), unless one of them is named
    if ":" in name or device.platform != jax.default_backend():
        jax.config.update("jax_default_device", device)


def describe(report: Mapping[str, str]) -> str:
    """Return ``versions()`` as aligned lines of text."""
    width = max(len(name) for name in report)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in report.items())
