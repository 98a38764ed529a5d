"""What a model or a data set does not know: maps of the frames, and Q per element of one arm's chart on the others."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from experiments.bias.models import Experiment, Model
from mlipjax.data import Dataset
from mlipjax.monitoring import COMPONENTS, MonitorState, fit_charts, frame_features, q_residual
from mlipjax.monitoring.soap import band, element_means, elements_of, fit_vectors, soap_vectors

_fit = jax.jit(fit_charts, static_argnums=(3, 4))
_q = jax.jit(q_residual)


@dataclasses.dataclass(frozen=True)
class Chart:
    """Charts of a model's own training frames in its own features: what one would watch that model with.

    Attributes:
        model: the model.
        state: one chart per element.
        elements: atomic numbers, ascending.
        unit: by element, mean Q of frames that the arm held out: new to the chart, made in the same way.
    """

    model: Model
    state: MonitorState
    elements: tuple[int, ...]
    unit: dict[int, float]

    @classmethod
    def fit(cls, experiment: Experiment, model: Model, train: Dataset, held_out: Dataset) -> Chart:
        """Fit to training frames, and find the unit on held-out ones."""
        values, numbers = _atoms(experiment, model, train.systems)
        elements = tuple(int(z) for z in np.unique(numbers))
        rows = np.searchsorted(elements, numbers)
        state = _fit(values, rows, np.ones(len(rows), values.dtype), len(elements), COMPONENTS)
        plain = cls(model, state, elements, dict.fromkeys(elements, 1.0))
        unit = {z: float(np.mean(q)) for z, q in plain.read(experiment, held_out.systems).items()}
        return dataclasses.replace(plain, unit=unit)

    def read(self, experiment: Experiment, systems: Any) -> dict[int, np.ndarray]:
        """Mean Q of each element in each frame, (n,) in the unit of the chart."""
        values, numbers = _atoms(experiment, self.model, systems)
        rows = jnp.asarray(np.searchsorted(self.elements, numbers))
        q = np.asarray(_q(self.state, values, rows), np.float64)
        ends = np.cumsum([system.n_atoms for system in systems])[:-1]
        means = element_means(np.split(q, ends), systems)
        return {z: means[z] / self.unit[z] for z in self.elements}


def _atoms(experiment: Experiment, model: Model, systems: Any) -> tuple[np.ndarray, np.ndarray]:
    # models differ in parameters only: with the start model's network, nothing is compiled twice
    same = len(model.potential.heads) == len(experiment.potential.heads)
    network = experiment.potential if same else model.potential
    values, numbers, _ = frame_features(network, model.params, list(systems)).atoms()
    return values, numbers


def cross_q(experiment: Experiment, charts: dict[str, Chart]) -> dict[str, Any]:
    """Mean Q per element and frame of each arm's model on what it held out and on all frames of the other arms."""
    result: dict[str, Any] = {}
    for name, chart in charts.items():
        result[name] = {}
        for other, arm in experiment.arms.items():
            data = arm.test if other == name else arm.train + arm.test
            label = f"{other}: {arm.held_out}" if other == name else f"{other}: all"
            means = chart.read(experiment, data.systems)
            result[name][label] = {chemical_symbols[z]: q.tolist() for z, q in means.items()}
    return result


def test_q(experiment: Experiment, chart: Chart) -> dict[str, list[float]]:
    """Q of every test frame: mean over its atoms, each in the unit of its element."""
    result = {}
    for name, data in experiment.tests.items():
        counts = {z: np.sum(np.asarray(data.systems[0].atomic_numbers) == z) for z in chart.elements}
        q = chart.read(experiment, data.systems)
        weights = np.array([counts[z] for z in chart.elements], float)
        result[name] = (np.stack([q[z] for z in chart.elements], 1) @ weights / weights.sum()).tolist()
    return result


