"""Bounds of every number in a potential's configuration, and of the arrays that belong to it.

A configuration comes from a file that anyone may have written, and decides how much is built: it is checked here,
before anything is. The bounds lie well beyond what is published; whoever needs more raises them in this table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from mlipjax.nn import irreps as ir
from mlipjax.nn.readouts import PropertyHead
from mlipjax.nn.symmetric_contraction import MAX_CORRELATION
from mlipjax.reading import shown
from mlipjax.typing import Params

MAX_PARAMETERS = 100_000_000
"""Most numbers in a model."""
MAX_PARAMETER = 1e8
"""Largest absolute value of one: a flipped bit in an exponent gives 1e30."""
MAX_ENERGY = 1e8
"""Largest absolute isolated-atom energy, eV: all electrons of the heaviest element have 1.5e6."""
MAX_HEAVIEST = 118
MAX_CHANNELS = 4096
"""Most copies of one irrep."""
MAX_DEGREE = 6
"""Highest degree of features."""
_HEADS = 64
MAX_PATHS = 1000
"""Most products of an irrep with a harmonic in all layers of a network: each takes milliseconds to build."""
MAX_COUPLINGS = 4096
"""Most products of components of the messages of an atom, (lmax + 1)^(2 correlation): 3 factors up to degree 3."""


class Bound(NamedTuple):
    """Smallest and largest value of a number, or of each of several; ``most`` is how many there may be."""

    low: float
    high: float
    integer: bool = False
    most: int = 1
    unit: str = ""

    def __str__(self) -> str:
        kind = "a whole number" if self.integer else "a number"
        several = "" if self.most == 1 else f", or at most {self.most} of them,"
        unit = f" {self.unit}" if self.unit else ""
        return f"{kind}{several} between {self.low:g} and {self.high:g}{unit}"


BOUNDS = {
    "cutoff": Bound(0.1, 25.0, unit="Å"),
    "lmax": Bound(0, MAX_DEGREE, integer=True),
    "n_layers": Bound(1, 32, integer=True),
    "radial_basis_size": Bound(1, 256, integer=True),
    "radial_hidden": Bound(1, 4096, integer=True, most=16),
    "radial_gain": Bound(1e-6, 1e6),
    "envelope_p": Bound(1.0, 64.0),
    "envelope_onset": Bound(0.0, 25.0, unit="Å"),
    "avg_n_neighbors": Bound(1e-6, 1e6),
    "scale": Bound(-1e6, 1e6, most=MAX_HEAVIEST, unit="eV"),
    "shift": Bound(-MAX_ENERGY, MAX_ENERGY, most=MAX_HEAVIEST, unit="eV"),
    "correlation": Bound(1, MAX_CORRELATION, integer=True, most=8),
    "bessel_frequencies": Bound(-1e6, 1e6, most=256, unit="1/Å"),
    "activation_gain": Bound(-1e3, 1e3),
    "gate_gain": Bound(-1e3, 1e3),
    "transform_constants": Bound(-1e6, 1e6, most=3),
    "zbl_constants": Bound(-1e6, 1e6, most=2),
    "zbl_envelope_p": Bound(1.0, 64.0),
    "embedding": Bound(0, MAX_CHANNELS, integer=True),
    "readout_hidden": Bound(1, 4096, integer=True),
    "readout_channels": Bound(0, 4096, integer=True),
    "n_labels": Bound(0, _HEADS, integer=True),
}
"""Numbers of ``NequIPConfig`` and ``MACEConfig``, by the name of their field."""

_EITHER = ("scale", "shift")
"""One number or several; all other numbers are what ``Bound.most`` says."""
_FLAGS = (
    "layer_norm", "per_species_skip", "zbl", "parity", "trainable_frequencies", "solid_harmonics", "edge_irreps_first",
    "product_per_species", "readout_biases", "last_readout_only",
)  # fmt: skip


def check_config(values: Mapping[str, Any]) -> None:
    """Refuse a configuration with a number that no potential has.

    Args:
        values: fields of a configuration by name; those without a bound are left alone.

    Raises:
        ValueError: naming the first field that is wrong, what was found and what is expected.
    """
    for name, bound in BOUNDS.items():
        if name in values:
            _check_numbers(name, values[name], bound)
    for name in _FLAGS:
        if not isinstance(values.get(name, True), bool):
            raise ValueError(f"{name} must be true or false, found {shown(values[name])}")
    species, heads = values["species"], values["heads"]
    _check_numbers("species", species, Bound(1, MAX_HEAVIEST, integer=True, most=MAX_HEAVIEST))
    if not species or list(species) != sorted(set(species)):
        raise ValueError(f"species must be ascending atomic numbers without repeats, found {shown(species)}")
    if not isinstance(heads, tuple) or not 0 < len(heads) <= _HEADS or not all(map(_is_name, heads)):
        raise ValueError(f"heads must be 1 to {_HEADS} short names, found {shown(heads)}")
    if len(set(heads)) < len(heads):
        raise ValueError(f"two heads have one name: {shown(heads)}")
    _check_irreps("hidden_irreps", values["hidden_irreps"])
    if values.get("edge_irreps", "") != "":
        _check_irreps("edge_irreps", values["edge_irreps"])


def _check_irreps(name: str, text: Any) -> None:
    if not isinstance(text, str) or len(text) > 1000:
        raise ValueError(f"{name} must be short text such as '64x0e + 32x1o', found {shown(text)}")
    for irrep in ir.parse(text):
        if irrep.mul > MAX_CHANNELS or irrep.l > MAX_DEGREE:
            raise ValueError(f"{name} has {irrep}; at most {MAX_CHANNELS} copies and degree {MAX_DEGREE} are possible")


def check_layers(n_layers: object) -> None:
    """Refuse a number of layers that no network has, before anything is done for each of them.

    Raises:
        ValueError: saying what it may be.
    """
    _check_numbers("n_layers", n_layers, BOUNDS["n_layers"])


def check_work(n_layers: int, hidden: ir.Irreps, lmax: int, parity: bool) -> None:
    """Refuse a network that would take more than seconds to build.

    Args:
        n_layers, hidden, lmax: layers, their irreps, highest degree of the harmonics.
        parity: whether parity forbids products.

    Raises:
        ValueError: saying how many products it has.
    """
    paths = n_layers * len(ir.tensor_product_paths(hidden, lmax, hidden, parity))
    if paths > MAX_PATHS:
        raise ValueError(
            f"{n_layers} layers of {len(hidden)} irreps and harmonics up to degree {lmax} make {paths} products; at "
            f"most {MAX_PATHS} are possible"
        )


def check_size(template: Params) -> None:
    """Refuse a model with too many parameters, before one of them is in memory.

    Args:
        template: tree of ``jax.ShapeDtypeStruct``.

    Raises:
        ValueError: if there are more than ``MAX_PARAMETERS``.
    """
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(template))
    if count > MAX_PARAMETERS:
        raise ValueError(f"its configuration asks for {count} parameters; at most {MAX_PARAMETERS} are possible")


def check_energies(e0s: np.ndarray) -> None:
    """Refuse isolated-atom energies that are not finite, or larger than those of any atom.

    Raises:
        ValueError: saying which.
    """
    if not np.isfinite(e0s).all() or np.abs(e0s).max(initial=0.0) > MAX_ENERGY:
        raise ValueError(
            f"e0s must be finite energies of at most {MAX_ENERGY:g} eV, found {shown(e0s.ravel().tolist())}"
        )


def check_property(head: PropertyHead) -> None:
    """Refuse a property head with numbers that no property has.

    Raises:
        ValueError: naming the first field that is wrong.
    """
    scale = Bound(-1e12, 1e12)
    for name, bound in (("hidden", BOUNDS["radial_hidden"]), ("mean", scale), ("std", scale)):
        _check_numbers(name, getattr(head, name), bound)
    if not _is_name(head.name) or not isinstance(head.unit, str) or len(head.unit) > 200:
        raise ValueError(f"name and unit of a property are short, found {shown(head.name)} and {shown(head.unit)}")


def find_broken(leaves: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """Return the path of the first array that can be no parameter, and what is wrong with it; ``None`` if none is."""
    for path, leaf in leaves.items():
        if not np.issubdtype(leaf.dtype, np.floating):
            return path, f"is {leaf.dtype}, not floating-point numbers"
        if not (finite := np.isfinite(leaf)).all():
            return path, "is NaN" if np.isnan(leaf).any() else f"is infinite in {np.sum(~finite)} places"
        if np.abs(leaf).max(initial=0.0) > MAX_PARAMETER:
            return path, f"has a value of {np.abs(leaf).max():.3g}, beyond {MAX_PARAMETER:g}"
    return None


def _check_numbers(name: str, value: Any, bound: Bound) -> None:
    several = isinstance(value, tuple)
    if (name not in _EITHER and several != (bound.most > 1)) or (several and len(value) > bound.most):
        raise ValueError(f"{name} must be {bound}, found {shown(value)}")
    for number in value if several else (value,):
        right = isinstance(number, Integral if bound.integer else Real) and not isinstance(number, bool)
        # NaN is in no interval; a whole number of hundreds of digits is no float
        if not right or not bound.low <= cast(float, number) <= bound.high:
            raise ValueError(f"{name} must be {bound}, found {shown(number)}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and "/" not in value
