"""Every writer, killed or out of disk space at every change of its files: doing it again gives what was promised."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaign.good_files import make_good_files
from campaign.writers import WRITERS
from kills import at_every_change, failures

TESTS = Path(__file__).resolve().parents[1]
EVERY = int(os.environ.get("MLIPJAX_CAMPAIGN_EVERY", "1"))
"""Of all changes at which a disk can be full, every so-manieth, for a try."""
CLEAN = ("OSError", "FileNotFoundError", "PermissionError", "ValueError", "mlipjax.")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writers") / "good"
    make_good_files(folder)
    return folder


def prepared(writer, folder, good):
    """The code of a writer, with the folders that it speaks of, after an undisturbed run."""
    names = {"TESTS": str(TESTS), "GOOD": good, "EXPECTED": folder / "expected"}
    lines = [
        f"{name} = {value!r}" if isinstance(value, str) else f"{name} = Path({str(value)!r})"
        for name, value in names.items()
    ]
    setup = "from pathlib import Path\n" + "\n".join(lines) + "\n" + writer.setup
    (folder / "expected").mkdir()
    if "EXPECTED" in writer.check or "equal_files" in writer.check:
        code = f"{setup}\nFOLDER = EXPECTED\n{writer.write}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
    return setup


def options(writer):
    return {
        "write": writer.write,
        "check": writer.check,
        "together": True,
        "every": EVERY,
        "timeout": 7200.0,
    }


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_kill_loses_nothing(writer, good, tmp_path):
    results = at_every_change(tmp_path / "work", setup=prepared(writer, tmp_path, good), **options(writer))
    print(f"{writer.name}: killed at {len(results)} changes")
    assert [result.status for result in results] == [-9] * len(results)
    assert failures(results) == []


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_full_disk_is_an_error_and_no_more(writer, good, tmp_path):
    setup = prepared(writer, tmp_path, good)
    results = at_every_change(tmp_path / "work", setup=setup, error=errno.ENOSPC, **options(writer))
    print(f"{writer.name}: out of space at {len(results)} changes")
    unclear = [
        result
        for result in results
        if result.status not in (0, 1) or (result.error and not result.error.startswith(CLEAN))
    ]
    assert unclear == []
    assert failures(results) == []
