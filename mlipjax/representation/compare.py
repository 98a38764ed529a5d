"""All numbers of the microscope for two or more models on the same atoms or pairs, with intervals.

A comparison takes arrays: it does not know where features come from (``features``, ``edges``), or whether "models" are
different models or the same one at different times of its training. The first one is what the others are compared
with: the pretrained model, or the one before the first step.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from mlipjax.representation.classes import usable
from mlipjax.representation.distance import (
    Components,
    chart_residual,
    components,
    effective_rank,
    linear_cka,
    mean_of_known,
    principal_angles,
    sliced_wasserstein,
    wasserstein_per_channel,
    within_classes,
)
from mlipjax.representation.resample import Estimate, estimate
from mlipjax.representation.separation import Embedding, davies_bouldin, silhouette, standardise, tsne_maps

OnPart = Callable[[str, int, int], None]
"""Called with what is done, how many of its parts are, and their number."""

_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Members:
    """The atoms (or pairs) that features are of.

    Attributes:
        classes: (M,) environment class of each.
        structure: (M,) structure each belongs to.
        elements: (M,) atomic numbers, for charts per element; ``None`` for pairs.
    """

    classes: np.ndarray
    structure: np.ndarray
    elements: np.ndarray | None = None

    def subset(self, chosen: np.ndarray) -> Members:
        """Some members, by mask or index."""
        elements = None if self.elements is None else self.elements[chosen]
        return Members(self.classes[chosen], self.structure[chosen], elements)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Result of a comparison.

    Attributes:
        models: names, the first one is the reference.
        n_members, n_structures: atoms (or pairs) and structures.
        classes: members of each class.
        scores: of each model: name of the number -> estimate.
        drift: of each model but the first, against it.
        maps: t-SNE maps of each model; empty without t-SNE.
        members: what the maps' points are.
    """

    models: tuple[str, ...]
    n_members: int
    n_structures: int
    classes: dict[str, int]
    scores: dict[str, dict[str, Estimate]]
    drift: dict[str, dict[str, Estimate]]
    maps: dict[str, list[Embedding]]
    members: Members

    def summary(self) -> dict[str, Any]:
        """Everything but the maps' points, in JSON types."""
        return {
            "models": list(self.models),
            "n_members": self.n_members,
            "n_structures": self.n_structures,
            "classes": self.classes,
            "scores": {name: _plain(values) for name, values in self.scores.items()},
            "drift": {name: _plain(values) for name, values in self.drift.items()},
            "tsne": {
                name: [{key: value for key, value in one._asdict().items() if key != "coordinates"} for one in maps]
                for name, maps in self.maps.items()
            },
        }


def compare(
    features: Mapping[str, np.ndarray],
    members: Members,
    *,
    n_resamples: int = 100,
    maps: Callable[[np.ndarray, np.ndarray], list[Embedding]] | None = tsne_maps,
    n_components: int = 5,
    seed: int = 0,
    on_part: OnPart | None = None,
) -> Comparison:
    """Compare the features of two or more models; one alone has scores and no drift.

    Numbers that need equal widths are left out where the widths differ.

    Args:
        features: (M, F) by model, the reference first.
        members: what they are features of.
        n_resamples: half-samples of the structures for every interval.
        maps: embeds standardised features (M, F) of classes (M,) in the plane; ``None`` for no maps.
        n_components: of PCA subspaces and charts.
        seed: of resampling and slices.
        on_part: for progress.

    Raises:
        ValueError: for no model, features of another number of atoms, numbers that are not finite, or too few classes.
    """
    if not features:
        raise ValueError("there is no model to compare.")
    features = {name: np.asarray(values) for name, values in features.items()}
    for name, values in features.items():
        if len(values) != len(members.classes):
            raise ValueError(f"{name} has features of {len(values)} members, there are {len(members.classes)}.")
        if not np.isfinite(values).all():
            raise ValueError(f"features of {name} are not finite (NaN or infinity).")
    chosen = usable(members.classes, members.structure)
    members = members.subset(chosen)
    features = {name: values[chosen] for name, values in features.items()}
    reference, *others = features
    statistics = _statistics(features, members, n_components, seed)
    # matrices this small gain nothing from more threads, and lose much where other programs use the cores
    with threadpool_limits(1, user_api="blas"):
        told = _told(statistics, "half-samples for the intervals", 1 + n_resamples, on_part)
        found = estimate(told, members.structure, n=n_resamples, seed=seed)
    names, counts = np.unique(members.classes, return_counts=True)
    embedded = {}
    if maps is not None:
        embed = _told(lambda values: maps(standardise(values), members.classes), "t-SNE maps", len(features), on_part)
        embedded = {name: embed(values) for name, values in features.items()}
    return Comparison(
        models=(reference, *others),
        n_members=len(members.classes),
        n_structures=len(np.unique(members.structure)),
        classes=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        scores={name: _of("score", name, found) for name in features},
        drift={name: _of("drift", name, found) for name in others},
        maps=embedded,
        members=members,
    )


def _told(
    function: Callable[[np.ndarray], _Result], what: str, total: int, on_part: OnPart | None
) -> Callable[[np.ndarray], _Result]:
    """The function, which says after each of its ``total`` calls how many are done."""
    if on_part is None:
        return function
    on_part(what, 0, total)
    count = itertools.count(1)

    def told(values: np.ndarray) -> _Result:
        result = function(values)
        on_part(what, next(count), total)
        return result

    return told


