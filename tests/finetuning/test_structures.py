import itertools

import numpy as np
import pytest

from mlipjax.finetuning.structures import element_structures

ELEMENTS = (1, 8, 11, 29)


def test_every_element_occurs_in_a_crystal_and_every_pair_occurs():
    systems = element_structures(ELEMENTS, 60, seed=3)
    crystals = {int(s.atomic_numbers[0]) for s in systems if all(s.pbc) and len(set(s.atomic_numbers)) == 1}
    pairs = {tuple(sorted(map(int, s.atomic_numbers))) for s in systems if not any(s.pbc) and s.n_atoms == 2}
    assert crystals == set(ELEMENTS)
    assert pairs == set(itertools.combinations_with_replacement(ELEMENTS, 2))
    molecules = [s for s in systems if not any(s.pbc) and s.n_atoms > 2]
    assert molecules
    assert {int(z) for s in systems for z in s.atomic_numbers} == set(ELEMENTS)
    assert max(s.n_atoms for s in systems) <= 32


def test_the_set_is_a_function_of_the_seed_and_grows_at_its_end():
    first = element_structures(ELEMENTS, 8, seed=1)
    longer, other = element_structures(ELEMENTS, 12, seed=1), element_structures(ELEMENTS, 8, seed=2)
    for a, b in zip(first, longer, strict=False):
        np.testing.assert_array_equal(a.positions, b.positions)
    assert any(
        a.n_atoms != b.n_atoms or not np.array_equal(a.positions, b.positions)
        for a, b in zip(first, other, strict=True)
    )


def test_pairs_reach_from_the_wall_to_where_bonds_break():
    systems = element_structures((29,), 90)
    distances = [np.linalg.norm(np.diff(s.positions, axis=0)) for s in systems if not any(s.pbc)]
    bond = 2 * 1.32
    assert min(distances) < 0.9 * bond < 1.8 * bond < max(distances)


def test_one_element_or_none():
    assert len(element_structures((18,), 5)) == 5
    with pytest.raises(ValueError, match="at least one element"):
        element_structures((), 5)
