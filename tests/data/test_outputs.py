"""Outputs of programs: which program wrote a file, what ASE reads of it, and what did not converge.

``outputs/`` holds what Quantum ESPRESSO 6.7 wrote for a relaxation of silicon, and for a calculation that it gave up.
"""

import gzip
import shutil
from pathlib import Path

import ase.test
import numpy as np
import pytest
from ase.units import Bohr, Hartree, Rydberg

from mlipjax.data import read_atoms, read_dataset
from mlipjax.data.convergence import unconverged
from mlipjax.data.formats import file_format
from mlipjax.notices import Notice

OWN = Path(__file__).parent / "outputs"
ASE = Path(ase.test.__file__).parent / "testdata"
QUEUE = "Job 1234 on node n0815 starts, modules are loaded ...\n" * 100

ORCA_HEAD = "   *****************\n   * O   R   C   A *\n   *****************\n"


def orca_step(energy, gradient=0.02, more="", end="ORCA GEOMETRY RELAXATION STEP"):
    rows = "" if gradient is None else (
        "------------------\nCARTESIAN GRADIENT\n------------------\n\n"
        f"   1   H   :   {gradient:.9f}    0.000000000    0.000000000\n"
        f"   2   H   :  {-gradient:.9f}    0.000000000    0.000000000\n\n"
    )  # fmt: skip
    return (
        "ORCA SCF GRADIENT CALCULATION\nNumber of atoms   ...    2\n"
        "---------------------------------\nCARTESIAN COORDINATES (ANGSTROEM)\n---------------------------------\n"
        "  H      0.000000    0.000000    0.000000\n  H      0.750000    0.000000    0.000000\n\n"
        f"{rows}FINAL SINGLE POINT ENERGY      {energy:.9f}{more}\n{end}\n"
    )


def orca(*steps):
    return ORCA_HEAD + "".join(steps)


def write(path, text):
    path.write_text(text)
    return path


def test_quantum_espresso(tmp_path):
    labels = read_dataset(OWN / "pw.out").labels
    assert len(labels) == 3
    np.testing.assert_allclose(labels[0].energy, -15.61062690 * Rydberg, rtol=1e-6)
    text = (OWN / "pw.out").read_text()
    force = [float(x) for x in text.split("force =")[1].split()[:3]]
    np.testing.assert_allclose(labels[0].forces[0], np.array(force) * Rydberg / Bohr, rtol=1e-6)
    stress = [float(x) for x in text.split("total   stress")[1].splitlines()[1].split()[:3]]
    # a program's pressure is positive under compression, ASE's stress negative
    np.testing.assert_allclose(labels[0].stress[0], -np.array(stress) * Rydberg / Bohr**3, atol=1e-7)
    # what a queue says first, a name that says nothing, a packed file
    (tmp_path / "log.txt").write_text(QUEUE + text)
    (tmp_path / "run.out.gz").write_bytes(gzip.compress(text.encode()))
    shutil.copy(OWN / "pw.out", tmp_path / "slurm-17")
    for name in ("log.txt", "run.out.gz", "slurm-17"):
        assert read_dataset(tmp_path / name).labels[2].energy == labels[2].energy
    assert len(read_dataset(f"{tmp_path / 'log.txt'}@1:")) == 2


def test_a_calculation_that_was_given_up_is_refused_for_that_reason():
    assert unconverged(OWN / "pw_unconverged.out") == {0}
    with pytest.raises(ValueError, match=r"pw_unconverged.out: the electronic steps of 1 structures \(0\) did not"):
        read_dataset(OWN / "pw_unconverged.out")
    with pytest.warns(Notice, match=r"pw_unconverged.out: .* did not converge; they are left out"):
        assert len(read_dataset([OWN / "pw_unconverged.out", OWN / "pw.out"])) == 3


def test_a_step_that_did_not_converge_is_left_out_by_its_number(tmp_path):
    text = (OWN / "pw.out").read_text()
    achieved = "     convergence has been achieved in   3 iterations"
    assert text.count(achieved) == 2
    spoilt = text.replace(achieved, "     convergence NOT achieved after 100 iterations: stopping", 1)
    with pytest.warns(Notice, match=r"1 structures \(1\) did not converge; they are left out"):
        labels = read_dataset(write(tmp_path / "pw.out", spoilt)).labels
    assert [label.energy for label in labels] == [read_dataset(OWN / "pw.out").labels[i].energy for i in (0, 2)]


