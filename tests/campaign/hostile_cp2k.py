"""Hostile outputs and trajectories of CP2K."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from campaign.hostile_case import Case, Kind
from campaign.hostile_structures import read_structures, text_kind
from campaign.mutations import pick, spoil_bytes, spoil_text

CP2K_RESTART = """ &GLOBAL
   RUN_TYPE  MD
 &END GLOBAL
 &MOTION
   &MD
     ENSEMBLE  NVT
   &END MD
 &END MOTION
     &CELL
       A     5.0000000000000000E+00    0.0000000000000000E+00    0.0000000000000000E+00
       B     3.0000000000000000E-01    5.2000000000000000E+00    0.0000000000000000E+00
       C     1.0000000000000000E-01    2.0000000000000000E-01    5.4000000000000000E+00
       PERIODIC  XYZ
     &END CELL
"""


def make_cp2k_trajectory(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A trajectory of CP2K in three files, one of which is spoilt, or gone, or another one in its place."""
    names = ["water-pos-1.xyz", "water-frc-1.xyz", "water-1.cell"]
    for name in names:
        shutil.copy(good / "cp2k" / name, folder)
    path, name = folder / names[0], pick(rng, [names[0], *names])
    way = pick(rng, ["text", "text", "text", "bytes", "gone", "another", "restart"])
    what = f"{name}: {way}"
    if way == "text":
        text, what = spoil_text(rng, (folder / name).read_text())
        (folder / name).write_text(text)
    elif way == "bytes":
        content, what = spoil_bytes(rng, (folder / name).read_bytes())
        (folder / name).write_bytes(content)
    elif way == "gone" and name != names[0]:
        (folder / name).unlink()
    elif way == "another":
        shutil.copy(good / "cp2k" / pick(rng, names), folder / name)
    elif way == "restart":
        (folder / names[2]).unlink()
        (folder / "water-1.restart").write_text(spoil_text(rng, CP2K_RESTART)[0])
    command = ("evaluate", "--model", str(good / "model"), "--data", str(path))
    return Case(path, f"{name}: {what}", arguments=command)


KINDS: tuple[Kind, ...] = (
    text_kind("CP2K output", "cp2k.out"),
    Kind("CP2K trajectory", make_cp2k_trajectory, read_structures, every=4),
)
