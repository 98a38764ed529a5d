"""One good file of every kind, from which hostile ones are made: magnesium oxide and water, and a model of 10 kB."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from campaign.hostile_stores import md_command

import mlipjax
from mlipjax.models import NequIPConfig, nequip

CONFIG = NequIPConfig(
    species=(1, 8, 12),
    cutoff=3.2,
    hidden_irreps="4x0e + 2x1o",
    lmax=1,
    n_layers=1,
    radial_hidden=(8,),
    avg_n_neighbors=9.0,
    scale=0.1,
)
E0S = {"H": -1.0, "O": -2.5, "Mg": -0.7}


def make_good_files(folder: Path) -> None:
    """Write the files into a new folder."""
    folder.mkdir(parents=True)
    potential = nequip(CONFIG, np.array(list(E0S.values())))
    params = _params(potential)
    mlipjax.save(folder / "model", potential, params)
    frames = labelled_frames(mlipjax.Calculator(potential, params))
    ase.io.write(folder / "good.extxyz", frames)
    ase.io.write(folder / "good.traj", frames)
    ase.io.write(folder / "good.vasp", frames[0], format="vasp")
    ase.io.write(folder / "good.cif", frames[0])
    database = connect(folder / "good.db", use_lock_file=False)
    for atoms in frames:
        database.write(atoms, config_type="any", data={"tags": [1, 2]})
    write_aselmdb(folder / "good.aselmdb", frames)
    (folder / "vasprun.xml").write_text(vasprun(frames[0]))
    outputs = Path(__file__).parents[1] / "data" / "outputs"
    shutil.copy(outputs / "pw.out", folder)
    shutil.copytree(outputs / "cp2k", folder / "cp2k")
    shutil.copy(outputs / "cp2k" / "water.out", folder / "cp2k.out")
    (folder / "OUTCAR").write_text(outcar(frames[0]))
    (folder / "e0s.json").write_text(json.dumps(E0S))
    np.savez(folder / "good.npz", **property_arrays(frames))  # pyright: ignore[reportArgumentType]
    (folder / "good.nqx").write_bytes(nqx_bytes(nqx_header(), nqx_arrays(potential, params)))
    crystals = [atoms for atoms in frames if atoms.pbc.all()]
    ase.io.write(folder / "crystals.extxyz", crystals)
    ase.io.write(folder / "crystal.extxyz", crystals[0])
    model = ["--model", str(folder / "model")]
    _command("convert", "--data", folder / "good.extxyz", "--out", folder / "store")
    _command("convert", "--data", folder / "good.extxyz", "--out", folder / "good.h5")
    reference = [bulk("MgO", "rocksalt", a=4.2, cubic=True) for _ in range(24)]
    for seed, atoms in enumerate(reference):
        atoms.rattle(0.05, seed=seed)
    ase.io.write(folder / "reference.extxyz", reference)
    _command("monitor", *model, "--reference", folder / "reference.extxyz", "--data", folder / "crystals.extxyz",
             "--out", folder / "monitor", "--components", 2, "--level", 0.2)  # fmt: skip
    shutil.copy(folder / "monitor" / "monitor.npz", folder / "monitor.npz")
    _command(*md_command(folder, folder / "md.extxyz"))


def write_aselmdb(path: Path, frames: list[Any], **pairs: Any) -> None:
    """An ASE database in an LMDB file, as fairchem publishes its data sets."""
    import lmdb
    from ase.db.row import atoms2dict
    from ase.io.jsonio import encode

    def packed(content: Any) -> bytes:
        return zlib.compress(encode(content).encode())

    with lmdb.open(str(path), subdir=False, map_size=1 << 26) as env, env.begin(write=True) as rows:
        for number, atoms in enumerate(frames, start=1):
            row = {name: value for name, value in atoms2dict(atoms).items() if name != "unique_id"}
            row |= {"cell": np.asarray(atoms.cell), "key_value_pairs": pairs, "data": {"gap": atoms.info["gap"]}}
            rows.put(str(number).encode(), packed(row))
        rows.put(b"nextid", packed(len(frames) + 1))


def _command(*arguments: Any) -> None:
    from mlipjax.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()):
        code = main([str(argument) for argument in arguments])
    if code:
        raise RuntimeError(f"mlipjax {' '.join(map(str, arguments))}: exit code {code}")


def labelled_frames(calculator: Any) -> list[Any]:
    """Rattled crystals and molecules with the labels of a calculator."""
    frames = []
    for seed in range(6):
        atoms = molecule("H2O") if seed == 5 else bulk("MgO", "rocksalt", a=4.2 + 0.02 * seed)
        atoms.rattle(0.04, seed=seed)
        copy = atoms.copy()
        copy.calc = calculator
        labels = {"energy": copy.get_potential_energy(), "forces": copy.get_forces()}
        if atoms.pbc.all():
            labels["stress"] = copy.get_stress()
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info["gap"] = 1.5 + 0.1 * seed
        frames.append(atoms)
    return frames


def property_arrays(frames: list[Any]) -> dict[str, np.ndarray]:
    """Structures as the flat arrays of a property set."""
    return {
        "atomic_numbers": np.concatenate([atoms.numbers for atoms in frames]),
        "positions": np.concatenate([atoms.positions for atoms in frames]),
        "n_atoms": np.array([len(atoms) for atoms in frames]),
        "cells": np.array([atoms.cell.array for atoms in frames]),
        "pbc": np.array([atoms.pbc for atoms in frames]),
        "gap": np.array([atoms.info["gap"] for atoms in frames]),
    }


def nqx_header() -> dict[str, Any]:
    """The first line of a ``.nqx`` file of the model."""
    return {
        "atomic_numbers": list(CONFIG.species),
        "atom_energies": {str(z): -1.0 for z in CONFIG.species},
        "cutoff": CONFIG.cutoff,
        "hidden_irreps": CONFIG.hidden_irreps,
        "lmax": CONFIG.lmax,
        "n_layers": CONFIG.n_layers,
        "radial_basis_size": CONFIG.radial_basis_size,
        "radial_mlp_size": 8,
        "radial_mlp_layers": 1,
        "radial_polynomial_p": CONFIG.envelope_p,
        "mlp_init_scale": CONFIG.radial_gain,
        "index_weights": CONFIG.per_species_skip,
        "layer_norm": CONFIG.layer_norm,
        "shift": 0.0,
        "scale": CONFIG.scale,
        "avg_n_neighbors": CONFIG.avg_n_neighbors,
    }


def nqx_arrays(potential: Any, params: Any) -> list[np.ndarray]:
    """Arrays of a ``.nqx`` file, in the order of the format."""
    from mlipjax import tree
    from mlipjax.models.importers import nqx

    leaves = {"e0s": np.asarray(potential.e0s[0], np.float32), **tree.flatten_paths(params)}
    return [np.asarray(leaves[name]) for name in nqx._parameter_names(potential.config)]


def nqx_bytes(header: Any, arrays: list[np.ndarray]) -> bytes:
    """A ``.nqx`` file."""
    buffer = io.BytesIO()
    buffer.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        np.save(buffer, array)
    return buffer.getvalue()


def _params(potential: Any) -> Any:
    """Random parameters from numpy: nothing to compile."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


