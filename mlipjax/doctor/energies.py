"""Energies against the model's: placeholders, units, other zeros of energy, other structures, and disagreement.

Energies are compared within compositions: what they have in common is a matter of isolated-atom energies (``step-0``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlipjax.doctor.compared import (
    DEVIATIONS,
    PLAUSIBLE,
    Compared,
    Row,
    by_composition,
    centered,
    is_near,
    pooled,
    rms,
    without,
)
from mlipjax.doctor.exchanged import PER_ATOM, find_exchanged
from mlipjax.doctor.factors import ENERGY, find_factors
from mlipjax.doctor.findings import Finding
from mlipjax.doctor.orders import shifted_frames
from mlipjax.doctor.placeholders import find_constant_energies
from mlipjax.doctor.vectors import UNKNOWN_STRUCTURES
from mlipjax.settings.finetune import STEP_0_LIMIT

_LEAST = 6
"""Energies that say something."""
# A label stands out if its error is that many robust standard deviations, and eV/atom, from others of its composition;
# of a structure that the model too sets far apart, also this part of what the model says it differs by.
_OUTLYING, _LEAST_OUTLYING, _SOFT = 10.0, 5e-3, 0.9
# eV/atom: differences in energy that a model should get right, and a gap that few model's errors leave.
_LEAST_SPREAD, _GAP = 2e-3, 0.01
# A model that follows forces so well knows the structures; then no error within a composition is so large, eV/atom.
_CORRELATED, _WRONG = 0.9, 0.02
_EXACT = 1.05


def check_energies(part: Compared) -> list[Finding]:
    """Everything about the energies of one data set but their size (``step-0``)."""
    rows = part.rows("energy")
    if found := find_constant_energies(part, rows) or _units(part, rows):
        return found
    swapped = find_exchanged(part, "energies", rows, PER_ATOM)
    if swapped:  # a shift of all is the simpler explanation
        return _shifted(part, rows) or swapped
    findings, outlying = find_outliers(part)
    rows = without(rows, outlying)
    if outlying:
        findings = _units(part, rows) + findings
    if any(finding.check in ("units", "sign") and finding.is_fatal for finding in findings):
        return findings
    return findings + (_shifted(part, rows) or _disagreement(part, rows))


def _units(part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """Unit and sign of the differences between structures of one composition; then of the energies themselves."""
    differences = centered(by_composition(rows))
    quantity = ENERGY
    if differences and np.median([row.system.n_atoms for row in differences]) > PLAUSIBLE:
        quantity = ENERGY._replace(scales={**ENERGY.scales, "eV per atom": lambda system: 1.0 / system.n_atoms})
    return find_factors(part, quantity, differences)[0] or _unit_of_totals(part, rows)


def _unit_of_totals(part: Compared, rows: Sequence[Row], share: str = "") -> list[Finding]:
    """Total energies that are all one unit's factor times the model's, far outside of what E0s can do."""
    if not rows or any(row.model == 0.0 for row in rows):
        return []
    factors = [(row.label / row.model).item() for row in rows]
    if all(is_near(factor, -1.0, _EXACT) for factor in factors):
        message = f"energies of {part.name} are minus the model's{share} (n = {len(rows)}): they have the other sign"
        remedy = "Change their sign: bound structures have negative energies."
        return [part.finding("fatal", "sign", message, remedy, rows)]
    if not all(abs(math.log(abs(factor) + 1e-300)) > math.log(PLAUSIBLE) for factor in factors):
        return []
    sizes = [row.system.n_atoms for row in rows]
    scales = {unit: [scale] * len(rows) for unit, scale in ENERGY.scales.items()}
    for unit, scale in {**scales, "eV per atom": [1.0 / size for size in sizes]}.items():
        if all(is_near(factor, want, _EXACT) for factor, want in zip(factors, scale, strict=True)):
            text = f"{np.median(factors):.4g} times the model's{share}, like {unit} (n = {len(rows)})"
            remedy = f"Convert them to eV per structure{'' if share else part.option(ENERGY.cure(unit, 1))}."
            return [part.finding("fatal", "units", f"energies of {part.name} are {text}", remedy, rows)]
    return []


def find_outliers(part: Compared) -> tuple[list[Finding], list[Row]]:
    """Energies that stand out from those of the same composition: another unit, level of theory or electronic state.

    A model's error varies little along a trajectory, so a label far from where its neighbours' errors put it is more
    likely wrong than the model; one such frame outweighs all others in energy statistics and in a squared loss. The
    scale is the median absolute deviation within a composition, and a part of the difference that the model predicts.
    """
    groups = by_composition(part.rows("energy"))
    outlying = [pair for group in groups if len(group) >= _LEAST for pair in _outlying(group)]
    if not outlying:
        return [], []
    outlying.sort(key=lambda pair: -abs(pair[0]))
    errors, rows = np.array([error for error, _ in outlying]), [row for _, row in outlying]
    share = f" in {len(rows)} of {sum(map(len, groups))} structures"
    if found := _unit_of_totals(part, rows, share):
        return found, rows
    mean = float(np.mean(errors))
    if len(rows) > 1 and float(np.std(errors)) < 0.2 * abs(mean):
        message = (
            f"energies of {part.name} have another zero{share}: they lie {1e3 * mean:+.0f} meV/atom from the others of "
            f"the same composition{_source(part, rows)}"
        )
        remedy = "Do not mix levels of theory, codes or pseudopotentials in one set; bring them to one zero of energy."
        severity = "fatal" if abs(mean) > STEP_0_LIMIT else "warning"
        return [part.finding(severity, "levels", message, remedy, rows)], rows
    message = (
        f"{len(rows)} energy label(s) of {part.name} stand out from others of the same composition, by up to "
        f"{1e3 * errors[0]:+.0f} meV/atom{_source(part, rows)}"
    )
    remedy = (
        "Look at how these calculations converged (electronic state, spin, k-points); compute them again or leave them "
        "out. If the structure itself is far from the others, the model may be what is wrong."
    )
    return [part.finding("warning", "outlier", message, remedy, rows)], rows


def _outlying(group: Sequence[Row]) -> list[tuple[float, Row]]:
    """Rows of one composition that stand out, and by how much (eV/atom)."""
    whole = pooled(group).apply(lambda energies: energies / group[0].system.n_atoms)
    errors, models = whole.label - whole.model, whole.model
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
    out = np.abs(errors) > _OUTLYING * scale
    out &= (np.abs(models) <= usual) | (np.abs(errors) > _SOFT * np.abs(models))
    return [(float(error), row) for error, row, far in zip(errors, group, out, strict=True) if far]


def _source(part: Compared, rows: Sequence[Row]) -> str:
    """Information that these structures share and no other has, in words."""
    infos = dict(zip(part.indices, part.dataset.infos, strict=True))
    inside = {row.index for row in rows}
    if len(inside) < 2:
        return ""
    for key, value in infos[rows[0].index].items():
        if np.ndim(value) == 0 and {index for index, info in infos.items() if info.get(key) == value} == inside:
            return f"; all of them have {key}={value!r}, and no other has"
    return ""


def _shifted(part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """Energies of the structures some places before or after, or from the last to the first."""
    rows = centered(by_composition(rows))
    least = _LEAST + 2
    if len(rows) < least:
        return []
    everything = [Row(i, label, label, part.full.systems[i]) for i, label in part.labels("energy").items()]
    labels = {row.index: row.label for row in centered(by_composition(everything), least=1)}
    before = pooled(rows).fit
    for explanation in shifted_frames(labels):
        moved = [right for row in rows if (right := explanation.undo(row)) is not None]
        if len(moved) >= max(least, 0.8 * len(rows)) and pooled(moved).explains(before):
            message = (
                f"energies of {part.name} {explanation.text}: so they follow the model (correlation "
                f"{pooled(moved).fit:.2f}), as they are they do not ({before:.2f}, n = {len(moved)})"
            )
            return [part.finding("fatal", "order", message, explanation.remedy, rows)]
    return []


def _disagreement(part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """Differences in energy that do not follow the model's, and nobody knows why."""
    groups = [group for group in by_composition(rows) if len(group) >= 3]
    rows = [row.apply(lambda energy, n=row.system.n_atoms: energy / n) for row in centered(groups)]
    count = len(rows) - len(groups)
    if count < _LEAST:
        return []
    whole = pooled(rows)
    label, model = whole.sizes
    flat = label <= 0.05 * model and model > 10.0 * _LEAST_SPREAD
    # a model that follows forces closely follows energies, too: then less is proof enough
    follows = pooled(part.rows("forces")).fit > _CORRELATED
    certain = 1.0 if follows and rms(whole.label - whole.model) > _WRONG else DEVIATIONS
    if not flat and (label <= _LEAST_SPREAD or not whole.disagrees(count, certain)):
        return []
    message = (
        f"energies of {part.name} do not follow the model's (correlation {whole.fit:.2f}, slope {whole.ratio:.2f}, n = "
        f"{len(rows)}, differences within compositions): no unit, sign or order explains it"
    )
    return [part.finding("warning", "agreement", message, UNKNOWN_STRUCTURES, rows)]
