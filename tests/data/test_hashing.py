import numpy as np
import pytest
from ase.build import bulk, molecule

from mlipjax.data import Dataset, canonical_hash, find_duplicates, structure_hash
from mlipjax.system import Labels, System


def crystal(seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.64) * (2, 2, 1)
    atoms.rattle(0.05, seed=seed)
    return System.from_ase(atoms)


def reordered(system, order):
    return system.replace(positions=system.positions[order], atomic_numbers=system.atomic_numbers[order])


def test_the_exact_hash_sees_everything_that_labels_depend_on():
    system = crystal()
    order = np.arange(system.n_atoms)[::-1]
    variants = [
        system,
        reordered(system, order),
        system.replace(positions=system.positions + 1e-6),
        system.replace(cell=system.cell * (1 + 1e-6)),
        system.replace(atomic_numbers=system.atomic_numbers + 1),
        system.replace(pbc=(True, True, False)),
    ]
    assert len({structure_hash(variant) for variant in variants}) == len(variants)
    assert structure_hash(crystal()) == structure_hash(system)
    assert structure_hash(system.replace(positions=system.positions + 1e-12)) == structure_hash(system)


def test_the_exact_hash_does_not_see_the_sign_of_zero():
    system = crystal().replace(positions=np.zeros((8, 3)))
    assert structure_hash(system) == structure_hash(system.replace(positions=-system.positions))


@pytest.mark.parametrize("seed", range(5))
def test_the_canonical_hash_ignores_order_and_images(seed):
    rng = np.random.default_rng(seed)
    system = crystal(seed)
    images = system.positions + rng.integers(-2, 3, (system.n_atoms, 3)) @ system.cell
    same = reordered(system.replace(positions=images), rng.permutation(system.n_atoms))
    assert canonical_hash(same) == canonical_hash(system)
    moved = system.positions.copy()
    moved[3, 1] += 2e-3
    assert canonical_hash(system.replace(positions=moved)) != canonical_hash(system)


def test_the_canonical_hash_of_open_directions_and_molecules():
    slab = crystal().replace(pbc=(True, True, False))
    lifted = slab.replace(positions=slab.positions + slab.cell[2])
    assert canonical_hash(lifted) != canonical_hash(slab)
    water = System.from_ase(molecule("H2O"))
    assert canonical_hash(reordered(water, [2, 1, 0])) == canonical_hash(water)
    assert canonical_hash(water.replace(positions=water.positions * 1.01)) != canonical_hash(water)


def test_duplicates_across_data_sets():
    def dataset(seeds):
        systems = tuple(crystal(seed) for seed in seeds)
        return Dataset(systems, tuple(Labels.create(s.n_atoms, 0.0) for s in systems), ({},) * len(systems))

    found = find_duplicates({"train": dataset([0, 1, 2, 2]), "test": dataset([3, 1]), "valid": dataset([4, 2])})
    assert found == [(("train", 1), ("test", 1)), (("train", 2), ("valid", 1))]
