"""Paths between structures: across the faces of a cell, around atoms in the way, and of atoms that change places."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms

from mlipjax.notices import Notice
from mlipjax.probes import initial_path
from mlipjax.relaxation.path import arc_length, exchanged_atoms, idpp, resampled, unwrapped
from mlipjax.system import System


def test_unwrapped_paths_and_their_lengths():
    system = System.from_ase(
        Atoms("Cu2", [[0.2, 0, 0], [2, 2, 2]], cell=[[4, 0, 0], [1, 4, 0], [0, 0, 9]], pbc=[1, 1, 0])
    )
    wrapped = dataclasses.replace(system, positions=system.positions + np.array([[3.7, 0, 0], [0, 0, -8.0]]))
    path = unwrapped([system, wrapped])
    np.testing.assert_allclose(path[1] - path[0], [[-0.3, 0, 0], [0, 0, -8.0]], atol=1e-12)
    assert arc_length(path)[-1] == pytest.approx(np.hypot(0.3, 8.0))
    np.testing.assert_allclose(np.diff(arc_length(resampled(path, 6))), np.hypot(0.3, 8.0) / 5)


def test_idpp_keeps_atoms_apart_where_a_straight_line_does_not():
    # an atom goes around another one that sits on the straight line
    ends = [System.from_ase(Atoms("Cu2", [[x, 0.1, 0], [0, 0, 0]])) for x in (-2.0, 2.0)]
    straight = initial_path(ends, 7, "linear")
    curved = idpp(straight, ends[0])
    distance = lambda path: np.linalg.norm(path[:, 0] - path[:, 1], axis=1)  # noqa: E731
    assert distance(straight).min() < 0.2
    np.testing.assert_allclose(distance(curved), 2.0, atol=0.05)
    np.testing.assert_array_equal(curved[[0, -1]], straight[[0, -1]])


def test_idpp_leaves_fixed_atoms_on_the_straight_path():
    first, last = (System.from_ase(Atoms("Cu3", [[0, 0, 0], [4, 0, 0], [x, 0.4, 0]])) for x in (1.6, 2.4))
    held = initial_path([first, last], 5, free=np.array([False, False, True]))
    np.testing.assert_array_equal(held[:, :2], np.broadcast_to(first.positions[:2], (5, 2, 3)))
    assert np.abs(initial_path([first, last], 5)[2, :2] - first.positions[:2]).max() > 1e-4


def row(*places, numbers=None, cell=20.0):
    positions = np.array([[x, 1.0, 1.0] for x in places])
    return System(positions, np.array(numbers or [14] * len(places)), cell * np.eye(3), (True,) * 3)


def test_atoms_that_change_places_are_named():
    """Across a face of the cell too; atoms that move up in a row, or into a hole, exchange nothing."""
    first = row(1.0, 4.0, 19.0)
    with pytest.warns(Notice, match="Si 0 to the place of Si 1, Si 1 to the place of Si 0"):
        initial_path([first, row(4.0, 1.0, 19.0)], 5, "linear")
    assert exchanged_atoms(unwrapped([first, row(-1.0, 4.0, 21.0)]), first) == [(0, 2), (2, 0)]
    ring = exchanged_atoms(unwrapped([first, row(4.0, 19.0, 1.0)]), first)
    assert ring == [(0, 1), (1, 2), (2, 0)]
    assert exchanged_atoms(unwrapped([first, row(4.0, 7.0, 19.0)]), first) == []
    assert exchanged_atoms(unwrapped([first, row(1.2, 4.1, 19.0)]), first) == []
    others = row(1.0, 4.0, 19.0, numbers=[14, 6, 14])
    assert exchanged_atoms(unwrapped([others, row(4.0, 1.0, 19.0, numbers=[14, 6, 14])]), others) == []
