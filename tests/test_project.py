"""Rules of the code base that no linter knows: layers, sizes, and what may not happen on import."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlipjax"
LIBRARY = sorted(PACKAGE.rglob("*.py"))
SOURCES = [path for part in ("mlipjax", "experiments", "tests") for path in sorted((ROOT / part).rglob("*.py"))]

# Each line may import from the lines above it and never from its own line, save from itself.
LAYERS = (
    {"_version", "defaults"},
    {"devices", "elements", "factory", "files", "hosts", "lattice", "notices", "precision", "reading", "statistics"}
    | {"typing", "units"},
    {"locks", "report", "runtime", "system", "tree"},
    {"data", "graph"},
    {"dispersion", "nn"},
    {"potential"},
    {"hessian", "models"},
    {"uncertainty"},
    {"calculator", "losses"},
    {"optim", "oracles"},
    {"md", "monitoring", "train"},  # dynamics and training meet in finetuning, not before
    {"relaxation"},
    {"probes", "representation", "settings"},
    {"doctor"},
    {"finetuning"},
    {"verbs"},
    {"engines"},
    {"cli"},
)  # fmt: skip
LAYER_OF = {module: index for index, layer in enumerate(LAYERS) for module in layer}


@functools.cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path):
    return str(path.relative_to(ROOT))


def imported_modules(tree, modules):
    """Top-level modules of the package that a file imports, at any depth of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports with their full path"
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for path in paths:
            package, *rest = path.split(".")
            if package == "mlipjax" and rest:
                yield rest[0] if rest[0] in modules else "the package itself", node.lineno
            elif package in ("experiments", "tests"):
                yield package, node.lineno


def violations(module, tree, modules):
    for other, line in imported_modules(tree, modules):
        if other != module and LAYER_OF.get(other, len(LAYERS)) >= LAYER_OF[module]:
            yield f"line {line}: {module} imports {other}"


def test_every_module_has_a_layer():
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in LIBRARY} - {"__init__"}
    assert modules <= set(LAYER_OF), f"give {sorted(modules - set(LAYER_OF))} a line in LAYERS"


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_imports_point_downwards(path):
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if module != "__init__":
        assert list(violations(module, parse(path), LAYER_OF)) == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("md", "from mlipjax.train import step"),
        ("train", "def f():\n    import mlipjax.md.chunk"),
        ("graph", "from mlipjax import potential"),
        ("nn", "from mlipjax import Potential"),
        ("finetuning", "import experiments.periodic.__main__"),
    ],
)
def test_the_law_sees_a_breach(module, code):
    assert len(list(violations(module, ast.parse(code), LAYER_OF))) == 1


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES if not path.is_relative_to(ROOT / "tests")}


def imports_of(tree, modules):
    """Modules that a file imports, at any depth of its code and for types alone too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from {whole if whole in modules else node.module} & set(modules)


def test_no_modules_import_each_other():
    graph = {module: set(imports_of(parse(path), MODULES)) - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the modules of a circle


def test_a_circle_of_imports_is_seen():
    code = {
        "a.b": "def f():\n    from a import c",
        "a.c": "if TYPE_CHECKING:\n    from a.b import f",
        "a.d": "import a.c",
    }
    graph = {module: set(imports_of(ast.parse(text), code)) for module, text in code.items()}
    with pytest.raises(graphlib.CycleError, match=r"a\.[bc]"):
        graphlib.TopologicalSorter(graph).prepare()


# what the lab takes over from the commands, so that experiments look and fail as they do
FROM_COMMANDS = {f"experiments.lab.{name}" for name in ("display", "entry", "training")}


def strangers(module, tree, modules):
    """Modules that a file of an experiment imports and may not: other claims, and the commands."""
    own = module.split(".")[1]
    for other in imports_of(tree, modules):
        package, *rest = other.split(".")
        if package == "experiments" and rest and rest[0] not in (own, "lab"):
            yield other
        if other.startswith("mlipjax.cli") and module not in FROM_COMMANDS:
            yield other


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("experiments.")])
def test_experiments_share_the_lab_alone(module):
    assert list(strangers(module, parse(MODULES[module]), MODULES)) == []


def test_another_claim_and_a_command_are_seen_also_for_types_alone():
    code = (
        "if TYPE_CHECKING:\n    from experiments.bias.claims import Claim\ndef f():\n    from mlipjax.cli import tables"
    )
    found = list(strangers("experiments.sweep.report", ast.parse(code), MODULES))
    assert found == ["experiments.bias.claims", "mlipjax.cli.tables"]


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "benchmark" / "peers").glob("*.py")), ids=name)
def test_scripts_for_other_environments_need_nothing_of_ours(path):
    assert list(imports_of(parse(path), MODULES)) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert function_length(node) <= 60, f"{node.name} at line {node.lineno}"


def function_length(node):
    """Lines of a function without its docstring."""
    length = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        length -= node.body[0].end_lineno - node.body[0].lineno + 1
    return length


def arguments_of(function):
    """Names of a function's parameters, without ``self``, ``cls`` and what stands for any."""
    names = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return [argument.arg for argument in names if argument.arg not in ("self", "cls")]


# Verbs take the options of their commands, by name. Beside them, options that belong to nothing smaller: the numbers of
# a simulation, a relaxation or a path, the sizes of a batch. No new name joins without a reason.
MANY_ARGUMENTS = {"batch_graphs", "make_ensemble", "neb", "predict_each", "relax", "run"}


