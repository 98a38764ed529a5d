"""One program over several devices: some arguments divided along their leading axis, the others whole on each device.

Replicas of a simulation, settings of a sweep, structures to predict and micro-batches of a training step do not look at
each other. So every device runs the program of one device on its share (``jax.shard_map``), and nothing is exchanged,
except one sum where the results of the shares add up, as gradients do.

Programs are divided over ``device_mesh()``: all devices of JAX's default kind, those of other hosts too where several
processes are one (``hosts``), unless one was chosen (``jax.default_device``, ``--device gpu:1``). With a single device
there is no mesh, and programs are what they would be without this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlipjax.defaults import BYTES_PER_SLOT, MAX_SLOTS

AXIS = "devices"
SHARE = PartitionSpec(AXIS)
"""Divided along the leading axis, evenly."""
SHARE_SECOND = PartitionSpec(None, AXIS)
"""Divided along the axis after the leading one."""
WHOLE = PartitionSpec()
"""The same on all devices."""


def _by_process(devices: Sequence[Any] | None) -> list[list[Any]]:
    """Equally many devices of each process."""
    if devices is None:
        chosen = jax.config.values["jax_default_device"]
        devices = jax.devices() if chosen is None or isinstance(chosen, str) else [chosen]
    processes = sorted({device.process_index for device in devices})
    found = [[device for device in devices if device.process_index == process] for process in processes]
    least = min(map(len, found))
    return [own[:least] for own in found]


def device_mesh(parts: int = 0, devices: Sequence[Any] | None = None) -> Mesh | None:
    """Return the devices that a program is divided over, equally many of each process; ``None`` for one.

    Args:
        parts: how many equal parts there are to divide, evenly: the number of devices is a divisor. 0: all devices.
        devices: to choose from; by default those of JAX's default kind, or the one that was chosen.

    Raises:
        ValueError: if the parts cannot be divided evenly among the processes.
    """
    found = _by_process(devices)
    n_processes = len(found)
    if parts % n_processes:
        raise ValueError(f"{parts} parts cannot be divided evenly over {n_processes} processes; choose a multiple.")
    each = max(k for k in range(1, len(found[0]) + 1) if parts % (k * n_processes) == 0)
    taken = [device for own in found for device in own[:each]]
    return None if len(taken) == 1 else Mesh(np.array(taken), (AXIS,))


def mesh_for(rounds: Callable[[int], int], devices: Sequence[Any] | None = None) -> Mesh | None:
    """Return the fewest devices that take the least time, so that none of them computes for nothing.

    Args:
        rounds: the time that a number of devices takes.
        devices: as for ``device_mesh``.
    """
    found = _by_process(devices)
    counts = [k * len(found) for k in range(1, len(found[0]) + 1)]
    return device_mesh(min(counts, key=rounds), devices)


def mesh_of_parts(n: int, devices: Sequence[Any] | None = None) -> Mesh | None:
    """Return ``mesh_for`` ``n`` equal parts, of which a device takes one after the other."""
    return mesh_for(lambda count: -(-n // count), devices)


def default_slots(dtype: Any = np.float32, device: Any = None) -> int:
    """Return how many neighbour slots are computed at once unless told otherwise: on CPUs ``MAX_SLOTS``.

    On accelerators as many as fit three quarters of the memory that JAX may use, by what a training step of a large
    model takes (``defaults.BYTES_PER_SLOT``); other programs take less.

    Args:
        dtype: of the network.
        device: that computes; by default the one that was chosen, or JAX's first one.
    """
    if device is None:
        chosen = jax.config.values["jax_default_device"]
        device = jax.local_devices()[0] if chosen is None or isinstance(chosen, str) else chosen
    known = None if device.platform == "cpu" else device.memory_stats()
    if not known or "bytes_limit" not in known:
        return MAX_SLOTS
    of_a_slot = BYTES_PER_SLOT * np.dtype(dtype).itemsize // 4
    return max(1, 3 * known["bytes_limit"] // 4 // of_a_slot)


def device_count(mesh: Mesh | None) -> int:
    """Return how many devices a program is divided over."""
    return 1 if mesh is None else mesh.size


def over_devices(function: Callable[..., Any], mesh: Mesh | None, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Return ``function`` with its arguments divided over the devices of a mesh; itself without one.

    Args:
        function: pure; is given shares of what is divided.
        mesh: of devices.
        in_specs: ``SHARE`` or ``WHOLE`` for every argument, or trees of them for parts of one.
        out_specs: the same for the results; what is ``WHOLE`` must be equal on all devices, as after ``jax.lax.psum``.
    """
    if mesh is None:
        return function
    # custom primitives say nothing of which of their results are equal on all devices, so it cannot be checked
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def of_share(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``(whole, share) -> results`` for a function of one part, where every device is given one part.

    Args:
        function: of what is whole and of a part, pure.
    """

    def one(whole: Any, share: Any) -> Any:
        results = function(whole, jax.tree.map(lambda leaf: leaf[0], share))
        return jax.tree.map(lambda leaf: leaf[None], results)

    return one


def side_by_side(parts: Sequence[Any], mesh: Mesh) -> Any:
    """Join equal trees of host arrays along a new leading axis, one for each device; the last one is repeated.

    Args:
        parts: as many as there are devices, or fewer.
        mesh: of devices.
    """
    filled = [*parts, *[parts[-1]] * (mesh.size - len(parts))]
    return put(jax.tree.map(lambda *leaves: np.stack(leaves), *filled), mesh, SHARE)


def put(tree: Any, mesh: Mesh | None, spec: Any) -> Any:
    """Lay arrays onto the devices of a mesh before the first program that needs them there; as they are without one.

    Args:
        tree: arrays, on the host or a device; over several processes, equal ones in each of them.
        mesh: of devices.
        spec: ``SHARE`` or ``WHOLE``, or a tree of them for parts of the arrays.
    """
    if mesh is None:
        return tree
    if not _is_shared(mesh):
        return jax.device_put(tree, jax.tree.map(lambda one: NamedSharding(mesh, one), spec))

    def lay(spec: PartitionSpec, leaf: Any) -> Any:
        sharding = NamedSharding(mesh, spec)
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        if _is_key(leaf):
            return jax.random.wrap_key_data(lay(spec, jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        array = _on_host(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(lambda one, part: jax.tree.map(lambda leaf: lay(one, leaf), part), spec, tree)


def bring_home(tree: Any, mesh: Mesh | None) -> Any:
    """Return arrays that lie on the devices of a mesh, divided or whole, as if there had been one device only."""
    if mesh is None:
        return tree

    def bring(leaf: Any) -> jax.Array:
        if _is_key(leaf):
            return jax.random.wrap_key_data(bring(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jnp.asarray(_on_host(leaf))

    return jax.tree.map(bring, tree)


def bring_back(tree: Any, mesh: Mesh | None) -> Any:
    """Return ``bring_home`` of arrays that are divided among processes; what one process sees stays where it is."""
    return bring_home(tree, mesh) if _is_shared(mesh) else tree


def get(tree: Any) -> Any:
    """Return ``jax.device_get`` of arrays that may be divided among processes: all of them in each process."""
    return jax.device_get(tree) if jax.process_count() == 1 else jax.tree.map(_on_host, tree)


def _on_host(leaf: Any) -> np.ndarray:
    """All of an array; over several processes, to be called by each of them for the same arrays in the same order."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _is_shared(mesh: Mesh | None) -> bool:
    return mesh is not None and len({device.process_index for device in mesh.devices.flat}) > 1


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
