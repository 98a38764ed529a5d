"""Tests use what is there: those that run at night alone would say weeks later that a name is gone."""

import ast
import importlib
import types
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def names_that_are_gone(path):
    """Names of the package that a file imports, or takes from a module it imports, and that no longer exist."""
    tree, modules = ast.parse(path.read_text(encoding="utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("mlipjax", "experiments"):
            home = importlib.import_module(node.module)
            for alias in node.names:
                try:
                    found = getattr(home, alias.name)
                except AttributeError:
                    found = find_module(f"{node.module}.{alias.name}")
                    if found is None:
                        yield f"line {node.lineno}: {node.module}.{alias.name}"
                if isinstance(found, types.ModuleType):
                    modules[alias.asname or alias.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not hasattr(module, node.attr) and find_module(f"{module.__name__}.{node.attr}") is None:
                yield f"line {node.lineno}: {module.__name__}.{node.attr}"


def find_module(path):
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return None


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_tests_use_names_that_exist(path):
    assert list(names_that_are_gone(path)) == []


def test_a_name_that_is_gone_is_seen(tmp_path):
    file = tmp_path / "test_old.py"
    file.write_text("from mlipjax import files\nfrom mlipjax.files import no_such\nfiles.write_atomic\nfiles.gone\n")
    assert list(names_that_are_gone(file)) == ["line 2: mlipjax.files.no_such", "line 4: mlipjax.files.gone"]
