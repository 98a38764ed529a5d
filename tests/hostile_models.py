"""Model files as nobody should write them: seeded generators of hostile and broken ones.

Each case is a name and the bytes of a file (or of the files of a folder) that no reader may believe. They are small on
disk whatever they claim.
"""

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MACE_FILE = Path(__file__).parent / "models" / "goldens" / "one_layer.model"
SEVENNET_FILE = MACE_FILE.with_name("sevennet_even.pth")

HEADER = {
    "atomic_numbers": [1, 8],
    "cutoff": 4.0,
    "hidden_irreps": "2x0e + 2x1o",
    "lmax": 1,
    "n_layers": 1,
    "radial_basis_size": 4,
    "radial_mlp_size": 4,
    "radial_mlp_layers": 1,
    "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0,
    "index_weights": False,
    "layer_norm": True,
    "shift": 0.0,
    "scale": 1.0,
    "avg_n_neighbors": 9.0,
}
"""Header of a small ``.nqx`` file."""

CONFIG = {
    "format": 1,
    "architecture": "nequip",
    "config": {"species": [1, 8], "cutoff": 4.0, "hidden_irreps": "2x0e", "lmax": 0, "n_layers": 1},
    "e0s": {"energy": [0.0, 0.0]},
}
"""Configuration of a small folder."""

NAN, INF = float("nan"), float("inf")
WRONG_NUMBERS = {
    "cutoff": [0, -1.0, 300.0, 1e6, NAN, INF, "six", None, [6.0], {}, True, 10**400],
    "lmax": [-1, 200, 1.5, "two", None, 10**30, NAN],
    "n_layers": [0, -3, 10**7, 2.5, None, [], 10**400],
    "radial_basis_size": [0, 10**9, -1, None],
    "avg_n_neighbors": [0.0, -1.0, NAN, INF, "nine"],
    "scale": [NAN, INF, 1e300, "one", [1.0, 2.0, 3.0]],
    "shift": [NAN, -INF, {}],
    "hidden_irreps": ["1000000x0e", "4x200e", "2x1o", "", "0x0e", "x" * 10**5, 7, None, "+".join(["64x0e"] * 10**4)],
}
"""Values that no potential has, by the name of the field, in ``.nqx`` files and folders alike."""

_WRONG_IN_FOLDERS = {
    "embedding": [-1, 10**9, 1.5, None],
    "envelope_onset": [-1.0, 4.0, NAN, "late"],
    "activation_gain": [NAN, INF, 1e9],
    "readout_channels": [-1, 10**9],
    "n_labels": [-1, 1, 10**6, None],
    "parity": [0, "even"],
}

WRONG_SPECIES = [[], [999], [0], [8, 1], [1, 1], [1.5], ["H"], None, [True], list(range(1, 119)) * 10**4, [10**30], {}]

_DEEP = "[" * 100_000


def small_leaves(seed: int = 0) -> list[np.ndarray]:
    """Some arrays with nothing wrong about them."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((2,), (4, 4), (4, 3))]


def nqx(header: object, arrays: list[np.ndarray]) -> bytes:
    """A file in the format of ``.nqx``."""
    file = io.BytesIO()
    file.write((header if isinstance(header, str) else json.dumps(header)).encode() + b"\n")
    for array in arrays:
        np.save(file, array)
    return file.getvalue()


def npy_header(shape: str, descr: str = "'<f4'", order: str = "False") -> bytes:
    """The beginning of an array in numpy's format, whatever it claims."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


NPY = {
    "40 TB": npy_header("(10000000000000,)"),
    "negative shape": npy_header("(-1, -4)") + bytes(16),
    "a shape of one number without end": npy_header("(" + "9" * 900 + ")"),
    "a shape of many numbers": npy_header("(" + "1," * 900 + ")") + bytes(4),
    "shape without end": npy_header("(" + "9" * 5000 + ",)"),
    "objects": npy_header("(1,)", "'|O'") + pickle.dumps([print]),
    "structured": npy_header("(1,)", "[('a', '<f4')]") + bytes(4),
    "deep header": npy_header("(" * 1000),
    "not a literal": npy_header("__import__('os').getpid()"),
    "version 9": b"\x93NUMPY\x09\x09" + bytes(100),
    "header longer than the file": b"\x93NUMPY\x01\x00\xff\xff{'descr'",
    "version 2 with a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "long double": npy_header("(1,)", "'<f16'") + bytes(16),
    "empty text": npy_header("(1000000000000,)", "'<U0'"),
}
"""Arrays in numpy's format that are none."""


