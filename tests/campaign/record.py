"""Writes what ``.ci/nightly --record`` found into tests/README.md, between its two marks."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- nightly: begin -->", "<!-- nightly: end -->"


def recorded(readme: str, files: str, campaign: str, date: str, commit: str) -> str:
    """The page with the results in place of earlier ones.

    Args:
        readme: the page; holds both marks.
        files: lines ``tests/x/test_y.py: 3 passed in 5s, 7 s``.
        campaign: what ``run.py`` printed: its table begins with the line of the names of columns.
        date: of the run.
        commit: that was tested.
    """
    rows = []
    for line in sorted(files.splitlines()):
        found = re.fullmatch(r"(\S+): (.*?)(?: in [\d.]+s.*)?, (\d+) s", line)
        if found is None:
            raise ValueError(f"expected FILE: RESULT, SECONDS s; found {line!r}")
        rows.append(f"| `{found[1].removeprefix('tests/')}` | {found[2]} | {found[3]} |")
    table = ["| file | result | seconds |", "|---|---|---|", *rows]
    counts = [line for line in campaign.splitlines() if line and not line.startswith(" ")]
    text = [f"Last run: {date}, commit {commit}.", "", *table, "", "```text", *counts, "```"]
    before, rest = readme.split(BEGIN)
    return before + BEGIN + "\n" + "\n".join(text) + "\n" + END + rest.split(END)[1]


def main() -> None:
    """Rewrite the page."""
    files, campaign = (Path(argument).read_text(encoding="utf-8") for argument in sys.argv[1:3])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    text = recorded(README.read_text(encoding="utf-8"), files, campaign, date, commit.stdout.strip())
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
