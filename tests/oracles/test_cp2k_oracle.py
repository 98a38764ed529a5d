"""The CP2K oracle: its inputs, what it says when CP2K fails, and labels of the real program (``-m dft``)."""

import shutil
import subprocess

import numpy as np
import pytest
from ase.build import molecule

from mlipjax.oracles import Cp2k, Failure, Labeller, Oracle, SerialExecutor, make_oracle
from mlipjax.system import Labels, System

needs_cp2k = [
    pytest.mark.dft,
    pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="CP2K is not installed: apt-get install cp2k"),
]


def hydrogen(distance=0.74, pbc=True):
    """A molecule in a cell that is neither cubic nor aligned."""
    positions = np.array([[0.2, 0.1, 0.3], [0.2, 0.1, 0.3 + distance]]) + 2.0
    cell = np.array([[4.5, 0.0, 0.0], [0.4, 4.6, 0.0], [0.2, 0.3, 4.4]])
    return System(positions, np.array([1, 1], np.int32), cell if pbc else np.zeros((3, 3)), (pbc,) * 3)


def sections(text):
    """Lines of an input by the section that they stand in."""
    found, path = {}, []
    for line in text.splitlines():
        if line.startswith("&END"):
            path.pop()
        elif line.startswith("&"):
            path.append(line[1:])
            found.setdefault("/".join(path), [])
        elif line:
            found["/".join(path)].append(line)
    assert path == []
    return found


def test_an_input_says_what_the_settings_say():
    oracle = Cp2k(functional="revPBE", cutoff=321.0, charge=-1, multiplicity=2)
    found = sections(oracle.input(hydrogen(), restart=True))
    dft = found["FORCE_EVAL/DFT"]
    assert {"CHARGE -1", "MULTIPLICITY 2", "UKS True", "WFN_RESTART_FILE_NAME guess.wfn"} <= set(dft)
    assert "CUTOFF [Ry] 321.0" in found["FORCE_EVAL/DFT/MGRID"]
    assert "SCF_GUESS RESTART" in found["FORCE_EVAL/DFT/SCF"]
    assert found["FORCE_EVAL/DFT/XC/XC_FUNCTIONAL/PBE"] == ["PARAMETRIZATION REVPBE"]
    assert "STRESS_TENSOR ANALYTICAL" in found["FORCE_EVAL"]
    assert found["FORCE_EVAL/SUBSYS/KIND H"] == ["BASIS_SET DZVP-MOLOPT-SR-GTH", "POTENTIAL GTH-PBE"]
    rows = [[float(word) for word in line.split()[1:]] for line in found["FORCE_EVAL/SUBSYS/CELL"][:3]]
    np.testing.assert_allclose(rows, hydrogen().cell, atol=1e-12)
    atoms = [[float(word) for word in line.split()[1:]] for line in found["FORCE_EVAL/SUBSYS/COORD"]]
    np.testing.assert_allclose(atoms, hydrogen().positions, atol=1e-12)


def test_a_molecule_has_a_box_and_no_images():
    found = sections(Cp2k().input(hydrogen(pbc=False)))
    assert found["FORCE_EVAL/DFT/POISSON"] == ["PERIODIC NONE", "POISSON_SOLVER WAVELET"]
    assert "PERIODIC NONE" in found["FORCE_EVAL/SUBSYS/CELL"]
    assert "STRESS_TENSOR ANALYTICAL" not in found["FORCE_EVAL"]
    edges = [float(line.split()[index + 1]) for index, line in enumerate(found["FORCE_EVAL/SUBSYS/CELL"][:3])]
    assert edges == [edges[0]] * 3
    with pytest.raises(ValueError, match="no volume"):
        Cp2k().input(hydrogen().replace(cell=np.zeros((3, 3))))


