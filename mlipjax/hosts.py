"""Several processes, on one machine or many, that work as one.

Each of them runs the same program on the same input, with its own devices and everyone's (``devices``), and comes to
the same numbers. The first one alone writes; what it finds on the disk, such as where a run stands, counts for all.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")

COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Variables that say where the first process listens, how many there are, and which of them this one is."""


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Become one of several processes; before JAX looks for devices.

    The variables above say which; without them JAX asks Slurm, Open MPI, Kubernetes or the TPU.

    Raises:
        ValueError: if neither does, or the others cannot be reached.
    """
    given = [environment.get(name) for name in (COORDINATOR, PROCESSES, PROCESS)]
    options: dict[str, Any] = {}
    if None not in given:
        try:
            options = {"num_processes": int(given[1] or ""), "process_id": int(given[2] or "")}
        except ValueError:
            raise ValueError(f"{PROCESSES} and {PROCESS} must be whole numbers, found {given[1:]}.") from None
        options["coordinator_address"] = given[0]
    # GPUs and TPUs have collectives of their own
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**options)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"cannot work with other processes ({' '.join(str(error).split())}); set {COORDINATOR} to HOST:PORT of the "
            f"first, {PROCESSES} and {PROCESS} (from 0), or start them by srun or mpirun."
        ) from error


def leave(code: int) -> None:
    """End this process at once if it is one of several: JAX would wait for the others, who wait for it."""
    if jax.process_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def is_first() -> bool:
    """Tell whether this process writes: it is the first of several, or the only one."""
    return jax.process_index() == 0


def refuse_several(what: str) -> None:
    """Raise ``ValueError`` where ``what`` needs a single process and there are more."""
    if jax.process_count() > 1:
        raise ValueError(f"{what} runs in one process, there are {jax.process_count()}; start one alone.")


def bytes_of_first(data: bytes) -> bytes:
    """Return what the first process has; every process must ask."""
    if jax.process_count() == 1:
        return data
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    own = np.frombuffer(data, np.uint8) if is_first() else np.zeros(length, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own)).tobytes()


@contextlib.contextmanager
def file_of_first(path: Path | None) -> Iterator[Path | None]:
    """Yield a file that the first process may have (``path``), or a copy of it; ``None`` if it has none."""
    if jax.process_count() == 1:
        yield path
        return
    content = bytes_of_first(b"" if path is None else path.read_bytes())
    if is_first() or not content:
        yield path if is_first() else None
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.write_bytes(content)
        yield copy


def json_of_first(value: T) -> T:
    """Return the value (JSON types) that the first process has."""
    return value if jax.process_count() == 1 else json.loads(bytes_of_first(json.dumps(value).encode()))


def arrays_of_first(tree: T) -> T:
    """Return a tree of arrays as the first process has it; the others have arrays of the same names."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    keys = [isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    raw = [np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(leaves, keys, strict=True)]
    file = io.BytesIO()
    np.savez(file, *raw)
    with np.load(io.BytesIO(bytes_of_first(file.getvalue())), allow_pickle=False) as found:
        told = [jax.numpy.asarray(found[f"arr_{index}"]) for index in range(len(leaves))]
    told = [
        jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if key else array
        for array, leaf, key in zip(told, leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, told)
