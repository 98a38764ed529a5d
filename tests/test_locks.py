"""One process at a time in a folder or file; locks vanish with their process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlipjax.cli.main import main
from mlipjax.locks import LOCK, InUseError, Lock, folder_alone

ROOT = Path(__file__).resolve().parents[1]


def holder(target):
    """Another process that holds a lock until it is killed."""
    code = f"from mlipjax.locks import Lock; lock = Lock({str(target)!r}); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert other.stdout.readline() == "held\n"
    return other


@pytest.mark.parametrize("name", ["", "md.extxyz"], ids=["folder", "file"])
def test_a_second_process_is_told_who_holds_the_lock_until_that_one_is_killed(tmp_path, name):
    target = tmp_path / name if name else tmp_path
    other = holder(target)
    try:
        with pytest.raises(InUseError, match=rf"in use by another process \(process {other.pid} on .*\); wait for it"):
            Lock(target)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    # the file is still there, and locks nothing
    assert len(list(tmp_path.iterdir())) == 1
    with Lock(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_may_take_a_lock_twice_and_keeps_it_until_both_are_released(tmp_path):
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.release()
    first.release()
    assert (tmp_path / LOCK).exists()
    second.release()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_goes_with_its_object(tmp_path):
    lock = Lock(tmp_path)
    assert (tmp_path / LOCK).exists()
    del lock
    assert not (tmp_path / LOCK).exists()


def test_a_forked_copy_does_not_end_the_lock_of_its_parent(tmp_path):
    code = (
        "import os, sys\nfrom mlipjax.locks import Lock\n"
        f"lock = Lock({str(tmp_path)!r})\n"
        "if not os.fork():\n    lock.release()\n    os._exit(0)\n"
        f"os.wait()\nsys.exit(not os.path.exists({str(tmp_path / LOCK)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_folders_made_for_nothing_are_removed_again(tmp_path):
    with folder_alone(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with folder_alone(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]
    with folder_alone(None):
        pass


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("a thesis")
    for path in (tmp_path / "out", tmp_path / "out" / "run"):
        with pytest.raises(NotADirectoryError, match="is a file, not a folder") as error, folder_alone(path):
            pass
        assert error.value.filename == str(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a thesis"


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "--model", "universal"],
        ["compare-representations", "--data", "structures.extxyz", "--model", "universal", "--model", "other"],
        ["monitor", "--model", "universal", "--reference", "reference.extxyz", "--data", "structures.extxyz"],
    ],
    ids=lambda command: command[0],
)
def test_commands_leave_a_folder_alone_in_which_another_process_works(tmp_path, capsys, command):
    other = holder(tmp_path)
    try:
        # said before anything is read: none of these files exist
        assert main([*command, "--out", str(tmp_path)]) == 1
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert f"{tmp_path} is in use by another process" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
