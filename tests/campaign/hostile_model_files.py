"""Hostile model files: Nequix's ``.nqx``, and folders of this package; mace-torch's are in ``hostile_torch``."""

from __future__ import annotations

import io
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
from campaign.hostile_case import Case, Kind
from campaign.mutations import pick, spoil_array, spoil_bytes, spoil_json

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    3,
    7,
    119,
    200,
    999,
    10**5,
    10**7,
    10**9,
    2**31,
    2**40,
    2**62,
    -(2**31),
    10**30,
)
FIELDS = {
    "cutoff": (0, -1, 1e6, 300.0, 1e-9, float("nan"), float("inf"), "6", None),
    "lmax": (-1, 0, 7, 13, 200, 10**7, 2.5),
    "n_layers": (0, -1, 50, 10**4, 10**7, 1.5),
    "hidden_irreps": (
        "",
        "0x0e",
        "-1x0e",
        "10000000x0e",
        "4x0e + 2x9o",
        "4x0e + 2x200o",
        "4x",
        "x",
        "0e" * 10**5,
        "4x1o",
    ),
    "radial_basis_size": (0, -1, 10**6, 10**12),
    "scale": (float("nan"), float("inf"), 1e300, 0),
    "avg_n_neighbors": (0, -1, float("nan"), 1e-300),
    "radial_gain": (float("nan"), float("inf"), 0),
    "envelope_p": (float("nan"), 0, -6, 1e300),
}
"""Fields of every architecture, and values that no model has."""
SPECIES = (
    [],
    [0],
    [-1],
    [999],
    [1, 1, 8],
    [8, 1, 12],
    list(range(1, 119)),
    [1, 8, 119],
    ["H"],
    [1.5, 8, 12],
    [10**30],
    "H",
)


def read_model(path: Path, good: Path) -> None:
    """Load; what is accepted has parameters that are finite and settings that a model can have."""
    import jax

    import mlipjax

    potential, params = mlipjax.load(path)
    for leaf in jax.tree.leaves(params):
        assert np.issubdtype(leaf.dtype, np.floating), f"parameters of type {leaf.dtype}"
        assert np.isfinite(np.asarray(leaf)).all(), "parameters that are not finite"
    assert np.isfinite(potential.e0s).all(), "E0s that are not finite"
    assert 0.1 <= potential.cutoff <= 100.0, f"a cutoff of {potential.cutoff} Å"
    assert list(potential.species) == sorted(set(potential.species)), f"species {potential.species}"
    assert potential.species[0] >= 1, "element 0"
    assert potential.species[-1] <= 118, "an element that does not exist"


def _evaluate(path: Path, good: Path) -> tuple[str, ...]:
    return ("evaluate", "--model", str(path), "--data", str(good / "good.extxyz"))


