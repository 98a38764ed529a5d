import numpy as np
import pytest
from tiny_potential import tiny_potential

from mlipjax.data import Dataset, Example
from mlipjax.data.splits import is_isolated, set_apart
from mlipjax.system import Labels, System
from mlipjax.train.references import set_isolated

BOX = 12.0 * np.eye(3)


def atom(z=1, cell=BOX, pbc=(True, True, True)):
    return System(np.zeros((1, 3)), np.array([z]), cell, pbc)


@pytest.mark.parametrize("name", ["IsolatedAtom", "isolated_atom", "Isolated atoms", "isolated-atom"])
def test_an_atom_that_is_said_to_be_alone_is(name):
    assert is_isolated(atom(cell=5.0 * np.eye(3)), {"config_type": name})


def test_an_atom_without_neighbours_is_alone_and_a_primitive_cell_is_not():
    assert is_isolated(atom(), {})
    assert is_isolated(atom(cell=np.zeros((3, 3)), pbc=(False,) * 3), {})
    assert not is_isolated(atom(cell=3.0 * np.eye(3)), {})
    assert not is_isolated(atom(cell=np.diag([3.0, 20.0, 20.0])), {"config_type": "chain"})
    pair = System(np.array([[0.0, 0, 0], [0, 0, 1.0]]), np.array([1, 1]), BOX)
    assert not is_isolated(pair, {"config_type": "IsolatedAtom"})


def isolated(*energies):
    pair = Example(System(np.array([[0.0, 0, 0], [0, 0, 1.0]]), np.array([1, 8]), BOX), Labels.create(2, -9.0), {})
    lone = [Example(atom(z), Labels.create(1, energy), {}) for z, energy in energies]
    return set_apart(Dataset.from_examples([lone[0], pair, *lone[1:]]))


def test_isolated_atoms_leave_the_set_and_give_energies():
    found = isolated((1, -1.5), (8, -2.5), (1, -1.5))
    assert len(found.rest) == 1
    assert found.indices == (0, 2, 3)
    assert found.energies == {1: -1.5, 8: -2.5}
    potential = set_isolated(tiny_potential(), found.energies, found.rest.elements)
    assert potential.reference_energy(np.array([1, 8, 8])) == pytest.approx(-1.5 - 2 * 2.5)
    assert isolated((1, None)).energies == {}


def test_two_energies_of_one_element_and_missing_ones_are_refused():
    with pytest.raises(ValueError, match=r"of H have the energies -1\.5 and -1\.2 eV \(structure 2\)"):
        isolated((1, -1.5), (1, -1.2))
    with pytest.raises(ValueError, match=r'no isolated atom with an energy of O.*e0s="estimate"'):
        set_isolated(tiny_potential(), {1: -1.0}, (1, 8))
