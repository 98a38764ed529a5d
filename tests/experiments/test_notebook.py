"""The notebook: its paired source says the same, it carries no outputs, and it runs through on its own example."""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MINUTES = 30  # for the whole, on a busy machine; about two on a quiet one


def cells(notebook):
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def test_there_is_a_notebook():
    assert [path.stem for path in NOTEBOOKS] == ["finetune_your_material"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_and_source_agree(path):
    notebook = nbformat.read(path, as_version=4)
    source = jupytext.read(path.with_suffix(".py"), fmt="py:percent")
    remedy = f"jupytext --to ipynb {path.with_suffix('.py').name}"
    assert cells(notebook) == cells(source), remedy


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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_through(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    # the kernel of this interpreter, whatever kernels are installed for the user
    monkeypatch.setenv("JUPYTER_PATH", os.path.join(sys.prefix, "share", "jupyter"))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=60 * MINUTES, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert " 0 of them fatal" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    # errors fell, and the charts tell the compressed box from the one at home
    before, after = (float(word) for word in printed.split("force_mae_meV_per_A: ")[1].split(" on ")[0].split(" -> "))
    assert after < before
    readings = [line.split(": ")[1].split(" of ", 1) for line in printed.splitlines() if line.startswith("cell x ")]
    alarms = [int(found) / int(rest.split()[0]) for found, rest in readings]
    assert alarms[0] < alarms[-1]
    assert (tmp_path / "finetuned" / "model" / "params.safetensors").exists()