def test_specifications(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    oracle = make_oracle("cp2k:functional=BLYP,cutoff=450,charge=-1,command=mpirun -n 2 cp2k.psmp")
    assert oracle == Cp2k("BLYP", cutoff=450.0, charge=-1, command="mpirun -n 2 cp2k.psmp")
    assert isinstance(oracle, Oracle)
    assert Cp2k().identity != Cp2k(cutoff=500.0).identity
    assert Cp2k().identity == Cp2k(threads=2, command="cp2k").identity
    for wrong in ("cp2k:cutoff=0", "cp2k:functional=B3", "cp2k:guess=none", "cp2k:basis", "cp2k:cutoff=1e9"):
        with pytest.raises(ValueError, match=r"must be|choose one of|cannot read"):
            make_oracle(wrong)


def test_a_program_that_is_not_there_is_one_line():
    with pytest.raises(ValueError, match="'nosuchcp2k', which is not found; install it"):
        make_oracle("cp2k:command=nosuchcp2k -x")


def fake(tmp_path, output, status=0):
    """A program that writes an output."""
    (tmp_path / "output").write_text(output)
    program = tmp_path / "fake"
    program.write_text(f"#!/bin/sh\ncp {tmp_path / 'output'} label.out\nexit {status}\n")
    program.chmod(0o755)
    return Cp2k(command=str(program))


BOX = """ *******************************************************************************
 *   ___                                                                       *
 *  /   \\                                                                      *
 * [ABORT]                                                                     *
 *  \\___/    The requested basis set <NOSUCH> for element <H> was not found in *
 *    |                     the basis set files <BASIS_MOLOPT>                 *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \\                                          aobasis/basis_set_types.F:1509 *
 *******************************************************************************
"""


def test_failures_are_said_in_cp2ks_words(tmp_path):
    with pytest.raises(RuntimeError, match=r"status 1: The requested .* was not found in the basis set files <BASIS_M"):
        fake(tmp_path, BOX, status=1).label(hydrogen())
    with pytest.raises(RuntimeError, match="ends before its results"):
        fake(tmp_path, " PROGRAM STOPPED\n").label(hydrogen())
    with pytest.raises(RuntimeError, match="status 3: it said nothing"):
        fake(tmp_path, "", status=3).label(hydrogen())


def test_a_label_that_takes_too_long_ends_the_program(tmp_path):
    program = tmp_path / "slow"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 60\n")
    program.chmod(0o755)
    with Labeller(Cp2k(command=str(program)), executor=SerialExecutor(), timeout=1.0, retries=0) as labeller:
        (failure,) = labeller.label([hydrogen()])
    assert isinstance(failure, Failure)
    assert "timeout" in failure.reason
    assert subprocess.run(["kill", "-0", (tmp_path / "pid").read_text().strip()], capture_output=True).returncode != 0


QUICK = "cp2k:cutoff=300,relative_cutoff=40,basis=SZV-MOLOPT-SR-GTH,eps_scf=1e-7,guess=atomic"


class TestRealProgram:
    pytestmark = needs_cp2k

    def test_forces_and_stress_are_slopes_of_the_energy(self):
        oracle, system, step = make_oracle(QUICK), hydrogen(), 2e-3
        labels = oracle.label(system)
        rng = np.random.default_rng(0)
        direction, strain = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
        strain = 0.5 * (strain + strain.T)

        def moved(size):
            return float(oracle.label(system.replace(positions=system.positions + size * direction)).energy)

        def deformed(size):
            grid = np.eye(3) + size * strain
            return float(
                oracle.label(system.replace(positions=system.positions @ grid, cell=system.cell @ grid)).energy
            )

        pull = (moved(step) - moved(-step)) / (2 * step)
        np.testing.assert_allclose(-pull, np.sum(labels.forces * direction), atol=5e-3)
        stress = (deformed(step) - deformed(-step)) / (2 * step) / system.volume
        np.testing.assert_allclose(stress, np.sum(labels.stress * strain), atol=2e-4)
        assert np.abs(labels.forces).max() > 0.1

    def test_a_restart_gives_the_same_label(self, tmp_path):
        # with the smallest basis, symmetry alone would decide the orbital of this molecule
        frames, larger = [hydrogen(), hydrogen(0.78)], QUICK.replace("SZV", "DZVP")
        fresh = make_oracle(larger).label(frames[1])
        oracle = make_oracle(larger.replace("guess=atomic", "guess=restart"))
        with Labeller(oracle, tmp_path / "labels.db", n_workers=1) as labeller:
            _, restarted = labeller.label(frames)
        assert isinstance(restarted, Labels)
        np.testing.assert_allclose(restarted.energy, fresh.energy, rtol=0, atol=1e-6)
        np.testing.assert_allclose(restarted.forces, fresh.forces, rtol=0, atol=1e-4)
        assert not np.array_equal(restarted.forces, fresh.forces)

    def test_what_does_not_converge_is_no_label(self, monkeypatch):
        monkeypatch.setattr("mlipjax.oracles.cp2k._INNER", 2)
        monkeypatch.setattr("mlipjax.oracles.cp2k._OUTER", 1)
        with pytest.raises(RuntimeError, match="the SCF cycle did not converge to eps_scf=1e-07 in 2 steps"):
            make_oracle(QUICK).label(hydrogen())

    def test_an_open_shell_needs_its_multiplicity(self):
        radical = System.from_ase(molecule("OH", cell=[4.0] * 3, pbc=True))
        with pytest.raises(RuntimeError, match="odd number of electrons"):
            make_oracle(QUICK).label(radical)
