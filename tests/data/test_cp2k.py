"""CP2K's text outputs and trajectories.

``outputs/cp2k`` holds what CP2K 2023.1 wrote (PBE, SZV-MOLOPT-SR-GTH, a cutoff of 120 or 150 Ry): single points of a
hydrogen molecule, one of which did not converge, and MD of a water molecule with a cell that changes; passages that say
nothing of structures and labels are cut out.
"""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, GPa, Hartree, Rydberg
from campaign.hostile_cp2k import CP2K_RESTART

from mlipjax import read
from mlipjax.data import read_atoms
from mlipjax.data.convergence import unconverged
from mlipjax.notices import Notice

OWN = Path(__file__).parent / "outputs" / "cp2k"
TRAJECTORY = ("water-pos-1.xyz", "water-frc-1.xyz", "water-1.cell")

# the tables of CP2K 2025 and later, and those before 2022
NEWER = """ ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]               -1.176983300647267

 FORCES| Atomic forces [hartree/bohr]
 FORCES|   Atom     x               y               z               |f|
 FORCES|      1  2.59631100E-02 -2.65199600E-02  5.56866900E-02  6.69480000E-02
 FORCES|      2  1.47701600E-02 -2.69240900E-02  3.52972000E-02  4.67840000E-02
 FORCES| Sum     4.07332700E-02 -5.34440500E-02  9.09838900E-02

 STRESS| Analytical stress tensor [bar]
 STRESS|                        x                   y                   z
 STRESS|      x       -9.78661892118E+04  -3.61683640918E+01  -3.07348274380E+03
 STRESS|      y       -3.61683640918E+01   3.72632373064E+04  -6.52317973896E+01
 STRESS|      z       -3.07348274380E+03  -6.52317973896E+01  -2.06950223839E+04
"""
OLDER = """ ENERGY| Total FORCE_EVAL ( QS ) energy (a.u.):               -1.176983300647267

 ATOMIC FORCES in [a.u.]

 # Atom   Kind   Element          X              Y              Z
      1      1      H           0.02596311    -0.02651996     0.05568669
      2      1      H           0.01477016    -0.02692409     0.03529720
 SUM OF ATOMIC FORCES           0.04073327    -0.05344406     0.09098388     0.11310850

 STRESS TENSOR [GPa]

            X               Y               Z
  X      -9.78661892     -0.00361684     -0.30734827
  Y      -0.00361684      3.72632373     -0.00652318
  Z      -0.30734827     -0.00652318     -2.06950224
"""


@pytest.fixture
def trajectory(tmp_path):
    for name in TRAJECTORY:
        shutil.copy(OWN / name, tmp_path)
    return tmp_path / TRAJECTORY[0]


def written(path, text):
    path.write_text(text)
    return path


def test_a_single_point_has_energy_forces_and_stress():
    (labels,) = read(OWN / "h2.out").labels
    np.testing.assert_allclose(labels.energy, -1.176983300647267 * Hartree)
    np.testing.assert_allclose(labels.forces[1], np.array([0.01477016, -0.02692409, 0.0352972]) * Hartree / Bohr)
    # CP2K's is positive under compression
    np.testing.assert_allclose(np.diag(labels.stress), -np.array([-9.78661892, 3.72632373, -2.06950224]) * GPa)
    (atoms,) = read_atoms(OWN / "h2.out")
    np.testing.assert_allclose(atoms.positions, [[1.0, 1.0, 1.0], [1.8, 1.0, 1.1]])
    # printed as 4.123: the lengths have more digits
    np.testing.assert_allclose(atoms.cell.array, [[4, 0, 0], [0, 4.123457, 0], [0.5, 0, 4.2]], atol=1e-6)
    assert atoms.pbc.all()


def test_a_cell_that_is_not_along_the_axes_stays_as_it_is_turned(tmp_path):
    from scipy.spatial.transform import Rotation

    text = (OWN / "h2.out").read_text()
    exact = read_atoms(OWN / "h2.out")[0].cell.array @ Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()
    for name, vector in zip("abc", exact, strict=True):
        numbers = "".join(f"{x:10.3f}" for x in vector)
        text = re.sub(rf"(Vector {name} \[angstrom\]:).{{30}}", rf"\g<1>{numbers}", text)
    cell = read_atoms(written(tmp_path / "h2.out", text))[0].cell
    np.testing.assert_allclose(cell.cellpar(), read_atoms(OWN / "h2.out")[0].cell.cellpar(), atol=1e-6)
    np.testing.assert_allclose(cell.array, exact, atol=1e-3)


