"""The report of a fine-tune: whatever the run gave, one self-contained page that says what matters."""

import re

import numpy as np
import pytest
from ase.build import bulk

from mlipjax.finetuning.run_report import read_largest, save_largest
from mlipjax.report.training import (
    finetune_verdict,
    write_evaluation_report,
    write_finetune_report,
    write_property_report,
)

KEYS = (
    "energy_mean_meV_per_atom",
    "energy_std_meV_per_atom",
    "energy_rmse_meV_per_atom",
    "energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "force_rmse_meV_per_A",
    "force_slope",
    "stress_mae_meV_per_A3",
)


def errors(size, n=20, stress=True):
    values = dict.fromkeys(KEYS, size)
    if not stress:
        values["stress_mae_meV_per_A3"] = None
    element = {
        "n_atoms": 4,
        "force_reference_mean_norm_meV_per_A": 900.0,
        "force_mae_meV_per_A": size,
        "force_slope": 1,
    }
    intervals = {key: None if value is None else [0.9 * value, 1.1 * value] for key, value in values.items()}
    return {**values, "n_frames": n, "confidence_95": intervals, "per_element": {"Mg": element, "O": element}}


def report(before=100.0, after=20.0, n=20, findings=(), best=2):
    return {
        "settings": {"strategy": "naive", "epochs": 3, "freeze_layers": None},
        "strategy": [["learning_rate", "0.001", "the strategy's"]],
        "split": "18 train / 20 valid by 'run'",
        "n_valid": n,
        "findings": list(findings),
        "best_epoch": best,
        "epochs_run": 3,
        "before": errors(before, n),
        "after": errors(after, n),
        "retained": {"anchor": "generated", "before": None, "after": None},
        "versions": {"mlipjax": "0"},
    }


def records(n=3):
    return [
        {"epoch": k + 1, "train_loss": 1.0 / (k + 1), "valid_loss": 2.0 / (k + 1), "anchor_loss": None,
         "energy_mae_meV_per_atom": 5.0, "force_mae_meV_per_A": 50.0 / (k + 1), "stress_mae_meV_per_A3": None}
        for k in range(n)
    ]  # fmt: skip


def points(n=50):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=n)
    return {"forces": {"reference": reference, "before": 0.8 * reference, "after": 0.99 * reference}}


@pytest.mark.parametrize("n_records", [0, 1, 3])
def test_a_page_that_needs_nothing_else(tmp_path, n_records):
    write_finetune_report(tmp_path, report(), records(n_records), points())
    # what scripts do is seen in a browser (test_browser.py)
    page = re.sub(r"<script.*?</script>", "", (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    assert page.count('src="data:image/png;base64,') == 1 + (n_records > 0)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert {path.name for path in tmp_path.glob("*.png")} == {"parity_forces.png"} | (
        {"history.png"} if n_records else set()
    )
    for words in ("force MAE 100 → 20 meV/Å", "epoch 2 of 3 was kept", "learning_rate", "18 train / 20 valid", "Mg"):
        assert words in page
    assert "freeze_layers" not in page  # what nobody chose
    assert "mlipjax evaluate --model" in page
    assert "nothing to complain about" in page


def test_structures_with_the_largest_errors_are_kept_and_shown(tmp_path):
    apart = [(bulk("Cu", cubic=True), np.full(4, 0.01 * number)) for number in range(30)]
    for number, (atoms, _) in enumerate(apart):
        atoms.info["structure"] = number
    save_largest(tmp_path, apart)
    kept = read_largest(tmp_path)
    assert [atoms.info["structure"] for atoms, _ in kept] == list(range(29, 9, -1))
    np.testing.assert_allclose(kept[1][1], 0.28)
    write_finetune_report(tmp_path, report(), records(), points(), kept)
    assert (tmp_path / "largest_errors.png").exists()
    assert "Structures with the largest force errors" in (tmp_path / "report.html").read_text()


def test_runs_of_earlier_versions_have_a_page_without_parity(tmp_path):
    write_finetune_report(tmp_path, report(), records(), {})
    assert [path.name for path in tmp_path.glob("*.png")] == ["history.png"]


def test_bad_news_comes_first():
    finding = {"severity": "warning", "check": "units", "message": "odd", "where": "", "remedy": "look"}
    assert finetune_verdict(report())[1] is False
    for words, bad in (
        ("Some error grew", report(after=150.0)),
        ("few to choose an epoch by", report(n=2)),
        ("1 warning,", report(findings=[finding])),
    ):
        verdict, alarm = finetune_verdict(bad)
        assert alarm
        assert words in verdict
    assert "No epoch was better" in finetune_verdict(report(best=0))[0]


def test_what_a_label_was_not_given_for_is_left_out(tmp_path):
    run = report()
    run["before"], run["after"] = errors(100.0, stress=False), errors(20.0, stress=False)
    write_finetune_report(tmp_path, run, records(), points())
    assert "stress" not in (tmp_path / "report.html").read_text().split("All options")[0]


def test_markup_in_names_is_text(tmp_path):
    run = {**report(), "split": "<b>bold</b>"}
    write_finetune_report(tmp_path, run, records(), points())
    assert "&lt;b&gt;bold" in (tmp_path / "report.html").read_text()


def test_an_evaluation_has_parity_plots_too(tmp_path):
    shown = {"forces": {"reference": np.arange(9.0), "model": np.arange(9.0) + 0.1}}
    full = {**errors(3.0), "versions": {"mlipjax": "0"}}
    write_evaluation_report(
        tmp_path, full, shown, model="universal", data="some/test.extxyz", command="mlipjax evaluate"
    )
    page = (tmp_path / "report.html").read_text()
    assert "universal on 20 structures of some/test.extxyz: force MAE 3 meV/Å" in page
    assert (tmp_path / "parity_forces.png").is_file()


def test_a_property_has_a_page_of_its_own(tmp_path):
    row = {"n": 9, "mean": 0.1, "mae": 0.2, "rmse": 0.3}
    row["confidence_95"] = {key: [0.0, 1.0] for key in ("mean", "mae", "rmse")}
    run = {
        "property": {"name": "gap", "unit": "eV"},
        "valid": row,
        "tests": {"far away": row},
        "tasks": {"gap": "12 structures"},
        "strategy": [["learning_rate", "0.001", "the strategy's"]],
        "settings": {"epochs": 3},
        "options": {"denoise": 0.0},
        "steps": 20,
        "best_step": 10,
        "versions": {"mlipjax": "0"},
    }
    history = [
        {"step": step, "tasks": {"gap": {"steps": 9, "train": {"mse": 1.0 / step}, "valid": {"mae": 1.0 / step}}}}
        for step in (10, 20)
    ]
    found = {"property": {"reference": np.arange(9.0), "after": np.arange(9.0) + 0.1}}
    write_property_report(tmp_path, run, history, found)
    page = (tmp_path / "report.html").read_text()
    assert "gap on 9 validation structures: MAE 0.2, RMSE 0.3 eV" in page
    assert "far away" in page
    assert {path.name for path in tmp_path.glob("*.png")} == {"history.png", "parity_property.png"}
