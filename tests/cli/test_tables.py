"""Tables fit the width they are given, without losing a word."""

import io

from rich.console import Console

from mlipjax.cli.tables import print_table, table_texts

HEADINGS = ("element", *(f"number {k} (meV/Å²)" for k in range(7)))
ROWS = [[symbol, *(f"{k + 0.125:.3f}" for k in range(7))] for symbol in ("H", "Cl")]


def test_a_wide_table_becomes_several_that_repeat_the_names():
    texts = list(table_texts("title", HEADINGS, ROWS, width=80))
    assert len(texts) == 3
    for text in texts:
        assert max(map(len, text.splitlines())) <= 80
        assert text.splitlines()[3].startswith("H ")
        assert text.splitlines()[4].startswith("Cl ")
    everything = "\n".join(texts)
    for word in (*HEADINGS, *ROWS[0], *ROWS[1]):
        assert word in everything
    assert len(list(table_texts("title", HEADINGS, ROWS, width=300))) == 1


def test_names_longer_than_the_width_are_kept():
    name = "a" * 100
    (text,) = table_texts("title", ("run", "E"), [[name, "1.5"]], width=40)
    assert name in text
    assert "1.5" in text


def test_pipes_get_what_terminals_get():
    out = io.StringIO()
    print_table(Console(file=out, width=80), "[title]", HEADINGS, ROWS)
    printed = out.getvalue()
    assert "[title]" in printed  # no markup
    assert "…" not in printed
    for word in HEADINGS:
        assert word in printed
