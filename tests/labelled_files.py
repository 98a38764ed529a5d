"""A model of one layer, and structures labelled by another one like it: what a fine-tune is tested with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk

from mlipjax.data import Dataset, Example
from mlipjax.models import NequIPConfig, nequip
from mlipjax.potential import Model
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, predict

CONFIG = NequIPConfig(
    species=(3, 9, 11, 17),
    cutoff=4.0,
    hidden_irreps="4x0e + 2x1o",
    lmax=1,
    n_layers=1,
    radial_basis_size=4,
    radial_hidden=(8,),
    avg_n_neighbors=12.0,
    scale=150.0,  # freshly drawn parameters then give forces of some eV/Å
)
E0S = np.array([-1.0, -4.0, -2.0, -3.0])


@functools.cache
def model():
    """In single precision."""
    potential = nequip(CONFIG, E0S)
    return Model(potential, potential.init(jax.random.key(1), jnp.float32))


def rock_salts(n, seed=0):
    """Rattled, strained LiF, LiCl, NaF and NaCl, eight atoms each: interatomic distances as they should be."""
    rng = np.random.default_rng(seed)
    systems = []
    for index in range(n):
        name, constant = (("LiF", 4.0), ("LiCl", 5.1), ("NaF", 4.6), ("NaCl", 5.6))[index % 4]
        atoms = bulk(name, "rocksalt", a=constant * rng.uniform(0.95, 1.05), cubic=True)
        random = rng.uniform(-0.03, 0.03, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random + random.T), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(8, 3))
        systems.append(System.from_ase(atoms))
    return systems


def labelled(systems, params=None, noise=0.1, seed=0, **info):
    """Label structures with the model itself, but for ``noise``, so that errors are those of a good model.

    Returns a ``Dataset``; ``info`` values that are callable take the index.
    """
    potential, own = model()
    params = own if params is None else params
    rng = np.random.default_rng(seed)
    bare = Dataset.from_examples(Example(system, Labels.create(system.n_atoms), {}) for system in systems)
    batches = LabelledBatches.create(potential, bare, 4)
    examples = []
    for index, (system, found) in enumerate(zip(systems, predict(model()[0], params, batches), strict=True)):
        kick = rng.normal(size=found.forces.shape) * noise * np.sqrt(np.mean(found.forces**2))
        forces = found.forces + kick - kick.mean(axis=0)
        energy = found.energy + rng.normal() * 1e-3 * system.n_atoms
        values = {key: value(index) if callable(value) else value for key, value in info.items()}
        examples.append(Example(system, Labels.create(system.n_atoms, energy, forces, found.stress), values))
    return Dataset.from_examples(examples)


def other_material(params, size=0.3, seed=5):
    """Parameters somewhat away from ``params``: what the labels of a fine-tune follow."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf * (1.0 + size * rng.normal(size=leaf.shape).astype(leaf.dtype)), params)


def changed(dataset, index, **labels):
    """A copy of a data set; labels (or ``system``) of one structure, or all (``None``), go through functions."""
    system = labels.pop("system", lambda old: old)
    examples = []
    for row, example in enumerate(dataset):
        if index is None or row == index:
            new = {name: change(getattr(example.labels, name)) for name, change in labels.items()}
            example = example._replace(system=system(example.system), labels=example.labels.replace(**new))
        examples.append(example)
    return Dataset.from_examples(examples)
