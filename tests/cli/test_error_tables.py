"""Tables in 80 columns: every letter is there, whatever the names and numbers."""

import io

import pytest

from mlipjax.cli.output import make_console
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table, element_table, error_table, property_table, settings_table

KEYS = {
    "energy_mean_meV_per_atom": -12345.678,
    "energy_std_meV_per_atom": 1.0,
    "energy_rmse_meV_per_atom": 12345.678,
    "energy_mae_meV_per_atom": 0.123456,
    "force_mae_meV_per_A": 123.456,
    "force_rmse_meV_per_A": 123.456,
    "force_slope": 0.98765,
    "stress_mae_meV_per_A3": None,
}
REPORT = {
    **KEYS,
    "n_frames": 12345,
    "confidence_95": {key: None if value is None else [value, value] for key, value in KEYS.items()},
    "per_element": {
        "Mg": {"n_atoms": 100000, **KEYS, "force_reference_mean_norm_meV_per_A": 1234.5},
    },
}
ROW = {
    "n": 100,
    "mean": 1e-9,
    "mae": 123456.0,
    "rmse": 1.0,
    "confidence_95": {k: [0.0, 1.0] for k in ("mean", "mae", "rmse")},
}


def printed(table, width=80):
    console = make_console(width)
    console.file = file = io.StringIO()
    console.print(table)
    return file.getvalue()


@pytest.mark.parametrize(
    "table",
    [
        error_table({"before": REPORT, "after": REPORT}),
        error_table({"a_rather_long_file_name_of_frames_at_300K_and_2_GPa.extxyz": REPORT}),
        element_table(REPORT),
        property_table({"formation_energy_per_atom, validation": ROW}, "eV/atom"),
        settings_table([("layer_multipliers", "(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)", "independent of what " * 9)]),
    ],
)
@pytest.mark.parametrize("width", [80, 50])
def test_no_letter_is_cut_off(table, width):
    text = printed(table, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_usual_tables_need_no_folding():
    usual = dict.fromkeys(KEYS, -12.34)
    report = {**usual, "n_frames": 49, "confidence_95": {key: [-11.11, -13.33] for key in usual}}
    lines = printed(error_table({"before": report, "after": report})).splitlines()
    assert len(lines) == 2 + len(KEYS) + 1


def test_a_word_wider_than_its_column_goes_on_in_the_next_line():
    word = "x" * 100
    text = printed(Table(("name", "value"), [("1", word)]))
    assert text.count("x") == 100


def test_without_a_terminal_each_piece_of_work_is_one_plain_line():
    console = make_console()
    console.file = file = io.StringIO()
    with Working(console, "reading [/odd] names") as working:
        working.say("1 of 2")
        working.next("computing")
    assert file.getvalue() == "reading [/odd] names ...\ncomputing ...\n"
