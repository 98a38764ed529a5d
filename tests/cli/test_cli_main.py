"""Choosing commands, their errors, and the commands about models."""

import dataclasses
import importlib
import json
import math
import subprocess
import sys
import types
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from ase import Atoms
from tiny_nequip import SMALLEST, random_params

import mlipjax
from mlipjax import runtime
from mlipjax.cli import main
from mlipjax.cli.models import element_ranges
from mlipjax.cli.output import write_json
from mlipjax.models import nequip
from mlipjax.notices import notice

cli_main = importlib.import_module("mlipjax.cli.main")  # the package's attribute of that name is the function


@dataclasses.dataclass(frozen=True)
class FakeOptions:
    """A command for tests.

    Attributes:
        n: a number.
    """

    n: int = 1


@pytest.fixture
def fake(monkeypatch):
    """A command whose behaviour the test sets."""
    module = types.ModuleType("mlipjax.cli.fake")
    module.action = lambda command: None

    def run(command: FakeOptions) -> None:
        module.action(command)

    module.run = run
    monkeypatch.setitem(sys.modules, "mlipjax.cli.fake", module)
    monkeypatch.setattr("mlipjax.cli.options.formats.Fake", FakeOptions, raising=False)
    monkeypatch.setitem(cli_main.COMMANDS, "fake", "do nothing")
    return module


@pytest.fixture
def model(tmp_path):
    potential = nequip(SMALLEST, np.array([-13.5, -1030.25, -2040.125]))
    params = random_params(potential, dtype=np.float32)
    mlipjax.save(tmp_path / "model", potential, params)
    return tmp_path / "model", params


def fail_with(error):
    def action(command):
        raise error

    return action