@pytest.mark.parametrize("results", [NEWER, OLDER], ids=["newer", "older"])
def test_other_releases_write_other_tables(tmp_path, results):
    text = (OWN / "h2.out").read_text()
    start, end = text.index(" ENERGY| Total"), text.index("  **** **** ******  **  PROGRAM ENDED")
    (labels,) = read(written(tmp_path / "h2.out", text[:start] + results + text[end:])).labels
    (expected,) = read(OWN / "h2.out").labels
    assert labels.energy == expected.energy
    np.testing.assert_allclose(labels.forces, expected.forces, atol=1e-8)
    np.testing.assert_allclose(labels.stress, expected.stress, atol=1e-9)


def test_what_did_not_converge_is_refused_by_name():
    assert unconverged(OWN / "h2_unconverged.out") == {0}
    with pytest.raises(ValueError, match=r"h2_unconverged.out: the electronic steps of 1 structures \(0\) did not"):
        read(OWN / "h2_unconverged.out")
    with pytest.warns(Notice, match="did not converge; they are left out"):
        assert len(read([OWN / "h2_unconverged.out", OWN / "h2.out"])) == 1


def test_steps_without_positions_are_said_and_not_mixed_up():
    with pytest.warns(Notice, match=r"water.out: the positions of 1 later steps .* PROJECT-pos-1.xyz have them"):
        (labels,) = read(OWN / "water.out").labels
    first = read(OWN / "water-pos-1.xyz").labels[0]
    np.testing.assert_allclose(labels.energy, first.energy, atol=1e-8)
    np.testing.assert_allclose(labels.forces, first.forces, atol=1e-6)


def test_a_table_cut_short_and_several_systems_are_refused(tmp_path):
    text = (OWN / "h2.out").read_text()
    cut = text[: text.index("      2      1      H           0.0147")]
    with pytest.raises(ValueError, match=r"h2.out: .* a table of forces has 1 rows, expected 2; was the"):
        read(written(tmp_path / "h2.out", cut))
    several = re.sub(r"(Force Environment number +)1", r"\g<1>2", text)
    with pytest.raises(ValueError, match="2 force environments; outputs of one are read"):
        read(written(tmp_path / "h2.out", several))
    with pytest.raises(ValueError, match="a table in furlong; read are hartree"):
        read(written(tmp_path / "h2.out", text.replace("[GPa]", "[furlong]")))
    with pytest.raises(ValueError, match=r"the cell .* is not printed before the positions"):
        read_atoms(written(tmp_path / "h2.out", text.replace(" CELL| Vector", " CELL! Vector")))


def test_a_trajectory_has_its_cells_and_forces(trajectory):
    data = read(trajectory)
    np.testing.assert_allclose(data.labels[3].energy, -17.144533327 * Hartree)
    np.testing.assert_allclose(data.labels[3].forces[0, 2], -0.0215625076 * Hartree / Bohr)
    cell = [[5.0271706405, -0.0249175441, -0.0331532867], [0.2756669089, 5.2921257262, -0.0600130677]]
    np.testing.assert_allclose(data.systems[3].cell[:2], cell)
    assert data.count_labels() == {"energy": 4, "forces": 4, "stress": 0}
    assert all(data.systems[0].pbc)
    with pytest.raises(ValueError, match=r"labels of this format \(cp2k-trajectory\) are read in eV and Å"):
        read(trajectory, units="atomic")


def test_a_trajectory_may_be_packed_and_thinned(trajectory):
    expected = read(trajectory).labels
    for name in TRAJECTORY[:2]:
        path = trajectory.with_name(name)
        trajectory.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = trajectory.with_name("water-pos-1.xyz.gz")
    np.testing.assert_array_equal(read(packed).labels[2].forces, expected[2].forces)
    frames = gzip.decompress(trajectory.with_name("water-frc-1.xyz.gz").read_bytes()).decode().splitlines(keepends=True)
    trajectory.with_name("water-frc-1.xyz").write_text("".join(frames[:5] + frames[10:15]))
    weights = [float(label.forces_weight) for label in read(packed).labels]
    assert weights == [1.0, 0.0, 1.0, 0.0]
    np.testing.assert_array_equal(read(packed).labels[2].forces, expected[2].forces)


def test_the_cell_of_a_trajectory_is_found_or_asked_for(trajectory):
    cells = trajectory.with_name("water-1.cell")
    rows = cells.read_text().splitlines(keepends=True)
    cells.write_text("".join(rows[:3]))
    with pytest.raises(ValueError, match=r"water-pos-1.xyz: .* the cell of step 2 is not in water-1.cell"):
        read(trajectory)
    cells.unlink()
    with pytest.raises(ValueError, match=r"water-1.cell \(MOTION/PRINT/CELL writes it\), or, .* water-1.restart; put"):
        read(trajectory)
    restart = written(trajectory.with_name("water-1.restart"), CP2K_RESTART.replace("XYZ", "XY"))
    data = read(trajectory)
    np.testing.assert_allclose(data.systems[3].cell, [[5.0, 0, 0], [0.3, 5.2, 0], [0.1, 0.2, 5.4]])
    assert tuple(data.systems[3].pbc) == (True, True, False)
    restart.write_text(CP2K_RESTART.replace("NVT", "NPT_F"))
    with pytest.raises(ValueError, match="if it is the same in all steps"):
        read(trajectory)


