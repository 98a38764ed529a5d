"""Hostile files of structures and labels: extended xyz (plain and packed), POSCAR, CIF, databases, VASP's outputs."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import pickle
import shutil
import sqlite3
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from campaign.hostile_case import Case, Kind, check_neighbours
from campaign.mutations import WORDS, pick, spoil_bytes, spoil_json, spoil_text

ROWS = "Mg 0.0 0.0 0.0 0.0 0.0 0.1\nO 2.1 0.0 0.1 0.0 0.0 -0.1\n"
HEADER = (
    'Lattice="0.0 2.1 2.1 2.1 0.0 2.1 2.1 2.1 0.0" Properties=species:S:1:pos:R:3:forces:R:3 energy=-3.2 pbc="T T T"'
)

COUNTS = ("0", "-2", "1", "3", "1000000000", "99999999999999999999", "2.0", "nan", "", "two", "2 2", "0x2", "2e0")
LATTICES = (
    "", "0 0 0 0 0 0 0 0 0", "nan 0 0 0 4 0 0 0 4", "inf 0 0 0 4 0 0 0 4", "4 0 0 0 4 0 0 0", "4 0 0 0 4 0 0 0 4 4",
    "4 0 0 0 4 0 4 4 0", "4 0 0 4 0 0 0 0 4", "1e-6 0 0 0 1e-6 0 0 0 1e-6", "1e12 0 0 0 1e12 0 0 0 1e12",
    "4 0 0 0 4 0 0 0 1e-9", "4 0 0 3.9999999 1e-7 0 0 0 4", "1e300 0 0 0 1e300 0 0 0 1e300", "a b c d e f g h i",
    "4 0 0 0 4 0 0 0 0", "1e-320 0 0 0 4 0 0 0 4", "0.05 0 0 0 0.05 0 0 0 0.05", "4 4 4", "4",
)  # fmt: skip
COLUMNS = (
    "species:S:1:pos:R:3", "species:S:1", "pos:R:3:forces:R:3", "species:S:1:pos:R:2:forces:R:3",
    "species:S:1:pos:R:3:pos:R:3",
    "species:S:1:pos:R:3:forces:R:1000000000", "species:S:1:pos:R:-3:forces:R:3", "species:S:1:pos:R:3:forces:R",
    "", ":",
    "species:S:1:pos:Q:3:forces:R:3", "species:R:1:pos:R:3:forces:R:3", "species:S:1:pos:S:3:forces:R:3",
    "Z:I:1:pos:R:3:forces:R:3", "species:S:1:pos:R:3:forces:R:3:extra:R:4", "species:S:1:pos:R:0:forces:R:6",
    "species:S:1:pos:L:3:forces:R:3", "species:S:1:pos:I:3:forces:R:3", "species:S:1:pos:R:x:forces:R:3",
    "species:S:1:pos:R:3:numbers:R:3", "species:S:1:pos:R:3:positions:R:3", "species:S:1:pos:R:3:masses:R:3",
)  # fmt: skip
ROW_SETS = (
    "", "Mg 0 0 0 0 0 0\n", "Mg 0 0 0 0 0 0\nO 2 0 0\n", "Mg 0 0 nan 0 0 0\nO 2 0 0 0 0 0\n",
    "X 0 0 0 0 0 0\nO 2 0 0 0 0 0\n",
    "Qq 0 0 0 0 0 0\nO 2 0 0 0 0 0\n", "119 0 0 0 0 0 0\nO 2 0 0 0 0 0\n", "-1 0 0 0 0 0 0\nO 2 0 0 0 0 0\n",
    "Mg 1e30 0 0 0 0 0\nO 2 0 0 0 0 0\n", "Mg 0 0 0 0 0 inf\nO 2 0 0 0 0 0\n", "Mg 0 0 0 0 0 0\nO 0 0 0 0 0 0\n",
    "Mg 0 0 0 0 0 1e300\nO 2 0 0 0 0 0\n", "Mg a b c 0 0 0\nO 2 0 0 0 0 0\n", "Mg 0 0 0 0 0 0 0\nO 2 0 0 0 0 0 0\n",
    "\x00\x00\x00\n\x00\n", "Mg 0 0 0 0 0 0\n\nO 2 0 0 0 0 0\n", "Mg 1e308 -1e308 0 0 0 0\nO 2 0 0 0 0 0\n",
    "Mg 0 0 0 0 0 0\nO 1e-9 0 0 0 0 0\n", "Mg, 0, 0, 0, 0, 0, 0\nO 2 0 0 0 0 0\n", "MG 0 0 0 0 0 0\no 2 0 0 0 0 0\n",
)  # fmt: skip
LABELS = (
    "energy=nan", "energy=inf", "energy=1e999", "energy=x", 'energy="1 2"', "energy=", "energy", "energy=[1]",
    "energy={}",
    "energy=1e300", "energy=T", 'energy=-1 stress="1 2 3"', 'energy=-1 stress="a b c d e f"',
    'energy=-1 stress="nan 0 0 0 0 0"',
    "energy=-1 energy=-2", 'energy=-1 comment="open', "energy=-1 comment='open", "energy=-1 a=[[[[",
    "energy=-1 _JSON {",
    'energy=-1 a="_JSON [1, {"', "energy=-1 energy_weight=-1", "energy=-1 forces_weight=nan", 'energy=-1 pbc="T"',
    'energy=-1 pbc="yes no maybe"', 'energy=-1 pbc="1 1 1 1"', "energy=-1 charge=1e30",
    "energy=-1 " + "a" * 1_000_000,
    "energy=-1 x=" + "[" * 5000, "energy=-1 " + " ".join(f"k{i}={i}" for i in range(20000)), "energy=-1 =5",
    "energy=-1 é=é",
    'energy=-1 virial="1 2 3 4 5 6 7 8 9"', "energy=-1 free_energy=nan", 'energy=-1 dipole="nan nan nan"',
    "energy=-1 run=T300",
    "energy=-1 energy_weight=x", "energy=-1 config_weight=-2", "energy=-1 stress=1", "energy=1j",
    "energy=-1 numbers=5",
)  # fmt: skip


def read_structures(path: Path, good: Path) -> None:
    """Read with and without labels; what is accepted must be finite, of known elements, and have neighbours."""
    from mlipjax.data import read_atoms, read_dataset
    from mlipjax.data.labels import MAX_ENERGY

    frames = read_atoms(path)
    assert frames, "no structure"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset = read_dataset(path, required=())
    # a calculation that did not converge gives a structure and no labels
    dropped = any("left out" in str(warning.message) for warning in said)
    assert len(dataset) == len(frames) or (dropped and len(dataset) < len(frames)), "structures differ without labels"
    for system, labels, _ in dataset:
        numbers = np.asarray(system.atomic_numbers)
        assert numbers.min() >= 1, "no atom or element 0"
        assert numbers.max() <= 118, "an element that does not exist"
        assert np.isfinite(np.asarray(system.positions)).all(), "positions that are not finite"
        assert np.isfinite(np.asarray(system.cell)).all(), "a cell that is not finite"
        for label in (labels.energy, labels.forces, labels.stress):
            assert np.isfinite(np.asarray(label)).all(), "labels that are not finite"
            assert np.abs(np.asarray(label)).max(initial=0.0) <= MAX_ENERGY * len(numbers), "labels beyond all measure"
    for system in dataset.systems[:50]:
        check_neighbours(system)


def _hostile_xyz(rng: np.random.Generator, good: Path) -> tuple[bytes, str, bool]:
    """Content of an extended xyz file, what is wrong with it, and whether it must be refused."""
    way = pick(
        rng, ["count", "lattice", "columns", "rows", "label", "text", "text", "text", "bytes", "bytes", "encoding"]
    )
    content = (good / "good.extxyz").read_bytes()
    if way == "bytes":
        return *spoil_bytes(rng, content), False
    if way == "text":
        text, what = spoil_text(rng, content.decode())
        return text.encode(), what, False
    if way == "encoding":
        what, changed = pick(
            rng,
            [("UTF-16", content.decode().encode("utf-16")), ("a mark of byte order", b"\xef\xbb\xbf" + content),
             ("\\r\\n", content.replace(b"\n", b"\r\n")), ("\\r", content.replace(b"\n", b"\r")),
             ("Latin-1", content.replace(b"gap", "größe".encode("latin-1"))), ("zeros", bytes(100_000)),
             ("blank lines", b"\n\n\n" + content), ("one line of 50 MB", b"2" * 50_000_000), ("form feeds",
             content + b"\f\f"),
             ("blank lines at the end", content + b"\n\n \n")],
        )  # fmt: skip
        return changed, f"encoding: {what}", False
    choices = {"count": COUNTS, "lattice": LATTICES, "columns": COLUMNS, "rows": ROW_SETS, "label": LABELS}[way]
    chosen = pick(rng, choices)
    count, header, rows = "2", HEADER, ROWS
    if way == "count":
        count = chosen
    elif way == "lattice":
        header = HEADER.replace("0.0 2.1 2.1 2.1 0.0 2.1 2.1 2.1 0.0", chosen)
    elif way == "columns":
        header = HEADER.replace("species:S:1:pos:R:3:forces:R:3", chosen)
    elif way == "rows":
        rows = chosen
    else:
        header = HEADER.replace("energy=-3.2", chosen)
    before = content if rng.random() < 0.3 else b""
    return before + f"{count}\n{header}\n{rows}".encode(), f"{way}: {chosen[:60]!r}", (way, chosen) in _REFUSE


_REFUSE = {
    ("lattice", text) for text in LATTICES if "nan" in text or "inf" in text or text.startswith(("1e-6", "1e300"))
}
_REFUSE |= {("rows", text) for text in ROW_SETS if text.startswith(("X", "Qq", "119", "-1", "Mg 1e30", "Mg 1e308"))}
_REFUSE |= {
    ("label", text) for text in LABELS if text.startswith(("energy=nan", "energy=inf", "energy=1e999", "energy=x"))
}
_REFUSE |= {("count", text) for text in ("0", "-2", "3", "1000000000", "nan", "two")}


def _evaluate(path: Path, good: Path) -> tuple[str, ...]:
    return ("evaluate", "--model", str(good / "model"), "--data", str(path))


def make_xyz(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile extended xyz file."""
    content, what, refuse = _hostile_xyz(rng, good)
    path = folder / "frames.extxyz"
    path.write_bytes(content)
    return Case(path, what, refuse, arguments=_evaluate(path, good))


