"""Files are looked at before they are believed: sizes, depths, kinds."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from hostile_models import NPY

from mlipjax import reading


def line(error):
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_arrays_come_back_bit_for_bit_and_can_be_written_to(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)),
        "fortran": np.asfortranarray(rng.normal(size=(2, 3)).astype(np.float32)),
        "none": np.zeros((0, 3)),
        "scalar": np.array(3),
        "flags": np.array([True, False]),
        "text": np.array("é"),
        "big": np.arange(3, dtype=">i8"),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = reading.read_npz(tmp_path / "a.npz", "a test")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        native = np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("="))
        np.testing.assert_array_equal(found[name], native, strict=True)
        assert found[name].flags.writeable


@pytest.mark.parametrize("name", list(NPY))
def test_arrays_that_are_none_are_refused(tmp_path, name):
    content = NPY[name]
    with pytest.raises(ValueError, match=r"truncated or damaged|numbers are expected|is damaged|version 1\.0") as error:
        reading.read_array(io.BytesIO(content), len(content), "file: array 0")
    assert line(error).startswith("file: array 0")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=r"a\.npz") as error:
        reading.read_npz(tmp_path / "a.npz", "a test")
    line(error)


def test_what_follows_an_array_is_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", file.getvalue() + b"x")
    with pytest.raises(ValueError, match="1 bytes follow the array"):
        reading.read_npz(tmp_path / "a.npz", "a test")


def test_archives_that_claim_too_much_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(1 << 20))
    with pytest.raises(ValueError, match="claims 1 members of 1048576 bytes"):
        reading.read_npz(path, "a test", limit=1 << 16)
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(ValueError, match="damaged"):
        reading.read_npz(path, "a test")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff\xfe", b'{"a": ' + b"1" * 10_000 + b"}", b"nul"])
def test_json_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: not JSON") as error:
        reading.read_json(tmp_path / "a.json")
    line(error)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, error, message in (
        ("pipe", ValueError, "is a pipe or device"),
        ("", ValueError, "is a folder"),
        ("empty", ValueError, "is empty"),
        ("absent", FileNotFoundError, "no such file"),
    ):
        with pytest.raises(error, match=message):
            reading.check_file(tmp_path / name)
    (tmp_path / "long").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="has 100 bytes; at most 99 are read"):
        reading.check_file(tmp_path / "long", 99)
    assert reading.check_file(tmp_path / "long") == 100


def test_what_was_found_is_shown_in_few_words():
    shared = ()
    for _ in range(100):
        shared = (shared, shared)
    assert len(reading.shown(shared)) < 2000
    assert len(reading.shown(json.dumps(list(range(10_000))))) < 100