def test_forces_of_other_atoms_and_files_without_positions_are_refused(trajectory):
    forces = trajectory.with_name("water-frc-1.xyz")
    with pytest.raises(ValueError, match=r"holds forces, no positions; give water-pos-1.xyz beside it"):
        read_atoms(forces)
    forces.write_text(forces.read_text().replace("  O ", "  N "))
    with pytest.raises(ValueError, match=r"the forces of step 0 in water-frc-1.xyz are those of other atoms"):
        read(trajectory)
    forces.unlink()
    assert read(trajectory, forces_key="none").count_labels() == {"energy": 4, "forces": 0, "stress": 0}


def test_of_a_folder_the_trajectory_is_read(trajectory):
    shutil.copy(OWN / "water.out", trajectory.parent)
    with pytest.warns(Notice, match=r"of this folder water-pos-1.xyz is read"):
        assert len(read(trajectory.parent)) == 4


def test_a_name_alone_makes_no_trajectory(tmp_path):
    path = written(tmp_path / "h2-pos-1.xyz", '1\nenergy=-1.0 Lattice="9 0 0 0 9 0 0 0 9"\nH 0 0 0\n')
    assert read_atoms(path)[0].cell.volume == pytest.approx(729.0)


INPUT = """&GLOBAL
  PROJECT h2
  RUN_TYPE ENERGY_FORCE
&END GLOBAL
&FORCE_EVAL
  METHOD QUICKSTEP
  STRESS_TENSOR ANALYTICAL
  &DFT
    BASIS_SET_FILE_NAME BASIS_MOLOPT
    POTENTIAL_FILE_NAME GTH_POTENTIALS
    &MGRID
      CUTOFF 120
      REL_CUTOFF 30
    &END MGRID
    &SCF
      MAX_SCF 40
      EPS_SCF 1E-6
    &END SCF
    &XC
      &XC_FUNCTIONAL PBE
      &END XC_FUNCTIONAL
    &END XC
  &END DFT
  &SUBSYS
    &CELL
      A 4.0 0.0 0.0
      B 0.0 4.1234567 0.0
      C 0.5 0.0 4.2
    &END CELL
    &COORD
      H 1.0 1.0 1.0
      H 1.8 1.0 1.1
    &END COORD
    &KIND H
      BASIS_SET SZV-MOLOPT-SR-GTH
      POTENTIAL GTH-PBE-q1
    &END KIND
  &END SUBSYS
  &PRINT
    &FORCES ON
    &END FORCES
    &STRESS_TENSOR ON
    &END STRESS_TENSOR
  &END PRINT
&END FORCE_EVAL
"""


@pytest.mark.slow
def test_cp2k_itself_says_the_same_through_its_shell(tmp_path):
    if shutil.which("cp2k") is None or shutil.which("cp2k_shell") is None:
        pytest.skip("no CP2K here: apt-get install cp2k cp2k-data")
    from ase.calculators.cp2k import CP2K

    written(tmp_path / "h2.inp", INPUT)
    subprocess.run(["cp2k", "-i", "h2.inp", "-o", "h2.out"], cwd=tmp_path, check=True, timeout=600)
    (labels,) = read(tmp_path / "h2.out").labels
    atoms = Atoms(
        "H2", [[1.0, 1.0, 1.0], [1.8, 1.0, 1.1]], cell=[[4, 0, 0], [0, 4.1234567, 0], [0.5, 0, 4.2]], pbc=True
    )
    settings = "&FORCE_EVAL\n&DFT\n&MGRID\nREL_CUTOFF 30\n&END\n&SCF\nEPS_SCF 1E-6\n&END\n&END\n&END"
    with CP2K(
        command="cp2k_shell", directory=tmp_path, inp=settings, cutoff=120 * Rydberg, max_scf=40, xc="PBE",
        basis_set="SZV-MOLOPT-SR-GTH", basis_set_file="BASIS_MOLOPT", pseudo_potential="GTH-PBE-q1",
        potential_file="GTH_POTENTIALS", stress_tensor=True, print_level="LOW",
    ) as atoms.calc:  # fmt: skip
        np.testing.assert_allclose(labels.energy, atoms.get_potential_energy(), atol=1e-5)  # of two values of Hartree
        np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=2e-6)
        np.testing.assert_allclose(labels.stress, atoms.get_stress(voigt=False), atol=1e-7)
