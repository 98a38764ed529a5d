"""Ways to spoil content: bytes, lines and words of text, JSON values, arrays. Everything is drawn from a generator."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np

WORDS = (
    "nan", "-nan", "inf", "-inf", "1e999", "1e300", "-1e300", "1e-320", "0", "-1", "-0.0", "1000000000", "2.5",
    "99999999999999999999999999", "0x10", "1e", "True", "None", "null", "''", '"', "[", "]]", "{", "\\", "%s", "Xx",
    "X", "Uuo", "119", "é", "１", "\x00", "\t\t", "", "a" * 5000, "[" * 3000, "1d0", "1_000", "+", "--5", "=", ":",
)  # fmt: skip
"""Words that stand where a number, an element or a name is expected."""

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2.5, 10**9, 10**18, -(10**30), 10**400, 1e308, -1e308, 1e-320, float("nan"),
    float("inf"), "", "x", "4", "nan", "é\x00", "a" * 100_000, [], {}, [[]], [None], ["4"], [1, 2, 3], [1e30], [-1],
    [999], [1, 1], [0], {"a": 1}, {"__array__": [1], "dtype": "O"}, {"__array__": [[1], [2, 3]], "dtype": "<f8"},
)  # fmt: skip
"""JSON values that stand where others are expected; Python's json writes NaN, Infinity and huge integers."""


def pick(rng: np.random.Generator, items: Any) -> Any:
    """One of ``items``, as it is."""
    return items[int(rng.integers(len(items)))]


def spoil_bytes(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Flip, cut, insert, duplicate, swap, blank or repeat bytes; return what came out and what was done."""
    if not content:
        return b"\x00", "a zero byte instead of nothing"
    at, other = sorted(int(i) for i in rng.integers(len(content), size=2))
    length = int(min(2 ** rng.integers(0, 12), len(content) - at))
    noise = rng.integers(0, 256, size=int(2 ** rng.integers(0, 8)), dtype=np.uint8).tobytes()
    ways = {
        "flip": lambda: content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :],
        "cut the end": lambda: content[:at],
        "cut a byte off": lambda: content[:-1],
        "cut out": lambda: content[:at] + content[at + length :],
        "insert": lambda: content[:at] + noise + content[at:],
        "append": lambda: content + noise,
        "duplicate": lambda: content[: at + length] + content[at:],
        "swap": lambda: content[:at] + content[other:] + content[at:other],
        "blank": lambda: content[:at] + bytes(length) + content[at + length :],
        "overwrite": lambda: content[:at] + noise + content[at + len(noise) :],
        "double": lambda: content + content,
        "empty": lambda: b"",
    }
    name = pick(rng, list(ways))
    return ways[name](), f"bytes: {name} at {at}, length {length}"


def spoil_text(rng: np.random.Generator, content: str) -> tuple[str, str]:
    """Spoil a word, or drop, duplicate, swap, shorten or lengthen lines."""
    lines = content.split("\n")
    at, other = (int(i) for i in rng.integers(len(lines), size=2))
    way = pick(rng, ["word", "word", "word", "word", "drop", "duplicate", "swap", "cut", "longer", "many", "glue"])
    what = f"text: {way} in line {at}"
    if way == "word":
        words = lines[at].split(" ")
        place, word = int(rng.integers(len(words))), pick(rng, WORDS)
        what = f"text: {words[place][:40]!r} in line {at} becomes {word[:40]!r}"
        words[place] = word
        lines[at] = " ".join(words)
    elif way == "drop":
        del lines[at]
    elif way == "duplicate":
        lines.insert(at, lines[at])
    elif way == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif way == "cut":
        lines[at] = lines[at][: int(rng.integers(len(lines[at]) + 1))]
    elif way == "longer":
        lines[at] += " " + pick(rng, WORDS)
    elif way == "many":
        lines[at : at + 1] = [lines[at]] * 1000
    else:
        lines[at : at + 2] = ["".join(lines[at : at + 2])]
    return "\n".join(lines), what


def spoil_json(rng: np.random.Generator, value: Any) -> tuple[str, str]:
    """Spoil one place of a JSON document; return its text, which need not be JSON any more."""
    places = list(_places(value))
    path = pick(rng, places)
    way = pick(rng, ["value", "value", "value", "value", "delete", "rename", "extra", "twice", "deep", "text"])
    where = "/".join(map(str, path)) or "the whole document"
    if way == "text":
        return spoil_text(rng, json.dumps(value, indent=1))
    if way == "deep":
        depth = int(pick(rng, [100, 1500, 100_000]))
        text = json.dumps(_replaced(value, path, "@deep@"))
        return text.replace('"@deep@"', "[" * depth + "]" * depth), f"json: {where} is {depth} lists deep"
    if way == "value" or not path:
        new = pick(rng, VALUES)
        return json.dumps(_replaced(value, path, new)), f"json: {where} becomes {str(new)[:40]!r}"
    parent = _at(value, path[:-1])
    if way == "twice" and isinstance(parent, dict):
        new = json.dumps(pick(rng, VALUES))
        marked = json.dumps(_replaced(value, path[:-1], {**parent, "@twice@": 0}))
        again = f"{json.dumps(path[-1])}: {new}"
        return marked.replace('"@twice@": 0', again), f"json: {where} twice, then {new[:40]}"
    if isinstance(parent, dict):
        rest = {name: child for name, child in parent.items() if way == "extra" or name != path[-1]}
        new = rest if way == "delete" else {**rest, pick(rng, ["", "zz", "é", "a" * 1000]): parent[path[-1]]}
    else:
        new = [child for index, child in enumerate(parent) if index != path[-1]]
    return json.dumps(_replaced(value, path[:-1], new)), f"json: {way} {where}"


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from _places(child, (*path, name))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


def npy_bytes(array: np.ndarray) -> bytes:
    """The content of an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def spoil_array(rng: np.random.Generator, array: np.ndarray) -> tuple[bytes, str]:
    """Spoil an array's values, type, shape or the header of its file; return the content of an ``.npy`` file."""
    way = pick(rng, ["value", "value", "dtype", "shape", "claim", "claim", "order", "bytes"])
    if way == "value" and array.size and array.dtype.kind in "fiu":
        return _spoil_value(rng, array)
    if way == "dtype":
        kind = pick(rng, ["<f2", "<c16", "<i4", "|u1", "S5", "U5", "|b1", ">f8", "<M8[s]", "O"])
        return npy_bytes(_as(array, kind)), f"array: dtype {kind} instead of {array.dtype}"
    if way == "shape":
        return _spoil_shape(rng, array)
    if way == "order":
        return npy_bytes(np.asfortranarray(array)), "array: Fortran order"
    if way == "claim":
        return _claim(rng, array)
    return spoil_bytes(rng, npy_bytes(array))


def _spoil_value(rng: np.random.Generator, array: np.ndarray) -> tuple[bytes, str]:
    value = pick(rng, [np.nan, np.inf, -np.inf, 1e300, 1e38, -1e300, 0.0, -1.0, 1e-300, 200, 999, 2**31 - 1])
    spoilt = array.copy()
    everywhere = rng.random() < 0.3
    place = ... if everywhere else np.unravel_index(int(rng.integers(array.size)), array.shape)
    with np.errstate(all="ignore"):
        spoilt[place] = np.asarray(value).astype(array.dtype)
    return npy_bytes(spoilt), f"array: {value} {'everywhere' if everywhere else f'at {place}'}"


def _as(array: np.ndarray, kind: str) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):
            return array.astype(kind)
    except (TypeError, ValueError):
        return np.zeros(array.shape, kind)