def test_orca(tmp_path):
    path = write(tmp_path / "job.out", orca(*(orca_step(-1.1 - 0.01 * i) for i in range(3))))
    labels = read_dataset(path).labels
    np.testing.assert_allclose([label.energy for label in labels], np.array([-1.1, -1.11, -1.12]) * Hartree)
    np.testing.assert_allclose(labels[0].forces[0, 0], -0.02 * Hartree / Bohr)
    for more in (" (Wavefunction not fully converged!)", "\n      *  SCF NOT CONVERGED AFTER 125 CYCLES  *"):
        path.write_text(orca(orca_step(-1.1), orca_step(-1.2, more=more), orca_step(-1.3)))
        assert unconverged(path) == {1}
        with pytest.warns(Notice, match=r"1 structures \(1\) did not converge"):
            assert len(read_dataset(path)) == 2


def test_what_the_reader_says_of_a_file_names_the_file(tmp_path):
    path = write(tmp_path / "cut.out", orca(orca_step(-1.1), orca_step(-1.2, end="")))
    with pytest.warns(UserWarning, match=r"cut\.out: Calculation did not finish!"):
        assert len(read_atoms(path)) == 1


def test_energies_without_a_gradient_are_energies_without_forces(tmp_path):
    path = write(tmp_path / "job.out", orca(orca_step(-1.1, None, end="ORCA TERMINATED NORMALLY")))
    assert read_dataset(path, required=()).count_labels() == {"energy": 1, "forces": 0, "stress": 0}


@pytest.mark.parametrize(
    ("name", "count", "labels"),
    [
        ("md.out", 5, {"energy": 5, "forces": 5, "stress": 0}),
        ("socket.out", 6, {"energy": 6, "forces": 6, "stress": 0}),
        ("relax.out", 8, {"energy": 8, "forces": 0, "stress": 8}),  # all atoms are fixed: their forces are no labels
    ],
)
@pytest.mark.filterwarnings("ignore::mlipjax.notices.Notice")
def test_fhi_aims(tmp_path, name, count, labels):
    if not (ASE / "aims" / name).is_file():
        pytest.skip("ASE is installed without the files of its tests")
    text = "  Invoking FHI-aims ...\n" + (ASE / "aims" / name).read_text()
    path = write(tmp_path / name, text)
    dataset = read_dataset(path, required=())
    assert (len(dataset), dataset.count_labels()) == (count, labels)
    # cut short by a queue: the structures before are there
    cut = write(tmp_path / "cut.out", text[: text.rindex("Have a nice day") - 2000])
    assert len(read_atoms(cut)) >= count - 1
    warning = "* WARNING! SELF-CONSISTENCY CYCLE DID NOT CONVERGE\n"
    ends = "predict improved coordinates" if name == "relax.out" else "loop: Re-initialization"
    lines = text.splitlines(keepends=True)
    second = [i for i, line in enumerate(lines) if ends in line][1]
    path.write_text("".join([*lines[:second], warning, *lines[second:]]))
    assert unconverged(path) == {1}


def test_gpaw(tmp_path):
    if not (ASE / "gpaw_expected_text_output").is_file():
        pytest.skip("ASE is installed without the files of its tests")
    text = (ASE / "gpaw_expected_text_output").read_text()
    path = write(tmp_path / "out.txt", text)
    assert read_dataset(path).count_labels()["forces"] == 1
    assert unconverged(path) == frozenset()
    start = text.index("Positions:")
    twice = text + text[start:].replace("Converged after", "Did not converge! See after", 1)
    assert unconverged(write(path, twice)) == {1}


def test_a_name_that_says_nothing_and_a_text_that_says_nothing(tmp_path):
    path = write(tmp_path / "notes.out", "nothing of interest\n" * 500)
    with pytest.raises(ValueError, match=r"notes.out: "):
        read_atoms(path)
    assert file_format(OWN / "pw.out") == "espresso-out"


def test_a_folder_of_calculations_is_their_results(tmp_path):
    for name in ("a/one", "a/two", "b"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(OWN / "pw.out", tmp_path / name / "slurm.out")
        (tmp_path / name / "start.xyz").write_text("1\nx\nH 0 0 0\n")  # of the same calculation
    (tmp_path / ".hidden").mkdir()
    with pytest.warns(Notice, match="3 files of this folder are read, a/one/slurm.out to b/slurm.out"):
        dataset = read_dataset(tmp_path)
    assert len(dataset) == 9
    assert dataset.where(4) == f"{tmp_path / 'a/two/slurm.out'}, structure 1"
    with pytest.warns(Notice):
        assert len(read_dataset(f"{tmp_path}@:1")) == 3
    assert len(read_dataset(f"{tmp_path}/a/*")) == 6
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "e0s.json").write_text('{"H": -1.0}')  # no database
    (tmp_path / "c" / "README.md").write_text("nothing\n")
    with pytest.raises(FileNotFoundError, match="holds no file whose name says"):
        read_dataset(tmp_path / "c")