def make_packed_xyz(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """Extended xyz, packed: a hostile file inside, a hostile package, or one that is much larger than it looks."""
    name, pack = pick(rng, [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)])
    path = folder / f"frames.extxyz.{name}"
    way = pick(rng, ["inside", "package", "package", "bomb", "not packed"])
    if way == "inside":
        content, what, refuse = _hostile_xyz(rng, good)
        path.write_bytes(pack(content))
    elif way == "package":
        content, what = spoil_bytes(rng, pack((good / "good.extxyz").read_bytes()))
        path.write_bytes(content)
        refuse = False
    elif way == "bomb":
        what, filling = pick(rng, [("zeros", b"\x00"), ("new lines", b"\n"), ("digits", b"7")])
        head = pick(rng, [b"", (good / "good.extxyz").read_bytes(), b"2\n"])
        path.write_bytes(pack(head) + pack(filling * 3_000_000) * 100)  # streams may follow each other
        refuse = False
    else:
        path.write_bytes((good / "good.extxyz").read_bytes())
        what, refuse = "plain text", True
    return Case(path, f"{name}, {way}: {what}", refuse, arguments=_evaluate(path, good))


def _predict(path: Path, good: Path) -> tuple[str, ...]:
    return ("predict", "--model", str(good / "model"), "--data", str(path))


