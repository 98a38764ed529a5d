"""The type checker of jaxtyping's import hook in tests: shapes and dtypes of arrays, and nothing else.

Annotations of other types are pyright's work. An array may be JAX's or numpy's: what is compiled takes both.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, BeartypeStrategy, beartype

_check = beartype(conf=BeartypeConf(strategy=BeartypeStrategy.O1))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function so that it checks the arrays that it is called with, if its annotations name any."""
    if function.__name__ == "__init__":  # of a dataclass: JAX also fills pytrees with shapes, axes and None
        return function
    annotations = {name: of_arrays(annotation) for name, annotation in function.__annotations__.items()}
    if all(annotation is Any for annotation in annotations.values()):
        return function
    function.__annotations__ = annotations
    return _check(function)


def of_arrays(annotation: Any) -> Any:
    """Shapes and dtypes of an annotation: the same with ``Any`` for all that is no array of a known shape."""
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return annotation.dtype[Any, annotation.dim_str]
    parts = [of_arrays(part) for part in typing.get_args(annotation)]
    origin = typing.get_origin(annotation)
    if all(part is Any or part is type(None) or part is Ellipsis for part in parts):
        return Any
    if origin in (typing.Union, types.UnionType):
        return Any if Any in parts else functools.reduce(operator.or_, parts)
    return tuple[tuple(parts)] if origin is tuple else Any
