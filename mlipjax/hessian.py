"""Second derivatives of the energy: the whole matrix, or its product with a vector.

A product ``H v`` is the derivative of the gradient along ``v``: one forward-mode pass over the reverse pass that gives
forces, whatever the number of atoms.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential
from mlipjax.precision import exact
from mlipjax.typing import Array, Params


@functools.partial(jax.jit, static_argnums=0)
@exact
def second_derivatives(potential: Potential, params: Params, graph: GraphBatch) -> tuple[Array, Array]:
    """Gradient (N, 3) in eV/Å and Hessian (3 N, 3 N) in eV/Å^2 of the energy: its derivative along each coordinate."""

    def gradient(positions: Array) -> Array:
        return jax.grad(lambda r: jnp.sum(potential.node_energy(params, graph, r)[0]))(positions)

    size = graph.positions.size

    def column(index: Array) -> Array:
        direction = jnp.zeros(size, graph.positions.dtype).at[index].set(1.0).reshape(graph.positions.shape)
        return jax.jvp(gradient, (graph.positions,), (direction,))[1].ravel()

    # few at once, for memory
    columns = jax.lax.map(column, jnp.arange(size), batch_size=min(16, size))
    return gradient(graph.positions), columns


def hessian_product(potential: Potential, params: Params, graph: GraphBatch, probe: Array) -> Array:
    """Product (N, 3) of the Hessian of each structure's energy with a probe, at fixed cells.

    Differentiable: ``w . H v`` is the derivative of the energy along ``v`` and ``w``, so that its gradient is one
    reverse pass over two forward-mode passes. That stores half of what a reverse pass over the product does, or less.

    Args:
        potential: its dispersion, if it has one, is left out.
        params: parameters.
        graph: structures.
        probe: (N, 3) displacements; those of padding atoms count for nothing.

    Returns:
        eV/Å^2 times the unit of the probe, zero for padding atoms.
    """
    probe = jnp.where(graph.atom_mask[:, None], probe, 0.0)
    return _product(potential, params, graph.positions, graph.cells, probe, graph)


def _energy(potential: Potential, params: Params, positions: Array, cells: Array, graph: GraphBatch) -> Array:
    return jnp.sum(potential.node_energy(params, dataclasses.replace(graph, cells=cells), positions)[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(
    potential: Potential, params: Params, positions: Array, cells: Array, probe: Array, graph: GraphBatch
) -> Array:
    gradient = jax.grad(lambda r: _energy(potential, params, r, cells, graph))
    return jax.jvp(gradient, (positions,), (probe,))[1]


def _forward(potential, *arguments):
    return _product(potential, *arguments), arguments


def _backward(potential, residuals, cotangent):
    *arguments, graph = residuals

    def along_both(params: Params, positions: Array, cells: Array, probe: Array) -> Array:
        def along_one(positions: Array) -> Array:
            return jax.jvp(lambda r: _energy(potential, params, r, cells, graph), (positions,), (cotangent,))[1]

        return jax.jvp(along_one, (positions,), (probe,))[1]

    return *jax.grad(along_both, argnums=(0, 1, 2, 3))(*arguments), None


_product.defvjp(_forward, _backward)  # pyright: ignore[reportFunctionMemberAccess]


hessian_products = jax.jit(hessian_product, static_argnums=0)
"""``hessian_product``, compiled."""