def nqx_cases() -> Iterator[tuple[str, bytes]]:
    """Hostile ``.nqx`` files."""
    for field, values in (WRONG_NUMBERS | {"atomic_numbers": WRONG_SPECIES}).items():
        for value in values:
            yield f"{field} = {str(value)[:20]}", nqx(HEADER | {field: value}, small_leaves())
    for size, layers in ((10**9, 1), (4, 10**9), (-1, 2), (4, -1)):
        yield (
            f"radial {size} x {layers}",
            nqx(HEADER | {"radial_mlp_size": size, "radial_mlp_layers": layers}, small_leaves()),
        )
    yield "deep header", nqx(_DEEP, [])
    yield "header without end", b'{"a": "' + b"x" * (1 << 21)
    yield "header is a list", nqx([1, 2], [])
    yield "empty", b""
    for name, array in NPY.items():
        yield f"array: {name}", nqx(HEADER, []) + array


def folder_cases() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Hostile folders: their files by name. Configurations carry right digests, so that they are looked at."""
    import hashlib

    def folder(config: object, tensors: dict[str, tuple[str, list[int], int]] | None = None) -> dict[str, bytes]:
        text = (config if isinstance(config, str) else json.dumps(config)).encode()
        return {
            "config.json": text,
            "params.safetensors": safetensors(tensors or {}, hashlib.sha256(text).hexdigest()),
        }

    heads = {"heads": [[], [1], ["a/b"], "energy"]}
    for field, values in (WRONG_NUMBERS | _WRONG_IN_FOLDERS | {"species": WRONG_SPECIES} | heads).items():
        for value in values:
            yield f"{field} = {str(value)[:20]}", folder(CONFIG | {"config": CONFIG["config"] | {field: value}})
    for name, change in (
        ("no configuration", {"config": None}),
        ("a list of fields", {"config": [1]}),
        ("e0s of one element", {"e0s": {"energy": [1.0]}}),
        ("e0s that are words", {"e0s": {"energy": ["a", "b"]}}),
        ("e0s NaN", {"e0s": {"energy": [NAN, 0.0]}}),
        ("e0s without end", {"e0s": {"energy": [10**400, 0]}}),
        ("e0s nested", {"e0s": {"energy": [[1.0], [2.0, 3.0]]}}),
        ("e0s is a number", {"e0s": 3}),
        ("property heads are a number", {"properties": 7}),
        ("property head without a name", {"properties": [{"kind": "intensive"}]}),
        ("property head of huge layers", {"properties": [{"name": "gap", "hidden": [10**12]}]}),
        ("architecture is a list", {"architecture": ["nequip"]}),
    ):
        yield name, folder(CONFIG | change)
    yield "deep configuration", folder(_DEEP)
    yield "configuration is a list", folder([1])
    yield "tensors of integers", folder(CONFIG, {"readout_energy/kernel": ("I64", [2, 1], 16)})
    yield "tensor of a strange name", folder(CONFIG, {"//": ("F32", [1], 4)})
    whole = folder(CONFIG)
    yield "empty tensors", whole | {"params.safetensors": b""}
    yield "short tensors", whole | {"params.safetensors": b"\0\0"}
    yield "description longer than the file", whole | {"params.safetensors": struct.pack("<Q", 2**63) + b"{}"}
    yield "deep description", whole | {"params.safetensors": struct.pack("<Q", len(_DEEP)) + _DEEP.encode()}
    for shape in ([10**13], [2**62, 4], [-1]):
        header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * abs(shape[0])]}}).encode()
        yield f"tensor {shape}", whole | {"params.safetensors": struct.pack("<Q", len(header)) + header}


def safetensors(tensors: dict[str, tuple[str, list[int], int]], config_sha256: str) -> bytes:
    """Tensors of zeros by name: type, shape and number of bytes."""
    header: dict[str, object] = {"__metadata__": {"config_sha256": config_sha256}}
    start = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(start)


def torch_archive(program: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """An archive as ``torch.save`` writes it around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", program)
        for key, content in (storages or {}).items():
            archive.writestr(f"m/data/{key}", content)
    return file.getvalue()


_MACE = b"\x80\x02cmace.modules.models\nScaleShiftMACE\n"
_STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ"