def soap_q(experiment: Experiment) -> dict[str, Any] | None:
    """The paper's own chart: SOAP of each arm's training frames, Q per element of all arms, with its band.

    ``None`` without dscribe.
    """
    if find_spec("dscribe") is None:
        return None
    every = [(arm.train + arm.test).systems for arm in experiment.arms.values()]
    species = elements_of([system for systems in every for system in systems])
    # a third of a second a frame: once each
    vectors = {name: soap_vectors(systems, species) for name, systems in zip(experiment.arms, every, strict=True)}
    result: dict[str, Any] = {}
    for name, arm in experiment.arms.items():
        n = len(arm.train)
        chart = fit_vectors(vectors[name][:n], species)
        result[name] = {"explained": chart.explained, "n_atoms": chart.n_atoms, "q": {}}
        for other, found in experiment.arms.items():
            first = n if other == name else 0
            systems = (found.train + found.test).systems[first:]
            means = element_means([chart.q_of(own) for own in vectors[other][first:]], systems)
            label = f"{other}: {found.held_out}" if other == name else f"{other}: all"
            result[name]["q"][label] = {chemical_symbols[z]: q.tolist() for z, q in means.items()}
        own = element_means([chart.q_of(known) for known in vectors[name][:n]], arm.train.systems)
        result[name]["band"] = {chemical_symbols[z]: band(q) for z, q in own.items()}
    return result


Features = dict[str, tuple[np.ndarray, np.ndarray]]
"""Features (M, F) and atomic numbers (M,) of all atoms of all frames of each arm, training frames first."""


def start_features(experiment: Experiment, model: Model) -> Features:
    """The start model's features of all published frames."""
    return {name: _atoms(experiment, model, (arm.train + arm.test).systems) for name, arm in experiment.arms.items()}


def sets_q(experiment: Experiment, features: Features) -> dict[str, dict[str, dict[str, list[float]]]]:
    """How far the frames of each arm lie outside the others' data, in the features of one model: the start model.

    ``result[chart][frames][element]``: charts are fitted to equally many training frames of each arm; Q is in squared
    feature units, the same for all charts.
    """
    result: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, arm in experiment.arms.items():
        values, numbers = features[name]
        elements = tuple(int(z) for z in np.unique(numbers))
        rows = np.searchsorted(elements, numbers)
        n = sum(system.n_atoms for system in arm.train.systems[: experiment.common])
        known = (np.arange(len(rows)) < n).astype(values.dtype)
        state = _fit(values, rows, known, len(elements), COMPONENTS)
        result[name] = {}
        for other, found in experiment.arms.items():
            if other != name:
                systems = (found.train + found.test).systems
                values_there, numbers_there = features[other]
                q = np.asarray(_q(state, values_there, np.searchsorted(elements, numbers_there)), np.float64)
                ends = np.cumsum([system.n_atoms for system in systems])[:-1]
                means = element_means(np.split(q, ends), systems)
                result[name][other] = {chemical_symbols[z]: means[z].tolist() for z in elements}
    return result


def feature_maps(experiment: Experiment, features: Features) -> dict[str, Any]:
    """PCA of all frames in the start model's last features (mean per element, side by side), and set separation.

    The separation is the silhouette score of the arms as labels, on standardised features in the original space
    (0: arms are alike, 1: they do not overlap), for each pair of arms. The difference of two sets is the distance of
    their means along each component, in standard deviations of all frames.
    """
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import StandardScaler

    frames = {name: _frame_means(*features[name], arm.train + arm.test) for name, arm in experiment.arms.items()}
    everything = np.concatenate(list(frames.values()))
    pca = PCA(2).fit(everything)
    standard = StandardScaler().fit_transform(everything)
    labels = np.concatenate([np.full(len(values), name) for name, values in frames.items()])
    scores = {name: pca.transform(values) for name, values in frames.items()}
    width = np.std(pca.transform(everything), axis=0)
    separation, difference = {}, {}
    for i, first in enumerate(frames):
        for second in list(frames)[i + 1 :]:
            chosen = (labels == first) | (labels == second)
            separation[f"{first} / {second}"] = float(silhouette_score(standard[chosen], labels[chosen]))
            shift = (scores[second].mean(axis=0) - scores[first].mean(axis=0)) / width
            difference[f"{first} / {second}"] = shift.tolist()
    return {
        "pca": {name: values.tolist() for name, values in scores.items()},
        "explained": pca.explained_variance_ratio_.tolist(),
        "silhouette": separation,
        "difference": difference,
    }


def _frame_means(values: np.ndarray, numbers: np.ndarray, data: Dataset) -> np.ndarray:
    ends = np.cumsum([system.n_atoms for system in data.systems])[:-1]
    return np.stack([
        np.concatenate([own[z == element].mean(axis=0) for element in data.elements])
        for own, z in zip(np.split(values.astype(np.float64), ends), np.split(numbers, ends), strict=True)
    ])  # fmt: skip
