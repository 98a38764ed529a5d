"""Reading structures: what a path stands for, what is refused, and that nothing but plain errors comes out."""

import gzip
import lzma
import resource
import signal
import time

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlipjax.data import iread_atoms, read_atoms, read_dataset, read_last_atoms, sources
from mlipjax.data.atoms import iread_located
from mlipjax.notices import Notice

CELL = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'
LARGE = "1000000000"


def numbered(path, count=5):
    ase.io.write(path, [Atoms("He", info={"number": i}) for i in range(count)])
    return path


def numbers(path):
    return [atoms.info["number"] for atoms in iread_atoms(path)]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("@2", [2]),
        ("@-1", [4]),
        ("@:2", [0, 1]),
        ("@1:4:2", [1, 3]),
        ("@-2:", [3, 4]),
        ("@::-2", [4, 2, 0]),
        ("", None),
    ],
)
def test_a_slice_chooses_structures(tmp_path, index, expected):
    path = numbered(tmp_path / "a.extxyz")
    assert numbers(f"{path}{index}") == (list(range(5)) if expected is None else expected)
    ase.io.write(tmp_path / "a.traj", ase.io.read(path, ":"))
    assert len(read_atoms(f"{tmp_path / 'a.traj'}{index}")) == (5 if expected is None else len(expected))


def test_places_count_all_structures_of_a_file(tmp_path):
    path = numbered(tmp_path / "a.extxyz")
    assert [found.index for found in iread_located(f"{path}@3:")] == [3, 4]


@pytest.mark.parametrize(
    "name",
    ["frames@300K.extxyz", "frames@3", "odd[/b].xyz", "two words.xyz", "a*b?.xyz", "-", "postgres.xyz", "ä@:2.xyz"],
)
def test_a_file_that_exists_is_that_file(tmp_path, name):
    if "/" in name:
        (tmp_path / name).parent.mkdir()
    numbered(tmp_path / "a.extxyz", 2).rename(tmp_path / name)
    assert numbers(tmp_path / name) == [0, 1]


def test_patterns_folders_and_lists_are_read_in_order(tmp_path):
    for name, count in (("b.extxyz", 2), ("a.extxyz", 3), ("c.xyz", 1)):
        numbered(tmp_path / name, count)
    (tmp_path / "notes.txt").write_text("not structures")
    assert numbers(tmp_path / "*.extxyz") == [0, 1, 2, 0, 1]
    assert numbers([tmp_path / "b.extxyz", f"{tmp_path / 'a.extxyz'}@-1"]) == [0, 1, 2]
    with pytest.warns(Notice, match="3 files of this folder are read"):
        assert numbers(tmp_path) == [0, 1, 2, 0, 1, 0]
    data = read_dataset([tmp_path / "b.extxyz", tmp_path / "c.xyz"], required=())
    assert [info["file"] for info in data.infos] == [str(tmp_path / name) for name in ("b.extxyz", "b.extxyz", "c.xyz")]


