"""Hostile files of mace-torch and SevenNet: the pickle op by op, pickles that are no model, the archive, and bytes."""

from __future__ import annotations

import functools
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from campaign.hostile_case import Case, Kind
from campaign.hostile_model_files import NUMBERS, read_model
from campaign.mutations import pick, spoil_bytes

MACE_FILES = (
    "mp0_small.model",
    "one_layer.model",
    "two_heads.model",
    "mp0b.model",
    "mh1.model",
    "nonlinear_options.model",
)
SEVENNET_FILES = ("sevennet_even.pth", "sevennet_old.pth", "sevennet_modal.pth", "sevennet_parities.pth")
GOLDENS = Path(__file__).resolve().parents[1] / "models" / "goldens"

FLOATS = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e300, 1e-300, 300.0, 1e6, 1e-6)


def make_torch(sources: Sequence[str], rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile ``.model`` or ``.pth``: its pickle, op by op; its archive; or bytes."""
    source = GOLDENS / pick(rng, sources)
    path = folder / f"hostile{source.suffix}"
    way = pick(rng, ["op", "op", "op", "op", "pickle", "archive", "bytes", "storage"])
    refuse = False
    if way == "bytes":
        content, what = spoil_bytes(rng, source.read_bytes())
        path.write_bytes(content)
    elif way == "op":
        members = _members(source)
        name = next(name for name in members if name.endswith("data.pkl"))
        what = ""
        for _ in range(int(pick(rng, [1, 1, 3]))):
            members[name], change = _spoil_pickle(rng, members[name])
            what += change
        _write_archive(path, members)
    elif way == "pickle":
        members = _members(source)
        name = next(name for name in members if name.endswith("data.pkl"))
        what, members[name] = pick(rng, list(_pickles().items()))
        refuse = True
        _write_archive(path, members)
    elif way == "storage":
        members = _members(source)
        name = pick(rng, [name for name in members if "/data/" in name])
        members[name], what = spoil_bytes(rng, members[name])
        _write_archive(path, members)
    else:
        what, refuse = _spoil_archive(rng, path, source)
    return Case(path, f"{source.name}: {what}", refuse, arguments=())


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write_archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _spoil_pickle(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Change the argument of one op, or drop or repeat it."""
    ops = _ops(content)
    if len(ops) < 3:
        return content[:-1], "op: the last byte cut off; "
    aside = ("PROTO", "FRAME")
    numeric = [
        i
        for i, (op, arg, _) in enumerate(ops)
        if isinstance(arg, int | float) and not op.name.endswith(("PUT", "GET")) and op.name not in aside
    ]
    names = [i for i, (_, arg, _) in enumerate(ops) if isinstance(arg, str)]
    way = pick(rng, ["number", "number", "number", "text", "drop", "repeat", "swap"])
    index = pick(rng, numeric if way == "number" else names if way == "text" else range(len(ops) - 1))
    op, arg, start = ops[index]
    stop = ops[index + 1][2]
    piece = content[start:stop]
    if way == "number":
        value = pick(rng, NUMBERS if isinstance(arg, int) else FLOATS)
        new = b"G" + struct.pack(">d", value) if isinstance(value, float) else pickle.dumps(value, 2)[2:-1]
        what = f"op: {op.name} {arg} becomes {value}; "
    elif way == "text":
        value = pick(rng, ["", "x", "os system", "builtins\neval", "a" * 100_000, "é", "ScaleShiftMACE", "torch"])
        new = (
            piece.replace(str(arg).split(" ")[-1].encode(), value.encode())
            if b"\n" in piece
            else pickle.dumps(value, 2)[2:-1]
        )
        new = new.split(b"q\x00")[0] if b"\n" not in piece else new
        what = f"op: {op.name} {str(arg)[:40]!r} becomes {value[:40]!r}; "
    elif way == "swap":
        after = ops[index + 2][2] if index + 2 < len(ops) else len(content)
        new, stop = content[stop:after] + piece, after
        what = f"op: {op.name} swapped with the next; "
    else:
        new, what = piece * (0 if way == "drop" else 2), f"op: {way} {op.name}; "
    return content[:start] + new + content[stop:], what


def _ops(content: bytes) -> list[tuple[pickletools.OpcodeInfo, Any, int]]:
    """The ops of a pickle, up to where an earlier change makes it unreadable."""
    found = []
    try:
        for op, arg, start in pickletools.genops(content):
            found.append((op, arg, start or 0))
    except Exception:
        return found
    return found


def _pickles() -> dict[str, bytes]:
    """Pickles that are no model: deep, large, cyclic, dangerous."""
    laughs = b"\x80\x02(lq\x000" + b"".join(
        b"(" + (b"h" + bytes([i])) * 10 + b"lq" + bytes([i + 1]) + b"0" for i in range(12)
    )
    return {
        "empty": b"",
        "only the stop": b".",
        "a number": pickle.dumps(5, 2),
        "None": pickle.dumps(None, 2),
        "deep lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep tuples": b"\x80\x02" + b"K\x01" + b"\x85" * 200_000 + b".",
        "shared lists ten times ten times ten": laughs + b"h\x0c.",
        "memo far out": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
        "a text of 4 GB": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 32) + b"a.",
        "bytes of 4 EB": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"a.",
        "a number of a million digits": b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6 + b".",
        "os.system": b"cos\nsystem\n(S'true'\ntR.",
        "eval": b"c__builtin__\neval\n(S'1'\ntR.",
        "a cycle": b"\x80\x02]q\x00h\x00a.",
        "a dictionary of itself": b"\x80\x02}q\x00K\x01h\x00s.",
        "protocol 9": b"\x80\x09.",
        "set of a list": b"\x80\x02cbuiltins\nset\n(K\x01tR.",
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\nbytes\nS'fromhex'\ntR(S'00'\ntR.",
        "a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))tR.",
        "no arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        "build on a number": b"\x80\x02K\x01}b.",
    }


