"""Options of a command in one TOML file: written from their help, read as if they were typed, refused in one line."""

import tomllib

import pytest
import tyro

from mlipjax.cli import main
from mlipjax.cli.call import given
from mlipjax.cli.help import options_in
from mlipjax.cli.main import options_of
from mlipjax.cli.options.training import Periodic
from mlipjax.cli.spec import expand, read_systems, write_spec
from mlipjax.settings import SystemSettings

TYPED = ["--model", "universal", "--oracle", "xtb", "--out", "run", "--structure", "a b.cif", "c.xyz"]


def parse(arguments):
    return tyro.cli(Periodic, args=expand(arguments, Periodic))


def test_what_is_written_is_read_again(tmp_path):
    command = parse([*TYPED, "--rounds", "3", "--lr", "0.002", "--temperature", "450", "--on-alarm", "label"])
    systems = (SystemSettings(structure="slab.xyz", temperature=(300.0, 600.0), replicas=2, weight=0.5),)
    write_spec(tmp_path / "run.toml", command, systems)
    again = parse([str(tmp_path / "run.toml")])
    assert given(again) == {**given(command), "spec": tmp_path / "run.toml"}
    assert read_systems(tmp_path / "run.toml") == systems


def test_every_option_is_there_with_its_meaning_and_any_comment_can_be_taken_up(tmp_path):
    write_spec(tmp_path / "run.toml", parse(TYPED))
    text = (tmp_path / "run.toml").read_text()
    flat = " ".join(text.replace("\n# ", " ").split())
    options = [option for option in options_in(Periodic) if option.name not in ("spec", "write_spec", "json", "quiet")]
    assert len(options) > 20
    for option in options:
        assert f"{option.name} = " in text
        assert " ".join(option.text.removesuffix(".").removesuffix(" (required)").split()) in flat
    assert set(tomllib.loads(text)) == {"model", "oracle", "out", "structure"}
    taken_up = [line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# rounds =", "# seed ="))]
    assert tomllib.loads("\n".join(taken_up)) == {"rounds": 5, "seed": 0}


def test_what_is_typed_wins_over_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'model = "a"\noracle = "xtb"\nout = "o"\nstructure = ["x.cif", "y.cif"]\nlearning_rate = 1\nrounds = 9'
    )
    command = parse([str(path), "--lr", "0.5", "--structure", "z.cif"])
    assert (command.settings.learning_rate, command.settings.rounds) == (0.5, 9)
    assert [str(name) for name in command.structure] == ["z.cif"]


def test_a_command_writes_its_options_and_does_nothing_else(tmp_path, capsys):
    assert main(["periodic", "--rounds", "7", "--write-spec", str(tmp_path / "new.toml")]) == 0
    assert "mlipjax periodic" in capsys.readouterr().out
    content = tomllib.loads((tmp_path / "new.toml").read_text())
    assert content == {"model": "MODEL", "oracle": "ORACLE", "out": "OUT", "rounds": 7}
    assert [path.name for path in tmp_path.iterdir()] == ["new.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature = 3", "there is no option 'temprature'; did you mean 'temperature'?"),
        ("rounds = 2.5", "rounds must be a whole number, found 2.5."),
        ('ensemble = "npv"', "ensemble must be one of nvt, npt, nve, found 'npv'."),
        ("quiet = 1", "quiet must be true or false, found 1."),
        ("structure = [1]", "structure must be text or a list, found [1]."),
        ("rounds = 0", "--rounds must be between 1 and 100000, found 0."),
        ("rounds = ", "no TOML file:"),
        (f"rounds = {'9' * 6000}", "no TOML file: Exceeds the limit"),
        (f"rounds = {'[' * 5000}", "no TOML file: maximum recursion depth exceeded"),
        ('structure = ["--quiet"]', "structure is '--quiet', which would be taken for an option"),
        (f'strategy = "{"v" * 100_000}"', "vvv ... vvv"),
        ("system = 3", "structures with settings of their own are tables [[system]]."),
        ("[[system]]\nreplicas = 2", "system 1: it has no structure; name a file."),
        ('[[system]]\nstructure = "a"\nwieght = 2', "system 1: there is no option 'wieght'; did you mean 'weight'?"),
        ('[[system]]\nstructure = "a"\ntemperature = [300, "x"]', "temperature must be a number or a list, found"),
        ('[[system]]\nstructure = "a"\nreplicas = 0', "system 1: replicas must be between 1 and 100000, found 0."),
        ('[[system]]\nstructure = "a"\nweight = -1', "system 1: weight must be positive, found -1."),
        ("seed = 1", "needs a structure to start from; name one at least (--structure)."),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(tmp_path, capsys, text, message):
    path = tmp_path / "run.toml"
    path.write_text(f'model = "universal"\noracle = "xtb"\nout = "{tmp_path / "out"}"\n{text}\n')
    assert main(["periodic", str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(error) < 4000
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_and_commands_without_one(tmp_path, capsys):
    assert main(["periodic", str(tmp_path / "absent.toml")]) == 1
    assert "absent.toml: no such file; expected a TOML file of options." in capsys.readouterr().err
    assert expand(["a.toml", "--x"], options_of("evaluate")) == ["a.toml", "--x"]