def text_kind(name: str, file: str, command: Callable[[Path, Path], tuple[str, ...]] = _evaluate) -> Kind:
    """A kind whose files are text that ASE reads; ``evaluate`` refuses all those without labels."""

    def make(rng: np.random.Generator, folder: Path, good: Path) -> Case:
        content = (good / file).read_bytes()
        if rng.random() < 0.8:
            text, what = content.decode(), ""
            for _ in range(int(pick(rng, [1, 1, 2, 5]))):
                text, change = spoil_text(rng, text)
                what += f"{change}; "
            content = text.encode()
        else:
            content, what = spoil_bytes(rng, content)
        path = folder / file
        path.write_bytes(content)
        return Case(path, what, arguments=command(path, good))

    return Kind(name, make, read_structures, every=2)


def make_traj(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile trajectory of ASE: bytes changed anywhere, or a value of its JSON."""
    content = (good / "good.traj").read_bytes()
    if rng.random() < 0.5:
        content, what = spoil_bytes(rng, content)
    else:
        text, what = spoil_text(rng, content.decode("latin-1"))
        content = text.encode("latin-1", "ignore")
    path = folder / "frames.traj"
    path.write_bytes(content)
    return Case(path, what, arguments=_evaluate(path, good))


def make_db(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile ASE database: a column of a row, a table, or bytes of the file."""
    path = folder / "frames.db"
    if rng.random() < 0.4:
        content, what = spoil_bytes(rng, (good / "good.db").read_bytes())
        path.write_bytes(content)
        return Case(path, what, arguments=_evaluate(path, good))
    shutil.copy(good / "good.db", path)
    with sqlite3.connect(path) as connection:
        what = _spoil_database(rng, connection)
    connection.close()
    return Case(path, what, arguments=_evaluate(path, good))


def _spoil_database(rng: np.random.Generator, connection: sqlite3.Connection) -> str:
    columns = [row[1] for row in connection.execute("pragma table_info(systems)")]
    tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
    way = pick(rng, ["column", "column", "column", "column", "json", "drop", "delete", "twice"])
    if way == "drop":
        table = pick(rng, [name for name in tables if not name.startswith("sqlite")])
        connection.execute(f"drop table {table}")
        return f"database: no table {table}"
    if way == "delete":
        connection.execute("delete from systems")
        return "database: no rows"
    if way == "twice":
        connection.execute("update systems set id = id + ?", (int(pick(rng, [2**60, -10, 7])),))
        return "database: other numbers of rows"
    column = pick(rng, columns)
    numbers = np.array([pick(rng, [np.nan, np.inf, 1e300, 0.0, 999.0, -1.0])] * int(pick(rng, [1, 2, 3, 6, 9, 100])))
    values = [
        None, -1, 10**18, 1e300, float("inf"), "x", "", b"", numbers.tobytes(), numbers.astype("<i4").tobytes(),
            "[1,",
        "a" * 100_000, '{"a": ' * 2000, pick(rng, WORDS), 0,
    ]  # fmt: skip
    value = spoil_json(rng, {"tags": [1, 2]})[0] if way == "json" else pick(rng, values)
    column = pick(rng, ["data", "key_value_pairs", "constraints"]) if way == "json" else column
    where = "" if column == "id" or rng.random() < 0.5 else " where id = 3"
    try:
        connection.execute(f"update systems set {column} = ?{where}", (value,))
    except (sqlite3.IntegrityError, OverflowError, UnicodeEncodeError):
        connection.execute("update systems set positions = null")
    return f"database: {column} becomes {str(value)[:40]!r}{where}"


def make_lmdb(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile LMDB file: bytes of the file, or what a row holds: other JSON, a pickle, more than it looks."""
    import lmdb

    path = folder / "frames.aselmdb"
    shutil.copy(good / "good.aselmdb", path)
    if rng.random() < 0.5:
        content, what = spoil_bytes(rng, path.read_bytes())
        path.write_bytes(content)
        return Case(path, what, arguments=_evaluate(path, good))
    with lmdb.open(str(path), subdir=False, map_size=1 << 26) as env, env.begin(write=True) as rows:
        key = pick(rng, [b"2", b"2", b"nextid", b"1000000000000", b"7", b"\xff\xff"])
        text = zlib.decompress(rows.get(b"2")).decode()
        changed, what = spoil_json(rng, json.loads(text))
        value = pick(
            rng,
            [zlib.compress(changed.encode()), zlib.compress(spoil_text(rng, text)[0].encode()), b"", b"\x00" * 100,
             pickle.dumps([1]), zlib.compress(b"[" * 10**7), _bomb(), None,
             zlib.compress(b'{"numbers": [1], "positions": [[0, 0, 0]]}')],
        )  # fmt: skip
        rows.delete(key) if value is None else rows.put(key, value)
    return Case(path, f"row {key!r}: {what if value else value!r}", arguments=_evaluate(path, good))


@functools.cache
def _bomb() -> bytes:
    return zlib.compress(b" " * 400_000_000, 1)


def make_hdf5(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile HDF5 file: bytes of the file, or a group or array replaced: other shapes and types, links, no data."""
    import h5py

    path = folder / "frames.h5"
    shutil.copy(good / "good.h5", path)
    if rng.random() < 0.5:
        content, what = spoil_bytes(rng, path.read_bytes())
        path.write_bytes(content)
        return Case(path, what, arguments=_evaluate(path, good))
    numbers = pick(rng, [np.nan, np.inf, 1e300, 0.0, 999.0, -1.0]) * np.ones(
        pick(rng, [(), (1,), (2, 3), (0, 3), (9,)])
    )
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        name = pick(rng, names)
        del file[name]
        way = pick(rng, ["numbers", "numbers", "text", "none", "group", "soft", "external", "large", "deep", "strings"])
        if way == "numbers":
            file[name] = numbers
        elif way == "text":
            file[name] = pick(rng, ["None", "x", "é" * 10000])
        elif way == "group":
            file.create_group(name)
        elif way == "soft":
            file[name] = h5py.SoftLink(pick(rng, ["/", "/config_batch_0", "/nowhere", f"/{name}"]))
        elif way == "external":
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        elif way == "large":  # nothing is stored of it
            file.create_dataset(name, (10**6, 10**6), np.float64, chunks=(1, 1000))
        elif way == "deep":
            file.create_group(name + "/properties/" + "a/" * 500)
        elif way == "strings":
            file[name] = ["a", "b"]
    return Case(path, f"{name} becomes {way} {numbers if way == 'numbers' else ''}", arguments=_evaluate(path, good))


def make_named(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A good file with an odd name, which is nobody's business."""
    parts = ["frames", "@300K", "@1:2", "@-1", "@", "[/b]", "[red]", " ", "  two", "%s", "{0}", "é", "水", "#", "&",
        "'",
             '"', "*", "?", "-", "--", "~", "$HOME", "`", ";", "\\", ":", ",", "=", "a" * 60, ".", "..x", "+", "!",
             "\u202e", "\n", "\t"]  # fmt: skip
    stem = "".join(pick(rng, parts) for _ in range(int(rng.integers(1, 4)))).strip("./ ") or "frames"
    suffix = pick(rng, [".extxyz", ".extxyz", ".xyz", ".traj", ".db", ".extxyz.gz"])
    source = (good / f"good{'.extxyz' if 'xyz' in suffix else suffix}").read_bytes()
    inner = folder / pick(rng, ["in", "in[dir]", "in @2", "in'dir", "@3"])
    inner.mkdir()
    path = inner / f"{stem}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)  # "[/b]" holds a slash
    path.write_bytes(gzip.compress(source) if suffix.endswith("gz") else source)
    return Case(path, f"name: {path.name!r}", accept=True, arguments=_evaluate(path, good))


def read_named(path: Path, good: Path) -> None:
    """A good file is read whole, whatever it is called."""
    from mlipjax.data import read_atoms

    assert len(read_atoms(path)) == 6, "not all frames were read"


KINDS: tuple[Kind, ...] = (
    Kind("extended xyz", make_xyz, read_structures, every=2),
    Kind("packed xyz", make_packed_xyz, read_structures, every=4),
    text_kind("POSCAR", "good.vasp", _predict),
    text_kind("CIF", "good.cif", _predict),
    text_kind("vasprun.xml", "vasprun.xml"),
    text_kind("OUTCAR", "OUTCAR"),
    Kind("ASE trajectory", make_traj, read_structures, every=2),
    Kind("ASE database", make_db, read_structures, every=2),
    Kind("LMDB", make_lmdb, read_structures, every=8),
    Kind("HDF5", make_hdf5, read_structures, every=8),
    text_kind("Quantum ESPRESSO", "pw.out"),
    Kind("file names", make_named, read_named, every=4),
)
