"""Look-ups in a model that torch saved; everything missing is one clear error that names the file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.models.importers._record import Record
from mlipjax.nn.irreps import Irrep, Irreps

_MOST_VALUES = 10_000
_MOST_MEMBERS = 64


@dataclasses.dataclass(frozen=True)
class TorchModel:
    """A model read by ``read_torch``, and the file it is from.

    Attributes:
        path: of the file.
        root: a module, or a dictionary of tensors by name.
        kind: what messages call such a model.
    """

    path: Path
    root: Record | dict[str, Any]
    kind: str

    def unsupported(self, what: str) -> ValueError:
        """Error for a part that the reader does not know."""
        return ValueError(f"{self.path} is a {self.kind} model with {what}, which this reader does not know.")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what is raised by parts of other types than every model's into an error of the file."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            if str(error).startswith(str(self.path)):
                raise
            reason = " ".join(str(error).split())[:200]
            raise self.unsupported(f"settings that do not fit together ({reason})") from None

    def get(self, name: str) -> Any:
        """Whatever is at a dotted path.

        Raises:
            ValueError: if there is nothing.
        """
        found = self.root.get(name)
        if found is None:
            raise self.unsupported(f"no {name}")
        return found

    def has(self, name: str) -> bool:
        """Return whether there is something at a dotted path."""
        return self.root.get(name) is not None

    def children(self, name: str) -> list[Record]:
        """Members of a module list."""
        members = self.get(name).state.get("_modules", ())
        if len(members) > _MOST_MEMBERS:
            raise self.unsupported(f"{len(members)} {name}")
        return [self.get(f"{name}.{i}") for i in range(len(members))]

    def array(self, name: str) -> np.ndarray:
        """A parameter or buffer.

        Raises:
            ValueError: if there is none, or it is no tensor.
        """
        found = self.get(name)
        if not isinstance(found, np.ndarray):
            raise self.unsupported(f"{name} that is no tensor")
        return found

    def number(self, name: str) -> float:
        """The one value of a tensor.

        Raises:
            ValueError: if it holds another number of values.
        """
        return float(self.weight(name, (1,))[0])

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor as an array of a shape.

        Raises:
            ValueError: if it holds another number of values.
        """
        return self.weights(name, [shape])[0]

    def weights(self, name: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """Consecutive arrays in one flat tensor.

        Raises:
            ValueError: if it holds another number of values.
        """
        sizes = [int(np.prod(shape)) for shape in shapes]
        flat = self.array(name).ravel()
        if flat.size != sum(sizes):
            raise ValueError(f"{self.path}: {name} has {flat.size} values where its model needs {sum(sizes)}.")
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def irreps(self, name: str) -> Irreps:
        """Irreps of a block.

        Raises:
            ValueError: if there are none.
        """
        block = self.get(name)
        terms = [_whole_numbers(term) for term in _terms(block)] if isinstance(block, Record) else []
        if not terms or any(len(term) != 3 or term[0] < 1 or abs(term[2]) != 1 for term in terms):
            raise self.unsupported(f"{name} that are no irreps")
        return tuple(Irrep(*term) for term in terms)


def _terms(block: Record) -> list[Any]:
    """Terms (multiplicity, irrep) of nested tuples of them."""
    return _inside(block.args, lambda value: isinstance(value, Record) and value.name == "_MulIr")


def _whole_numbers(term: Record) -> list[int]:
    """All integers inside a record, in order: multiplicity, degree, parity."""
    return _inside(term.args, lambda value: type(value) is int)


def _inside(value: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """Values wanted inside nested tuples and records, in order.

    Raises:
        ValueError: if there are too many: a tuple of tuples that are the same one has no end in sight.
    """
    found, pending = [], [value]
    for _ in range(_MOST_VALUES):
        if not pending:
            return found
        value = pending.pop()
        if wanted(value):
            found.append(value)
        elif isinstance(value, Record | tuple | list):
            pending += reversed(value.args if isinstance(value, Record) else value)
            if len(pending) > _MOST_VALUES:
                break
    raise ValueError(f"more than {_MOST_VALUES} values where irreps are expected")
