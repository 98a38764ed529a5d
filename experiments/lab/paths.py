"""Places in a checkout of the data that this project made."""

from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"
ELECTROLYTE = DATA / "electrolyte.extxyz"
PRETRAINING = DATA / "universal_xtb.npz"
