import json

import numpy as np
import pytest
from tiny_potential import random_system, tiny_potential

from mlipjax.data import Dataset
from mlipjax.system import Labels
from mlipjax.train import StructurePrediction, estimate_e0s, read_e0s, set_e0s, shift_e0s

SHIFTS = {1: 2.5, 6: -117.0, 8: 0.75}


def shifted(compositions, noise=0.0, seed=0):
    """Predictions, and labels that differ from them by SHIFTS per element plus noise per atom."""
    rng = np.random.default_rng(seed)
    systems, labels, predictions = [], [], []
    for counts in compositions:
        numbers = np.repeat(np.array([1, 6, 8], np.int32), counts)
        system = random_system(rng, len(numbers)).replace(atomic_numbers=numbers)
        energy = rng.normal()
        shift = sum(SHIFTS[int(z)] for z in numbers) + noise * len(numbers) * rng.normal()
        systems.append(system)
        labels.append(Labels.create(len(numbers), energy + shift))
        predictions.append(StructurePrediction(energy, np.zeros((len(numbers), 3)), np.zeros((3, 3))))
    return Dataset(tuple(systems), tuple(labels), ({},) * len(systems)), predictions


def test_planted_shifts_are_recovered():
    estimate = estimate_e0s(*shifted([(4, 1, 0), (2, 0, 1), (6, 2, 1), (2, 2, 2)]))
    assert (estimate.rank, estimate.n_elements, estimate.n_structures) == (3, 3, 4)
    assert estimate.shifts == pytest.approx(SHIFTS)
    assert estimate.residual < 1e-10 < 1.0 < estimate.before


def test_residual_is_what_shifts_cannot_explain():
    rng = np.random.default_rng(1)
    estimate = estimate_e0s(*shifted(rng.integers(1, 6, (300, 3)), noise=0.02))
    assert estimate.residual == pytest.approx(0.02, rel=0.15)
    assert estimate.shifts == pytest.approx(SHIFTS, abs=0.05)


def test_equal_compositions_leave_shifts_open_and_the_smallest_are_taken():
    dataset, predictions = shifted([(4, 1, 1), (8, 2, 2), (4, 1, 1)])
    estimate = estimate_e0s(dataset, predictions)
    assert (estimate.rank, estimate.n_elements) == (1, 3)
    assert estimate.residual < 1e-10
    shifts = np.array([estimate.shifts[z] for z in (1, 6, 8)])
    fractions = np.array([4, 1, 1]) / 6
    np.testing.assert_allclose(shifts, fractions * (fractions @ list(SHIFTS.values())) / (fractions @ fractions))


def test_compositions_that_hardly_differ_do_not_blow_up():
    """One atom in 2000 differs and energies scatter by 10 meV/atom: solving for it would give shifts of 10 eV."""
    dataset, predictions = shifted([(1000, 500, 500), (1001, 499, 500), (1000, 500, 500)], noise=0.01)
    estimate = estimate_e0s(dataset, predictions)
    assert estimate.rank == 1
    assert max(map(abs, estimate.shifts.values())) < 60.0
    assert estimate.residual < 0.06  # the difference of 120 eV between H and C over 2000 atoms


def test_structures_without_energy_do_not_count():
    dataset, predictions = shifted([(4, 1, 0), (2, 0, 1), (6, 2, 1), (2, 2, 2)])
    unlabelled = Dataset(dataset.systems[:1], (Labels.create(5),), ({},))
    estimate = estimate_e0s(unlabelled + dataset, [predictions[0], *predictions])
    assert estimate.shifts == pytest.approx(SHIFTS)
    with pytest.raises(ValueError, match="no structure has an energy"):
        estimate_e0s(unlabelled, predictions[:1])


def test_shifting_moves_total_energies_by_the_planted_amount():
    potential = tiny_potential()
    moved = shift_e0s(potential, SHIFTS)
    numbers = np.array([1, 1, 8, 6])
    expected = potential.reference_energy(numbers) + 2 * SHIFTS[1] + SHIFTS[8] + SHIFTS[6]
    assert moved.reference_energy(numbers) == pytest.approx(expected)
    assert potential.e0s[0, 0] == -1.0


def test_file_replaces_what_it_names(tmp_path):
    path = tmp_path / "e0s.json"
    path.write_text(json.dumps({"comment": "by whom", "H": -1.5, "O": -2, "Fe": -3.0}))
    potential = set_e0s(tiny_potential(), read_e0s(path), required=(1, 8))
    np.testing.assert_array_equal(potential.e0s, [[-1.5, -30.0, -2.0]])
    with pytest.raises(ValueError, match="missing for C"):
        set_e0s(potential, read_e0s(path), required=(1, 6))
    with pytest.raises(ValueError, match="does not know Fe"):
        set_e0s(potential, read_e0s(path), required=(26,))


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[1, 2]", '{"Xy": 1.0}', '{"H": "a"}', '{"H": NaN}', '{"H": true}', '{"X": 0}', "{}", '{"H": [1.0]}'),
        *('{"H": Infinity}', '{"H": 1e300}', '{"H": 1' + "0" * 400 + "}", "[" * 100_000, "", '{"comment": "none"}'),
    ],
)
def test_bad_files_are_named(tmp_path, content):
    path = tmp_path / "e0s.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"e0s\.json") as error:
        read_e0s(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    with pytest.raises(ValueError, match="no such file"):
        read_e0s(tmp_path / "absent.json")
