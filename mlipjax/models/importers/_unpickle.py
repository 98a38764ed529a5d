"""Reading of files that ``torch.save`` wrote, without torch and without running anything they name.

A pickle is a program. Here its few harmless instructions are carried out one by one, and every other refuses the file:
a name never leads to an import and never to a call. Names on a short list of what model files contain become inert
records that only remember their arguments and state; tensors become numpy arrays; every other name refuses the file.
What a file can make us do is bounded: the number of instructions, of names, and of values copied.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from mlipjax.models.importers._rebuild import FUNCTIONS, Name, as_key, short
from mlipjax.models.importers._record import Record
from mlipjax.reading import open_archive, read_member, shown

_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_PACKAGES = ("torch", "e3nn", "mace", "opt_einsum_fx", "numpy")
_INERT = {(home, name) for home in ("builtins", "__builtin__") for name in ("bytes", "getattr", "slice")}
"""Other names in torch's pickles; they too become records."""

_MAX_PICKLE = 1 << 25
_MAX_INSTRUCTIONS = 500_000
_MAX_NAMES = 1000
_MAX_COPIED = 1 << 29
"""Bytes of all tensors, and of all that is copied, together."""

_LITERALS = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}  # fmt: skip
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}


class _Machine:
    """The stack, the memo and what is left of the budget while a pickle is read."""

    def __init__(self, archive: ZipFile, prefix: str, source: Path, big_endian: bool) -> None:
        self._archive, self._prefix, self._source, self._big_endian = archive, prefix, source, big_endian
        self._storages: dict[str, np.ndarray] = {}
        self._names: dict[tuple[str, str], Name] = {}
        self._left = _MAX_COPIED
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        """Carry out a pickle and return what it makes."""
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if count >= _MAX_INSTRUCTIONS:
                raise ValueError(f"more than {_MAX_INSTRUCTIONS} instructions")
            name = opcode.name
            if name == "STOP":
                return self._pop()
            if name in _VALUES:
                taken, make = _VALUES[name]
                self._stack.append(make(self._take(taken)))
            elif name in _CALLS:
                taken, call = _CALLS[name]
                self._stack.append(call(self, *self._take(taken)))
            elif name in _CHANGES:
                taken, change = _CHANGES[name]
                change(self, self._take(taken))
            elif name == "POP":
                self._stack.pop()
            elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
                self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top()
            elif name not in ("PROTO", "FRAME"):
                self._stack.append(self._named(name, argument))
        raise ValueError("it ends before its last instruction")

    def spend(self, n_bytes: int) -> None:
        """Account for a copy."""
        self._left -= n_bytes
        if self._left < 0:
            raise ValueError(f"its contents make more than {_MAX_COPIED} bytes")

    def _named(self, name: str, argument: Any) -> Any:
        """The value that an instruction names by itself."""
        if name in _LITERALS:
            return argument
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in ("BINGET", "LONG_BINGET", "GET"):
            return self._memo[argument]
        if name == "DUP":
            return self._top()
        if name == "GLOBAL":  # in text form: both parts, split at the first space
            return self._find(*argument.split(" ", 1))
        raise ValueError(f"the instruction {name}, which no model file needs")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _take(self, count: int | None) -> list[Any]:
        """So many values off the stack, lowest first; ``None`` takes all down to the mark."""
        items = []
        if count is not None:
            items += [self._pop() for _ in range(count)]
        else:
            while (value := self._stack.pop()) is not _MARK:
                items.append(value)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        _expect(self._top(), list | Record, "list").extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        _expect(target.state if isinstance(target, Record) else target, dict, "dictionary").update(_pairs(items))

    def _add_items(self, items: list[Any]) -> None:
        _expect(self._top(), set, "set").update(map(as_key, items))

    def _build(self, states: list[Any]) -> None:
        target = _expect(self._top(), dict | Record, "object")
        if isinstance(target, Record):  # an OrderedDict may have attributes, too; nobody reads them
            target.set_state(*states)

    def _call(self, function: Any, arguments: Any, _: Any = None) -> Any:
        if not isinstance(arguments, tuple):
            raise ValueError(f"arguments that are {type(arguments).__name__}")
        self.spend(8 * len(arguments))
        if isinstance(function, Name) and function.make is not None:
            return function.make(self.spend, *arguments)
        if isinstance(function, Name):
            return Record(function.module, function.name, arguments)
        if isinstance(function, Record):
            # torch calls what getattr returned; that too is only remembered
            return Record(function.module, function.name, (function, *arguments))
        raise ValueError(f"a call of {type(function).__name__}")

    def _find(self, module: Any, name: Any) -> Name:
        key = (module, name)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError(f"a name that is no text: {shown(name)}")
        if key not in self._names:
            if key not in FUNCTIONS and module.split(".")[0] not in _PACKAGES and key not in _INERT:
                raise ValueError(
                    f"{self._source} names {short(module)}.{short(name)}, which no model file needs; it was not run. "
                    "Do not open this file with other programs."
                )
            if len(self._names) >= _MAX_NAMES:
                raise ValueError(f"more than {_MAX_NAMES} names")
            self._names[key] = Name(module, name, FUNCTIONS.get(key))
        return self._names[key]

    def _storage(self, pid: Any) -> np.ndarray:
        if not isinstance(pid, tuple) or len(pid) != 5:
            raise ValueError(f"a tensor storage named {shown(pid)}")
        kind, storage, key, _, size = pid
        name = getattr(storage, "name", None)
        if kind != "storage" or name not in _DTYPES:
            raise ValueError(f"{self._source} stores tensors as {shown(name)}, which is not supported.")
        if not isinstance(key, str) or type(size) is not int or size < 0:
            raise ValueError(f"a tensor storage of size {shown(size)}")
        if key not in self._storages:
            native = np.dtype(_DTYPES[name])
            self.spend(size * native.itemsize)
            content = read_member(self._archive, f"{self._prefix}/data/{key}")
            if len(content) != size * native.itemsize:
                raise ValueError(
                    f"{self._source} is truncated or damaged: tensor storage {short(key)} has {len(content)} bytes "
                    f"where {size * native.itemsize} are needed."
                )
            dtype = native.newbyteorder(">" if self._big_endian else "<")
            self._storages[key] = np.frombuffer(content, dtype).astype(native)
        return self._storages[key]


