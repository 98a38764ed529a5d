"""Make ``phonopy_golden.json``: frequencies, force constants and heat of Stillinger-Weber silicon, by phonopy.

Phonopy is no dependency; run this where it is installed beside this package. Forces come from this package, the
supercell, the nearest images and the dynamical matrix from phonopy:

    python tests/probes/make_phonopy_golden.py
"""

import json
from pathlib import Path

import numpy as np
from analytic_case import evaluator, known_a0
from ase.build import bulk

from mlipjax.system import System

CELLS = {
    "14 degrees": [[1, 0, 0], [0, 1, 0], [3, 0, 1]],
    "161 degrees": [[1, 0, 0], [-3, 1, 0], [0, 1, 1]],
    "left-handed, 14 degrees": [[0, 1, 0], [1, 0, 0], [3, 0, 1]],
}
WAVE_VECTORS = [[0.1, 0.2, 0.3], [0.5, 0.0, 0.0], [0.37, -0.21, 0.44], [0.25, 0.25, 0.0]]
REPEAT = [2, 2, 2]
DISPLACEMENT = 0.002
MESH = 8
TEMPERATURES = [0.0, 100.0, 300.0, 1000.0]
FILE = "14 degrees"  # the cell whose force constants are compared, one by one
KJ_PER_MOL = 96.4853321  # of 1 eV


def main():
    """Write the file."""
    import phonopy
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    primitive = bulk("Si", "diamond", a=known_a0())
    found = {}
    for name, matrix in CELLS.items():
        cell = np.array(matrix) @ primitive.cell.array
        scaled = (primitive.positions @ np.linalg.inv(cell)) % 1.0
        atoms = PhonopyAtoms(symbols=["Si", "Si"], cell=cell, scaled_positions=scaled)
        phonon = Phonopy(atoms, supercell_matrix=np.diag(REPEAT), primitive_matrix=np.eye(3), is_symmetry=False)
        phonon.generate_displacements(distance=DISPLACEMENT, is_plusminus=True)
        systems = [
            System(s.positions, np.full(len(s), 14), np.array(s.cell), (True,) * 3)
            for s in phonon.supercells_with_displacements
        ]
        phonon.forces = np.array([result.forces for result in evaluator("sw")(systems)])
        phonon.produce_force_constants(calculate_full_force_constants=False)
        raw = phonon.force_constants.copy()
        phonon.symmetrize_force_constants()
        frequencies = phonon.run_qpoints(WAVE_VECTORS).frequencies.tolist()
        found[name] = {"matrix": matrix, "frequencies_THz": frequencies}
        if name == FILE:
            constants = np.round(raw, 6).tolist()
            phonon.run_mesh([MESH] * 3, is_gamma_center=False, is_mesh_symmetry=False)
            phonon.run_thermal_properties(temperatures=TEMPERATURES)
            heat = phonon.thermal_properties
    golden = {
        "phonopy": phonopy.__version__,
        "repeat": REPEAT,
        "displacement": DISPLACEMENT,
        "wave_vectors": WAVE_VECTORS,
        "cells": found,
        "force_constants": constants,
        "thermal": {
            "mesh": MESH,
            "temperatures_K": TEMPERATURES,
            "free_energy_eV": (heat.free_energy / KJ_PER_MOL).tolist(),
            "entropy_eV_per_K": (heat.entropy / (1000.0 * KJ_PER_MOL)).tolist(),
            "heat_capacity_eV_per_K": (heat.heat_capacity / (1000.0 * KJ_PER_MOL)).tolist(),
        },
    }
    path = Path(__file__).with_name("phonopy_golden.json")
    path.write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
