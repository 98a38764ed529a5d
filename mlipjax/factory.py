"""Functions that users name as ``module:function``: how anything from outside this package is made."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from mlipjax.packages import UnknownPackageError, published_calculator


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
