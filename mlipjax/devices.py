"""One program over several devices: some arguments divided along their leading axis, the others whole on each device.

Replicas of a simulation, settings of a sweep, structures to predict and micro-batches of a training step do not look at
each other. So every device runs the program of one device on its share (``jax.shard_map``), and nothing is exchanged,
except one sum where the results of the shares add up, as gradients do.

Programs are divided over ``device_mesh()``: all devices of JAX's default kind, unless one was chosen
(``jax.default_device``, ``--device gpu:1``). With a single device there is no mesh, and programs are what they would be
without this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
SHARE = PartitionSpec(AXIS)
"""Divided along the leading axis, evenly."""
WHOLE = PartitionSpec()
"""The same on all devices."""


def device_mesh(parts: int = 0, devices: Sequence[Any] | None = None) -> Mesh | None:
    """Return the devices that a program is divided over; ``None`` for one.

    Args:
        parts: how many equal parts there are to divide, evenly: the number of devices is a divisor. 0: all devices.
        devices: to choose from; by default those of this process of JAX's default kind, or the one that was chosen.
    """
    if devices is None:
        chosen = jax.config.values["jax_default_device"]
        devices = jax.local_devices() if chosen is None or isinstance(chosen, str) else [chosen]
    n = max(k for k in range(1, len(devices) + 1) if parts % k == 0)
    return None if n == 1 else Mesh(np.array(devices[:n]), (AXIS,))


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


def put(tree: Any, mesh: Mesh | None, spec: PartitionSpec) -> Any:
    """Lay arrays onto the devices of a mesh before the first program that needs them there; as they are without one.

    Args:
        tree: arrays, on the host or a device.
        mesh: of devices.
        spec: ``SHARE`` or ``WHOLE``.
    """
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, spec))


def bring_home(tree: Any, mesh: Mesh | None) -> Any:
    """Return arrays that are whole on every device of a mesh as if there had been one device only."""
    if mesh is None:
        return tree

    def bring(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(bring(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jnp.asarray(np.asarray(leaf))

    return jax.tree.map(bring, tree)