def _spoil_archive(rng: np.random.Generator, path: Path, source: Path) -> tuple[str, bool]:
    members = _members(source)
    name = pick(rng, list(members))
    pickled = next(name for name in members if name.endswith("data.pkl"))
    way = pick(rng, ["missing", "renamed", "twice", "bomb in the pickle", "bomb in a tensor", "encrypted", "many",
        "size", "crc",
                     "no archive", "old torch", "byte order", "nothing", "method"])  # fmt: skip
    if way == "missing":
        del members[name]
    elif way == "renamed":
        members[f"../../{name}"] = members.pop(name)
    elif way == "bomb in the pickle":
        members[pickled] = b"\x80\x02" + b"N0" * 50_000_000
    elif way == "bomb in a tensor":
        members[pick(rng, [name for name in members if "/data/" in name])] = bytes(200_000_000)
    elif way == "many":
        members |= {f"junk/{i}": b"" for i in range(60_000)}
    elif way == "byte order":
        members[next(name for name in members if name.endswith("byteorder"))] = pick(
            rng, [b"big", b"", b"middle", b"\xff"]
        )
    elif way == "nothing":
        members = {}
    bomb = way.startswith("bomb")
    _write_archive(path, members, zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED)
    content = path.read_bytes()
    at = content.rfind(b"PK\x01\x02")
    if way == "twice":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(pickled, b"N.")
    elif way == "encrypted":
        path.write_bytes(content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"))
    elif way == "method":
        path.write_bytes(content[: at + 10] + struct.pack("<H", 99) + content[at + 12 :])
    elif way in ("size", "crc") and at >= 0:
        field = 16 if way == "crc" else 24
        path.write_bytes(
            content[: at + field]
            + pick(rng, [b"\xff\xff\xff\x7f", b"\xff" * 4, b"\x01\0\0\0"])
            + content[at + field + 4 :]
        )
    elif way == "no archive":
        path.write_bytes(
            pick(
                rng,
                [b"", b"PK", b"PK\x05\x06" + bytes(18), pickle.dumps({}), b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."],
            )
        )
    elif way == "old torch":
        path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + members[pickled])
    refuse = way in ("missing", "encrypted", "no archive", "old torch", "nothing", "bomb in the pickle", "twice")
    return f"archive: {way} ({name})", refuse and not name.endswith(
        (".format_version", ".storage_alignment", "version")
    )


KINDS = (
    Kind(".model", functools.partial(make_torch, MACE_FILES), read_model),
    Kind(".pth", functools.partial(make_torch, SEVENNET_FILES), read_model),
)
