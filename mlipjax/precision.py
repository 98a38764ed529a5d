"""Precision of products: float32 in full, unless a faster one is asked for by name.

GPUs and TPUs multiply float32 matrices in fewer bits by default (TF32 keeps 10 bits of each factor, bfloat16 7).
Positions, cells and strains never bear that, so the functions that multiply them are ``exact``. A network bears it to
some degree: its products have the precision of its ``Potential``. Both are scopes of tracing, which JAX keeps apart by
thread and program; a product keeps its precision through differentiation, batching and lowering.

Errors of forces (meV/Å, rms and largest) and of the energy (meV/atom) against float64, for 170 atoms of a molten salt,
the factors of the network's products rounded as a device rounds them::

                                                nequix-mp-1                    universal
    highest                               0.009    0.04    0.0001       0.008    0.04    0.0001
    high on TPUs: three bfloat16          0.012    0.07    0.001        0.012    0.06    0.004
    high, default on GPUs: TF32           0.64     2.6     0.23         0.91     3.2     0.06
    default on TPUs: bfloat16             4.6     16.9     1.4          5.6     19.4     2.2

With positions and cells rounded too, TF32 errs by 10 and bfloat16 by 121 meV/Å (nequix-mp-1, 197 atoms).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import jax

from mlipjax.defaults import Precision

P = ParamSpec("P")
R = TypeVar("R")


def products_in(precision: Precision) -> AbstractContextManager[Any]:
    """Scope in which products that name no precision of their own are traced with this one."""
    return jax.default_matmul_precision(precision)


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function multiply float32 numbers in full on every backend."""

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with products_in("highest"):
            return function(*args, **kwargs)

    return traced