def collapse_marks(drift: Mapping[str, Estimate]) -> tuple[bool, bool]:
    """The two marks of a collapsed representation in the drift of one model, each beyond its 95 % interval.

    The first: classes lie closer together than before, by the Davies-Bouldin index in the original and in the
    standardised space. The second: features vary in fewer directions within classes. One alone is none: finer
    resolution within classes also brings them closer together, and a model may drop directions and keep its classes.
    Without intervals (few structures), or between models of different widths, there are no marks.
    """
    closer = all(drift[f"davies_bouldin_{space}_ratio"].low > 1.0 for space in ("original", "standardised"))
    rank = drift.get("effective_rank_within_ratio")
    return closer, rank is not None and rank.high < 1.0


def _statistics(
    features: Mapping[str, np.ndarray], members: Members, n_components: int, seed: int
) -> Callable[[np.ndarray], dict[Any, float]]:
    """Function of chosen rows: scores of every model, and drift of all but the first."""
    reference, *others = features
    before = features[reference]
    # one scale for all models of equal width, the first one's: a model's own would hide that it has shrunk
    scaled = {
        name: standardise(values, like=before if values.shape == before.shape else None)
        for name, values in features.items()
    }
    own = {name: standardise(values) for name, values in features.items()}
    residuals = {} if members.elements is None else _residuals(features, members.elements, n_components)

    def single(rows: np.ndarray, drawn: dict[str, _Drawn]) -> dict[Any, float]:
        classes, result = members.classes[rows], {}
        for name, values in features.items():
            for space, used in (("original", values), ("standardised", own[name])):
                result["score", name, f"davies_bouldin_{space}"] = davies_bouldin(used[rows], classes)
                result["score", name, f"silhouette_{space}"] = silhouette(used[rows], classes)
            result["score", name, "effective_rank"] = effective_rank(drawn[name].all)
            result["score", name, "effective_rank_within"] = effective_rank(drawn[name].within)
        for name in others:
            keys = ["davies_bouldin_original", "davies_bouldin_standardised"]
            # ranks of models of different widths say how wide they are
            keys += ["effective_rank_within"] * (features[name].shape == before.shape)
            for key in keys:
                ratio = result["score", name, key] / result["score", reference, key]
                result["drift", name, f"{key}_ratio"] = ratio
        return result

    def paired(rows: np.ndarray, drawn: dict[str, _Drawn]) -> dict[Any, float]:
        result = {}
        for name in others:
            a, b = drawn[reference], drawn[name]
            result["drift", name, "cka"] = linear_cka(a.all, b.all)
            result["drift", name, "cka_within"] = linear_cka(a.within, b.within)
            result["drift", name, "angle_atoms_deg"] = _mean(principal_angles(a.all, b.all, n_components, "atoms"))
            if before.shape != features[name].shape:
                continue
            result["drift", name, "angle_channels_deg"] = _mean(principal_angles(a.all, b.all, n_components))
            for space, part in (("", features), ("_standardised", scaled)):
                x, y = part[reference][rows], part[name][rows]
                result["drift", name, f"wasserstein{space}"] = float(wasserstein_per_channel(x, y).mean())
                result["drift", name, f"sliced_wasserstein{space}"] = sliced_wasserstein(x, y, seed=seed)
            if name in residuals:
                result["drift", name, "q_before_under_after"] = mean_of_known(residuals[name][rows])
        return result

    def statistics(rows: np.ndarray) -> dict[Any, float]:
        # each model is decomposed once, however many are compared with it
        drawn = {name: _Drawn.of(values[rows], members.classes[rows]) for name, values in features.items()}
        return single(rows, drawn) | paired(rows, drawn)

    return statistics


class _Drawn(NamedTuple):
    """Components of a model's features of some members, and of what is left of them within classes."""

    all: Components
    within: Components

    @classmethod
    def of(cls, features: np.ndarray, classes: np.ndarray) -> _Drawn:
        return cls(components(features), components(within_classes(features, classes)))


def _residuals(features: Mapping[str, np.ndarray], elements: np.ndarray, n_components: int) -> dict[str, np.ndarray]:
    """Q of the reference's features under the charts of each other model of equal width (charts stay as they are)."""
    reference, *others = features
    before = features[reference]
    return {
        name: chart_residual(features[name], elements, before, elements, n_components)
        for name in others
        if features[name].shape == before.shape
    }


def old_data_residual(
    new: np.ndarray,
    new_elements: np.ndarray,
    old: np.ndarray,
    old_elements: np.ndarray,
    old_structure: np.ndarray,
    *,
    n_components: int = 5,
    n_resamples: int = 100,
) -> Estimate:
    """Mean Q of old data under the charts of new data in one model (``chart_residual``), over structures of old data.

    Args:
        new: (L, F) features of the data the model was fine-tuned on.
        new_elements: (L,) their elements.
        old: (M, F) features of data it knew before.
        old_elements: (M,) their elements.
        old_structure: (M,) structure of each old atom.
        n_components: principal components per element.
        n_resamples: half-samples of the old structures for the interval; the charts stay as they are.

    Raises:
        ValueError: if the two have no element in common.
    """
    if not np.isin(old_elements, new_elements).any():
        raise ValueError("old and new data have no element in common; there is no chart to read for the old ones.")
    q = chart_residual(new, new_elements, old, old_elements, n_components)
    return estimate(lambda rows: {"q": mean_of_known(q[rows])}, old_structure, n=n_resamples)["q"]


def _mean(angles: np.ndarray) -> float:
    # the largest one alone is that of two nearly equal variances more often than not
    return float(angles.mean())


def _of(kind: str, model: str, found: Mapping[Any, Estimate]) -> dict[str, Estimate]:
    return {key[2]: value for key, value in found.items() if key[:2] == (kind, model)}


def _plain(values: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: {"value": e.value, "confidence_95": [e.low, e.high]} for name, e in values.items()}
