"""Reading of .nqx files, and parity with the numbers of the implementation that wrote them."""

import dataclasses
import functools
import io
import json

import jax
import numpy as np
import pytest
from ase.io import read
from tiny_nequip import SMALLEST, random_params

import mlipjax
from mlipjax import tree
from mlipjax.graph import batch_graphs, neighbor_table
from mlipjax.models import nequip
from mlipjax.models.importers import load_nqx, nqx
from mlipjax.system import System

MODELS = ["nequix-mp-1", "nequix-omat-1", "nequix-oam-1-pft"]


@pytest.fixture
def weights(shared_data):
    folder = shared_data / "weights"
    if not folder.is_dir():
        pytest.skip(f"no published weights in {folder}")
    return folder


@functools.cache
def golden_structures(folder):
    frames = read(folder / "golden_structures.extxyz", ":")
    return {atoms.info["name"]: System.from_ase(atoms) for atoms in frames}


def check_parity(folder, model, names, dtype):
    """Compare structures, as one batch, with the golden file; within float32's or float64's tolerance."""
    potential, params = load_nqx(folder / f"{model}.nqx")
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    systems = [golden_structures(folder)[name] for name in names]
    tables = [neighbor_table(system, potential.cutoff) for system in systems]
    graph = batch_graphs(systems, potential.cutoff, tables=tables, dtype=dtype)
    prediction = jax.device_get(jax.jit(potential.apply)(params, graph))
    golden = json.loads((folder / f"{model}.golden.json").read_text())

    energy_tolerance, force_tolerance, stress_tolerance = (
        ({"rtol": 1e-9}, 1e-7, 1e-8) if dtype == np.float64 else ({"atol": 1e-4}, 1e-4, 1e-5)
    )
    start = 0
    for i, (name, system) in enumerate(zip(names, systems, strict=True)):
        expected = golden[name]
        assert tables[i].n_edges == expected["n_edges"] == graph.edge_mask[graph.graph_index == i].sum()
        total = np.float64(prediction.energy[i]) + potential.reference_energy(system.atomic_numbers)
        np.testing.assert_allclose(total, expected["energy"], **({"rtol": 0.0} | energy_tolerance))
        forces = prediction.forces[start : start + system.n_atoms]
        np.testing.assert_allclose(forces, expected["forces"], rtol=0.0, atol=force_tolerance)
        if name != "ethanol_molecule":  # has no cell
            np.testing.assert_allclose(prediction.stress[i], expected["stress"], rtol=0.0, atol=stress_tolerance)
        start += system.n_atoms


def small_structures(folder):
    return [name for name, system in golden_structures(folder).items() if system.n_atoms < 20]


def test_parity_in_float64(weights):
    names = small_structures(weights)
    assert len(names) == 7
    check_parity(weights, "nequix-mp-1", names, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS[1:])
