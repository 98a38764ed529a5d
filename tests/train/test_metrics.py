import dataclasses

import numpy as np
import pytest
from tiny_potential import random_system

from mlipjax.data import Dataset
from mlipjax.system import Labels
from mlipjax.train import StructurePrediction, error_report, error_summary

KEYS = (
    "energy_mean_meV_per_atom",
    "energy_std_meV_per_atom",
    "energy_rmse_meV_per_atom",
    "energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "force_rmse_meV_per_A",
    "force_slope",
    "stress_mae_meV_per_A3",
)


def planted(n=40, seed=0, slope=0.8, offset=0.05, noise=0.01):
    """Structures with labels, and predictions with a known softening, energy offset and noise."""
    rng = np.random.default_rng(seed)
    systems, labels, predictions = [], [], []
    for _ in range(n):
        system = random_system(rng, int(rng.integers(3, 9)))
        n_atoms = system.n_atoms
        forces, stress = rng.normal(size=(n_atoms, 3)), rng.normal(size=(3, 3)) * 1e-3
        labels.append(Labels.create(n_atoms, rng.normal(), forces, stress))
        energy = float(labels[-1].energy) + n_atoms * (offset + noise * rng.normal())
        predictions.append(StructurePrediction(energy, slope * forces + noise * rng.normal(size=forces.shape), stress))
        systems.append(system)
    return Dataset(tuple(systems), tuple(labels), ({},) * n), predictions


def test_numbers_equal_plain_numpy():
    dataset, predictions = planted()
    report = error_report(dataset, predictions)
    n_atoms = np.array([system.n_atoms for system in dataset.systems])
    energy = 1e3 * (np.array([p.energy for p in predictions]) - [label.energy for label in dataset.labels]) / n_atoms
    found, reference = (
        np.concatenate(rows) for rows in ([p.forces for p in predictions], [l.forces for l in dataset.labels])
    )
    numbers = np.concatenate([system.atomic_numbers for system in dataset.systems])

    def forces(rows):
        error = 1e3 * (found - reference)[rows]
        slope = np.linalg.lstsq(reference[rows].reshape(-1, 1), found[rows].ravel())[0][0]
        return np.abs(error).mean(), np.sqrt((error**2).mean()), slope

    expected = [
        energy.mean(),
        energy.std(),
        np.sqrt((energy**2).mean()),
        np.abs(energy).mean(),
        *forces(slice(None)),
        0.0,
    ]
    np.testing.assert_allclose([report[key] for key in KEYS], expected, rtol=1e-12)
    assert report["n_frames"] == report["n_energies"] == 40
    assert set(report["per_element"]) == {"H", "C", "O"}
    for symbol, z in (("H", 1), ("C", 6), ("O", 8)):
        row = report["per_element"][symbol]
        np.testing.assert_allclose([row[key] for key in KEYS[4:7]], forces(numbers == z), rtol=1e-12)
        assert row["n_atoms"] == np.sum(numbers == z)
    norm = 1e3 * np.linalg.norm(reference, axis=1).mean()
    assert report["force_reference_mean_norm_meV_per_A"] == pytest.approx(norm)
    assert error_summary(dataset, predictions) == {key: report[key] for key in KEYS}


def test_bootstrap_intervals_cover_the_truth():
    """Of intervals for the offset, planted at 50 meV/atom, 95 % should cover it: 60 draws, 3 misses expected."""
    misses, widths = 0, []
    for seed in range(60):
        interval = error_report(*planted(n=30, seed=seed))["confidence_95"]["energy_mean_meV_per_atom"]
        misses += not interval[0] < 50.0 < interval[1]
        widths.append(interval[1] - interval[0])
    assert misses <= 9
    np.testing.assert_allclose(np.mean(widths), 2 * 1.96 * 10.0 / np.sqrt(30), rtol=0.1)


def test_missing_labels_are_left_out():
    dataset, predictions = planted(4)
    labels = list(dataset.labels)
    labels[1] = Labels.create(dataset.systems[1].n_atoms, energy=0.0)
    labels[2] = Labels.create(dataset.systems[2].n_atoms, forces=dataset.labels[2].forces)
    report = error_report(dataclasses.replace(dataset, labels=tuple(labels)), predictions)
    assert (report["n_energies"], report["n_force_frames"], report["n_stresses"]) == (3, 3, 2)
    kept = dataset.subset([0, 2, 3])
    expected = error_report(kept, [predictions[i] for i in (0, 2, 3)])
    assert report["force_mae_meV_per_A"] == pytest.approx(expected["force_mae_meV_per_A"])


def test_nothing_labelled_is_none_and_one_structure_has_no_interval():
    dataset, predictions = planted(1)
    report = error_report(dataset, predictions)
    assert report["energy_mae_meV_per_atom"] == pytest.approx(abs(report["energy_mean_meV_per_atom"]))
    assert set(report["confidence_95"].values()) == {None}
    empty = dataclasses.replace(dataset, labels=(Labels.create(dataset.systems[0].n_atoms),))
    report = error_report(empty, predictions)
    assert all(report[key] is None for key in KEYS)


def test_counts_must_match():
    dataset, predictions = planted(3)
    with pytest.raises(ValueError, match="2 predictions for 3 structures"):
        error_report(dataset, predictions[:2])


def test_structures_with_a_slope_of_their_own_are_listed_and_change_nothing_else():
    dataset, predictions = planted()
    plain = error_report(dataset, predictions)
    assert plain["force_slope_apart"] == []
    assert plain["force_slope_bulk"] == plain["force_slope"]
    labels = list(dataset.labels)
    for index in (3, 11):  # forces of two structures twenty times as large, and underestimated much more
        labels[index] = dataclasses.replace(labels[index], forces=20.0 * np.asarray(labels[index].forces))
        wild = 0.3 * np.asarray(labels[index].forces)
        predictions[index] = StructurePrediction(predictions[index].energy, wild, predictions[index].stress)
    found = error_report(dataclasses.replace(dataset, labels=tuple(labels)), predictions)
    assert found["force_slope_apart"] == [3, 11]
    assert found["force_slope_bulk"] == pytest.approx(0.8, abs=0.005)
    assert found["force_slope"] < 0.35  # what it always was: over all structures
