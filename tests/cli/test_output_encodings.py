"""Output of commands, whatever files are called and whatever the terminal can show."""

import io
import os
import subprocess
import sys

import pytest

from mlipjax.cli.main import main
from mlipjax.cli.output import make_console
from mlipjax.cli.tables import Table

ODD = "odd[/b][red]:smile:.extxyz"


def printed(thing, width=80):
    console = make_console(width)
    console.file = io.StringIO()
    console.print(thing)
    return console.file.getvalue()


def test_text_is_printed_as_it_is():
    assert ODD in printed(f"{ODD}: done")
    assert printed(Table(("name", ODD), [(ODD, "[bold]")], ODD), 120).count(ODD) == 3
    with make_console(80).status("x"):
        pass


def test_tables_print_in_any_width():
    table = Table(("a", "b"), [("meV/Å", "x" * 50)])
    for width in (1, 2, 5, 1000):
        assert printed(table, width)


def test_a_file_with_markup_in_its_name_is_named_in_the_error(tmp_path, capsys):
    path = tmp_path / "odd[" / "b].extxyz"
    path.parent.mkdir()
    path.write_text("nonsense\n")
    assert main(["evaluate", "--model", "universal", "--data", str(path)]) == 1
    err = capsys.readouterr().err
    assert "odd[/b].extxyz" in err
    assert len(err.splitlines()) == 1


def test_a_terminal_of_ascii_and_no_width_is_no_error():
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "1", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "mlipjax.cli", "models"]
    found = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert b"Traceback" not in found.stderr
    found.stdout.decode("ascii")


def test_a_name_that_is_no_text_is_no_error():
    name = os.fsdecode(b"\xff\xfe.extxyz")
    command = [sys.executable, "-m", "mlipjax.cli", "evaluate", "--model", "universal", "--data", name]
    found = subprocess.run(command, capture_output=True, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith(b"error: ")
    assert b"Traceback" not in found.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device on this system")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_and_a_closed_output_are_said(unbuffered):
    command = [sys.executable, "-m", "mlipjax.cli", "models"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith(b"error: ")
    assert b"Traceback" not in found.stderr
    assert subprocess.run(f"{sys.executable} -m mlipjax.cli models >&-", shell=True, check=False).returncode == 0
