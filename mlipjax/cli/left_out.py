"""Structures that a command goes on without: named as they are found, and in the exit code at the end."""

from __future__ import annotations

from mlipjax.notices import notice

_NAMED = 5
"""Structures that are named one by one."""


class LeftOut(dict[int, str]):
    """Reasons for leaving structures out, by the numbers of the structures."""

    def __call__(self, number: int, why: str) -> None:
        """Leave one out; the first few are said."""
        self[number] = why
        if len(self) <= _NAMED:
            notice(f"left out: {why}")

    def number(self, place: int) -> int:
        """Return the number, among all structures, of one that has this place among those that were not left out."""
        for left in sorted(self):
            place += left <= place
        return place

    def refuse(self, name: str) -> None:
        """Raise ``ValueError`` if there is one.

        Args:
            name: of the structures.
        """
        if self:
            raise ValueError(
                f"{name}: results are those of the other structures; {len(self)} left out, in which atoms coincide."
            )
