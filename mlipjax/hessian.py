"""Second derivatives of the energy: the whole matrix, or its product with a vector.

A product ``H v`` is the derivative of the gradient along ``v``: one forward-mode pass over the reverse pass that gives
forces, whatever the number of atoms.
"""

from __future__ import annotations

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

    Differentiable with respect to parameters and probe: ``w . H v`` is the derivative of the energy along ``v`` and
    ``w``, so that its gradient is one reverse pass over two forward-mode passes. That stores half of what a reverse
    pass over the product does, or less.

    Args:
        potential: its dispersion, if it has one, is left out.
        params: parameters.
        graph: structures.
        probe: (N, 3) displacements; those of padding atoms count for nothing.

    Returns:
        eV/Å^2 times the unit of the probe, zero for padding atoms.
    """
    return _product(potential, params, graph, jnp.where(graph.atom_mask[:, None], probe, 0.0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(potential: Potential, params: Params, graph: GraphBatch, probe: Array) -> Array:
    def gradient(positions: Array) -> Array:
        return jax.grad(lambda r: jnp.sum(potential.node_energy(params, graph, r)[0]))(positions)

    return jax.jvp(gradient, (graph.positions,), (probe,))[1]


def _forward(potential, params, graph, probe):
    return _product(potential, params, graph, probe), (params, graph, probe)


def _backward(potential, residuals, cotangent):
    params, graph, probe = residuals

    def along_both(params: Params, probe: Array) -> Array:
        def along_one(positions: Array) -> Array:
            def energy(positions: Array) -> Array:
                return jnp.sum(potential.node_energy(params, graph, positions)[0])

            return jax.jvp(energy, (positions,), (cotangent,))[1]

        return jax.jvp(along_one, (graph.positions,), (probe,))[1]

    to_params, to_probe = jax.grad(along_both, argnums=(0, 1))(params, probe)
    return to_params, None, to_probe


_product.defvjp(_forward, _backward)


hessian_products = jax.jit(hessian_product, static_argnums=0)
"""``hessian_product``, compiled."""
