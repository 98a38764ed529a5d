"""Objects of a model file, as inert records of what the file says of them."""

from __future__ import annotations

from typing import Any


class Record:
    """An object of a model file: the name of its class, the arguments it was made with, and its state."""

    def __init__(self, module: str, name: str, args: tuple[Any, ...]) -> None:
        self.module, self.name = module, name
        self.state: dict[Any, Any] = {}
        self._args, self._items = args, []

    @property
    def args(self) -> tuple[Any, ...]:
        """Arguments that the object was made with; the items of a list-like one follow."""
        return (*self._args, *self._items)

    def extend(self, items: list[Any]) -> None:
        """Add items of a list-like object."""
        self._items.extend(items)

    def set_state(self, state: Any) -> None:
        """Take over attributes."""
        self.state = state if isinstance(state, dict) else {"state": state}

    def get(self, path: str, default: Any = None) -> Any:
        """Attribute, parameter, buffer or submodule at a dotted path; ``default`` where there is none."""
        value: Any = self
        for part in path.split("."):
            found = _member(value, part)
            if found is None:
                return default
            value = found
        return value


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, Record):
        return None
    for group in ("_parameters", "_buffers", "_modules"):
        members = value.state.get(group)
        if isinstance(members, dict) and name in members:
            return members[name]
    return value.state.get(name)
