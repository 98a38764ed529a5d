"""Low-rank adapters on equivariant linear maps (LoRA; Hu et al., ICLR 2022, arXiv 2106.09685).

Every kernel ``W`` (fan_in, fan_out) becomes ``W + alpha / rank · A B`` with ``A`` (fan_in, rank) random and ``B``
(rank, fan_out) zero at the start. A kernel mixes the channels of one irrep only, so whatever is added to it keeps the
network equivariant; kernels per element (n_species, fan_in, fan_out) get adapters per element. This is a
transformation of the parameters outside the network: its code stays as it is, and the merged parameters are those of
the original potential.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mlipjax import tree
from mlipjax.potential import Potential
from mlipjax.precision import exact
from mlipjax.typing import Key, Params

LINEAR = r"layer_\d+/(linear_\w+|skip)/.*"
"""Paths of the kernels of equivariant linear maps; NequIP's first layer's act on the one-hot element."""
RADIAL = r"layer_\d+/radial/kernel_\d+"
"""Paths of the kernels of radial networks, which act on invariants."""

BASE, ADAPTERS = "base", "adapters"


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Choice of the kernels that get adapters, and of their rank.

    Attributes:
        rank: inner dimension of ``A B``; kernels with fewer inputs or outputs take that number.
        alpha: the product is multiplied by ``alpha / rank``; ``None`` for a factor of 1.
        radial: whether the kernels of the radial networks are adapted too.
    """

    rank: int = 16
    alpha: float | None = None
    radial: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.alpha is not None and not self.alpha > 0.0):
            raise ValueError(f"adapters need a rank of at least 1 and alpha > 0, found {self.rank} and {self.alpha}.")

    @property
    def scale(self) -> float:
        """Factor of ``A B``."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def paths(self, params: Params) -> list[str]:
        """Kernels that get adapters.

        Raises:
            ValueError: if there is none, or all of them are so small that the rank is no restriction.
        """
        pattern = re.compile(f"{LINEAR}|{RADIAL}" if self.radial else LINEAR)
        flat = tree.flatten_paths(params)
        found = [path for path in flat if pattern.fullmatch(path)]
        if not found:
            raise ValueError(f"no parameter is an equivariant linear map ({pattern.pattern}): adapters do not fit.")
        largest = max(min(flat[path].shape[-2:]) for path in found)
        if self.rank >= largest:
            raise ValueError(
                f"rank {self.rank} is no restriction: the largest kernel has rank {largest}; choose a smaller rank."
            )
        return found


def add_adapters(params: Params, config: Adapters, key: Key) -> dict[str, Any]:
    """Return ``{"base": params, "adapters": {path: {"a", "b"}}}``, which ``merge_adapters`` maps to ``params``."""
    flat = tree.flatten_paths(params)
    adapters = {}
    for number, path in enumerate(config.paths(params)):
        *leading, fan_in, fan_out = flat[path].shape
        rank = min(config.rank, fan_in, fan_out)
        noise = jax.random.normal(jax.random.fold_in(key, number), (*leading, fan_in, rank), flat[path].dtype)
        # A B then has the variance of B's entries, which is what the learning rate sets
        adapters[f"{path}/a"] = noise * rank**-0.5
        adapters[f"{path}/b"] = jnp.zeros((*leading, rank, fan_out), flat[path].dtype)
    return {BASE: params, ADAPTERS: tree.unflatten_paths(adapters)}


@exact
def merge_adapters(adapted: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Return the parameters that the original potential needs to compute what the adapted one computes."""
    flat = dict(tree.flatten_paths(adapted[BASE]))
    adapters = tree.flatten_paths(adapted[ADAPTERS])
    for path in adapters:
        if path.endswith("/a"):
            kernel = path.removesuffix("/a")
            flat[kernel] = flat[kernel] + scale * (adapters[path] @ adapters[f"{kernel}/b"])
    return tree.unflatten_paths(flat)


@dataclasses.dataclass(frozen=True)
class AdaptedModule:
    """A network whose parameters are those of ``add_adapters``: it merges them and calls the original network."""

    module: Any
    config: Adapters

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """Scalar channels of each layer."""
        return self.module.feature_sizes

    def init(self, key: Key, *inputs: Any) -> dict[str, Any]:
        """Return fresh parameters of the network with adapters."""
        base = self.module.init(key, *inputs)["params"]
        return {"params": add_adapters(base, self.config, key)}

    def apply(self, variables: Mapping[str, Any], *inputs: Any) -> Any:
        """Evaluate the network with merged parameters."""
        return self.module.apply({"params": merge_adapters(variables["params"], self.config.scale)}, *inputs)


def adapt(potential: Potential, params: Params, config: Adapters, key: Key) -> tuple[Potential, dict[str, Any]]:
    """Return the potential and its parameters with adapters; its predictions are the same at first.

    Args:
        potential: to adapt.
        params: its parameters.
        config: which kernels get adapters.
        key: of the random factors.
    """
    return potential.replace(module=AdaptedModule(potential.module, config)), add_adapters(params, config, key)
