"""Findings of a check of model and data, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mlipjax.data import Dataset
from mlipjax.data.dataset import Placed

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
        places: of the same frames: file and index in the file; empty if they are from no file.
    """

    severity: Severity
    check: str
    message: str
    remedy: str
    frames: tuple[tuple[str, int], ...] = ()
    places: tuple[tuple[str, int], ...] = ()

    @property
    def is_fatal(self) -> bool:
        """Tell whether it forbids training."""
        return self.severity == "fatal"

    @property
    def where(self) -> str:
        """The frames in words, the first few of each data set."""
        parts = []
        for name in dict.fromkeys(name for name, _ in self.frames):
            own = [place for place, (other, _) in enumerate(self.frames) if other == name]
            by_file: dict[str, list[int]] = {}
            for file, index in ((self.places or self.frames)[place] for place in own[:_SHOWN]):
                by_file.setdefault(file, []).append(index)
            shown = [
                f"{file}, structure{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"
                for file, rows in by_file.items()
            ]
            known = len(by_file) == 1 and name in (*by_file, *(Path(file).name for file in by_file))
            more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
            parts.append(f"{'' if known else f'{name}: '}{'; '.join(shown)}{more}")
        return "; ".join(parts)

    def __str__(self) -> str:
        where = f" ({self.where})" if self.frames else ""
        return f"{self.check}: {self.message}{where}. {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding in JSON types."""
        pairs = {name: [list(pair) for pair in getattr(self, name)] for name in ("frames", "places")}
        return {**self._asdict(), **pairs, "where": self.where}


def locate(findings: Iterable[Finding], datasets: Mapping[str, Dataset]) -> list[Finding]:
    """Return findings whose frames are named by the files that they are from, as far as the data sets know it.

    Args:
        findings: frames count in the data sets.
        datasets: by the name that findings call them.
    """
    found = []
    for finding in findings:
        infos = [datasets[name].infos[index] if name in datasets else {} for name, index in finding.frames]
        places = tuple((info.file, info.index) for info in infos if isinstance(info, Placed))
        found.append(finding._replace(places=places) if places and len(places) == len(infos) else finding)
    return found


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
        raise ValueError(" ".join(map(str, fatal)))
