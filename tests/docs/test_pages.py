"""Truth of the documentation: its blocks run, its commands have these options, its messages are in the code."""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import docs_pages as pages
import pytest
import yaml

from mlipjax.cli.help import options_in
from mlipjax.cli.main import COMMANDS, options_of

RUNNING = [path for path in pages.PAGES if pages.runs(path)]
MINUTES = 60  # for one page on a busy machine; one or two on a quiet one


def test_every_page_is_in_the_menu():
    # tags such as !!python/name are Zensical's business
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
    menu = yaml.load((pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8"), loader)["nav"]
    assert sorted(files_in(menu)) == sorted(map(pages.name_of, pages.PAGES))


def files_in(menu):
    for entry in menu:
        for target in [entry] if isinstance(entry, str) else entry.values():
            yield from [target] if isinstance(target, str) else files_in(target)


def commands_in(text):
    """Commands of this package in a text, each as a list of words."""
    whole = text.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^mlipjax ([a-z].*)$", whole, flags=re.MULTILINE)]


@pytest.mark.parametrize("path", pages.PAGES, ids=pages.name_of)
def test_commands_have_these_options(path):
    for _, text in pages.blocks(path, "bash", ""):
        for name, *rest in commands_in(text):
            known = {option.name.replace("_", "-") for option in options_in(options_of(name))} | {"lr"}
            given = [word.removeprefix("--") for word in rest if word.startswith("--")]
            assert set(given) <= known, (name, given)


def test_every_command_is_explained():
    page = (pages.DOCS / "commands.md").read_text(encoding="utf-8")
    assert re.findall(r"^```command\n(.*)\n```$", page, flags=re.MULTILINE) == list(COMMANDS)


def sentences(path):
    """Texts in a file, with ``…`` for what is filled in, joined where they stand side by side."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)


def messages():
    page = (pages.DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^### (.*)$", page, flags=re.MULTILINE)


# XLA's own, and a question
NOT_OURS = {"RESOURCE_EXHAUSTED", "the doctor's remedy is an option I do not want"}


def test_messages_that_are_explained_are_said_by_the_code():
    said = [text for path in sorted((pages.ROOT / "mlipjax").rglob("*.py")) for text in sentences(path)]
    explained = set(messages()) - NOT_OURS
    assert len(explained) > 30
    assert [text for text in sorted(explained) if not any(text in sentence for sentence in said)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", RUNNING, ids=pages.name_of)
def test_blocks_run_as_they_stand(path, folder):
    folder(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run a page in a folder, one for it and the pages before it; each runs once."""
    done = {}

    def run(path):
        if path in done:
            return done[path]
        needs = pages.front_matter(path)
        for package in needs.get("packages", []):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{pages.name_of(path)} needs {package}")
        for program in needs.get("programs", []):
            if shutil.which(program) is None:
                pytest.skip(f"{pages.name_of(path)} needs {program}")
        after = needs.get("after")
        place = run(path.parent / after) if after else tmp_path_factory.mktemp("page")
        tools = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        modules = os.pathsep.join(filter(None, [str(pages.ROOT), str(place), os.environ.get("PYTHONPATH")]))
        finished = subprocess.run(
            # as in a notebook: worker processes have no file to import
            [sys.executable, "-c", pages.script(path)],
            cwd=place,
            env=os.environ | {"PATH": tools, "PYTHONPATH": modules, "XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
        )
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
        done[path] = place
        return place

    return run