def vasprun(atoms: Any) -> str:
    """A vasprun.xml of one step, with the parts that ASE's reader needs."""

    def rows(array: Any) -> str:
        return "".join(f"<v>{' '.join(f'{x:.8f}' for x in row)}</v>\n" for row in np.atleast_2d(array))

    symbols = "".join(f"<rc><c>{s}</c><c>{i + 1}</c></rc>\n" for i, s in enumerate(atoms.get_chemical_symbols()))
    structure = (
        f'<crystal><varray name="basis">\n{rows(atoms.cell.array)}</varray></crystal>\n'
        f'<varray name="positions">\n{rows(atoms.get_scaled_positions())}</varray>\n'
    )
    energy = atoms.get_potential_energy()
    energies = "".join(f'<i name="{name}">{energy:.8f}</i>\n' for name in ("e_fr_energy", "e_wo_entrp", "e_0_energy"))
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
<generator><i name="program" type="string">vasp</i><i name="version" type="string">6.3.0</i></generator>
<incar><i name="ENCUT">400.0</i></incar>
<kpoints>
<varray name="kpointlist">\n{rows(np.zeros(3))}</varray><varray name="weights">\n<v>1.0</v>\n</varray></kpoints>
<parameters><separator name="electronic"><i name="NELM">60</i><i name="NELECT">16.0</i></separator></parameters>
<atominfo><atoms>{len(atoms)}</atoms><types>2</types>
<array name="atoms"><dimension dim="1">ion</dimension><field type="string">element</field>
<field type="int">atomtype</field>
<set>\n{symbols}</set></array></atominfo>
<structure name="initialpos">\n{structure}</structure>
<calculation>
<scstep><energy>\n{energies}</energy></scstep>
<structure>\n{structure}</structure>
<varray name="forces">\n{rows(atoms.get_forces())}</varray>
<varray name="stress">\n{rows(-1602.1766 * atoms.get_stress(voigt=False))}</varray>
<energy>\n{energies}</energy>
</calculation>
<structure name="finalpos">\n{structure}</structure>
</modeling>
"""


def outcar(atoms: Any) -> str:
    """An OUTCAR of one step, with the parts that ASE's reader needs."""
    columns = np.hstack([atoms.positions, atoms.get_forces()])
    forces = "\n".join(" ".join(f"{x:12.5f}" for x in row) for row in columns)
    cell = "\n".join(" ".join(f"{x:13.9f}" for x in (*row, *row)) for row in atoms.cell.array)
    symbols = atoms.get_chemical_symbols()
    potentials = "\n".join(f" POTCAR:    PAW_PBE {symbol} 01Jan2000" for symbol in (*symbols, *symbols))
    kinds = "\n".join(f"   VRHFIN ={symbol}: s2p0" for symbol in symbols)
    energy = f"{atoms.get_potential_energy():.8f}"
    stress = " ".join(f"{x:11.5f}" for x in -1602.1766 * atoms.get_stress()[[0, 1, 2, 5, 3, 4]])
    return f""" vasp.6.3.0 18Jan22 (build) complex
{potentials}
{kinds}
   ISPIN  =      1    spin polarized calculation?
   NKPTS =      1   k-points in BZ
   ions per type =               {" ".join("1" for _ in symbols)}
--------------------------------------- Iteration      1(   1)  ---------------------------------------
------------------------ aborting loop because EDIFF is reached ----------------------------------------
  FORCE on cell =-STRESS in cart. coord.  units (eV):
  in kB  {stress}
      direct lattice vectors                 reciprocal lattice vectors
{cell}

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
{forces}
 -----------------------------------------------------------------------------------
    total drift:                                0.000000      0.000000      0.000000

  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =       {energy} eV

  energy  without entropy=      {energy}  energy(sigma->0) =      {energy}
 General timing and accounting informations for this job:
"""