def test_functions_take_at_most_seven_arguments():
    verbs = ROOT / "mlipjax" / "verbs"
    functions = (
        (path, node) for path in MODULES.values() for node in ast.walk(parse(path)) if is_function(node)
    )  # a verb is the function that its module is called after
    many = {
        function.name
        for path, function in functions
        if len(arguments_of(function)) >= 8 and (path.parent, path.stem) != (verbs, function.name)
    }
    assert many == MANY_ARGUMENTS, "group those that belong together"


def is_function(node):
    """Tell whether a node defines a function, and no overload of its types alone."""
    is_one = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return is_one and "overload" not in map(ast.unparse, node.decorator_list)


def exported_functions(init):
    """Functions that an ``__init__`` offers, as syntax trees."""
    statements = parse(init).body
    offered = [ast.literal_eval(s.value) for s in statements if ast.unparse(s).startswith("__all__")]
    for statement in statements:
        if offered and isinstance(statement, ast.ImportFrom) and statement.module in MODULES:
            names = {alias.name for alias in statement.names} & set(offered[0])
            yield from (n for n in parse(MODULES[statement.module]).body if is_function(n) and n.name in names)


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.name == "__init__.py"], ids=name)
def test_exported_functions_explain_three_arguments_or_more(path):
    for function in exported_functions(path):
        text = ast.get_docstring(function) or ""
        assert len(arguments_of(function)) < 3 or "Args:" in text, f"{function.name} has no 'Args:'"


def test_exported_functions_are_found():
    assert "batch_graphs" in {function.name for function in exported_functions(PACKAGE / "graph" / "__init__.py")}


def is_surface(statement):
    """Tell whether a statement only says what a package exports."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.If):
        return ast.unparse(statement.test) == "TYPE_CHECKING" and all(map(is_surface, statement.body))
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.name == "__init__.py"], ids=name)
def test_init_files_hold_no_code(path):
    code = [statement for statement in parse(path).body if not is_surface(statement)]
    if path.parent == PACKAGE:  # it alone looks names up when they are first used, so that --help is quick
        assert [ast.unparse(node).split("(")[0].split(" = ")[0] for node in code] == ["_HOMES", "def __getattr__"]
    else:
        assert code == []


def config_calls(statements):
    """Calls such as ``jax.config.update`` that run when a module is imported."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(statement, ast.Call) and re.search(r"\bconfig\.update$", ast.unparse(statement.func)):
            yield statement.lineno
        yield from config_calls(ast.iter_child_nodes(statement))


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_importing_a_module_sets_nothing(path):
    assert list(config_calls(parse(path).body)) == []


def test_a_setting_on_import_is_seen():
    code = (
        "import jax\nif True:\n    jax.config.update('jax_enable_x64', True)\ndef f():\n    jax.config.update('a', 1)"
    )
    assert list(config_calls(ast.parse(code).body)) == [3]


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_nothing_is_unpickled(path):
    importers = PACKAGE / "models" / "importers"  # a restricted reader of others' files may live there
    modules = {
        alias.name.split(".")[0]
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    modules |= {node.module.split(".")[0] for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)}
    forbidden = {"cloudpickle", "dill", "joblib", "pickle", "torch"}
    assert importers in path.parents or not modules & forbidden


# arguments and functions of Python calls, which no one at a command line can reach (apply_constraint is ASE's)
WORDS_OF_CALLS = re.compile(
    r"\b(LabelKeys|LabelKeyError|group_key|run_host|run_compiled|read_dataset)\b|\w(?<!apply_constraint)=(None|True|False)\b"
)


def spoken(tree):
    """Sentences in the code that are no documentation: what may reach a user as a message, with their lines."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    }
    documentation |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in documentation else None
        if isinstance(text, str) and " " in text.strip():
            yield node.lineno, text


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_messages_speak_of_no_python_call(path):
    found = [(line, text) for line, text in spoken(parse(path)) if WORDS_OF_CALLS.search(text)]
    assert found == []


# reports tell which command comes next; ase db is another program's
OPTION = re.compile(r"(^|[\s(])--(?!delete)[a-z]")
SPEAKS_PYTHON = [path for path in LIBRARY if not {"cli", "engines", "report"} & set(path.relative_to(PACKAGE).parts)]


@pytest.mark.parametrize("path", SPEAKS_PYTHON, ids=name)
def test_messages_of_the_library_name_no_option(path):
    assert [(line, text) for line, text in spoken(parse(path)) if OPTION.search(text)] == []


def test_a_message_about_a_python_call_is_seen():
    code = "def f():\n    'LabelKeys are documented.'\n    raise ValueError(f'{1}: give another group_key.')"
    assert [line for line, text in spoken(ast.parse(code)) if WORDS_OF_CALLS.search(text)] == [3]
    assert OPTION.search("give --anchor or leave it out.")


def test_the_changelog_records_numerical_changes():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    assert releases
    for release in releases:
        assert "### Numerical changes" in release, release.splitlines()[0]


def test_the_readme_is_short():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README yet")
    assert len(readme.read_text(encoding="utf-8").splitlines()) < 150


def test_constraints_are_exact_versions_and_cover_the_requirements():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9-]+", requirement).group() in pins, requirement


def test_no_two_test_files_have_one_name():
    # pytest imports them by their names alone
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_the_architecture_page_names_what_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.-]+/[\w.-]*)(?::\w+)?`", text))
    places = {
        name: [root / name for root in (PACKAGE, ROOT, PACKAGE / "models")] for name in named if "NAME" not in name
    }
    assert len(places) > 20
    assert [name for name, paths in places.items() if not any(path.exists() for path in paths)] == []
