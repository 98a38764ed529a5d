"""Calculators of other programs: by a short name (``chgnet``, ``mace/medium-mpa-0``), or ``module:function`` of a user.

Each of the former is the program's own calculator as its authors set it up, on the device they choose. It needs their
package, which this one does not depend on. CHGNet and SevenNet bring weights in their packages; the others download
them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


def import_factory(name: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names.

    Raises:
        ValueError: the name has another form, the module cannot be imported, or it has no such function.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"expected module:factory, found {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"cannot import {module_name!r} of the factory {name!r}: {error}. It must be installed or lie"
            f" in a folder of PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:  # a module may do anything while it is imported
        raise ValueError(
            f"{module_name!r} of the factory {name!r} fails while it is imported: {_in_words(error)}"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{module_name!r} has no function {attribute!r}")
    return function


def make_calculator(name: str) -> Any:
    """Return the ASE calculator of another program, or the one that a factory of the user's makes.

    Args:
        name: ``chgnet`` or ``mace/medium`` (see ``packages.PACKAGES``), or ``module:function``.

    Raises:
        ValueError: see ``import_factory`` and ``published_calculator``; or it failed, or returned something else.
    """
    factory = import_factory(name) if ":" in name else functools.partial(published_calculator, name)
    try:
        calculator = factory()
    except UnknownPackageError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name}() failed: {_in_words(error)}. A factory takes no argument and returns a calculator"
        ) from error
    if not hasattr(calculator, "get_potential_energy"):
        raise ValueError(f"{name}() returned {type(calculator).__name__}, not an ASE calculator")
    return calculator


def _in_words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


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
