"""Look-ups in the records of a torch module; everything missing is one clear error that names the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.models.importers._unpickle import Record
from mlipjax.nn.irreps import Irrep, Irreps


@dataclasses.dataclass(frozen=True)
class TorchModel:
    """A module read by ``read_torch``, and the file it is from."""

    path: Path
    root: Record

    def unsupported(self, what: str) -> ValueError:
        """Error for a part that the reader does not know."""
        return ValueError(f"{self.path} is a MACE model with {what}, which this reader does not know.")

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
        """Whether there is something at a dotted path."""
        return self.root.get(name) is not None

    def children(self, name: str) -> list[Record]:
        """Members of a module list."""
        return [self.get(f"{name}.{i}") for i in range(len(self.get(name).get("_modules", ())))]

    def array(self, name: str) -> np.ndarray:
        """A parameter or buffer.

        Raises:
            ValueError: if there is none, or it is no tensor.
        """
        found = self.get(name)
        if not isinstance(found, np.ndarray):
            raise self.unsupported(f"{name} that is no tensor")
        return found

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
        terms = [_integers(term) for term in _flat(self.get(name).args)]
        if not terms or any(len(term) != 3 for term in terms):
            raise self.unsupported(f"{name} that are no irreps")
        return tuple(Irrep(*term) for term in terms)


def _flat(value: Any) -> list[Any]:
    """Terms (multiplicity, irrep) of nested tuples of them."""
    if isinstance(value, Record):
        return [value] if value.name == "_MulIr" else _flat(value.args)
    return [term for item in value for term in _flat(item)] if isinstance(value, tuple | list) else []


def _integers(value: Any) -> list[int]:
    """All integers inside a record, in order: multiplicity, degree, parity."""
    if isinstance(value, Record):
        return _integers(value.args)
    if isinstance(value, tuple | list):
        return [number for item in value for number in _integers(item)]
    return [value] if isinstance(value, int) else []
