"""One verdict on many frames: exceedances of a control limit are counted, and weighed by how far they go.

*Counted*: the limit itself comes from few calibration frames, so the rate at which frames in control exceed it is not
known, only distributed: as Beta(a, b) with ``a + b - 1`` independent calibration frames and the guaranteed level for a
mean. The number among m independent new frames is then beta-binomial, exactly so for exchangeable frames.

*Weighed*: how many frames resemble each other says nothing about one that is many times the limit. The tail of an
index beyond its limit is taken to fall as slowly as the fourth power of the distance, which is much slower than the
exponential tail of a mean of squares: among n frames in control one exceeds ``r`` limits with a probability of at most
``n level / r^4``. Beyond ``GROSS`` limits no number of frames makes an exceedance chance.

Either way a run of frames in control is called out of control with a probability of about ``FALSE_ALARM``. Where that
care leaves no way to tell, because even all frames out would be no proof, more frames out than expected are not called
in control either: the verdict is open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from mlipjax.monitoring.correlation import by_run, statistical_inefficiency
from mlipjax.monitoring.limits import Conformal

FALSE_ALARM = 0.01
"""Probability that frames in control are called out of control, half of it for each test."""

DOUBT = 0.05
"""Probability below which as many alarms in control are too unlikely to speak of control."""

GROSS = 10.0
"""Times its limit at which a single frame is out of control, however many frames were read."""

_TAIL = 4.0
"""Power with which the probability of exceeding r limits falls with r, at least."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Judgement of a set of frames by one index.

    Attributes:
        n: frames.
        n_alarms: frames above the limit, or without a finite value.
        n_unknown: frames without a finite value among them.
        n_effective: independent frames that the n are worth for counting.
        level: rate of alarms that is guaranteed in control, on average over calibrations.
        highest_level: rate that the limit of this one calibration is below with 95 % probability.
        n_calibration: independent calibration frames that the limit rests on.
        worst: frame with the largest value, the first one without a finite value if there is one.
        worst_ratio: its value over the limit.
        p_count, p_weight: probability in control of as many alarms, and of one as far out, or more.
        p_all: probability in control that all frames are out: how little a count can prove.
    """

    n: int
    n_alarms: int
    n_unknown: int
    n_effective: float
    level: float
    highest_level: float
    n_calibration: int
    worst: int
    worst_ratio: float
    p_count: float
    p_weight: float
    p_all: float

    @property
    def too_many(self) -> bool:
        """Tell whether more frames are out than chance allows."""
        return self.p_count < 0.5 * FALSE_ALARM

    @property
    def too_far(self) -> bool:
        """Tell whether a frame is further out than chance allows."""
        return self.n_unknown > 0 or self.worst_ratio > GROSS or self.p_weight < 0.5 * FALSE_ALARM

    @property
    def out(self) -> bool:
        """Tell whether one of both tests fails."""
        return self.too_many or self.too_far

    @property
    def undecided(self) -> bool:
        """Tell whether more frames are out than expected, and there are too few to tell whether that is chance."""
        tells = self.p_all < 0.5 * FALSE_ALARM and self.p_count >= DOUBT
        return not self.out and not tells and self.n_alarms > self.level * self.n

    @property
    def in_control(self) -> bool:
        """Tell whether nothing speaks against it."""
        return not (self.out or self.undecided)

    @property
    def words(self) -> str:
        """Verdict and its reasons; frames are named by the caller."""
        shares = (
            f"{self.n_alarms} of {self.n} frames exceed the limit ({_percent(self.n_alarms / self.n)}), in control "
            f"about {_percent(self.level)} do"
        )
        if self.n_unknown:
            return f"OUT OF CONTROL: {self.n_unknown} frames hold what the charts have never seen; {shares}"
        if self.undecided:
            return (
                f"UNDECIDED, more frames are out than expected, but {self._independent} and {self.n_calibration} of "
                f"calibration are too few to be sure that they are OUT OF CONTROL: {shares}"
            )
        if self.in_control:
            return f"IN CONTROL as far as {self._independent} can tell: {shares}"
        reasons = []
        if self.too_far:
            reasons.append(f"a frame at {self.worst_ratio:.3g} times the limit is no chance")
        if self.too_many:
            reasons.append("more frames are out than chance allows")
        return f"OUT OF CONTROL, {' and '.join(reasons)}: {shares}"

    @property
    def _independent(self) -> str:
        n = max(round(self.n_effective), 1)
        return f"{n} independent frame{'s' * (n > 1)}"

    @property
    def promise(self) -> str:
        """Remark on how little the calibration frames can promise; empty where they can promise the level."""
        if self.highest_level <= 2.0 * self.level and self.n_calibration >= round(1.0 / self.level) - 1:
            return ""
        return (
            f"the limit rests on {self.n_calibration} independent calibration frames: by it, between 0 and "
            f"{_percent(self.highest_level)} of frames in control may exceed it"
        )


def judge(values: np.ndarray, runs: Sequence[object], calibration: Conformal) -> Judgement:
    """Judge frames by one index.

    Args:
        values: (n,) the index of each frame; frames of a run in the order of time.
        runs: (n,) run of each frame.
        calibration: the limit, and what it is worth.

    Raises:
        ValueError: for no frame.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("nothing to judge: found no frame.")
    known = np.isfinite(values)
    out = ~(values <= calibration.limit)
    g = _inefficiency(values, runs, out) if known.all() else 1.0
    effective = n / min(g, n)
    # a short calibration cannot know how long its own correlations are; longer ones of the new frames hold for it too
    used = min(calibration.n_used, max(int(calibration.n / g), 1))
    level = max(calibration.guaranteed, 1.0 / (used + 1))
    above, below = level * (used + 1), (1.0 - level) * (used + 1)
    trials = max(round(effective), 1)
    hits = int(np.ceil(out.mean() * trials - 1e-9))
    rate = stats.beta(above, below)
    worst = int(np.argmax(np.where(known, values, np.inf)))
    ratio = float(values[worst] / calibration.limit) if known[worst] else float("inf")
    return Judgement(
        n=n,
        n_alarms=int(out.sum()),
        n_unknown=int((~known).sum()),
        n_effective=effective,
        level=level,
        highest_level=float(rate.ppf(0.95)),
        n_calibration=used,
        worst=worst,
        worst_ratio=ratio,
        p_count=float(stats.betabinom(trials, above, below).sf(hits - 1)),
        p_weight=min(1.0, n * level * max(ratio, 1.0) ** -_TAIL),
        p_all=float(stats.betabinom(trials, above, below).sf(trials - 1)),
    )


def _inefficiency(values: np.ndarray, runs: Sequence[object], out: np.ndarray) -> float:
    """Frames that one independent frame is worth, of frames in and frames out each about their own mean.

    About a common mean, a trajectory that leaves the region half-way would look like two independent frames.
    """
    residual = values.copy()
    for part in (out, ~out):
        if part.any():
            residual[part] -= values[part].mean()
    return statistical_inefficiency(by_run(residual, runs))


def _percent(share: float) -> str:
    return f"{100.0 * share:.2g} %" if share < 0.995 else "100 %"
