"""ASE calculators of other programs by a short name: ``ase:chgnet``, ``ase:mace/medium-mpa-0``.

Each is the program's own calculator as its authors set it up, on the device they choose. It needs their package, which
this one does not depend on. CHGNet and SevenNet bring weights in their packages; the others download them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class UnknownPackageError(ValueError):
    """No program is called so, or its package is not installed."""


class Package(NamedTuple):
    """A program with an ASE calculator.

    Attributes:
        install: its name on the package index.
        model: the published model that is taken unless another one is named.
        make: of the name of a model, gives the calculator.
    """

    install: str
    model: str
    make: Callable[[str], Any]


def _of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _orb(model: str) -> Any:
    # the default precision of its matrix products is below float32
    weights = _of("orb_models.forcefield.pretrained", model)(precision="float32-highest")
    return _of("orb_models.forcefield.calculator", "ORBCalculator")(weights)


def _chgnet(model: str) -> Any:
    weights = _of("chgnet.model.model", "CHGNet").load(model_name=model, verbose=False)
    return _of("chgnet.model.dynamics", "CHGNetCalculator")(weights)


def _mattersim(model: str) -> Any:
    return _of("mattersim.forcefield", "MatterSimCalculator").from_checkpoint(model)


PACKAGES = {
    "chgnet": Package("chgnet", "0.3.0", _chgnet),
    "mace": Package(
        "mace-torch", "medium-mpa-0", lambda m: _of("mace.calculators", "mace_mp")(model=m, default_dtype="float64")
    ),
    "mattersim": Package("mattersim", "MatterSim-v1.0.0-1M.pth", _mattersim),
    "orb": Package("orb-models", "orb_v3_conservative_inf_omat", _orb),
    "sevenn": Package("sevenn", "7net-0", lambda m: _of("sevenn.calculator", "SevenNetCalculator")(m)),
    "upet": Package("upet", "pet-mad-s", lambda m: _of("upet.calculator", "UPETCalculator")(m)),
}
"""By their short names."""


def published_calculator(name: str) -> Any:
    """Return the calculator of ``NAME`` or ``NAME/MODEL``.

    Args:
        name: one of ``PACKAGES``, and which of its models.

    Raises:
        UnknownPackageError: if no program is called so here, or its package is not installed.
        Exception: whatever the program raises.
    """
    short, _, model = name.partition("/")
    if short not in PACKAGES:
        raise UnknownPackageError(
            f"no program is called {short!r} here; known: {', '.join(PACKAGES)}, or give module:function."
        )
    package = PACKAGES[short]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # results go to stdout, what a program says of itself does not
            return package.make(model or package.model)
    except ModuleNotFoundError as error:
        raise UnknownPackageError(
            f"{short} needs the module {error.name}; pip install {package.install}, in an environment that holds "
            "both, and check that JAX is as it was."
        ) from None