def test_help_is_fast_because_jax_is_not_imported():
    code = (
        "import sys; from mlipjax.cli import main; code = main(['--help']); sys.exit(code + 4 * ('jax' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("finetune", "evaluate", "simulate", "md", "models", "convert", "--version"):
        assert name in done.stdout


def test_options_reach_the_command(fake):
    seen = []
    fake.action = seen.append
    assert main(["fake", "--n", "3"]) == 0
    assert seen == [FakeOptions(3)]


@pytest.mark.parametrize("name", sorted(cli_main.COMMANDS))
def test_every_command_has_options_with_help(name, capsys):
    assert dataclasses.is_dataclass(cli_main.options_of(name))
    assert main([name, "--help"]) == 0
    output = capsys.readouterr().out
    assert f"mlipjax {name}" in output
    assert "--json" in output


def test_help_of_commands_loads_no_library_of_arrays():
    # in one process: what one command imports would show in all of those after it
    code = (
        "import sys\nfrom mlipjax.cli import main\nfor name in sys.argv[1:]: main([name, '--help'])\n"
        "sys.exit(' '.join({'jax', 'ase', 'flax', 'scipy'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, *cli_main.COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: mlipjax") == len(cli_main.COMMANDS)


def test_wrong_command_lines_exit_with_two(fake, capsys):
    assert main([]) == 2
    assert "give a command: finetune" in capsys.readouterr().err
    assert main(["evalute"]) == 2
    assert capsys.readouterr().err == "mlipjax: no command is called 'evalute'; did you mean evaluate?\n"
    assert main(["zzz"]) == 2
    assert "there are finetune, calibrate, evaluate" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main(["fake", "--n", "three"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: --n must be a whole number, found 'three'.\n"


FINETUNE = "--model x --train y --out z"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--modle x --train y --out z", "--modle is no option of mlipjax finetune; did you mean --model?"),
        (f"{FINETUNE} --zzz", "--zzz is no option of mlipjax finetune. mlipjax finetune --help-all explains all"),
        ("--train y", "mlipjax finetune needs --model and --out; mlipjax finetune --help says what they are."),
        (f"{FINETUNE} --optimizer lion", "--optimizer must be one of adam, muon; found 'lion'."),
        (f"{FINETUNE} --epochs", "--epochs is given without a value."),
        (f"{FINETUNE} more", "'more' belongs to no option of mlipjax finetune"),
        (f"{FINETUNE} --epochs 1.5", "--epochs must be a whole number, found '1.5'."),
        (f"{FINETUNE} --quiet=3", "'3' belongs to no option of mlipjax finetune"),
    ],
)
def test_what_the_parser_refuses_is_one_line(capsys, words, line):
    with pytest.raises(SystemExit) as exit_:
        main(["finetune", *words.split()])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\n  lines"),
        FileNotFoundError(2, "two lines"),
        OSError("[Errno 5] two lines"),
        ConnectionError("two lines"),
        PermissionError("two lines"),
        type("OwnError", (RuntimeError,), {"__module__": "mlipjax.md.stopped"})("two lines"),
    ],
)
def test_errors_users_can_do_something_about_are_one_line(fake, capsys, error):
    fake.action = fail_with(error)
    assert main(["fake"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.endswith("two lines\n")
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_errors_of_files_name_the_file_first_and_no_number(fake, capsys):
    fake.action = fail_with(IsADirectoryError(21, "is a folder", "a/b"))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == "error: a/b: is a folder\n"


def test_bugs_are_one_line_that_says_so(fake, monkeypatch, capsys):
    fake.action = fail_with(KeyError("a bug"))
    assert main(["fake"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: KeyError: 'a bug' (")
    assert "please report" in output.err
    assert output.err.count("\n") == 1
    monkeypatch.setenv("MLIPJAX_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["fake"])
    fake.action = fail_with(ValueError("explained"))
    with pytest.raises(ValueError, match="explained"):
        main(["fake"])


def test_warnings_and_notices_are_one_line_each(fake, capsys):
    def action(command):
        for _ in range(2):
            notice("masses of the file\n are not used")
            warnings.warn("something else", stacklevel=1)

    fake.action = action
    assert main(["fake"]) == 0
    assert capsys.readouterr().err == "note: masses of the file are not used\nwarning: something else\n"


def test_interruptions_have_the_code_of_shells(fake, capsys):
    fake.action = fail_with(KeyboardInterrupt())
    assert main(["fake"]) == 130
    assert capsys.readouterr().err == "mlipjax: interrupted\n"


def test_versions(capsys, monkeypatch):
    monkeypatch.setattr(runtime, "known_problems", lambda version, platform: [f"{version} on {platform} is bad"])
    assert main(["--version"]) == 0
    output = capsys.readouterr()
    versions = dict(line.split(maxsplit=1) for line in output.out.splitlines())
    assert versions["jax"] == jax.__version__
    assert versions["mlipjax"] == mlipjax.__version__
    assert output.err == f"warning: {jax.__version__} on {jax.default_backend()} is bad\n"


def test_convert(model, tmp_path, capsys):
    folder, params = model
    arguments = [
        "convert",
        "--model",
        str(folder),
        "--out",
        str(tmp_path / "copy"),
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert main(arguments) == 0
    assert "3 elements, cutoff 4.0 Å, heads energy" in capsys.readouterr().out
    potential, copied = mlipjax.load(tmp_path / "copy")
    assert potential.config == SMALLEST
    jax.tree.map(np.testing.assert_array_equal, copied, params)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["species"] == [1, 6, 8]
    assert report["n_parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert report["versions"]["jax"] == jax.__version__

    assert main(arguments) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'copy'} already holds a model; choose another folder.\n"
    assert main(["convert", "--model", "no-such-model", "--out", str(tmp_path / "other")]) == 1
    assert "no model is called 'no-such-model'" in capsys.readouterr().err
    assert main(["convert", "--out", str(tmp_path / "other")]) == 1
    assert capsys.readouterr().err == "error: give either --model M or --data FILE.\n"


def test_a_damaged_store_is_one_line(model, tmp_path, capsys):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    atoms.info["energy"] = -2.0
    atoms.write(tmp_path / "data.xyz", format="extxyz")
    store = tmp_path / "store"
    assert main(["convert", "--data", str(tmp_path / "data.xyz"), "--out", str(store)]) == 0
    assert "1 structures, 1 with energy, 0 with forces" in capsys.readouterr().out
    (store / "positions.npy").write_bytes((store / "positions.npy").read_bytes()[:-3])
    assert main(["evaluate", "--model", str(model[0]), "--data", str(store)]) == 1
    expected = (
        f"error: {store / 'positions.npy'}: not what was written: cut short or changed; convert the data again.\n"
    )
    assert capsys.readouterr().err == expected


def test_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("MLIPJAX_CACHE", str(tmp_path / "cache"))
    assert main(["models", "--json", str(tmp_path / "models.json")]) == 0
    output = capsys.readouterr().out
    models = {row["name"]: row for row in json.loads((tmp_path / "models.json").read_text())["models"]}
    for name, row in models.items():
        assert name in output
        assert row["licence"]
        assert (row["path"] is None) == (row["bytes"] is None)
    row = models["nequix-mp-1"]
    assert row["path"] is None
    assert row["url"].startswith("https://github.com/")
    assert len(row["elements"]) == 89
    # a line each in 80 columns, before what is said below
    lines = output.split("\n\n")[0].splitlines()
    assert len(lines) == len(models) + 2
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:] if " * " in line] == [n for n, row in models.items() if row["path"]]


def test_one_model_in_detail(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("MLIPJAX_CACHE", str(tmp_path / "cache"))
    assert main(["models", "mace-off23-small", "--json", str(tmp_path / "model.json")]) == 0
    row = json.loads((tmp_path / "model.json").read_text())
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip())
    assert row["dispersion"] is True
    assert lines["dispersion"] == "in the labels"
    assert lines["place"] == f"not here; {row['url']}"  # on one line, to be copied
    assert lines["elements"] == "10: H, C-F, P-Cl, Br, I"
    assert lines["terms"] == row["terms"]
    assert main(["models", "nequix-mp1"]) == 1
    assert "did you mean nequix-mp-1" in capsys.readouterr().err


def test_ranges_of_elements():
    assert element_ranges([*range(1, 84), *range(89, 95)]) == "H-Bi, Ac-Pu"
    assert element_ranges([8, 1, 3, 4, 5, 9]) == "H, Li-B, O, F"
    assert element_ranges([]) == ""


def test_json_has_neither_nan_nor_arrays(tmp_path):
    write_json(None, {"x": object()})
    results = {
        "nan": math.nan,
        "array": np.array([[1.5, np.inf]]),
        "device": jax.numpy.arange(2),
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "tuple": (True, None, "text"),
        "path": Path("a") / "b",
        3: {"inner": -math.inf},
    }
    write_json(tmp_path / "folder" / "out.json", results)
    written = json.loads((tmp_path / "folder" / "out.json").read_text())
    assert written.pop("versions")["python"]
    assert written == {
        "nan": None,
        "array": [[1.5, None]],
        "device": [0, 1],
        "scalar": 0.5,
        "count": 3,
        "tuple": [True, None, "text"],
        "path": "a/b",
        "3": {"inner": None},
    }
