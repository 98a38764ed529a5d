"""Pages of the documentation: their blocks, as a script that runs them in order."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def name_of(path):
    return path.relative_to(DOCS).as_posix()


def front_matter(path):
    """Front matter of a page: ``packages`` and ``programs`` it needs, and the page ``after`` which it runs."""
    found = re.match(r"---\n(.*?)^---\n", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return yaml.safe_load(found[1]) if found else {}


def blocks(path, *languages):
    """Blocks of these languages, as (language, text); those without a language or ``text`` are for the eye."""
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


def script(path):
    """One Python program that runs the blocks of a page, shell and Python, one after the other."""
    lines = ["import subprocess as _subprocess"]
    for language, text in blocks(path, "python", "bash"):
        lines.append(f"_subprocess.run(['bash', '-euc', {text!r}], check=True)" if language == "bash" else text)
    return "\n".join(lines) + "\n"


def runs(path):
    """Tell whether a page has something to run."""
    return bool(blocks(path, "python", "bash"))
