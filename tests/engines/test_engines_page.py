"""The page about other simulation programs: its Python blocks run, and its commands are right."""

import re
from pathlib import Path

import numpy as np
import pytest

from mlipjax.cli.help import options_in
from mlipjax.cli.main import options_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")


@pytest.mark.slow  # compiles the second derivatives of the embedded model
def test_python_blocks_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "engines.md", "exec"), names)
    n = len(names["atoms"])
    assert names["hessian"].shape == (3 * n, n, 3)
    assert np.isfinite(names["features"]).all()


def test_commands_have_these_options():
    commands = re.findall(r"^mlipjax (\w+) (.*)$", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in commands] == ["engine", "engine", "export"]
    for name, arguments in commands:
        known = {option.name.replace("_", "-") for option in options_in(options_of(name))}
        assert set(re.findall(r"--([a-z-]+)", arguments)) <= known
