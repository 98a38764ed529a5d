"""Judge a universal model on DFT that it has never seen, on pairs of atoms, and in molecular dynamics.

    python -m experiments.pretrain.judge --model data/universal-pbe --out runs/judge

The sets are public (``MLIPJAX_DATA``; not shipped): MPtrj, Alexandria and structures at high temperature and pressure
(PBE), formate on Cu(110), and mlearn's Si, Mo and Li. Errors of energy, forces and stress stand beside those of the
teacher and of another universal model. Energies are compared raw, and after a least-squares fit of the error by
composition, which removes what another choice of pseudopotentials or of +U adds; the fit is made on the structures it
is judged on. Brackets are 95 % bootstrap intervals over structures.

All pairs of elements are pushed together down to 0.5 Å: a hole is a distance below the covalent radii from which the
energy falls inwards. Crystals and liquids run at constant temperature, at 300 and 1000 K: a run is unstable if it gets
five times as hot, or two atoms come closer than half the sum of their covalent radii.

Everything that takes long is kept in ``OUT``: predictions by model and set, trajectories; the same command goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from ase import Atoms
from ase.io import read

from experiments.lab.display import Table, make_console
from experiments.lab.paths import DATA
from experiments.pretrain.parts import save
from experiments.pretrain.prototypes import prototypes
from experiments.pretrain.sampling import bare
from experiments.pretrain.structures_elements import Descent, packed
from mlipjax import predict, runtime, simulate
from mlipjax.calculator import model_digest
from mlipjax.files import digest, plain, write_atomic
from mlipjax.md import SimulationStopped, default_timestep
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.probes import NativeEvaluator, dimer_walls
from mlipjax.statistics import confidence_95, draw_rows
from mlipjax.system import System

# file and structures: frames of a trajectory are much alike
SETS = {
    "MPtrj": ("materials/mptrj_1k", 1000), "Alexandria": ("materials/alexandria_1k", 1000),
    "hot and dense": ("materials/mpf_tp", 1100), "formate on Cu": ("surfaces/formate_cu110", 60),
    "Si": ("mlearn/si_train", 60), "Mo": ("mlearn/mo_train", 60), "Li": ("mlearn/li_train", 60),
}  # fmt: skip
# structure type, elements of its letters, repeats
CRYSTALS = (
    ("rocksalt", "Na Cl", 2), ("rocksalt", "Mg O", 2), ("rocksalt", "Ti N", 2), ("CsCl", "Cs I", 3),
    ("zincblende", "Ga As", 2), ("zincblende", "Si C", 2), ("wurtzite", "Zn O", 2), ("fluorite", "Ca F", 2),
    ("fluorite", "U O", 2), ("rutile", "Ti O", 2), ("perovskite", "Sr Ti O", 2), ("spinel", "Mg Al O", 1),
    ("corundum", "Al O", 1), ("NaFeO2", "Li Co O", 2), ("pyrite", "Fe S", 1), ("Bi2Te3", "Bi Te", 2),
    ("elpasolite", "Cs Ag Bi Cl", 1), ("zircon", "Zr Si O", 1), ("fcc", "Cu", 3), ("fcc", "Au", 3), ("bcc", "Fe", 3),
    ("bcc", "W", 3), ("hcp", "Mg", 2), ("diamond", "Si", 2), ("Cu3Au", "Al Ni", 2), ("Heusler", "Ni Mn Ga", 2),
)  # fmt: skip
LIQUIDS = ("water", "electrolyte")
MELTS = ("LiF", "NaCl")
"""Packed at random; with the two files of ``data`` they make thirty."""


@dataclass(frozen=True)
class Config:
    """Judge a universal model."""

    model: str
    """Model to judge, by name, folder or file."""
    beside: tuple[str, ...] = ("nequix-oam-1-pft", "nequix-mp-1")
    """Models whose errors stand beside it; the first is the teacher."""
    data: Path = Path(os.environ.get("MLIPJAX_DATA", "../shared/data"))
    """Folder of the public sets."""
    out: Path = Path("runs/judge")
    """Folder for predictions, trajectories and what was found."""
    frames: int = 1100
    """Structures of every set, evenly spaced, at most."""
    closest: float = 0.5
    """Smallest distance of pairs in Å."""
    picoseconds: float = 20.0
    """Length of the runs; 0 for none."""


def main(config: Config) -> None:
    """Measure what is not measured yet, and say what was found."""
    runtime.prepare_process()
    console = make_console()
    models = {name: load(name) for name in (config.model, *config.beside)}
    found: dict[str, Any] = {"errors": {}, "model": config.model}
    for name, (file, most) in SETS.items():
        structures = read_frames(config.data / f"{file}.extxyz", min(most, config.frames))
        found["errors"][name] = {
            Path(key).stem: errors(structures, predictions(model, structures, config.out / "predictions"))
            for key, model in models.items()
        }
        console.print(error_rows({name: found["errors"][name]}))
    found["dimers"] = walls(models[config.model], config.closest)
    console.print(f"pairs: {found['dimers']['verdict']}")
    if config.picoseconds:
        found["runs"] = list(runs(models[config.model], config.out / "runs", config.picoseconds))
        stable = sum(not run["stopped"] for run in found["runs"])
        console.print(f"{stable} of {len(found['runs'])} runs of {config.picoseconds:g} ps stable")
    console.print(error_rows(found["errors"]))
    found["versions"] = runtime.versions()
    write_atomic(config.out / f"{Path(config.model).stem}.json", json.dumps(plain(found), indent=1))


def read_frames(file: Path, most: int) -> list[Atoms]:
    """Return at most so many structures of a labelled file, evenly spaced."""
    frames = read(file, ":")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    return [frames[i] for i in chosen]


def predictions(model: Model, structures: Sequence[Atoms], folder: Path) -> dict[str, np.ndarray]:
    """Energies (n,), forces of all atoms (N, 3) and stresses (n, 6; NaN without), kept in a folder by model and set."""
    facts = [part for atoms in structures for part in (atoms.numbers, atoms.positions, atoms.cell.array)]
    file = folder / f"{model_digest(*model)}-{digest(*facts)[:16]}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = predict(model, [bare(atoms) for atoms in structures], batch_size=16)
        save(file, labels(found))
    with np.load(file) as kept:
        return dict(kept)


def labels(structures: Sequence[Any]) -> dict[str, np.ndarray]:
    """Energies, forces and stresses that structures carry."""
    results = [atoms.calc.results for atoms in structures]
    return {
        "energy": np.array([result["energy"] for result in results]),
        "forces": np.concatenate([result["forces"] for result in results]),
        "stress": np.array([result.get("stress", np.full(6, np.nan)) for result in results]),
    }


def errors(structures: Sequence[Atoms], found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean absolute errors in meV with intervals: of energy per atom twice, force and stress."""
    true = labels(structures)
    sizes = np.array([len(atoms) for atoms in structures])
    elements = sorted({z for atoms in structures for z in atoms.numbers.tolist()})
    shares = np.array([[np.mean(atoms.numbers == z) for z in elements] for atoms in structures])
    energy = (found["energy"] - true["energy"]) / sizes
    rest = energy - shares @ np.linalg.lstsq(shares, energy, rcond=None)[0]
    force = np.add.reduceat(np.abs(found["forces"] - true["forces"]).mean(axis=1), np.cumsum(sizes) - sizes)
    stress = np.abs(found["stress"] - true["stress"]).mean(axis=1)
    known = np.isfinite(stress)
    return {
        "n": len(sizes),
        "energy": mean_of(np.abs(energy), np.ones(len(sizes))),
        "energy but for composition": mean_of(np.abs(rest), np.ones(len(sizes))),
        "force": mean_of(force, sizes),
        "stress": mean_of(stress[known], np.ones(known.sum())) if known.any() else None,
    }


