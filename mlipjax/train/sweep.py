"""Many training runs as one compiled program: whole train states mapped over settings, and sharded over devices.

A setting differs from another in numbers only, never in shapes: learning rate, layer-wise decay and factors of the
parameter groups are traced (``optim.Hyper``), a frozen layer is a group with factor 0, a seed is an order of batches.
So all settings share one program::

    settings = grid(seeds, rates, decays, frozen)                   # S of them
    run = one_run(potential, optimizer, loss)                       # steps of one setting, pure
    program = over_settings(lambda mapped, batches: run(*mapped, batches), width)
    states, losses = program((states, orders, hypers), batches)     # T steps each

Inside, ``width`` settings at a time go through ``jax.vmap``, and chunks of that width one after the other
(``jax.lax.map``). The best width depends on the machine. An accelerator wants as many as fit. On a CPU the network's
blocks of atoms are sized for the cache (``nn.convolution``), and a block of W settings is W times as large; parameters
differ between settings, so they cannot be folded into one batch as replicas of one model are in MD. Width 1 then is a
loop inside one program, which costs what separate runs cost and compiles once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.devices import SHARE, WHOLE, device_count, device_mesh, over_devices, put
from mlipjax.losses import Loss, LossWeights
from mlipjax.optim import Hyper, Optimizer, make_strategy
from mlipjax.optim.groups import Rules
from mlipjax.potential import Potential
from mlipjax.statistics import confidence_95, draw_rows
from mlipjax.train.state import Batch, TrainState
from mlipjax.train.step import train_step
from mlipjax.typing import Array, Params


class Setting(NamedTuple):
    """One run of a sweep.

    Attributes:
        seed: order of the batches.
        learning_rate: peak of the schedule.
        decay: ratio of the learning rates of neighbouring layers.
        frozen: layers from the bottom that stay as they are.
    """

    seed: int
    learning_rate: float
    decay: float
    frozen: int


def grid(seeds: Sequence[int], rates: Sequence[float], decays: Sequence[float], frozen: Sequence[int]) -> list[Setting]:
    """All combinations, seeds varying fastest."""
    choices = itertools.product(rates, decays, frozen, seeds)
    return [Setting(seed, rate, decay, depth) for rate, decay, depth, seed in choices]


def layer_rules(params: Params) -> Rules:
    """Parameter groups that every setting uses: the readout, and one for each layer with a power of the decay."""
    return make_strategy("llrd", params, layer_decay=1.0).rules


def hyper_of(setting: Setting, rules: Rules, weights: LossWeights, dtype: Any = np.float32) -> Hyper:
    """Numbers of a run as arrays, so that they can be stacked.

    Raises:
        ValueError: for more frozen layers than there are.
    """
    layers = [f"layer_{index}/.*" for index in range(setting.frozen)]
    patterns = [pattern for pattern, _ in rules]
    if missing := [pattern for pattern in layers if pattern not in patterns]:
        raise ValueError(f"{setting.frozen} frozen layers are too many: the model has no {missing[0].split('/')[0]}.")
    # embeddings lie below the first layer
    still = [*layers, *(["embedding.*"] if layers else [])]
    scales = [0.0 if pattern in still or group is None else group.scale for pattern, group in rules]
    hyper = Hyper(setting.learning_rate, setting.decay, jnp.asarray(scales), weights)
    return jax.tree.map(lambda number: jnp.asarray(number, dtype), hyper)


def batch_orders(setting: Setting, n_batches: int, epochs: int) -> np.ndarray:
    """Batch of every step, (epochs, n_batches): a function of seed and epoch alone."""
    return np.stack([np.random.default_rng([setting.seed, e]).permutation(n_batches) for e in range(epochs)])


def stack(trees: Sequence[Any]) -> Any:
    """Join equal trees along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def one_run(
    potential: Potential, optimizer: Optimizer, loss: Loss
) -> Callable[[TrainState, Array, Hyper, Batch], tuple[TrainState, Array]]:
    """Return ``(state, order, hyper, batches) -> (state, losses)``: the steps of one setting.

    ``order`` (T,) says which of the stacked ``batches`` each step takes. A step whose loss is not finite changes
    nothing and leaves NaN or infinity in ``losses`` (T,).
    """
    step = train_step(potential, optimizer, loss)

    def run(state: TrainState, order: Array, hyper: Hyper, batches: Batch) -> tuple[TrainState, Array]:
        def body(state: TrainState, index: Array) -> tuple[TrainState, Array]:
            state, info = step(state, jax.tree.map(lambda x: x[index], batches), hyper)
            return state, jnp.where(info.finite, info.loss, jnp.nan)

        return jax.lax.scan(body, state, order)

    return run


