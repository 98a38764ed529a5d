"""Stand-ins for the names in a torch pickle: functions that make arrays, numbers and containers.

Each takes what accounts for the bytes it copies, and the arguments that the file gives it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mlipjax.models.importers._record import Record
from mlipjax.reading import shown

Spend = Callable[[int], None]
"""Accounts for bytes that are copied; raises ``ValueError`` once they are too many."""

_MAX_KEY = 16


class Name:
    """A name of the file: a record's class, or a function of this module."""

    def __init__(self, module: str, name: str, make: Callable[..., Any] | None = None) -> None:
        self.module, self.name, self.make = module, name, make
        self.__name__ = name
        self.args: tuple[Any, ...] = ()


def as_key(value: Any) -> Any:
    """A key of a dictionary or member of a set: hashing a deep tuple would take the stack, a shared one for ever."""
    if isinstance(value, tuple) and len(value) <= _MAX_KEY:
        return tuple(map(_atom, value))
    return _atom(value)


def _atom(value: Any) -> Any:
    if value is None or isinstance(value, str | bytes | float | Record | Name):
        return value
    if isinstance(value, int) and value.bit_length() <= 64:
        return value
    raise ValueError(f"a key that is {type(value).__name__}")


def short(text: str) -> str:
    """A name of the file for a message: one line, not long."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:80]}..."


def _tensor(spend: Spend, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ValueError(f"a tensor of {type(storage).__name__}")
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or not len(size) == len(stride) <= 16:
        raise ValueError("a tensor whose size and strides do not fit together")
    if not all(type(number) is int and 0 <= number < 1 << 40 for number in (offset, *size, *stride)):
        raise ValueError(f"a tensor of size {shown(size)} and strides {shown(stride)}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > 0 and last >= storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    if count == 0:
        return np.zeros(size, storage.dtype)
    strides = tuple(step * storage.itemsize for step in stride)
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)
    if view.flags.c_contiguous:
        # a part of what has been accounted for; a large model is in memory once
        return view
    spend(count * storage.itemsize)
    return np.array(view, order="C")


def _parameter(_: Spend, data: Any = None, *__: Any) -> Any:
    return data


def _subclass(spend: Spend, rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor of a derived class, as a plain array."""
    make = rebuild.make if isinstance(rebuild, Name) else None
    if make is None or make not in (_tensor, _parameter) or not isinstance(arguments, tuple):
        raise ValueError("a tensor of an unknown kind")
    return make(spend, *arguments)


def _encode(spend: Spend, text: str, *_: Any) -> bytes:
    """Bytes in protocol 2, which has none of its own."""
    spend(len(text))
    return text.encode("latin1")


def _scalar(_: Spend, dtype: Any, content: Any) -> Any:
    """A number of numpy's."""
    name = dtype.args[0] if isinstance(dtype, Record) and dtype.args else None
    if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?[biuf]\d{1,2}", name) or not isinstance(content, bytes):
        raise ValueError(f"a number of type {shown(name)}")
    return np.frombuffer(content, np.dtype(name))[0].item()


def _set(spend: Spend, items: Any = ()) -> set[Any]:
    spend(64 * len(items))
    return set(map(as_key, items))


def _ordered(spend: Spend, items: Any = ()) -> dict[Any, Any]:
    spend(64 * len(items))
    return {as_key(key): value for key, value in items}


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("collections", "OrderedDict"): _ordered,
    **{(home, name): _set for home in ("builtins", "__builtin__") for name in ("set", "frozenset")},
}
"""Meaning of a few names here: functions of this module that make arrays, numbers and containers."""
