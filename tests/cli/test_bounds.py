"""Numbers of options: every command refuses what it could not honour, in the words of its command line."""

import dataclasses
import typing

import pytest
from ase.build import bulk

from mlipjax.cli import bounds
from mlipjax.cli.main import COMMANDS, main, options_of
from mlipjax.cli.spec import check_once


def number_options(options):
    """Name and type (int or float) of every option that takes numbers, with those of nested settings."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        parts = {hints[field.name], *typing.get_args(hints[field.name])}
        parts |= {inner for part in parts for inner in typing.get_args(part)}
        nested = [part for part in parts if dataclasses.is_dataclass(part)]
        for inner in nested:
            yield from number_options(inner)
        for kind in {int, float} & parts:
            yield field.name, kind


def commands_with_numbers():
    for command in COMMANDS:
        options = options_of(command)
        for name, kind in number_options(options):
            yield command, name, kind


def test_every_option_that_takes_numbers_has_a_range():
    found = list(commands_with_numbers())
    assert {"steps", "learning_rate", "repeat", "layer_multipliers", "denoise"} <= {name for _, name, _ in found}
    missing = sorted({name for _, name, _ in found} - set(bounds.OPTIONS))
    assert not missing, f"give these options a line in mlipjax/cli/bounds.py: {missing}"
    assert sorted(bounds.OPTIONS) == list(bounds.OPTIONS)


def test_the_ends_of_closed_ranges_and_words_are_right():
    typed = "--steps 1 --closest 0 --repeat 1 1 10000 --model -5 --e0s nan out.extxyz"
    bounds.check_arguments(typed.split())
    bounds.check_arguments(["--steps", "many", "--level=0.5", "--batch-size", "16"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--steps -5", "--steps must be between 1 and 1000000000000, found -5."),
        ("--steps=0", "--steps must"),
        ("--temperature nan", "--temperature must be more than 0 and less than 1000000 K, found nan."),
        ("--temperature 0", "less than 1000000 K, found 0."),
        ("--valid-fraction 1", "--valid-fraction must be between 0 and 0.99, found 1."),
        ("--temperature inf", "found inf."),
        ("--repeat 1 1 0 --steps 5", "--repeat must be between 1 and 10000, found 0."),
        ("--level 1", "--level must be more than 0 and less than 1, found 1."),
        ("--batch_size 1e99", "--batch_size must"),
        ("--lr inf", "--lr must"),
        ("--learning-rate 0.0", "--learning-rate must"),
    ],
)
def test_numbers_that_cannot_be_honoured_are_refused_as_they_are_typed(typed, message):
    with pytest.raises(ValueError, match=r"^--") as error:
        bounds.check_arguments(typed.split())
    assert message in str(error.value)


def test_an_option_of_several_values_is_typed_once():
    check_once(["--train", "a", "b", "--epochs", "1", "--epochs", "2"], options_of("finetune"))
    check_once(["--model", "a", "--model", "b"], options_of("compare-representations"))  # it collects them
    with pytest.raises(
        ValueError, match=r"^--structure is given 2 times; give all its values behind one --structure\.$"
    ):
        check_once(["--structure", "a", "--oracle", "sw", "--structure=b"], options_of("periodic"))


WRONG = [
    ("md", "--structure s.xyz --out o.extxyz --steps 10", "--timestep 0"),
    ("md", "--structure s.xyz --out o.extxyz --steps 10", "--temperature nan"),
    ("md", "--structure s.xyz --out o.extxyz --steps 10", "--replicas 0"),
    ("md", "--structure s.xyz --out o.extxyz --steps 10", "--closest -1"),
    ("md", "--structure s.xyz --out o.extxyz --steps 10", "--seed -1"),
    ("md", "--structure s.xyz --out o.extxyz --steps 10", "--every 0"),
    ("md", "--structure s.xyz --out o.extxyz", "--steps -5"),
    ("evaluate", "--data d.extxyz", "--batch-size 0"),
    ("doctor", "--train d.extxyz", "--max-slots 0"),
    ("finetune", "--train d.extxyz --out o", "--epochs 0"),
    ("finetune", "--train d.extxyz --out o", "--lr inf"),
    ("monitor", "--reference r.extxyz --data d.extxyz", "--level 2"),
    ("monitor", "--reference r.extxyz --data d.extxyz", "--components 0"),
    ("slide", "--structure s.xyz", "--points 0"),
    ("probe", "rdf --trajectory t.extxyz", "--cutoff -1"),
    ("probe", "vdos --trajectory t.extxyz", "--spacing-ps 0"),
    ("neb", "--images a.extxyz", "--n-images 1"),
]


@pytest.mark.parametrize(("command", "options", "wrong"), WRONG)
def test_commands_refuse_wrong_numbers_in_one_line_before_they_open_a_file(command, options, wrong, capsys):
    assert main([command, "--model", "absent", *options.split(), *wrong.split()]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    name, value = wrong.split()
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert f"{name} must be" in err
    assert f"found {value}." in err


@pytest.mark.parametrize(
    ("command", "option"),
    [(["doctor", "--model", "universal"], "--train"), (["neb", "--model", "universal"], "--images")],
)
def test_a_list_that_must_be_given_holds_something(command, option, capsys):
    assert main([*command, option]) == 1
    assert f"error: {option} is given without a value; name one at least." in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["md", "--steps", "2", "--out", "t.extxyz"], ["probe", "phonons"]],
    ids=["md", "probe"],
)
def test_commands_count_the_atoms_of_a_supercell_before_they_make_it(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bulk("Si", "diamond", a=5.43, cubic=True).write("si.extxyz")
    given = [*command, "--model", "universal", "--structure", "si.extxyz", "--repeat", "4000", "4000", "4000"]
    assert main(given) == 1
    assert "--repeat 4000 4000 4000 makes 512000000000 atoms of 8" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [["--train", ""], ["--train", "a.xyz", ""], ["--e0s=", "--out", "o"], [""]])
def test_empty_words_are_no_paths(typed):
    with pytest.raises(ValueError, match=r"is empty: give a value, or leave it out"):
        bounds.check_arguments(typed)
