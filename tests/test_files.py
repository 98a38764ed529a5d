"""Files are the old ones or the new ones, whatever happens while they are written."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from kills import at_every_change, failures

from mlipjax.files import check_writable, folder_on_success, replace_on_success, replace_together, write_atomic

SETUP = "from mlipjax.files import folder_on_success, replace_together, write_atomic"

WRITES = {
    "file": (
        "write_atomic(FOLDER / 'a', 'old'); write_atomic(FOLDER / 'a', 'new')",
        "assert not (FOLDER / 'a').exists() or (FOLDER / 'a').read_text() in ('old', 'new')\n"
        "write_atomic(FOLDER / 'a', 'last')\nassert (FOLDER / 'a').read_text() == 'last'",
    ),
    "folder": (
        "with folder_on_success(FOLDER / 'a') as folder:\n"
        "    (folder / 'x').write_text('1')\n    (folder / 'y').write_text('2')",
        "if not (FOLDER / 'a').exists():\n    with folder_on_success(FOLDER / 'a') as folder:\n"
        "        (folder / 'x').write_text('1')\n        (folder / 'y').write_text('2')\n"
        "assert [(FOLDER / 'a' / name).read_text() for name in 'xy'] == ['1', '2']",
    ),
    "group": (
        "for text in (b'1', b'2'):\n    replace_together({FOLDER / 'x': text, FOLDER / 'y': text})",
        "def read(name):\n    file = FOLDER / name\n    return file.read_text() if file.exists() else ''\n"
        # the first file is never behind, and what the second lacks lies beside it
        "assert read('x') == read('y') or read('x') == read('y.tmp')\n"
        "replace_together({FOLDER / 'x': b'3', FOLDER / 'y': b'3'})\nassert read('x') == read('y') == '3'",
    ),
}


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("error", [0, errno.ENOSPC, errno.EROFS], ids=["kill", "disk full", "read-only"])
def test_no_moment_leaves_half_a_result(tmp_path, kind, error):
    write, check = WRITES[kind]
    results = at_every_change(tmp_path / "work", setup=SETUP, write=write, check=check, error=error)
    assert failures(results) == []
    if error:
        assert all(result.status == 1 and str(tmp_path / "work") in result.error for result in results)
    else:
        assert {result.status for result in results} == {-9}


def test_a_full_disk_is_named_with_the_file_not_its_temporary_one(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, replace_on_success(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder, not a file"):
        write_atomic(tmp_path / "folder", "")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        write_atomic(tmp_path / "file" / "a.json", "")
    with pytest.raises(NotADirectoryError), folder_on_success(tmp_path / "file" / "new"):
        pass
    with pytest.raises(IsADirectoryError):
        replace_together({tmp_path / "x": b"", tmp_path / "folder": b""})
    with pytest.raises(OSError, match="File name too long"):
        write_atomic(tmp_path / ("x" * 300), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "precious"


def test_outputs_are_checked_without_making_them(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "deep" / "a.json", is_file=True)
    check_writable(tmp_path, is_file=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        check_writable(tmp_path / "file", is_file=False)
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path, is_file=True)
    # whoever runs the tests may be allowed to write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="cannot be written") as error:
        check_writable(tmp_path / "new" / "a.json", is_file=True)
    assert error.value.filename == str(tmp_path)


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_atomic(pipe, "all of it")
        assert read.result(timeout=20) == b"all of it"
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no such device on this system")
def test_output_may_be_thrown_away_without_harm_to_the_device():
    before = os.stat("/dev/null")
    write_atomic("/dev/null", "nothing")
    assert os.stat("/dev/null").st_mode == before.st_mode
    assert stat.S_ISCHR(before.st_mode)


def test_a_link_keeps_pointing_to_the_file_that_is_replaced(tmp_path):
    target, link = tmp_path / "elsewhere" / "results.json", tmp_path / "results.json"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_standard_output_in_a_file_gets_results_between_what_is_printed(tmp_path):
    code = "from mlipjax.files import write_atomic\nprint('one')\nwrite_atomic('/dev/stdout', 'two\\n')\nprint('three')"
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text().split() == ["one", "two", "three"]