def test_parity_of_the_other_models(weights, model):
    check_parity(weights, model, small_structures(weights), np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_parity_in_float32(weights, model):
    check_parity(weights, model, small_structures(weights), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", MODELS)
def test_parity_of_a_liquid(weights, model, dtype):
    check_parity(weights, model, ["liclcocl2_170"], dtype)


@pytest.mark.slow
def test_the_calculator_gives_the_golden_numbers(weights):
    calculator = mlipjax.Calculator(*mlipjax.load(weights / "nequix-mp-1.nqx"))
    golden = json.loads((weights / "nequix-mp-1.golden.json").read_text())
    for atoms in read(weights / "golden_structures.extxyz", ":7"):
        expected = golden[atoms.info["name"]]
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(expected["energy"], rel=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), expected["forces"], rtol=0.0, atol=1e-7)
        if atoms.cell.rank == 3:
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(stress, expected["stress"], rtol=0.0, atol=1e-8)
    # four sizes, one of them also without stress
    assert calculator.n_compilations <= 5


@pytest.mark.parametrize("model", MODELS)
def test_published_files_load(weights, model):
    potential, params = mlipjax.load(weights / f"{model}.nqx")
    leaves = tree.flatten_paths(params)
    assert len(leaves) == 62  # 63 arrays, of which the isolated-atom energies are not trainable
    assert sum(leaf.size for leaf in leaves.values()) + potential.e0s.size == 707_658
    assert {str(leaf.dtype) for leaf in leaves.values()} == {"float32"}
    assert potential.species == (*range(1, 84), *range(89, 95))
    assert potential.cutoff == 6.0
    assert potential.e0s.dtype == np.float64


def header_of(config):
    return {
        "atomic_numbers": list(config.species),
        "cutoff": config.cutoff,
        "hidden_irreps": config.hidden_irreps,
        "lmax": config.lmax,
        "n_layers": config.n_layers,
        "radial_basis_size": config.radial_basis_size,
        "radial_mlp_size": config.radial_hidden[0],
        "radial_mlp_layers": len(config.radial_hidden),
        "radial_polynomial_p": config.envelope_p,
        "mlp_init_scale": config.radial_gain,
        "index_weights": config.per_species_skip,
        "layer_norm": config.layer_norm,
        "shift": config.shift,
        "scale": config.scale,
        "avg_n_neighbors": config.avg_n_neighbors,
        "learning_rate": 0.01,
    }


def parts_of_a_file(config=SMALLEST):
    """Header and arrays of a small potential, in the order of the format."""
    params = tree.flatten_paths(random_params(nequip(config), dtype=np.float32))
    names = nqx._parameter_names(config)
    arrays = {"e0s": np.array([-1.0, -30.5, -80.25], np.float32)} | {name: params[name] for name in names[1:]}
    return header_of(config), arrays


def content(header, arrays):
    file = io.BytesIO()
    file.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        np.save(file, array)
    return file.getvalue()


@pytest.fixture
def small_file():
    return parts_of_a_file()


def refused(tmp_path, data):
    """The message with which a file is refused: one line that names the file."""
    path = tmp_path / "model.nqx"
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the caller matches the message
        mlipjax.load(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_a_small_file_is_read_leaf_by_leaf(tmp_path, small_file):
    header, arrays = small_file
    # static numbers and a final newline, as some published files have them
    data = content(header, [*list(arrays.values())[:3], np.float32(6.0), *list(arrays.values())[3:]]) + b"\n"
    (tmp_path / "model.nqx").write_bytes(data)
    potential, params = load_nqx(tmp_path / "model.nqx")
    assert potential.config == SMALLEST
    np.testing.assert_array_equal(potential.e0s, [[-1.0, -30.5, -80.25]])
    leaves = tree.flatten_paths(params)
    assert leaves.keys() | {"e0s"} == arrays.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, arrays[name], strict=True)


def test_arrays_in_the_other_byte_order_are_the_same_numbers(tmp_path, small_file):
    header, arrays = small_file
    (tmp_path / "little.nqx").write_bytes(content(header, arrays.values()))
    (tmp_path / "big.nqx").write_bytes(content(header, [array.astype(">f4") for array in arrays.values()]))
    little, big = (mlipjax.load(tmp_path / f"{name}.nqx") for name in ("little", "big"))
    assert big.potential == little.potential
    jax.tree.map(np.testing.assert_array_equal, big.params, little.params)


def test_per_species_weights_are_read(tmp_path):
    config = dataclasses.replace(SMALLEST, per_species_skip=True, layer_norm=False)
    header, arrays = parts_of_a_file(config)
    (tmp_path / "model.nqx").write_bytes(content(header, arrays.values()))
    potential, params = load_nqx(tmp_path / "model.nqx")
    assert potential.config == config
    assert params["layer_1"]["skip"]["0e"].shape == (3, 4, 4)
    assert "norm" not in params["layer_0"]


def test_truncated_files_are_refused(tmp_path, small_file):
    header, arrays = small_file
    whole = content(header, arrays.values())
    assert "array 16 is truncated or damaged" in refused(tmp_path, whole[:-40])
    assert "array 0 is truncated or damaged" in refused(tmp_path, whole[: whole.index(b"NUMPY") + 3])
    names = list(arrays)
    missing_last = refused(tmp_path, content(header, list(arrays.values())[:-1]))
    assert f"ends before parameter {names[-1]}" in missing_last
    assert "ends before parameter e0s" in refused(tmp_path, content(header, []))


def test_files_with_other_parameters_are_refused(tmp_path, small_file):
    header, arrays = small_file
    extra = content(header, [*arrays.values(), np.zeros(3, np.float32)])
    assert f"holds {len(arrays) + 1} arrays where its header asks for {len(arrays)}" in refused(tmp_path, extra)
    names = list(arrays)
    swapped = dict(
        zip(names, [arrays[names[0]], arrays[names[2]], arrays[names[1]], *list(arrays.values())[3:]], strict=True)
    )
    assert "has shape" in refused(tmp_path, content(header, swapped.values()))
    broken = arrays | {names[4]: np.full_like(arrays[names[4]], np.nan)}
    assert f"parameter '{names[4]}' is NaN" in refused(tmp_path, content(header, broken.values()))
    broken = arrays | {"e0s": np.array([-1.0, np.nan, 0.0], np.float32)}
    assert "e0s" in refused(tmp_path, content(header, broken.values()))


def test_what_is_not_a_nequix_file_is_refused(tmp_path, small_file):
    header, arrays = small_file
    assert "is empty" in refused(tmp_path, b"")
    for data in (b"\x80\x04\x95 a pickle", b"PK\x03\x04" + bytes(100), b"not json\n", bytes(1 << 21)):
        assert "is not a Nequix file: its first line is not JSON" in refused(tmp_path, data)
    assert "is not a Nequix file" in refused(tmp_path, b"[1, 2]\n")
    del header["scale"], header["lmax"]
    message = refused(tmp_path, content(header, arrays.values()))
    assert message == " is not a Nequix file: its header lacks lmax, scale"


@pytest.mark.parametrize(
    ("key", "value"),
    [("cutoff", "six"), ("atomic_numbers", [8, 1, 6]), ("hidden_irreps", "4x1o"), ("n_layers", None), ("scale", [])],
)
def test_headers_that_describe_no_potential_are_refused(tmp_path, small_file, key, value):
    header, arrays = small_file
    message = refused(tmp_path, content(header | {key: value}, arrays.values()))
    assert "header" in message


def test_pickled_arrays_are_not_executed(tmp_path, small_file):
    header, arrays = small_file
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    data = content(header, list(arrays.values())[:2]) + file.getvalue()
    assert "array 2 holds object, where numbers are expected; nothing in it was run" in refused(tmp_path, data)
