"""The Python blocks of the README run as they stand, one after the other; its commands exist."""

import dataclasses
import importlib
import re
import typing
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_are_blocks():
    assert len(BLOCKS) == 2


@pytest.mark.slow
def test_python_blocks_run_as_they_stand(capsys):
    names = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    assert names["relaxed"].converged
    assert capsys.readouterr().out.splitlines()[-1].startswith("True [")
    assert len(names["predicted"]) == 2
    assert float(names["prediction"].energy[0]) < 0
    assert int(names["state"].systems[0].buffer.count) == 4


def test_imports_of_the_blocks_exist():
    for block in BLOCKS:
        for module, found in re.findall(r"^from (\S+) import (.+)$", block, flags=re.MULTILINE):
            for name in found.split(", "):
                assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_commands_and_their_options_exist():
    module = importlib.import_module("mlipjax.cli.main")
    rows = re.findall(r"^\| (`mlipjax .*?`(?:, `mlipjax .*?`)*) \|", TEXT, flags=re.MULTILINE)
    commands = [command for row in rows for command in re.findall(r"`mlipjax (.*?)`", row)]
    assert set(module.COMMANDS) == {command.split()[0] for command in commands}
    for command in commands:
        name, *rest = command.split()
        options = module.options_of(name)
        fields = {field.name.replace("_", "-") for field in dataclasses.fields(options)}
        for option in re.findall(r"--([a-z-]+)", " ".join(rest)):
            assert option in fields or _nested(options, option), (name, option)


def _nested(options, option):
    """Tell whether an option belongs to a group of settings of a command."""
    hints = typing.get_type_hints(options)
    groups = [hint for hint in hints.values() if dataclasses.is_dataclass(hint)]
    return any(option.replace("-", "_") in {field.name for field in dataclasses.fields(group)} for group in groups)