def mean_of(sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Ratio of two sums over structures, times 1000, and the ends of its interval."""
    rows = draw_rows(len(sums))
    low, high = confidence_95(sums[rows].sum(axis=1) / counts[rows].sum(axis=1))
    return {"mean": 1e3 * sums.sum() / counts.sum(), "low": 1e3 * low, "high": 1e3 * high}


def error_rows(found: dict[str, Any]) -> Table:
    """One row for each set and model."""

    def cell(value: dict[str, float] | None) -> str:
        return "-" if value is None else f"{value['mean']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"

    names = ("energy", "energy but for composition", "force", "stress")
    rows = [
        [data, model, str(one["n"]), *(cell(one[name]) for name in names)]
        for data, by_model in found.items()
        for model, one in by_model.items()
    ]
    headings = ["set", "model", "n", "E meV/atom", "E - fit", "F meV/Å", "S meV/Å^3"]
    return Table(headings, rows, "mean absolute errors", name_columns=2)


def walls(model: Model, closest: float) -> dict[str, Any]:
    """What happens to all pairs of elements that are pushed together."""
    found = dimer_walls(
        NativeEvaluator(model, "float32"), model.potential.species, shortest=closest, longest=5.5, n_points=41
    )
    holes = {pair: float(hole) for pair, hole in zip(found.pairs, found.holes, strict=True) if hole > 0}
    first = ", ".join(f"{pair} below {hole:.2f} Å" for pair, hole in sorted(holes.items(), key=lambda x: -x[1])[:5])
    verdict = f"{len(holes)} of {len(found.pairs)} have a hole" + (f": {first}, ..." if holes else "")
    return {"verdict": verdict, "holes": holes, "n": len(found.pairs), "lowest wall": float(found.walls.min())}


def runs(model: Model, folder: Path, picoseconds: float) -> Iterator[dict[str, Any]]:
    """Simulate crystals and liquids at 300 and 1000 K, from where the model has no stress."""
    for name, atoms in starts(model):
        for kelvin in (300, 1000):
            out = folder / f"{name}-{kelvin}"
            done = out / "judged.json"
            if not done.exists():
                steps = round(1000 * picoseconds / default_timestep(atoms.numbers))
                stopped = ""
                try:
                    simulate(model, atoms, steps=steps, temperature=kelvin, out=out, every=max(1, steps // 20))
                except SimulationStopped as reason:
                    stopped = str(reason).splitlines()[0]
                write_atomic(done, json.dumps({"name": name, "kelvin": kelvin, "steps": steps, "stopped": stopped}))
            yield json.loads(done.read_text())


def starts(model: Model) -> Iterator[tuple[str, Atoms]]:
    """Structures to run, each after some steps towards zero stress and forces of the model itself."""
    by_name = {prototype.name: prototype for prototype in prototypes()}
    for kind, symbols, repeats in CRYSTALS:
        prototype = by_name[kind]
        numbers = Atoms(symbols.split()).numbers.tolist()
        crystal = prototype.occupied(dict(zip(sorted(prototype.counts), numbers, strict=True)))
        yield f"{kind}-{symbols.replace(' ', '')}", settled(model, crystal.repeat(repeats), 12)
    for name in LIQUIDS:
        atoms: Any = read(DATA / f"{name}.extxyz")
        yield name, bare(atoms)
    for formula in MELTS:
        numbers = np.tile(Atoms(formula).numbers, 16)
        yield f"melt-{formula}", settled(model, packed(np.random.default_rng(0), numbers, 0.55), 25)


def settled(model: Model, atoms: Atoms, steps: int) -> Atoms:
    """Move towards zero stress and forces."""
    evaluate, descent = NativeEvaluator(model, "float32"), Descent()
    for _ in range(steps):
        atoms = descent.step(atoms, evaluate([System.from_ase(atoms)])[0])
    return atoms


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
