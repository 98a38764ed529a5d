"""What a check of model and data found, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

Severity = Literal["fatal", "warning", "info"]

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
    """Return findings in which fatal ones of the named checks are warnings: the user takes responsibility."""
    return [
        finding._replace(severity="warning") if finding.severity == "fatal" and finding.check in checks else finding
        for finding in findings
    ]


def refuse_fatal(findings: Iterable[Finding]) -> None:
    """Raise ``ValueError`` with all fatal findings, if there are any."""
    fatal = [finding for finding in findings if finding.severity == "fatal"]
    if fatal:
        raise ValueError("; ".join(str(finding) for finding in fatal))


@dataclasses.dataclass
class Collector:
    """Findings of one check that differ in nothing but the frame, put together as one.

    Attributes:
        severity, check, message, remedy: of the finding; the message may say ``{worst}``, the most extreme value.
        frames: filled by ``add``.
        worst: of the values given to ``add``.
    """

    severity: Severity
    check: str
    message: str
    remedy: str
    frames: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    worst: str = ""
    _key: float = -1.0

    def add(self, name: str, index: int, badness: float = 0.0, shown: str = "") -> None:
        """Add a frame; ``shown`` is the text of the value if it is the worst so far."""
        self.frames.append((name, index))
        if badness > self._key:
            self._key, self.worst = badness, shown

    def findings(self) -> list[Finding]:
        """Return the finding, or nothing if no frame was added."""
        if not self.frames:
            return []
        text = self.message.format(worst=self.worst)
        return [Finding(self.severity, self.check, text, self.remedy, tuple(self.frames))]
