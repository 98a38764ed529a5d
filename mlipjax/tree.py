"""Parameters by name: paths such as ``layer_0/radial/kernel``, and ordered regex rules that give them values.

Everything that treats parameters unequally (learning rates, freezing, weight decay, importers) goes through
paths, as in big_vision's optimiser: groups are data, a list of ``(regex, value)`` rules, never code.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.files import digest
from mlipjax.typing import Params

T = TypeVar("T")

EVERYTHING = ".*"
"""The one pattern that may go unused, as the last rule: "whatever is left"."""


def flatten_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"a/b/c": leaf}`` of a nested mapping, in the order of ``jax.tree.leaves``.

    Raises:
        ValueError: if a name is not a string, is empty or holds a ``/``, which would make paths ambiguous.
    """
    flat: dict[str, Any] = {}
    for name in params:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"parameter name {name!r} is not usable; names are non-empty strings without '/'.")
    for name in sorted(params):
        value = params[name]
        if isinstance(value, Mapping):
            flat.update({f"{name}/{rest}": leaf for rest, leaf in flatten_paths(value).items()})
        else:
            flat[name] = value
    return flat


def unflatten_paths(flat: Mapping[str, T]) -> dict[str, Any]:
    """Inverse of ``flatten_paths`` (a mapping without any leaf has no path and is not restored).

    Raises:
        ValueError: if one path is the parent of another, for instance ``a`` and ``a/b``.
    """
    nested: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = nested
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ValueError(f"path {path!r} goes through a leaf; a name is a leaf or a group.")
        if last in node:
            raise ValueError(f"path {path!r} is both a leaf and a group.")
        node[last] = leaf
    return nested


def match_paths(paths: Iterable[str], rules: Sequence[tuple[str, T]]) -> dict[str, T]:
    """Give every path the value of the first rule whose pattern matches the *whole* path (``re.fullmatch``).

    ``fullmatch`` rather than ``search``: ``readout`` then never takes ``layer_0/readout_gate`` by accident;
    write ``readout/.*`` for a group. Values may be anything, ``None`` (frozen) included.

    Raises:
        ValueError: if a path matches no rule, a pattern is not a regex, or a rule takes no path (misspelt, or
            hidden behind an earlier rule). Only a last rule ``.*`` may go unused.
    """
    paths = list(paths)
    compiled = [(_compile(pattern), value) for pattern, value in rules]
    used: set[int] = set()
    values: dict[str, T] = {}
    unmatched: list[str] = []
    for path in paths:
        for index, (pattern, value) in enumerate(compiled):
            if pattern.fullmatch(path):
                values[path] = value
                used.add(index)
                break
        else:
            unmatched.append(path)
    if unmatched:
        patterns = [pattern for pattern, _ in rules]
        raise ValueError(f"no rule matches {_some(unmatched)}; rules: {patterns}. Add a rule, or end with '.*'.")
    for index, (pattern, _) in enumerate(rules):
        if index not in used and not (pattern == EVERYTHING and index == len(rules) - 1):
            hidden = any(re.fullmatch(pattern, path) for path in paths)
            why = "earlier rules take all it matches" if hidden else f"parameters are {_some(paths)}"
            raise ValueError(f"rule {pattern!r} takes no parameter: {why}. A pattern covers whole paths.")
    return values


def cast(params: Params, dtype: Any) -> Any:
    """Return ``params`` with floating-point leaves in ``dtype``; integers and booleans stay as they are.

    Raises:
        ValueError: if JAX would silently give another dtype (float64 without ``jax_enable_x64``).
    """
    dtype = jnp.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"{dtype.name} needs 64-bit mode; call mlipjax.runtime.enable_x64() first.")

    def convert(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(convert, params)


def count(params: Params) -> int:
    """Return the number of scalars in a tree."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(params))


def params_fingerprint(params: Params) -> str:
    """Hash of a model's parameters, the same in float32 and float64 if they hold the same numbers."""
    flat = sorted(flatten_paths(params).items())
    leaves = ((path, np.ascontiguousarray(leaf, np.float64)) for path, leaf in flat)
    named = ((f"{path} {leaf.shape}", leaf) for path, leaf in leaves)
    return digest(*itertools.chain.from_iterable(named))[:16]


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"rule {pattern!r} is not a regular expression: {error}.") from None


def _some(names: Sequence[str]) -> str:
    limit = 5
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
