"""Notebooks carry no outputs, and run through on their own examples."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MINUTES = 30  # for the whole, on a busy machine; about two on a quiet one


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["finetune_your_material", "periodic_loop"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_without_outputs_and_opens_in_colab(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    badge = notebook.cells[0].source
    assert "colab.research.google.com/github" in badge
    assert f"experiments/notebooks/{path.name}" in badge


def executed(name, folder, monkeypatch):
    """Run a notebook in a folder; what it printed, and how many pictures it shows."""
    from nbclient import NotebookClient

    # the kernel of this interpreter, whatever kernels are installed for the user
    monkeypatch.setenv("JUPYTER_PATH", os.path.join(sys.prefix, "share", "jupyter"))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=60 * MINUTES, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_a_fine_tune_runs_through(tmp_path, monkeypatch):
    printed, n_pictures = executed("finetune_your_material", tmp_path, monkeypatch)
    assert " 0 of them fatal" in printed
    assert n_pictures == 3
    # errors fell, and the charts tell the compressed box from the one at home
    before, after = (float(word) for word in printed.split("force_mae_meV_per_A: ")[1].split(" on ")[0].split(" -> "))
    assert after < before
    readings = [line.split(": ")[1].split(" of ", 1) for line in printed.splitlines() if line.startswith("cell x ")]
    alarms = [int(found) / int(rest.split()[0]) for found, rest in readings]
    assert alarms[0] < alarms[-1]
    assert (tmp_path / "finetuned" / "model" / "params.safetensors").exists()


@pytest.mark.slow
def test_the_periodic_loop_runs_through(tmp_path, monkeypatch):
    printed, n_pictures = executed("periodic_loop", tmp_path, monkeypatch)
    assert n_pictures == 3
    assert [line.split(" labels")[0] for line in printed.splitlines() if line.startswith("round ")] == [
        "round 1: 0",
        "round 2: 4",
        "round 3: 8",
    ]
    before, after = (float(error) for error in re.findall(r"force RMSE ([\d.]+) meV/Å on 12 frames", printed))
    assert after < before
    assert (tmp_path / "periodic" / "model" / "params.safetensors").exists()