def _expect(target: Any, kind: Any, name: str) -> Any:
    if not isinstance(target, kind):
        raise ValueError(f"items for {type(target).__name__}, which is no {name}")
    return target


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {as_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_VALUES: dict[str, tuple[int | None, Callable[[list[Any]], Any]]] = {
    "EMPTY_LIST": (0, list),
    "EMPTY_DICT": (0, dict),
    "EMPTY_SET": (0, set),
    "TUPLE1": (1, tuple),
    "TUPLE2": (2, tuple),
    "TUPLE3": (3, tuple),
    "TUPLE": (None, tuple),
    "LIST": (None, list),
    "DICT": (None, _pairs),
    "FROZENSET": (None, lambda items: frozenset(map(as_key, items))),
}
"""Instructions that make a value of others: how many these are (``None`` for all down to the mark), and how."""

_CALLS: dict[str, tuple[int, Callable[..., Any]]] = {
    "BINPERSID": (1, _Machine._storage),
    "STACK_GLOBAL": (2, _Machine._find),
    "REDUCE": (2, _Machine._call),
    "NEWOBJ": (2, _Machine._call),
    "NEWOBJ_EX": (3, _Machine._call),
}
"""Likewise, with what the file holds besides."""

_CHANGES: dict[str, tuple[int | None, Callable[[_Machine, list[Any]], None]]] = {
    "POP_MARK": (None, lambda machine, items: None),
    "APPEND": (1, _Machine._extend),
    "APPENDS": (None, _Machine._extend),
    "SETITEM": (2, _Machine._set_items),
    "SETITEMS": (None, _Machine._set_items),
    "ADDITEMS": (None, _Machine._add_items),
    "BUILD": (1, _Machine._build),
}
"""Instructions that add values to the one below them."""


def read_torch(path: Path) -> Any:
    """Read the object in a file of ``torch.save`` (torch 1.6 or newer) as records and numpy arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, is damaged, or names anything that a model file does not need.
    """
    with open_archive(path, "a file that torch.save wrote") as archive:
        names = archive.namelist()
        prefix = next((name.rsplit("/", 1)[0] for name in names if name.endswith("/data.pkl")), None)
        if prefix is None:
            raise ValueError(f"{path} is not a file that torch.save wrote: it holds no data.pkl.")
        if f"{prefix}/constants.pkl" in names:
            raise ValueError(f"{path} is compiled TorchScript; give the .model or .pth file it was made from.")
        order = read_member(archive, f"{prefix}/byteorder", 16) if f"{prefix}/byteorder" in names else b"little"
        try:
            program = read_member(archive, f"{prefix}/data.pkl", _MAX_PICKLE)
            root = _Machine(archive, prefix, path, order == b"big").run(program)
        except (KeyError, IndexError, AttributeError, TypeError, OverflowError, MemoryError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__}: {short(str(error))}.") from None
        except ValueError as error:
            if str(error).startswith(str(path)):
                raise
            raise ValueError(f"{path} is damaged: {short(str(error))}.") from None
    return root
