"""The names that ``import mlipjax`` offers."""

import dataclasses
import doctest
import importlib
import inspect
import subprocess
import sys
import typing

import pytest

import mlipjax
from mlipjax.cli.help import help_text, options_in
from mlipjax.cli.main import options_of
from mlipjax.cli.options.common import LabelOptions
from mlipjax.settings import FinetuneSettings, PeriodicSettings, PropertySettings, SamplingSettings


def test_every_public_name_resolves():
    assert sorted(mlipjax.__all__) == sorted(set(mlipjax.__all__))
    for name in mlipjax.__all__:
        assert getattr(mlipjax, name) is not None


def test_sub_packages_are_attributes_without_an_import_of_their_own():
    code = "import mlipjax; print(mlipjax.md.__name__, mlipjax.probes.__name__, mlipjax.data.read_atoms.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mlipjax.md", "mlipjax.probes", "read_atoms"]


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'finetunes'"):
        mlipjax.finetunes  # noqa: B018


def test_importing_the_package_loads_no_jax():
    code = "import sys, mlipjax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_loaded_model_is_named_and_unpacks():
    model = mlipjax.load("universal")
    potential, params = model
    assert isinstance(model, mlipjax.Model)
    assert potential is model.potential
    assert params is model.params


VERBS = {
    "calibrate": mlipjax.calibrate,
    "distill": mlipjax.distill,
    "evaluate": mlipjax.evaluate,
    "finetune": mlipjax.finetune,
    "monitor": mlipjax.monitor,
    "neb": mlipjax.neb,
    "periodic": mlipjax.periodic,
    "predict": mlipjax.predict,
    "relax": mlipjax.relax,
    "simulate": mlipjax.simulate,
}
# what a command does with results that a verb returns, and what a process sets up once
OF_COMMANDS = {"device", "distributed", "figure", "json", "quiet", "spec", "write_spec"}
# what a caller in Python may listen to, and settings that are a record there and options on the command line
OF_PYTHON = {
    "on_step",
    "on_chunk",
    "keep_path",
    "leave_out",
    "listener",
    "sampling",
    "settings",
    "systems",
    "task",
    "options",
    "labels",
}


def options_by_name(command):
    """Defaults of a command's options by name, those of its groups of options included; required ones have none."""
    found = {}
    for field in dataclasses.fields(command):
        kind = typing.get_type_hints(command)[field.name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(kind):
            found |= options_by_name(kind)
        else:
            found[field.name] = inspect.Parameter.empty if default is dataclasses.MISSING else default
    return found


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_the_options_of_its_command_with_their_defaults(name):
    given = {option.name: option for option in inspect.signature(VERBS[name]).parameters.values()}
    options = options_by_name(options_of(name))
    # taken by the names of their fields
    kinds = (FinetuneSettings, PeriodicSettings, PropertySettings, SamplingSettings)
    settings = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    own = set(options) - (settings if name in ("distill", "finetune", "periodic") else set()) - OF_COMMANDS
    own -= set(options_by_name(LabelOptions))  # likewise, where the command has them: those of mlipjax.read
    # structures that a verb returns are written by the command
    written = {"write", "out"} - set(given)
    assert set(given) - OF_PYTHON == own - written
    for option in own & set(given) - {"out"}:
        assert given[option].default == options[option], option


def test_names_of_labels_are_those_of_the_commands():
    parameters = inspect.signature(mlipjax.read).parameters
    for option, default in options_by_name(LabelOptions).items():
        assert parameters[option].default == default


@pytest.mark.parametrize("name", VERBS)
def test_model_and_structures_come_first_and_options_have_names(name):
    model, structures, *others = inspect.signature(VERBS[name]).parameters.values()
    assert model.name == ("teacher" if name == "distill" else "model")
    assert structures.kind is model.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert {option.kind for option in others if option.name != "ensemble"} <= named


@pytest.mark.parametrize(
    "name", [*VERBS, "compare-representations", "convert", "doctor", "engine", "export", "models", "probe", "slide"]
)
def test_every_option_is_explained_once_in_the_help(name):
    command = options_of(name)
    listed = [option for names in getattr(command, "sections", {}).values() for option in names.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(options_by_name(command))
    assert {option.name for option in options_in(command)} == set(options_by_name(command))
    short, full = (help_text(name, command, everything=everything, width=80) for everything in (False, True))
    assert max(map(len, full.splitlines())) <= 80
    for option in options_by_name(command):
        assert option.replace("_", "-") in short
    if len(options_by_name(command)) > 15:
        assert len(listed) > 0
        assert len(short.splitlines()) < 0.8 * len(full.splitlines())


@pytest.mark.parametrize(
    "name",
    [
        "evaluate",
        "predict",
        "read",
        "relax",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("distill", "finetune", "monitor", "neb", "simulate")),
    ],
)
def test_the_example_of_a_verb_is_true(name):
    # by its name a verb hides the module that it comes from
    module = importlib.import_module(f"mlipjax.verbs.{name}")
    found = doctest.testmod(module)
    assert found.attempted > 2
    assert found.failed == 0


@pytest.mark.parametrize("verb", [mlipjax.predict, mlipjax.relax])
def test_overloads_take_the_options_of_their_verb(verb):
    # where shapes are checked, one of them takes the place of the others
    overloads = typing.get_overloads(inspect.unwrap(verb))
    assert overloads
    for overload in overloads:
        assert list(inspect.signature(overload).parameters) == list(inspect.signature(verb).parameters)
