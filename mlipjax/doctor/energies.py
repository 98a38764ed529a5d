"""Energies against the model's: placeholders, units, other zeros of energy, other structures, and disagreement.

Energies are compared within compositions: what they have in common is a matter of isolated-atom energies (``step-0``).
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlipjax.data import Dataset
from mlipjax.doctor.agreement import (
    DEVIATIONS,
    PLAUSIBLE,
    Row,
    cosine,
    disagrees,
    explains,
    is_near,
    pooled,
    ratio,
    rms,
)
from mlipjax.doctor.compared import Compared
from mlipjax.doctor.factors import ENERGIES, Scale, find_factors, scales
from mlipjax.doctor.findings import Finding
from mlipjax.settings.finetune import STEP_0_LIMIT

LEAST_ENERGIES = 6
# A label stands out if its error is that many robust standard deviations, and eV/atom, from others of its composition;
# of a structure that the model too sets far apart, also this part of what the model says it differs by.
_OUTLYING, _LEAST_OUTLYING, _SOFT = 10.0, 5e-3, 0.9
# eV/atom: differences in energy that a model should get right, and a gap that few model's errors leave.
_LEAST_SPREAD, _GAP = 2e-3, 0.01
_CORRELATED = 0.9
# eV/atom: no error within a composition of a model whose forces are right.
_WRONG = 0.02
_SHIFTS = (-1, 1, -2, 2, -3, 3)
_EXACT = 1.05


class Energy(NamedTuple):
    """One energy label, eV.

    Attributes:
        row, index: of the structure among those compared, and in its data set.
        label, model: total energies.
        n_atoms: of the structure.
    """

    row: int
    index: int
    label: float
    model: float
    n_atoms: int


def check_energies(part: Compared) -> list[Finding]:
    """Everything about the energies of one data set but their size (``step-0``)."""
    groups = energies_by_composition(part)
    if found := _constant(part.name, groups):
        return found
    if found := _units(part, groups):
        return found
    findings, outlying = find_outliers(part, groups)
    gone = {energy.index for energy in outlying}
    if gone:
        groups = [[energy for energy in group if energy.index not in gone] for group in groups]
        findings = _units(part, groups) + findings
    if any(finding.check in ("units", "sign") and finding.severity == "fatal" for finding in findings):
        return findings
    return [*findings, *(_shifted(part, groups) or _disagreement(part, groups))]


def energies_by_composition(part: Compared) -> list[list[Energy]]:
    """Energy labels, those of one composition together."""
    groups: dict[bytes, list[Energy]] = collections.defaultdict(list)
    for row, (index, (system, label, _), found) in enumerate(part):
        if label.energy_weight > 0.0:
            energy = Energy(row, index, float(label.energy), float(found.energy), system.n_atoms)
            groups[np.sort(np.asarray(system.atomic_numbers)).tobytes()].append(energy)
    return list(groups.values())


def _constant(name: str, groups: Sequence[Sequence[Energy]]) -> list[Finding]:
    """One value for structures that the model tells apart."""
    values: dict[float, list[Energy]] = collections.defaultdict(list)
    for energy in (energy for group in groups for energy in group):
        values[energy.label].append(energy)
    total = sum(map(len, groups))
    frames: list[tuple[str, int]] = []
    shown = 0.0
    for value, same in values.items():
        spread = float(np.ptp([energy.model / energy.n_atoms for energy in same]))
        # a few may agree by chance in the digits of a file
        if len(same) >= max(3, 0.1 * total) and spread > 2.0 * _LEAST_SPREAD:
            frames += [(name, energy.index) for energy in same]
            shown = value
    if not frames:
        return []
    message = (
        f"energies of {name} are {shown:g} eV for {len(frames)} of {total} structures, to which the model gives "
        "different ones: a placeholder, or too few digits"
    )
    remedy = "Read the calculations again; leave energies that were not computed out of the file."
    return [Finding("fatal", "placeholder", message, remedy, tuple(frames))]


def _units(part: Compared, groups: Sequence[Sequence[Energy]]) -> list[Finding]:
    """Unit and sign of the differences between structures of one composition; then of the energies themselves."""
    rows = [row for group in groups for row in _centred(part, group)] if groups else []
    sizes = [len(np.asarray(row.system.atomic_numbers)) for row in rows]
    per_atom = [Scale("eV per atom", lambda system: 1.0 / system.n_atoms)]
    others = [*scales(ENERGIES), *(per_atom if sizes and np.median(sizes) > PLAUSIBLE else [])]
    findings, _ = find_factors(
        "energies",
        part.name,
        rows,
        others,
        unit="eV per structure",
        least_values=LEAST_ENERGIES,
        large=np.inf,
        correlated=_CORRELATED,
    )
    if findings:
        return findings
    return unit_of_totals(part.name, [energy for group in groups for energy in group])


def _centred(part: Compared, group: Sequence[Energy]) -> list[Row]:
    if len(group) < 3:
        return []
    label, model = (np.array([getattr(energy, name) for energy in group]) for name in ("label", "model"))
    label, model = label - label.mean(), model - model.mean()
    return [
        Row(energy.index, label[i : i + 1], model[i : i + 1], part.dataset.systems[energy.row])
        for i, energy in enumerate(group)
    ]


def unit_of_totals(name: str, energies: Sequence[Energy], *, share: str = "") -> list[Finding]:
    """Total energies that are all one unit's factor times the model's, far outside of what E0s can do."""
    if not energies or any(energy.model == 0.0 for energy in energies):
        return []
    frames = tuple((name, energy.index) for energy in energies)
    if all(is_near(energy.label / energy.model, -1.0, _EXACT) for energy in energies):
        message = f"energies of {name} are minus the model's{share} (n = {len(energies)}): they have the other sign"
        return [
            Finding("fatal", "sign", message, "Change their sign: bound structures have negative energies.", frames)
        ]
    sizes = np.array([energy.n_atoms for energy in energies])
    factors = np.array([energy.label / energy.model for energy in energies])
    if not np.all(np.abs(np.log(np.abs(factors) + 1e-300)) > np.log(PLAUSIBLE)):
        return []
    known = {unit: np.full(len(sizes), factor) for unit, factor in ENERGIES.items()} | {"eV per atom": 1.0 / sizes}
    for unit, factor in known.items():
        if all(is_near(found, want, _EXACT) for found, want in zip(factors, factor, strict=True)):
            message = (
                f"energies of {name} are {np.median(factors):.4g} times the model's{share}, like {unit} "
                f"(n = {len(factors)})"
            )
            return [Finding("fatal", "units", message, "Convert them to eV per structure.", frames)]
    return []


def find_outliers(part: Compared, groups: Sequence[Sequence[Energy]]) -> tuple[list[Finding], list[Energy]]:
    """Energies that stand out from those of the same composition: another unit, level of theory or electronic state.

    A model's error varies little along a trajectory, so a label far from where its neighbours' errors put it is more
    likely wrong than the model; one such frame outweighs all others in energy statistics and in a squared loss. The
    scale is the median absolute deviation within a composition, and a part of the difference that the model predicts.
    """
    outlying: list[tuple[float, Energy]] = []
    for group in groups:
        if len(group) >= LEAST_ENERGIES:
            outlying += _outlying(group)
    if not outlying:
        return [], []
    outlying.sort(key=lambda pair: -abs(pair[0]))
    members = [energy for _, energy in outlying]
    total = sum(map(len, groups))
    share = f" in {len(members)} of {total} structures"
    if found := unit_of_totals(part.name, members, share=share):
        return found, members
    errors = np.array([error for error, _ in outlying])
    frames = tuple((part.name, energy.index) for energy in members)
    shared = len(members) > 1 and float(np.std(errors)) < 0.2 * abs(float(np.mean(errors)))
    if shared:
        message = (
            f"energies of {part.name} have another zero in {len(members)} of {total} structures: they lie "
            f"{1e3 * np.mean(errors):+.0f} meV/atom from the others of the same composition{_source(part, members)}"
        )
        remedy = "Do not mix levels of theory, codes or pseudopotentials in one set; bring them to one zero of energy."
        severity = "fatal" if abs(float(np.mean(errors))) > STEP_0_LIMIT else "warning"
        return [Finding(severity, "levels", message, remedy, frames)], members
    message = (
        f"{len(members)} energy label(s) of {part.name} stand out from others of the same composition, by up to "
        f"{1e3 * errors[0]:+.0f} meV/atom{_source(part, members)}"
    )
    remedy = (
        "Look at how these calculations converged (electronic state, spin, k-points); compute them again or leave them "
        "out. If the structure itself is far from the others, the model may be what is wrong."
    )
    return [Finding("warning", "outlier", message, remedy, frames)], members


def _outlying(group: Sequence[Energy]) -> list[tuple[float, Energy]]:
    n = group[0].n_atoms
    errors = np.array([(energy.label - energy.model) / n for energy in group])
    models = np.array([energy.model / n for energy in group])
    order = np.sort(errors)
    gap = int(np.argmax(np.diff(order)))
    low, high = order[: gap + 1], order[gap + 1 :]
    width = high[0] - low[-1]
    upper = errors > low[-1]
    # two clusters of errors are two zeros of energy if the model does not tell the structures apart
    apart = width > max(_GAP, 5.0 * float(np.std(low)), 5.0 * float(np.std(high))) and min(len(low), len(high)) > 1
    apart = apart and abs(float(np.median(models[upper]) - np.median(models[~upper]))) < 0.5 * width
    # of two clusters the larger one is right, or else the one that the model's own zero is nearer to
    right = max((low, high), key=lambda part: (len(part), -abs(float(np.median(part))))) if apart else order
    errors, models = errors - np.median(right), models - np.median(models)
    scale = max(1.4826 * float(np.median(np.abs(right - np.median(right)))), _LEAST_OUTLYING / _OUTLYING)
    usual = 3.0 * 1.4826 * float(np.median(np.abs(models)))
    return [
        (float(error), energy)
        for error, model, energy in zip(errors, models, group, strict=True)
        if abs(error) > _OUTLYING * scale and (abs(model) <= usual or abs(error) > _SOFT * abs(model))
    ]


def _source(part: Compared, members: Sequence[Energy]) -> str:
    """Information that these structures share and no other has, in words."""
    inside = {energy.row for energy in members}
    infos: Sequence[Mapping[str, Any]] = part.dataset.infos
    if len(inside) < 2:
        return ""
    for key, value in infos[members[0].row].items():
        if np.ndim(value) == 0 and {row for row, info in enumerate(infos) if info.get(key) == value} == inside:
            return f"; all of them have {key}={value!r}, and no other has"
    return ""


def _shifted(part: Compared, groups: Sequence[Sequence[Energy]]) -> list[Finding]:
    """Energies of the structures some places before or after, or from the last to the first."""
    centred = {row.index: row for group in groups for row in _centred(part, group)}
    if len(centred) < LEAST_ENERGIES + 2:
        return []
    labels = _centred_labels(part.full)
    last = max(labels) + min(labels)
    ways = {shift: {index: index - shift for index in centred} for shift in _SHIFTS}
    ways[0] = {index: last - index for index in centred}
    for shift, source in ways.items():
        pairs = [(labels[source[i]], row.model[0], row) for i, row in centred.items() if source[i] in labels]
        if len(pairs) < max(LEAST_ENERGIES + 2, 0.8 * len(centred)):
            continue
        other, model = (np.array(values) for values in zip(*((a, b) for a, b, _ in pairs), strict=True))
        before = cosine(*pooled(list(centred.values())))
        if explains(other, model, before):
            way = f"{abs(shift)} place(s) {'after' if shift > 0 else 'before'}" if shift else ""
            text = f"belong to the structure {way}" if shift else "are in reversed order"
            message = (
                f"energies of {part.name} {text}: so they follow the model (correlation {cosine(other, model):.2f}), "
                f"as they are they do not ({before:.2f}, n = {len(pairs)})"
            )
            remedy = "Write structures and labels of the same step together."
            return [Finding("fatal", "order", message, remedy, tuple((part.name, index) for index in centred))]
    return []


def _centred_labels(dataset: Dataset) -> dict[int, float]:
    """Energies of a whole data set, less the mean of their composition."""
    groups: dict[bytes, list[int]] = collections.defaultdict(list)
    for index, (system, label, _) in enumerate(dataset):
        if label.energy_weight > 0.0:
            groups[np.sort(np.asarray(system.atomic_numbers)).tobytes()].append(index)
    found = {}
    for indices in groups.values():
        values = np.array([float(dataset.labels[index].energy) for index in indices])
        found |= dict(zip(indices, (values - values.mean()).tolist(), strict=True))
    return found


def _disagreement(part: Compared, groups: Sequence[Sequence[Energy]]) -> list[Finding]:
    """Differences in energy that do not follow the model's, and nobody knows why."""
    rows = [
        row._replace(label=row.label / row.system.n_atoms, model=row.model / row.system.n_atoms)
        for group in groups
        for row in _centred(part, group)
    ]
    count = len(rows) - sum(len(group) >= 3 for group in groups)
    if count < LEAST_ENERGIES:
        return []
    label, model = pooled(rows)
    flat = rms(label) <= 0.05 * rms(model) and rms(model) > 10.0 * _LEAST_SPREAD
    # a model that follows forces closely follows energies, too: then less is proof enough
    certain = 1.0 if rms(label - model) > _WRONG and _follows_forces(part) else DEVIATIONS
    if not flat and (rms(label) <= _LEAST_SPREAD or not disagrees(label, model, count, certain)):
        return []
    message = (
        f"energies of {part.name} do not follow the model's (correlation {cosine(label, model):.2f}, slope "
        f"{ratio(label, model):.2f}, n = {len(rows)}, differences within compositions): no unit, sign or order "
        "explains it"
    )
    remedy = (
        "Compare one structure with the output of its calculation. If the labels are right, this model knows nothing "
        "of these structures: choose another one."
    )
    return [Finding("warning", "agreement", message, remedy, tuple((part.name, row.index) for row in rows))]


def _follows_forces(part: Compared) -> bool:
    pairs = [
        (np.ravel(label.forces), np.ravel(found.forces)) for _, (_, label, _), found in part if label.forces_weight
    ]
    return bool(pairs) and cosine(*(np.concatenate(side) for side in zip(*pairs, strict=True))) > _CORRELATED