def _tensor(size: str, stride: str, offset: str = "0", stored: int = 4) -> bytes:
    """A model with a tensor that claims a size and strides."""

    def numbers(text: str) -> bytes:
        return b"(" + b"".join(f"I{number}\n".encode() for number in text.split()) + b"t"

    storage = _STORAGE.replace(b"((", b"(") % f"I{stored}\n".encode()
    arguments = b"(" + storage + f"I{offset}\n".encode() + numbers(size) + numbers(stride) + b"I00\n}t"
    return _MACE + b"(ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"RtR."


def torch_cases() -> Iterator[tuple[str, bytes]]:
    """Hostile ``.model`` and ``.pth`` files."""
    nested = b"\x85" * 300_000
    shared = b"2\x86" * 200
    programs = {
        "nested tuples": _MACE + b")" + nested + b"\x85\x81.",
        "a deep tuple as a key": b"\x80\x02})" + nested + b"Ks.",
        "shared tuples": _MACE + b")" + shared + b"\x85\x81.",
        "shared tuples as a key": b"\x80\x02})" + shared + b"K\x01s.",
        "shared tuples as heads": _MACE + b")\x81}X\x05\x00\x00\x00heads)" + shared + b"sb.",
        "a memo of 4e9": b"\x80\x02Nr\xff\xff\xff\xff.",
        "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "a text of 2 GB": b"\x80\x02X\xff\xff\xff\x7f.",
        "a text of 16 EB": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "a call of a call": b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        "a class of another program": b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        "a name in two lines": b"\x80\x04X\x03\x00\x00\x00a\nbX\x01\x00\x00\x00c\x93.",
        "a function that is changed": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00nameNsb.",
        "no end": b"\x80\x02]" + b"N" * 1000,
        "nothing": b"",
        "only an end": b".",
        "a mark as a value": b"\x80\x02(.",
        "instructions without end": b"\x80\x02" + b"N0" * 1_000_000 + b"N.",
        "texts copied for ever": b"\x80\x02X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x00"
        + b"c_codecs\nencode\nq\x01]" + b"h\x01h\x00\x85Ra" * 20_000 + b".",
        "names without end": b"\x80\x02]" + b"".join(
            f"ctorch\nn{i}\na".encode() for i in range(20_000)) + b".",
        "40 TB of zeros by strides": _tensor("10000000 1000000", "0 0"),
        "negative strides": _tensor("2", "-1", "1"),
        "beyond its storage": _tensor("2 2", "4 4"),
        "an offset beyond its storage": _tensor("1", "1", "10"),
        "a negative offset": _tensor("1", "1", "-3"),
        "a negative size": _tensor("-4", "1"),
        "no strides": _tensor("4", ""),
        "sizes without end": _tensor(" ".join(["1"] * 100), " ".join(["1"] * 100)),
        "a storage of 40 TB": _tensor("4", "1", stored=10**13),
        "a negative storage": _tensor("4", "1", stored=-4),
    }  # fmt: skip
    for name, program in programs.items():
        yield name, torch_archive(program, {"0": bytes(16)})
    yield (
        "zip bomb",
        torch_archive(_MACE + b")\x81.", {"0": bytes(1 << 28)}).replace(
            struct.pack("<I", 1 << 28), struct.pack("<I", 0xFFFFFFF0)
        ),
    )
    yield "a pickle bomb of zeros", torch_archive(bytes(1 << 26))
    whole = MACE_FILE.read_bytes()
    start = whole.index(b"PK\x01\x02")
    yield "encrypted", whole[: start + 8] + b"\x01" + whole[start + 9 :]
    yield "another packing", whole[: start + 10] + b"\x63" + whole[start + 11 :]
    yield "wrong checksum", whole[: start + 16] + bytes(4) + whole[start + 20 :]
    yield "two members of one name", _twice("m/data.pkl")
    yield "members without end", _many_members()
    yield "no archive", b"PK\x05\x06" + bytes(18)
    yield "text", b"a model\n" * 10
    yield "empty", b""


def _twice(name: str) -> bytes:
    """An archive that names a member twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for program in (_MACE + b")\x81.", b"N."):
            archive.writestr(name, program)
    return file.getvalue()


def _many_members() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(20_001):
            archive.writestr(str(number), b"")
    return file.getvalue()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with bytes flipped, cut out, doubled or put in."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(content)))
        size = int(rng.integers(1, 9))
        match rng.integers(5):
            case 0:
                content[start] ^= 1 << int(rng.integers(8))
            case 1:
                content[start : start + size] = rng.bytes(size)
            case 2:
                del content[start : start + size]
            case 3:
                content[start:start] = rng.bytes(size)
            case _:
                del content[start:]
        if not content:
            break
    return bytes(content)
