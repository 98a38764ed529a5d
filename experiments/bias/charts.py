"""Gaps of a model or a data set: maps of the frames, and Q per element of one arm's chart on the others."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from experiments.bias.models import Experiment, Trained
from experiments.lab.charts import Chart, mean_features, principal_map
from mlipjax.data import Dataset
from mlipjax.monitoring.soap import band, element_means, elements_of, fit_vectors, soap_vectors
from mlipjax.representation import node_features


@dataclasses.dataclass(frozen=True)
class Watch:
    """Charts of a model's own training frames in its own features: what one would watch that model with.

    Attributes:
        model: the model.
        chart: of its training frames.
        unit: by element, mean Q of frames that the arm held out: new to the chart, made in the same way.
    """

    model: Trained
    chart: Chart
    unit: dict[int, float]

    @classmethod
    def fit(cls, model: Trained, train: Dataset, held_out: Dataset) -> Watch:
        """Fit to training frames, and find the unit on held-out ones."""
        chart = Chart.fit(node_features(model.model, train.systems), train.systems)
        new = chart.read(node_features(model.model, held_out.systems), held_out.systems)
        return cls(model, chart, {z: float(np.mean(q)) for z, q in new.items()})

    def read(self, systems: Any) -> dict[int, np.ndarray]:
        """Mean Q of each element in each frame, (n,) in the unit of the chart."""
        means = self.chart.read(node_features(self.model.model, systems), systems)
        return {z: q / self.unit[z] for z, q in means.items()}


def _by_symbol(means: dict[int, np.ndarray]) -> dict[str, list[float]]:
    return {chemical_symbols[z]: q.tolist() for z, q in means.items()}


def _others(experiment: Experiment, name: str) -> Iterator[tuple[str, str, Any]]:
    """Arms with what a model of one of them never saw: what that arm held out, all frames of the others."""
    for other, arm in experiment.arms.items():
        if other == name:
            yield other, f"{other}: {arm.held_out}", arm.test.systems
        else:
            yield other, f"{other}: all", (arm.train + arm.test).systems


def cross_q(experiment: Experiment, watches: dict[str, Watch]) -> dict[str, Any]:
    """Mean Q per element and frame of each arm's model on what it held out and on all frames of the other arms."""
    return {
        name: {label: _by_symbol(watch.read(systems)) for _, label, systems in _others(experiment, name)}
        for name, watch in watches.items()
    }


def test_q(experiment: Experiment, watch: Watch) -> dict[str, list[float]]:
    """Q of every test frame: mean over its atoms, each in the unit of its element."""
    result = {}
    for name, data in experiment.tests.items():
        q, numbers = watch.read(data.systems), np.asarray(data.systems[0].atomic_numbers)
        weights = np.array([np.sum(numbers == z) for z in q], float)
        result[name] = (np.stack(list(q.values()), 1) @ weights / weights.sum()).tolist()
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
        for other, label, systems in _others(experiment, name):
            own = vectors[other][n if other == name else 0 :]
            result[name]["q"][label] = _by_symbol(element_means([chart.q_of(vector) for vector in own], systems))
        own = element_means([chart.q_of(known) for known in vectors[name][:n]], arm.train.systems)
        result[name]["band"] = {chemical_symbols[z]: band(q) for z, q in own.items()}
    return result


Features = dict[str, np.ndarray]
"""Features (M, F) of all atoms of all frames of each arm, training frames first."""


def start_features(experiment: Experiment, model: Trained) -> Features:
    """The start model's features of all published frames."""
    return {name: node_features(model.model, (arm.train + arm.test).systems) for name, arm in experiment.arms.items()}


def sets_q(experiment: Experiment, features: Features) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Distance of each arm's frames outside the others' data, in the features of one model: the start model.

    ``result[chart][frames][element]``: charts are fitted to equally many training frames of each arm; Q is in squared
    feature units, the same for all charts.
    """
    systems = {name: (arm.train + arm.test).systems for name, arm in experiment.arms.items()}
    charts = {name: Chart.fit(features[name], systems[name], experiment.common) for name in systems}
    return {
        name: {other: _by_symbol(chart.read(features[other], systems[other])) for other in systems if other != name}
        for name, chart in charts.items()
    }


def feature_maps(experiment: Experiment, features: Features) -> dict[str, Any]:
    """PCA of all frames in the start model's last features (mean per element, side by side), and set separation.

    The separation is the silhouette score of the arms as labels, on standardised features in the original space
    (0: arms are alike, 1: they do not overlap), for each pair of arms. The difference of two sets is the distance of
    their means along each component, in standard deviations of all frames.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import StandardScaler

    systems = {name: (arm.train + arm.test).systems for name, arm in experiment.arms.items()}
    frames = {name: mean_features(features[name], systems[name]) for name in systems}
    standard = StandardScaler().fit_transform(np.concatenate(list(frames.values())))
    labels = np.concatenate([np.full(len(values), name) for name, values in frames.items()])
    scores, explained = principal_map(frames)
    width = np.std(np.concatenate(list(scores.values())), axis=0)
    separation, difference = {}, {}
    for first, second in itertools.combinations(frames, 2):
        chosen = (labels == first) | (labels == second)
        separation[f"{first} / {second}"] = float(silhouette_score(standard[chosen], labels[chosen]))
        shift = (scores[second].mean(axis=0) - scores[first].mean(axis=0)) / width
        difference[f"{first} / {second}"] = shift.tolist()
    return {
        "pca": {name: values.tolist() for name, values in scores.items()},
        "explained": explained,
        "silhouette": separation,
        "difference": difference,
    }
