"""Tables fit the width they are given, without losing a word."""

import io

from mlipjax.cli.output import make_console
from mlipjax.cli.tables import Table

HEADINGS = ("element", *(f"number {k} (meV/Å²)" for k in range(7)))
ROWS = [[symbol, *(f"{k + 0.125:.3f}" for k in range(7))] for symbol in ("H", "Cl")]


def test_a_wide_table_becomes_several_that_repeat_the_names():
    texts = list(Table(HEADINGS, ROWS, "title").texts(80))
    assert len(texts) == 3
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80
        assert text.splitlines()[3].startswith("H ")
        assert text.splitlines()[4].startswith("Cl ")
    everything = "\n".join(texts)
    for word in (*HEADINGS, *ROWS[0], *ROWS[1]):
        assert word in everything
    assert len(list(Table(HEADINGS, ROWS, "title").texts(300))) == 1


def test_names_longer_than_the_width_are_kept():
    name = "a" * 100
    (text,) = Table(("run", "E"), [[name, "1.5"]], "title").texts(40)
    assert name in text
    assert "1.5" in text


def test_pipes_get_what_terminals_get():
    console = make_console(80)
    console.file = out = io.StringIO()
    console.print(Table(HEADINGS, [*ROWS, ["X" * 100, *ROWS[0][1:]]], "[title]"))
    printed = out.getvalue()
    assert "X" * 100 in printed
    assert "[title]" in printed  # no markup
    assert "…" not in printed
    for word in HEADINGS:
        assert word in printed


def test_words_are_folded_between_words_to_stay_in_one_part():
    row = ["layer_decay", "0.8", "independent of what the others say " * 4]
    (text,) = Table(("setting", "value", "why"), [row], words=True).texts(60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.split()[:3] == ["setting", "value", "why"]
    assert sorted(text.split()[4:]) == sorted(" ".join(row).split())
