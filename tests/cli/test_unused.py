"""Options that decide nothing beside others are said."""

import pytest

from mlipjax.cli.call import given
from mlipjax.cli.main import COMMANDS, _parsed, main, options_of
from mlipjax.cli.unused import RULES, say_unused
from mlipjax.notices import Notice

FINETUNE = "finetune --model universal --out o"
PROPERTY = f"{FINETUNE} --property p.npz:gap --strategy ft"
PERIODIC = "periodic --model universal --structure s.cif --out o"


def said(line, recwarn):
    name, *arguments = line.split()
    say_unused(name, _parsed(name, arguments, options_of(name)))
    return [str(one.message) for one in recwarn.list if one.category is Notice]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("probe dimer --model m --elements Si --structure s", "--structure is not used: the elements are given"),
        ("convert --model universal --out o --energy-key E", "--energy-key is not used: a model has no labels."),
        ("engine lammps --model m --structure s --out o --ensemble nve --damping 5", "--damping is not used"),
        ("engine ipi --model ase:a:b --structure s --out o --dtype float32", "--dtype is not used"),
        ("evaluate --model m --property p.npz:gap --units atomic --stress-key S", "--stress-key, --units are not used"),
        ("predict --model ase:a:b --data d --dtype float64 --batch-size 3", "--dtype, --batch-size are not used"),
        ("relax --model ase:a:b --structure s --dtype float32", "--dtype is not used"),
        (
            "monitor --model m --reference monitor.npz --data d --level 0.2",
            "--level is not used: the charts",
        ),
        ("slide --model m --structure s --surface 6 --points 20", "--points is not used: a grid"),
        ("slide --model m --structure s --no-relaxed --fmax 0.5 --no-symmetry", "--no-symmetry is not used: a path"),
        ("compare-representations --model a --model b --data d --kind nodes --pairs 4", "--pairs is not used"),
        ("compare-representations --model a --model b --data d --kind edges --old f", "--old is not used"),
        ("compare-representations --run a --data d --perplexities 5", "--perplexities is not used: no t-SNE is made"),
        (f"{FINETUNE} --train t --valid v --valid-fraction 0.3", "--valid-fraction is not used"),
        (
            f"{FINETUNE} --train t --anchor none --replay-size 7",
            "--replay-size is not used: no structures",
        ),
        (f"{FINETUNE} --train t --strategy replay --replay r --replay-size 7", "--replay-size is not used"),
        (f"{FINETUNE} --train t --strategy scratch --anchor-weight 3", "--anchor-weight is not used: fresh"),
        (f"{PROPERTY} --batch-size 3 --loss mse", "--batch-size, --loss are not used: only the strategy mft"),
        (f"{PROPERTY} --mixture sum", "--mixture is not used: the property is the only task"),
        (f"{PROPERTY} --denoise-share 0.5", "--denoise-share is not used: nothing is denoised"),
        (f"{PROPERTY} --steps 5 --epochs 3", "--epochs is not used"),
        (f"{PROPERTY} --energy-key E", "--energy-key is not used"),
        (f"{PERIODIC} --oracle xtb --pressure 100", "--pressure is not used"),
        (f"{PERIODIC} --oracle teacher:m --workers 3", "--workers is not used"),
        (f"{PERIODIC} --oracle teacher:m --asynchronous", "--asynchronous is not used: this oracle labels in the"),
        (f"{PERIODIC} --oracle xtb --executor local:2 --workers 3", "--workers is not used: the executor says"),
        (f"{PERIODIC} --oracle xtb --energy-key E", "--energy-key is not used: there are no frames from before"),
        (f"{PERIODIC} --oracle xtb --replay-size 7", "--replay-size is not used"),
    ],
)
def test_an_option_that_decides_nothing_is_said(line, named, recwarn):
    found = said(line, recwarn)
    assert any(text.startswith(named) for text in found), found


@pytest.mark.parametrize(
    "line",
    [
        f"{FINETUNE} --train t --replay-size 7 --anchor-weight 2 --batch-size 3 --loss mse --energy-key E --epochs 3",
        f"{FINETUNE} --train t --auto --anchor none --replay-size 7",
        f"{FINETUNE} --train t --strategy pseudo-replay --anchor none --replay-size 7",
        f"{FINETUNE} --property p.npz:g --strategy mft --batch-size 3 --mixture sum --replay-size 7 --denoise 0.1",
        f"{PROPERTY} --denoise 0.1 --denoise-share 0.5 --mixture sum --valid-fraction 0.3",
        f"{PERIODIC} --oracle xtb --ensemble npt --pressure 100 --workers 3 --data d --energy-key E",
        f"{PERIODIC} --oracle teacher:m --executor dask:h,jobs=3 --asynchronous",
        f"{PERIODIC} --oracle ase:a:b --strategy pseudo-replay --replay-size 7",
        "engine lammps --model m --structure s --out o --damping 5 --dtype float32",
        "convert --data d --out o --energy-key E",
        "slide --model m --structure s --surface 6 --no-symmetry --fmax 0.5",
        "predict --model m --data d --dtype float64 --batch-size 3",
    ],
)
def test_nothing_is_said_of_options_that_decide_something(line, recwarn):
    assert said(line, recwarn) == []


def test_rules_are_of_options_that_there_are():
    lines = {"finetune": FINETUNE, "periodic": f"{PERIODIC} --oracle xtb"}
    for name, rules in RULES.items():
        assert name in COMMANDS
        if line := lines.get(name):
            values = given(_parsed(name, line.split()[1:], options_of(name)))
            assert all(option in values for rule in rules for option in rule.options.split())


def test_what_settings_refuse_is_one_line(capsys):
    both = "error: the data choose the strategy (--auto), and 'llrd' is given too (--strategy); take one.\n"
    assert main([*FINETUNE.split(), "--train", "t.xyz", "--auto", "--strategy", "llrd"]) == 1
    assert capsys.readouterr().err == both
    assert main([*PERIODIC.split(), "--oracle", "sw", "--until-alarm-rate", "0.1"]) == 1
    assert capsys.readouterr().err.startswith("error: --until-alarm-rate 0.1 needs charts that raise alarms;")
