"""Hostile inputs of every kind: refused in one line, or accepted with numbers that make sense."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaign.good_files import make_good_files
from campaign.hostile_kinds import BY_NAME
from campaign.hostile_options import COMMANDS
from campaign.hostile_runs import groups, make_case, run_kind
from campaign.hostile_worker import judge_call, judge_output

from mlipjax.cli.main import COMMANDS as ALL_COMMANDS

N = int(os.environ.get("MLIPJAX_CAMPAIGN_N", "60"))
"""Inputs of each kind; ``.ci/nightly`` runs the program for the full number."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign") / "good"
    make_good_files(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BY_NAME))
def test_no_input_does_harm(name, good, tmp_path):
    tally = run_kind(BY_NAME[name], N, 1, good, tmp_path / "failures", commands=False)
    assert tally.inputs == N
    # odd names are no reason to refuse a file whose content is good
    assert tally.refused == 0 if name == "file names" else tally.refused > 0
    failed = [
        f"{count} x {text} (first: {first['index']} {first['what']})" for text, count, first in groups(tally.failures)
    ]
    assert failed == []


GOOD = {
    "extended xyz": "good.extxyz",
    "POSCAR": "good.vasp",
    "CIF": "good.cif",
    "vasprun.xml": "vasprun.xml",
    "OUTCAR": "OUTCAR",
    "ASE trajectory": "good.traj",
    "ASE database": "good.db",
    "LMDB": "good.aselmdb",
    "HDF5": "good.h5",
    "Quantum ESPRESSO": "pw.out",
    "file names": "good.extxyz",
    ".nqx": "good.nqx",
    "model folder": "model",
    "labelled store": "store",
    "property set": "good.npz",
    "E0 file": "e0s.json",
    "monitor": "monitor.npz",
    "restart file": "md_restart.npz",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GOOD))
def test_what_is_spoilt_was_good(name, good):
    """Otherwise every input of the kind is refused, for a reason that has nothing to do with how it was spoilt."""
    assert judge_call(lambda: BY_NAME[name].read(good / GOOD[name], good), good / GOOD[name]) == ("accepted", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "options"])
def test_the_command_line_refuses_in_one_line(name, good, tmp_path):
    """Two inputs of each kind by the program itself, in a process of its own."""
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        case = make_case(BY_NAME[name], 2, index, folder, good)
        command = [sys.executable, "-m", "mlipjax.cli", *(case.arguments or _default(case.path, good))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        verdict, text = judge_output(done.returncode, done.stdout, done.stderr)
        assert verdict in ("refused", "accepted"), f"{case.what}: {text}"
        assert done.returncode in (0, 1, 2)


def _default(path: Path, good: Path) -> list[str]:
    """A command for inputs that come with none."""
    if path.suffix in (".model", ".pth"):
        return ["convert", "--model", str(path), "--out", str(path.with_suffix(""))]
    if path.suffix == ".json":
        train = [
            "--train",
            str(good / "crystals.extxyz"),
            "--epochs",
            "1",
            "--anchor",
            "none",
            "--valid-fraction",
            "0.3",
        ]
        options = [*train, "--e0s", str(path)]
    else:
        options = ["--property", f"{path}:gap", "--strategy", "lp", "--steps", "1"]
    return ["finetune", "--model", str(good / "model"), "--out", str(path.parent / "run"), *options]


def test_every_command_is_given_hostile_options():
    assert set(COMMANDS) == set(ALL_COMMANDS)


def test_inputs_follow_from_seed_and_index(good_stub, tmp_path):
    for name in ("extended xyz", "POSCAR", "E0 file"):
        contents = []
        for attempt in range(2):
            folder = tmp_path / f"{name}-{attempt}"
            folder.mkdir()
            case = make_case(BY_NAME[name], 5, 17, folder, good_stub)
            contents.append((case.path.read_bytes(), case.what))
        assert contents[0] == contents[1]


@pytest.fixture
def good_stub(tmp_path):
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "good.extxyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-1.0\nH 0.0 0.0 0.0\n")
    (folder / "good.vasp").write_text("H\n1.0\n4 0 0\n0 4 0\n0 0 4\nH\n1\nDirect\n0 0 0\n")
    (folder / "e0s.json").write_text('{"H": -1.0}')
    return folder


@pytest.mark.parametrize(
    ("code", "out", "err", "verdict"),
    [
        (0, "energy: 1.0 eV\n", "", "accepted"),
        (0, "energy: nan eV\n", "", "failed"),
        (0, "energy: -inf\n", "", "failed"),
        (0, "information on nanotubes in nan.extxyz\n", "note: nothing\n", "accepted"),
        (1, "", "error: file.xyz: no atoms.\n", "refused"),
        (1, "", "error: one\nerror: two\n", "failed"),
        (1, "", "", "failed"),
        (1, "", "Traceback (most recent call last):\n", "failed"),
        (1, "", "error: KeyError: 'a' (x.py:1). This is a fault of the program, not of your input\n", "failed"),
        (2, "", "error: --foo is no option of mlipjax predict.\n", "refused"),
        (2, "", "usage: ...\n", "failed"),
        (-11, "", "", "failed"),
        (0, "fine\n", "W0000 something of a library\n", "failed"),
    ],
)
def test_what_a_command_may_say(code, out, err, verdict):
    assert judge_output(code, out, err)[0] == verdict
