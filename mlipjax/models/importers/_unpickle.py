"""Reading of files that ``torch.save`` wrote, without torch and without running anything they name.

A pickle is a program: ``find_class`` may name any importable object and ``REDUCE`` calls it. Here a name never leads
to an import. Names on a short list of what model files contain become inert records that only remember their
arguments and state; tensors become numpy arrays; every other name refuses the file.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

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
_NAMES = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
}
_INERT = {(home, name) for home in ("builtins", "__builtin__") for name in ("bytes", "getattr")}
"""Other names in torch's pickles; they too become records."""


class Record:
    """An object of a model file: the name of its class, the arguments it was made with, and its state."""

    module = name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.state = args, {}
        return record

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args: tuple[Any, ...]
        self.state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {"state": state}

    def append(self, item: Any) -> None:
        """Items of list-like objects join the arguments."""
        self.args = (*self.args, item)

    def extend(self, items: Any) -> None:
        """As ``append``."""
        self.args = (*self.args, *items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state[key] = value

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

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


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, prefix: str, source: Path, big_endian: bool) -> None:
        super().__init__(archive.open(f"{prefix}/data.pkl"))
        self._archive, self._prefix, self._source, self._big_endian = archive, prefix, source, big_endian
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        key = (module_name, global_name)
        if key in _NAMES:
            return _NAMES[key]
        if key in _REBUILDERS:
            return _REBUILDERS[key]
        if module_name.split(".")[0] not in _PACKAGES and key not in _INERT:
            raise ValueError(
                f"{self._source} names {module_name}.{global_name}, which no model file needs; it was not run. "
                "Do not open this file with other programs."
            )
        return type(global_name, (Record,), {"module": module_name, "name": global_name})

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, size = pid
        name = getattr(storage, "name", None)
        if kind != "storage" or name not in _DTYPES:
            raise ValueError(f"{self._source} stores tensors as {name}, which is not supported.")
        if key not in self._storages:
            native = np.dtype(_DTYPES[name])
            dtype = native.newbyteorder(">" if self._big_endian else "<")
            content = self._archive.read(f"{self._prefix}/data/{key}")
            if len(content) < size * dtype.itemsize:
                raise ValueError(f"{self._source} is truncated: tensor storage {key} is too short.")
            self._storages[key] = np.frombuffer(content, dtype)[:size].astype(native)
        return self._storages[key]


def _tensor(storage: np.ndarray, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    size, stride = tuple(size), tuple(stride)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min(size, default=1) > 0 and (offset < 0 or min(stride, default=0) < 0 or last >= storage.size):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(step * storage.itemsize for step in stride)
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)
    return np.array(view, order="C")


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _subclass(rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor of a derived class, as a plain array."""
    if rebuild not in (_tensor, _parameter):
        raise ValueError("a tensor of an unknown kind")
    return rebuild(*arguments)


def _encode(text: str, _: str = "latin1") -> bytes:
    """Bytes in protocol 2, which has none of its own."""
    return text.encode("latin1")


def _scalar(dtype: Record, content: Any) -> Any:
    """A number of numpy's."""
    return np.frombuffer(content, np.dtype(str(dtype.args[0])))[0].item()


_REBUILDERS = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
"""What a few names stand for here: functions of this module that make arrays and numbers."""


def read_torch(path: Path) -> Record:
    """Read the object in a file of ``torch.save`` (torch 1.6 or newer) as records and numpy arrays.

    Raises:
        ValueError: if it is no such file, is damaged, or names anything that a model file does not need.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError):
        raise ValueError(
            f"{path} is not a file that torch.save wrote (no zip archive): damaged, or another format."
        ) from None
    with archive:
        names = archive.namelist()
        prefix = next((name.rsplit("/", 1)[0] for name in names if name.endswith("/data.pkl")), None)
        if prefix is None:
            raise ValueError(f"{path} is not a file that torch.save wrote: it holds no data.pkl.")
        if f"{prefix}/constants.pkl" in names:
            raise ValueError(f"{path} is compiled TorchScript; give the .model file it was made from.")
        order = archive.read(f"{prefix}/byteorder") if f"{prefix}/byteorder" in names else b"little"
        try:
            root = _Unpickler(archive, prefix, path, order == b"big").load()
        except (pickle.UnpicklingError, EOFError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}.") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path} is damaged: {error}.") from None
        except (ValueError, OverflowError, RecursionError) as error:
            if str(error).startswith(str(path)):
                raise
            raise ValueError(f"{path} is damaged: {error}.") from None
    if not isinstance(root, Record):
        raise ValueError(f"{path} holds a {type(root).__name__}, not a whole model; give a .model file.")
    return root
