"""docs/files.md says what there is."""

import re
from pathlib import Path

from mlipjax.cli.call import fields_of
from mlipjax.cli.main import COMMANDS, options_of
from mlipjax.data.label_keys import _PATTERNS
from mlipjax.data.label_units import PRESETS, parse_units
from mlipjax.data.weights import WEIGHT_KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")


def test_options_exist():
    known = {field.name.replace("_", "-") for command in COMMANDS for field, _ in fields_of(options_of(command))}
    named = set(re.findall(r"--([a-z][a-z0-9-]*)", PAGE))
    assert {"train", "units", "virial-key", "e0s"} <= named
    assert named - known == set()


def test_presets_and_units_are_all_there():
    rows = dict(re.findall(r"^\| `(\w+)` \| (energy=\S+) \|$", PAGE, re.MULTILINE))
    assert rows == PRESETS
    for name, listed in re.findall(r"^\| `(\w+)=` \| [^:|]*: ([^|]*?) \|$", PAGE, re.MULTILINE):
        for unit in listed.split(", ") if name != "voigt" else ():
            assert parse_units(f"{name}={unit}")


def test_names_of_labels_are_known():
    part = PAGE[PAGE.index("## Names of labels") : PAGE.index("A name that only")]
    names = re.findall(r"`(\w+)`", part)[3:]
    assert len(names) > 12
    assert [name for name in names if not any(p.fullmatch(name) for p in _PATTERNS.values())] == []


def test_weights_are_known():
    assert {*re.findall(r"`(\w*_weight)`", PAGE)} <= WEIGHT_KEYS
