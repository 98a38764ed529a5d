"""Throughput of a sweep's program against the same settings one after another, in turn in the same process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.train.sweep import over_settings

_REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Timings of T steps of S settings.

    Attributes:
        n_settings, n_steps: S and T.
        separate_seconds: median time of S calls of the compiled program of one run, one after another.
        separate_compile_seconds: its first call.
        seconds: by width, median time of the mapped program.
        compile_seconds: by width, first call.
    """

    n_settings: int
    n_steps: int
    separate_seconds: float
    separate_compile_seconds: float
    seconds: dict[str, float]
    compile_seconds: dict[str, float]

    @property
    def best_width(self) -> int:
        """The fastest width."""
        return int(min(self.seconds, key=lambda width: self.seconds[width]))


def measure(
    run: Callable[..., Any], mapped: Any, shared: Any, *, widths: Sequence[int] | None = None, n_settings: int = 0
) -> Throughput:
    """Time the mapped program at several widths and separate runs.

    The strongest rival is measured: one compiled program of one run, called for every setting, not a compilation for
    each. All are called in turn, so that other load on the machine meets them alike; medians of five.

    Args:
        run: steps of one setting, ``(*arguments, shared) -> results``.
        mapped: stacked arguments of all settings.
        shared: what all settings use.
        widths: by default 1 and 2 on a CPU (wider is slower there), 8 and all settings of a device elsewhere.
        n_settings: settings that are timed, the first ones; by default 4 on a CPU, all elsewhere.
    """
    total, cpu = len(jax.tree.leaves(mapped)[0]), jax.default_backend() == "cpu"
    n_devices = len(jax.devices())
    n = min(n_settings or (4 * n_devices if cpu else total), total)
    mapped = jax.tree.map(lambda x: x[:n], mapped)
    widths = sorted({1, 2} if cpu else {8, -(-n // n_devices)}) if widths is None else list(widths)
    alone = jax.jit(run)
    parts = [jax.tree.map(lambda x, i=i: x[i], mapped) for i in range(n)]

    def separately() -> Any:
        return [alone(*part, shared) for part in parts]

    programs: dict[str, Callable[[], Any]] = {"separate": separately}
    for width in widths:
        program = over_settings(lambda arguments, shared: run(*arguments, shared), width)
        programs[str(width)] = lambda program=program: program(mapped, shared)
    first = {name: _seconds(program) for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(_REPEATS):
        for name, program in programs.items():
            times[name].append(_seconds(program))
    median = {name: float(np.median(values)) for name, values in times.items()}
    return Throughput(
        n_settings=n,
        n_steps=int(np.shape(mapped[1])[1]),
        separate_seconds=median.pop("separate"),
        separate_compile_seconds=first.pop("separate"),
        seconds=median,
        compile_seconds=first,
    )


def _seconds(program: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - started
