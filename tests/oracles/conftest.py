"""What tests of labels share."""

import os
from pathlib import Path

import pytest
from recorded_calculators import LOG

HERE = Path(__file__).resolve().parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder where the recorded calculator logs its calls, here and in workers, which find what they need."""
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv(LOG, str(log))
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}{os.pathsep}{HERE}")
    return log