def over_settings(function: Callable[..., Any], width: int, devices: Sequence[Any] | None = None) -> Callable[..., Any]:
    """Map ``function(mapped, shared)`` over the leading axis of ``mapped``, compiled.

    Args:
        function: of one setting's arguments and what all settings share; pure.
        width: settings that go through ``vmap`` together on one device.
        devices: the settings are divided evenly among them; by default all there are.

    Returns:
        ``(mapped, shared) -> results`` for any number of settings: the last one is repeated to fill up.
    """
    mesh = device_mesh(devices=devices)

    def local(mapped: Any, shared: Any) -> Any:
        def one(arguments: Any) -> Any:
            return function(arguments, shared)

        # without a batch size lax.map does not vmap at all: products of matrices stay plain ones
        return jax.lax.map(one, mapped) if width == 1 else jax.lax.map(one, mapped, batch_size=width)

    compiled = jax.jit(over_devices(local, mesh, (SHARE, WHOLE), SHARE))

    def call(mapped: Any, shared: Any) -> Any:
        n = len(jax.tree.leaves(mapped)[0])
        rest = -n % (width * device_count(mesh))
        if rest == 0:
            return compiled(put(mapped, mesh, SHARE), shared)
        padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], rest, axis=0)]), mapped)
        return jax.tree.map(lambda x: x[:n], compiled(put(padded, mesh, SHARE), shared))

    return call


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of every setting on one data set, in meV.

    Attributes:
        energy: (S, n) per atom, of each structure.
        force_squares, force_absolutes: (S, n) summed over the atoms and components of each structure.
        components: (n,) force components of each structure.
    """

    energy: np.ndarray
    force_squares: np.ndarray
    force_absolutes: np.ndarray
    components: np.ndarray

    def summary(self, setting: int) -> dict[str, Any]:
        """Force RMSE and MAE (meV/Å), energy RMSE and offset-free std (meV/atom), 95 % intervals over structures."""
        n = len(self.components)
        values, spread = self._values(setting, np.arange(n)[None]), self._values(setting, draw_rows(n))
        result: dict[str, Any] = {name: float(value[0]) for name, value in values.items()}
        result["confidence_95"] = {name: confidence_95(value) for name, value in spread.items()}
        return result | {"n_frames": n}

    def _values(self, setting: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        count, energy = self.components[rows].sum(axis=1), self.energy[setting][rows]
        return {
            "force_rmse_meV_per_A": np.sqrt(self.force_squares[setting][rows].sum(axis=1) / count),
            "force_mae_meV_per_A": self.force_absolutes[setting][rows].sum(axis=1) / count,
            "energy_rmse_meV_per_atom": np.sqrt((energy**2).mean(axis=1)),
            "energy_std_meV_per_atom": energy.std(axis=1),
        }


def error_sums(potential: Potential) -> Callable[[Params, Batch], tuple[Array, Array, Array]]:
    """Return ``(params, batches) -> (energy, squares, absolutes)``, each (B, G) for B stacked batches, in eV."""

    def one(params: Params, batch: Batch) -> tuple[Array, Array, Array]:
        graph, labels = batch.graph, batch.labels
        prediction = potential.apply(params, graph, stress=False)
        energy = (prediction.energy - labels.energy) / jnp.maximum(graph.n_atoms, 1)
        difference = jnp.where(graph.atom_mask[:, None], prediction.forces - labels.forces, 0.0)
        moments = jnp.stack([jnp.sum(difference**2, axis=1), jnp.sum(jnp.abs(difference), axis=1)], axis=1)
        sums = jax.ops.segment_sum(moments, graph.graph_index, graph.cells.shape[0], indices_are_sorted=True)
        return energy, sums[:, 0], sums[:, 1]

    return lambda params, batches: jax.lax.map(lambda batch: one(params, batch), batches)


def collect_errors(sums: tuple[Array, Array, Array], batches: Batch) -> Errors:
    """Bring what ``error_sums`` mapped over settings returned, (S, B, G), to the host, in meV."""
    keep = np.asarray(batches.graph.graph_mask).ravel()
    energy, squares, absolutes = (np.asarray(x, np.float64).reshape(len(x), -1)[:, keep] for x in sums)
    components = 3.0 * np.asarray(batches.graph.n_atoms).ravel()[keep]
    return Errors(1e3 * energy, 1e6 * squares, 1e3 * absolutes, components)