@pytest.mark.parametrize(
    "name", ["absent.xyz", "absent@3.xyz", "absent.xyz@3", f"@:{10**20}", "*.cif", "", "a\0b", "x" * 5000]
)
def test_what_is_no_file_is_said_in_one_line(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no such file|no file matches"):
        read_atoms(f"{tmp_path}/{name}" if name else "")


def test_a_slice_of_nothing_is_an_error(tmp_path):
    path = numbered(tmp_path / "a.extxyz", 2)
    with pytest.raises(ValueError, match=r"none of its structures is among those asked for \(@7:8\)"):
        read_atoms(f"{path}@7")


def test_one_of_several_structures_is_said(tmp_path):
    path = numbered(tmp_path / "a.extxyz", 3)
    with pytest.warns(Notice, match="holds 3 structures; the last one is taken"):
        assert read_last_atoms(path).info["number"] == 2


def test_deuterium_is_hydrogen_with_its_own_mass(tmp_path):
    atoms = molecule("H2O")
    ase.io.write(tmp_path / "w.extxyz", atoms)
    text = (tmp_path / "w.extxyz").read_text().replace("\nH ", "\nD ", 1).replace("\nH ", "\nT ", 1)
    (tmp_path / "w.extxyz").write_text(text)
    heavy = read_last_atoms(tmp_path / "w.extxyz")
    assert heavy.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(heavy.get_masses(), [15.999, 2.014, 3.016])
    np.testing.assert_allclose(heavy.positions, atoms.positions, atol=1e-8)


def test_frames_after_an_empty_line_are_not_dropped(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nHe 0 0 0\n\n1\n\nNe 0 0 0\n")
    assert [atoms.get_chemical_formula() for atoms in iread_atoms(tmp_path / "a.xyz")] == ["He", "Ne"]


@pytest.mark.parametrize("occupancy", [{"0": {"Au": 0.5, "Cu": 0.5}}, {"0": {"Cu": 0.7}}])
def test_partial_occupancy_is_refused(tmp_path, occupancy):
    atoms = bulk("Cu", cubic=True)
    ase.io.write(tmp_path / "full.cif", atoms)
    assert len(read_atoms(tmp_path / "full.cif")) == 1
    atoms.info |= {"occupancy": occupancy, "spacegroup_kinds": np.zeros(4, int)}
    for name in ("a.extxyz", "a.traj"):
        ase.io.write(tmp_path / name, atoms)
        with pytest.raises(ValueError, match=r"structure 0: site 0 \(.*\) is occupied in part"):
            read_atoms(tmp_path / name)
    lines = (tmp_path / "full.cif").read_text().replace("1.0000\n", "0.5000\n", 1)
    (tmp_path / "part.cif").write_text(lines)
    with pytest.raises(ValueError, match="occupied in part"):
        read_atoms(tmp_path / "part.cif")


RES = (
    "TITL x 0 0 -10 0 0 2 (P1) n - 1\nCELL 1.5418 4.2 4.2 4.2 90 90 90\nLATT -1\nSFAC Ni O\nNi 1 0.0 0.0 0.0{}\n{}END\n"
)
CASTEP = """%BLOCK LATTICE_CART
4.2 0 0
0 4.2 0
0 0 4.2
%ENDBLOCK LATTICE_CART
%BLOCK POSITIONS_FRAC
Ni 0 0 0 {}
%ENDBLOCK POSITIONS_FRAC
"""


@pytest.mark.parametrize(
    ("name", "text", "partly"),
    [
        ("a.res", RES.format(" {}", "O 2 0.5 0.5 0.5 1.0\n"), ("0.5", "10.5", ".25")),
        ("a.cell", CASTEP, ("MIXTURE:(1 0.5)", "mixture = (1 0.5)")),
    ],
)
def test_partial_occupancy_is_refused_where_the_reader_drops_it(tmp_path, name, text, partly):
    for whole in ("1.0", "11.0") if name == "a.res" else ("", "SPIN=1.0"):
        (tmp_path / name).write_text(text.format(whole))
        assert read_atoms(tmp_path / name)[0].symbols[0] == "Ni"
    for part in partly:
        (tmp_path / name).write_text(text.format(part))
        with pytest.raises(ValueError, match=r"Ni .* is occupied in part"):
            read_atoms(tmp_path / name)


def test_a_column_of_occupancies_counts_by_either_name(tmp_path):
    for name in ("occupancy", "occupancies"):
        atoms = bulk("Cu", cubic=True)
        atoms.set_array(name, np.array([1.0, 1.0, 0.5, 1.0]))
        ase.io.write(tmp_path / "a.extxyz", atoms)
        with pytest.raises(ValueError, match=r"atom 2 \(Cu 0\.5\) is occupied in part"):
            read_atoms(tmp_path / "a.extxyz")


HOSTILE = {
    "count.xyz": (f"{LARGE}\nx\nH 0 0 0\n", "says that it has 1000000000 atoms"),
    "many.xyz": ("1000000\nx\nH 0 0 0\n", "1000000 atoms follow, the file ends after 1"),
    "digits.xyz": ("9" * 5000 + "\nx\n", "expected the number of atoms"),
    "small.xyz": (f"1\n{CELL.replace('4', '1e-6')}\nH 0 0 0\n", "cell is flat"),
    "large.xyz": (f"1\n{CELL.replace('4', '1e12')}\nH 0 0 0\n", "at most 1e\\+06"),
    "flat.xyz": ('1\nLattice="4 0 0 8 1e-9 0 0 0 4"\nH 0 0 0\n', "cell is flat"),
    "parallel.xyz": ('1\nLattice="4 0 0 40 4 0 0 40 4"\nH 0 0 0\n', "nearly parallel, .* the lattice itself is fine"),
    "plane.xyz": ('1\nLattice="4 0 0 8 0 0 0 0 4" pbc="T T F"\nH 0 0 0\n', "cell is flat"),
    "dense.xyz": (f"3000\n{CELL.replace('4', '0.6')}\n" + "H 0 0 0\n" * 3000, "matter has less"),
    "far.xyz": ("1\nx\nH 1e30 0 0\n", "atom 0 lies 1e\\+30"),
    "nan.xyz": ("1\nx\nH nan 0 0\n", "not finite"),
    "dummy.xyz": ("2\nx\nH 0 0 0\nX 0 0 0\n", "atom 1 has no element"),
    "element.xyz": ("2\nx\nH 0 0 0\nQq 0 0 0\n", r"'Qq' is no element \(line 4\)"),
    "number.xyz": ("1\nProperties=Z:I:1:pos:R:3\n500 0 0 0\n", "atomic number 500"),
    "quote.xyz": ('1\nname="foo energy=-3\nH 0 0 0\n', "line 2 opens a quote"),
    "value.xyz": ("1\nx\nH 0 a b\n", "could not convert"),
    "short.xyz": ("2\nx\nH 0 0 0\nH 0 0\n", "line 4 holds 3 values, expected 4"),
    "hole.xyz": ("2\nx\nH 0 0 0\n\nH 0 0 1\n", "line 4 is empty"),
    "columns.xyz": (f"1\nProperties=species:S:1:pos:R:{LARGE}\nH 0 0 0\n", "Properties is"),
    "pbc.xyz": ('1\npbc="7 T"\nH 0 0 0\n', "expected three of T and F"),
    "deep.xyz": ('1\na="_JSON ' + "[" * 100000 + '"\nH 0 0 0\n', "opens a quote|RecursionError|cannot be read"),
    "triple.xyz": (
        "1\nProperties=species:S:1:pos:R:3:masses:R:3\nH 0 0 0 1 1 1\n",
        r"masses are float64 of shape \(1, 3\), expected numbers of \(1,\)",
    ),
    "word.xyz": ("1\nProperties=species:S:1:pos:R:3:momenta:R:2\nH 0 0 0 1 1\n", r"momenta are .* \(1, 2\)"),
    "mass.xyz": ("1\nProperties=species:S:1:pos:R:3:masses:R:1\nH 0 0 0 -1\n", "masses are positive"),
    "binary.xyz": (bytes(range(256)) * 9, "not text"),
    "empty.xyz": ("", "empty"),
    "cut.xyz.gz": (gzip.compress(b"1\nx\nH 0 0 0\n" * 99)[:-9], "cannot be read"),
    "line.xyz.gz": (gzip.compress(b"0" * (1 << 25)), "longer than"),
    "bomb.xyz.xz": (lzma.compress(b"1\nx\nH 0 0 0\n" * 6_000_000, preset=0), "unpacks to more"),
    "POSCAR": (f"x\n1\n4 0 0\n0 4 0\n0 0 4\nH\n{LARGE}\nDirect\n0 0 0\n", "more memory"),
    "heavy_water_POSCAR": (
        "x\n1\n8 0 0\n0 8 0\n0 0 8\nD O\n2 1\nCartesian\n0 0 0\n1.5 0 0\n0.7 0.6 0\n",
        "'D' is no element in this format; write H, or use extended xyz, where 'D' has its own mass",
    ),
    "a.cube": (f"t\nt\n{LARGE} 0 0 0\n1 1 0 0\n1 0 1 0\n1 0 0 1\n", "more memory|cannot be read"),
    "a.cfg": (f"Number of particles = {LARGE}\nA = 1.0 Angstrom\n", "more memory|cannot be read"),
    "a.cif": ("loop_\n", "cannot be read"),
    "a.json": ("[" * 200000, "nested too deeply"),
    "a.traj": (b"- of Ulm" + b"\xff" * 200, "cannot be read"),
    "a.db": (b"no database", "cannot be read"),
    "OUTCAR": ("vasp.6\n", "cannot be read"),
    "vasprun.xml": ("<modeling><calc", "cannot be read"),
    "a.unknown": ("hello", "no format that ASE knows"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_soon(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        read_atoms(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 10.0


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError(), RecursionError(), KeyError("Qq"), Exception()])
def test_whatever_a_parser_raises_is_one_error(tmp_path, monkeypatch, error):
    def fail(*unused, **options):
        raise error

    monkeypatch.setattr("ase.io.iread", fail)
    (tmp_path / "a.cif").write_text("data_x\n")
    with pytest.raises(ValueError, match=r"a\.cif: cannot be read"):
        read_atoms(tmp_path / "a.cif")


def test_limits_are_lifted_again(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    for atoms in iread_atoms(numbered(tmp_path / "a.extxyz")):
        assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)) == before, atoms
    (tmp_path / "POSCAR").write_text(HOSTILE["POSCAR"][0])
    with pytest.raises(ValueError, match="more memory"):
        read_atoms(tmp_path / "POSCAR")
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)) == before


PIECES = ["1", "2", "-1", "1e9", LARGE, "H", "D", "X", "Qq", "nan", "inf", "1e300", "0", "4 0 0 0 4 0 0 0 4", "T", "\n"]
PIECES += [" ", '"', "'", "{", "[", "\\", "=", ":", "Lattice=", "Properties=", "pbc=", "energy=", "species:S:1:pos:R:3"]
PIECES += ["forces:R:3", "_JSON ", "VEC1", "\0", "é", "stress=", "move_mask:L:1", "config_weight=", "REF_energy=", "\r"]
SOUND = f"2\n{CELL} energy=-1.0\nH 0 0 0\nH 0 0 1\n"


@st.composite
def mutated(draw):
    """A sound file in which pieces were put, cut out or exchanged."""
    text = SOUND * draw(st.integers(1, 2))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.sampled_from([0, 0, 1, 4, 30])))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=6)) + text[stop:]
    return text


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutated() | st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.binary(max_size=300))
@example(content=SOUND.replace("H 0 0 1", "H 0 0"))
@pytest.mark.filterwarnings("ignore")
def test_any_text_is_read_or_refused(tmp_path, content):
    path = tmp_path / "fuzz.xyz"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    start = time.process_time()
    problem = None
    try:
        frames = read_atoms(path)
        dataset = read_dataset(path, required=())
    except (ValueError, OSError) as error:
        problem = str(error)
    if problem is not None:
        assert "fuzz.xyz" in problem
        assert "\n" not in problem
    else:
        assert len(frames) == len(dataset)
        assert all(np.isfinite(atoms.positions).all() and (atoms.numbers > 0).all() for atoms in frames)
    assert time.process_time() - start < 5.0


def test_whole_disks_are_not_searched(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="whole file system; name the files"):
        read_atoms("/")
    for number in range(12):
        (tmp_path / f"empty-{number:02d}" / "deeper").mkdir(parents=True)
    monkeypatch.setattr(sources, "_BARREN", 8)
    with pytest.raises(ValueError, match=r"more than 8 folders without structures, the last .*; name the files"):
        read_atoms(tmp_path)
    # folders with structures do not count
    for number in range(12):
        numbered(tmp_path / f"empty-{number:02d}" / "deeper" / "a.traj", 1)
    monkeypatch.setattr(sources, "_BARREN", 13)
    assert len(read_atoms(tmp_path)) == 12