def make_nqx(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile ``.nqx``: header, arrays, their number, or bytes."""
    content = (good / "good.nqx").read_bytes()
    line, _, body = content.partition(b"\n")
    header, arrays = json.loads(line), _arrays(body)
    way = pick(rng, ["header", "field", "field", "array", "array", "count", "bytes", "bytes", "tail"])
    refuse = False
    if way == "bytes":
        content, what = spoil_bytes(rng, content)
    elif way == "header":
        text, what = spoil_json(rng, header)
        content = text.replace("\n", " ").encode() + b"\n" + body
    elif way == "field":
        aliases = {"radial_gain": "mlp_init_scale", "envelope_p": "radial_polynomial_p"}
        name = pick(rng, [*FIELDS, "atomic_numbers", "radial_mlp_size", "radial_mlp_layers"])
        value = pick(rng, FIELDS.get(name, SPECIES if name == "atomic_numbers" else NUMBERS))
        header[aliases.get(name, name)] = value
        content, what = json.dumps(header).encode() + b"\n" + body, f"header: {name} = {str(value)[:40]!r}"
    elif way == "array":
        index = int(rng.integers(len(arrays)))
        spoilt, what = spoil_array(rng, arrays[index])
        parts = [_npy(array) for array in arrays]
        parts[index] = spoilt
        content, what = line + b"\n" + b"".join(parts), f"{what} in array {index}"
    elif way == "count":
        index = int(rng.integers(len(arrays)))
        changed = pick(rng, [arrays[:index], arrays + arrays[:1], arrays[::-1], arrays * 50])
        content, what, refuse = line + b"\n" + b"".join(map(_npy, changed)), f"{len(changed)} arrays", True
    else:
        tail = pick(rng, [b"\x00", b"\n\n\nmore", b"x" * 1000, content])
        content, what, refuse = content + tail, f"{len(tail)} bytes after the end", True
    path = folder / "model.nqx"
    path.write_bytes(content)
    return Case(path, what, refuse, arguments=_evaluate(path, good))


def _arrays(body: bytes) -> list[np.ndarray]:
    stream, found = io.BytesIO(body), []
    while stream.tell() < len(body):
        found.append(np.load(stream))
    return found


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def make_folder(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile folder of a model: configuration (with a fitting digest or without), tensors, or bytes of either."""
    path = folder / "model"
    shutil.copytree(good / "model", path)
    config, params = path / "config.json", path / "params.safetensors"
    way = pick(
        rng, ["config", "config", "field", "field", "header", "header", "bytes", "bytes", "values", "values", "files"]
    )
    refuse = way in ("bytes", "files")
    if way == "bytes":
        target = pick(rng, [config, params, params])
        before = target.read_bytes()
        content, what = spoil_bytes(rng, before)
        refuse = content != before
        what = f"{target.name}: {what}"
        target.write_bytes(content)
    elif way in ("config", "field"):
        description = json.loads(config.read_text())
        if way == "config":
            text, what = spoil_json(rng, description)
        else:
            name = pick(rng, [*FIELDS, "species", "radial_hidden", "heads"])
            value = pick(rng, FIELDS.get(name, SPECIES if name == "species" else [[n] for n in NUMBERS]))
            description["config"][name] = value
            text, what = json.dumps(description), f"config: {name} = {str(value)[:40]!r}"
        config.write_bytes(text.encode(errors="surrogatepass"))
        _sign(path)
    elif way == "header":
        what = _spoil_safetensors(rng, params)
    elif way == "values":
        what, refuse = _spoil_tensor(rng, path)
    else:
        what = _spoil_files(rng, path)
    return Case(path, what, refuse, arguments=_evaluate(path, good))


def _sign(path: Path) -> None:
    """Give the tensors the digests of what is there now, as whoever made such a folder on purpose would."""
    from mlipjax.files import file_digest

    header, body = _safetensors(path / "params.safetensors")
    header["__metadata__"]["config_sha256"] = file_digest(path / "config.json")
    _write_safetensors(path / "params.safetensors", json.dumps(header).encode(), body)


def _safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write_safetensors(path: Path, header: bytes, body: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)


def _spoil_safetensors(rng: np.random.Generator, path: Path) -> str:
    header, body = _safetensors(path)
    if rng.random() < 0.3:
        length = pick(rng, [0, 1, 2**63, 2**64 - 1, 10**12, 10**9])
        path.write_bytes(struct.pack("<Q", length) + json.dumps(header).encode() + body)
        return f"tensors: a header of {length} bytes"
    text, what = spoil_json(rng, header)
    _write_safetensors(path, text.encode(), body)
    return f"tensors: {what}"


def _spoil_tensor(rng: np.random.Generator, path: Path) -> tuple[str, bool]:
    """Write a folder with other tensors the way the package does, as far as it lets one."""
    import safetensors.numpy

    leaves = safetensors.numpy.load_file(path / "params.safetensors")
    header, _ = _safetensors(path / "params.safetensors")
    name = pick(rng, sorted(leaves))
    value = pick(rng, [np.nan, np.inf, -np.inf, 1e38, 0.0, "int", "bool", "f16", "shape", "extra", "missing"])
    leaf = leaves[name]
    kinds = {"int": np.int32, "bool": np.bool_, "f16": np.float16}
    if isinstance(value, float):
        leaf = leaf.copy()
        leaf.flat[int(rng.integers(leaf.size))] = value
        leaves[name] = leaf
    elif value in kinds:
        leaves[name] = leaf.astype(kinds[value])
    elif value == "shape":
        leaves[name] = np.concatenate([leaf, leaf])
    elif value == "extra":
        leaves["layer_7/more"] = leaf
    else:
        del leaves[name]
    (path / "params.safetensors").write_bytes(safetensors.numpy.save(leaves, metadata=header["__metadata__"]))
    # whatever a checksum says: such a tensor is no parameter
    return f"tensors: {name} {value}", value not in (1e38, 0.0, "f16")


def _spoil_files(rng: np.random.Generator, path: Path) -> str:
    way = pick(
        rng,
        ["no config", "no tensors", "config is a folder", "tensors are a folder", "swapped", "empty config", "loop"],
    )
    config, params = path / "config.json", path / "params.safetensors"
    target = params if "tensors" in way else config
    if way == "swapped":
        text = config.read_bytes()
        config.write_bytes(params.read_bytes())
        params.write_bytes(text)
        return "swapped files"
    target.unlink()
    if "folder" in way:
        target.mkdir()
    elif way == "empty config":
        target.write_bytes(b"")
    elif way == "loop":
        target.symlink_to(target.name)
    return way


KINDS = (
    Kind(".nqx", make_nqx, read_model, every=15),
    Kind("model folder", make_folder, read_model, every=15),
)