def _spoil_shape(rng: np.random.Generator, array: np.ndarray) -> tuple[bytes, str]:
    ways = [array[None], array.reshape(-1), np.atleast_1d(array)[:0], array.T, np.concatenate([array.reshape(-1)] * 2)]
    ways += [
        array.reshape(-1)[:-1],
        np.zeros((0, 7)),
        np.float64(3.0),
        np.broadcast_to(array[..., None], (*array.shape, 2)),
    ]
    found = np.asarray(pick(rng, ways))
    return npy_bytes(found), f"array: shape {found.shape} instead of {array.shape}"


def _claim(rng: np.random.Generator, array: np.ndarray) -> tuple[bytes, str]:
    """A header that does not fit what follows."""
    content = npy_bytes(array)
    body = content[10 + struct.unpack("<H", content[8:10])[0] :]
    shape = pick(
        rng,
        [(10**13,), (10**9, 3), (2**62,), (2**63,), (-1,), (3, -2), (10**5,) * 4, (0, 10**18), (1,) * 40, (1.5,),
            "x", None,
         (len(array) + 1 if array.ndim else 2, *array.shape[1:]), (True,), (1 << 200,)],
    )  # fmt: skip
    descr = pick(rng, [array.dtype.str, array.dtype.str, "|O", "<f8" * 3, "V1000000", [("a", "<f8")] * 2, "|V0", ""])
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    version = bytes(pick(rng, [(1, 0), (1, 0), (1, 0), (9, 9)]))
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body, f"array: claims {descr!r} {shape}"
