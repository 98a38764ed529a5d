"""Findings of a check of model and data, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

Severity = Literal["fatal", "warning", "info"]
FATAL = (
    "agreement", "distances", "duplicates", "elements", "labels", "levels", "order", "placeholder", "sign", "step-0",
    "units", "zero-shot",
)  # fmt: skip
"""Checks whose findings can be fatal."""
Frames = Iterable[tuple[str, int]]

_SHOWN = 5


class Finding(NamedTuple):
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: "fatal" (training on this makes no sense), "warning" (look at it) or "info".
        check: name of the check.
        message: what was found and what was expected.
        remedy: what to do.
        frames: where: name of the data set and index of the structure; empty if it is about a whole set.
    """

    severity: Severity
    check: str
    message: str
    remedy: str
    frames: tuple[tuple[str, int], ...] = ()

    @property
    def is_fatal(self) -> bool:
        """Tell whether it forbids training."""
        return self.severity == "fatal"

    @property
    def where(self) -> str:
        """The frames in words, the first few of each data set."""
        parts = []
        for name in dict.fromkeys(name for name, _ in self.frames):
            indices = [index for other, index in self.frames if other == name]
            more = f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else ""
            kind = "structures" if len(indices) > 1 else "structure"
            parts.append(f"{name}, {kind} {', '.join(map(str, indices[:_SHOWN]))}{more}")
        return "; ".join(parts)

    def __str__(self) -> str:
        where = f" ({self.where})" if self.frames else ""
        return f"{self.check}: {self.message}{where}. {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding in JSON types."""
        return {**self._asdict(), "frames": [list(frame) for frame in self.frames], "where": self.where}


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the gravest first."""
    return sorted(findings, key=lambda finding: ("fatal", "warning", "info").index(finding.severity))


def demote(findings: Iterable[Finding], checks: Sequence[str]) -> list[Finding]:
    """Return findings in which fatal ones of the named checks are warnings: the user takes responsibility.

    Raises:
        ValueError: for a name that no check has whose findings can be fatal.
    """
    if unknown := sorted(set(checks) - set(FATAL)):
        raise ValueError(f"no check is called {', '.join(unknown)} (ignore); choose among {', '.join(FATAL)}.")
    return [
        finding._replace(severity="warning") if finding.is_fatal and finding.check in checks else finding
        for finding in findings
    ]


def refuse_fatal(findings: Iterable[Finding]) -> None:
    """Raise ``ValueError`` with all fatal findings, if there are any."""
    if fatal := [finding for finding in findings if finding.is_fatal]:
        raise ValueError("; ".join(map(str, fatal)))
