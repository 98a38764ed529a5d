"""Reading of mace-torch files: what is refused, and that nothing in them is ever run."""

import io
import pickle
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mlipjax
from mlipjax import tree
from mlipjax.models.importers import _rebuild, mace_torch
from mlipjax.models.importers._torch_model import TorchModel
from mlipjax.models.importers._unpickle import read_torch

GOLDENS = Path(__file__).parent / "goldens"
SMALL = GOLDENS / "one_layer.model"
TRACES = []


def record_a_call(*args):
    """Function that a hostile file would have the reader call."""
    TRACES.append(args)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def archive_with(path, obj):
    """A file as ``torch.save`` writes it, with any object inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(obj, protocol=2))
        archive.writestr("model/byteorder", "little")
    return path


def refused(path):
    """The one line with which a file is refused."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the caller matches the message
        mlipjax.load(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize(
    "call",
    [
        Call(record_a_call, 1),
        Call(eval, "__import__('test_mace_torch').record_a_call(2)"),
        Call(exec, "raise SystemExit"),
        Call(__import__, "os"),
        Call(shutil.rmtree, "/nowhere"),
    ],
)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, call):
    TRACES.clear()
    # the call works where pickles are trusted
    if call.call[0] is record_a_call:
        pickle.loads(pickle.dumps(call))
        assert TRACES == [(1,)]
        TRACES.clear()
    path = archive_with(tmp_path / "evil.model", {"model": [call]})
    assert "which no model file needs; it was not run" in refused(path)
    assert TRACES == []


def test_names_of_known_packages_are_not_called_either(tmp_path, monkeypatch):
    class Trap:
        @staticmethod
        def load(*args):
            record_a_call(*args)

    # were the name looked up, this would be found
    monkeypatch.setitem(sys.modules, "torch.hub", Trap)
    content = pickle.dumps({"x": 1}, protocol=2)[:-1] + b"ctorch.hub\nload\n(S'url'\ntR."
    with zipfile.ZipFile(tmp_path / "evil.model", "w") as archive:
        archive.writestr("m/data.pkl", content)
    root = read_torch(tmp_path / "evil.model")
    assert (root.module, root.name, root.args) == ("torch.hub", "load", ("url",))
    assert TRACES == []
    assert "holds a torch.hub.load; expected mace's" in refused(tmp_path / "evil.model")


def test_neither_torch_nor_mace_is_imported():
    mlipjax.load(SMALL)
    assert not {"torch", "mace", "e3nn"} & set(sys.modules)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(b"\x80\x02}q\x00.")
    assert "no zip archive" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/readme", "nothing")
    assert "holds no data.pkl" in refused(path)
    archive_with(path, {"model": 1})
    assert "holds a dict, not a whole model" in refused(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/constants.pkl", b"")
    assert "compiled TorchScript" in refused(path)


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(SMALL.read_bytes()[:-500])
    assert "no zip archive" in refused(path)
    with zipfile.ZipFile(SMALL) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            archive.writestr(name, content[:-50] if name.endswith("data.pkl") else content)
    assert "is damaged" in refused(path)
    with zipfile.ZipFile(SMALL) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name)[: -1 if "/data/" in name else None])
    assert "is truncated" in refused(path)


def edited(monkeypatch, edit, path=SMALL):
    """Load a file after a change of its records."""
    root = read_torch(path)
    edit(root)
    monkeypatch.setattr(mace_torch, "read_torch", lambda path: root)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        mace_torch.load_mace_torch(path)
    return str(error.value)


def test_a_missing_or_broken_weight_is_named(monkeypatch):
    def drop(root):
        del root.get("interactions.0.linear_up").state["_parameters"]["weight"]

    assert "no interactions.0.linear_up.weight" in edited(monkeypatch, drop)

    def shorten(root):
        weights = root.get("products.0.linear").state["_parameters"]
        weights["weight"] = weights["weight"][:-1]

    assert "products.0.linear.weight has 15 values where its model needs 16" in edited(monkeypatch, shorten)

    def spoil(root):
        weights = root.get("readouts.0.linear").state["_parameters"]
        weights["weight"] = np.where(np.arange(4) == 2, np.nan, weights["weight"])

    assert "parameter 'readout_Default/layer_0' is NaN" in edited(monkeypatch, spoil)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: root.state.update(use_so3=True), "use_so3 = True"),
        (lambda root: root.state["_modules"].update(joint_embedding=root.get("products")), "joint_embedding"),
        (lambda root: root.get("radial_embedding").state.update(apply_cutoff=False), "multiplies messages"),
        (lambda root: setattr(root.get("interactions.0"), "name", "NewBlock"), "interactions of type NewBlock"),
        (lambda root: setattr(root.get("radial_embedding.bessel_fn"), "name", "GaussianBasis"), "GaussianBasis"),
        (lambda root: root.state.update(heads=["a", "b"]), "isolated-atom energies of shape"),
        (lambda root: setattr(root, "name", "AtomicDipolesMACE"), "expected mace's MACE or ScaleShiftMACE"),
    ],
)
def test_models_of_other_kinds_are_refused(monkeypatch, change, message):
    assert message in edited(monkeypatch, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: root.get("radial_embedding").state.update(apply_cutoff=True), "which jump at the cutoff"),
        (lambda root: root.get("interactions.1.equivariant_nonlin").state.update(_gate_cst=1.0), "after sigmoid"),
        (
            lambda root: root.get("interactions.0").state.update(edge_irreps=root.get("interactions.1.edge_irreps")),
            "edge irreps in layer 0 that are not 2x0e",
        ),
        (lambda root: root.get("products.0").state.update(use_agnostic_product=True), "in some layers only"),
        (lambda root: setattr(root.get("readouts.1"), "name", "NewReadout"), "a readout of type NewReadout"),
        (lambda root: root.get("joint_embedding.specs").update(elec_temp={}), "an embedding of 'elec_temp'"),
        (lambda root: root.get("joint_embedding.specs")["total_charge"].update(offset=-9), "without a class for 0"),
    ],
)
def test_parts_of_newer_models_that_are_not_built_are_named(monkeypatch, change, message):
    file = "nonlinear_options.model" if "embedding of" in message or "class" in message else "mh1.model"
    assert message in edited(monkeypatch, change, GOLDENS / file)


def test_another_basis_of_the_products_is_converted(monkeypatch):
    # as cuequivariance writes it: fewer couplings, each symmetric in its factors
    root = read_torch(SMALL)
    contraction = "products.0.symmetric_contractions.contractions.0"
    stored = root.get(f"{contraction}.U_matrix_3")
    symmetric = sum(np.transpose(stored, (*order, 3)) for order in [(0, 1, 2), (1, 2, 0), (2, 0, 1)]) / 3
    root.get(contraction).state["_buffers"]["U_matrix_3"] = symmetric[..., ::-1].copy()
    root.get(contraction).state["_parameters"]["weights_max"] = root.get(f"{contraction}.weights_max")[:, ::-1].copy()
    ordered, weights = mlipjax.load(SMALL)
    monkeypatch.setattr(mace_torch, "read_torch", lambda path: root)
    potential, params = mace_torch.load_mace_torch(SMALL)
    assert (ordered.config.product_basis, potential.config.product_basis) == ("ordered", "independent")
    assert params["layer_0"]["product"]["0e_3"].shape == (5, 8, 4)
    from mlipjax.nn.symmetric_contraction import path_matrix

    expected = np.einsum("pk,zkc->zpc", path_matrix(3, 3, 0), weights["layer_0"]["product"]["0e_3"])
    np.testing.assert_allclose(params["layer_0"]["product"]["0e_3"], expected, atol=1e-12)


def free(n_bytes):
    """Accounts for nothing."""


def test_tensors_are_read_with_their_strides_and_checked():
    storage = np.arange(12.0)
    np.testing.assert_array_equal(_rebuild._tensor(free, storage, 1, (2, 3), (1, 2)), [[1, 3, 5], [2, 4, 6]])
    np.testing.assert_array_equal(_rebuild._tensor(free, storage, 3, (), ()), 3.0)
    for size, stride, offset in (
        ((4,), (4,), 0), ((2,), (-1,), 3), ((1,), (1,), 12), ((1,), (1,), -1), ((2, 2), (1,), 0), ((True,), (1,), 0)
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"beyond its storage|of size|do not fit"):
            _rebuild._tensor(free, storage, offset, size, stride)


@pytest.mark.parametrize("name", ["mpa0", "mh1"])
def test_every_weight_is_used_once(name):
    root = read_torch(GOLDENS / f"{name}.model")
    potential, params = mlipjax.load(GOLDENS / f"{name}.model")

    def sizes(record):
        own = sum(np.size(p) for p in record.state.get("_parameters", {}).values() if p is not None)
        return own + sum(sizes(child) for child in record.state.get("_modules", {}).values() if child is not None)

    assert TorchModel(SMALL, root, "MACE").irreps("products.0.linear.irreps_out") == ((4, 0, 1), (4, 1, -1))
    # hidden units of one head are not read by another, although there are weights for that
    n_heads = len(potential.heads)
    assert sizes(root) == tree.count(params) + n_heads * (n_heads - 1) * potential.config.readout_hidden


def test_pickles_of_newer_protocols_are_read_the_same_way(tmp_path):
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=4).dump([Call(record_a_call, 3)])
    with zipfile.ZipFile(tmp_path / "a.model", "w") as archive:
        archive.writestr("m/data.pkl", buffer.getvalue())
    assert "it was not run" in refused(tmp_path / "a.model")


def test_numbers_of_numpy_are_read(tmp_path):
    for protocol in (2, 4):
        with zipfile.ZipFile(tmp_path / "a.model", "w") as archive:
            # a record around the numbers: the root of a file is an object
            values = pickle.dumps((np.float64(61.9625), np.int64(3)), protocol=protocol)
            head = b"\x80" + bytes([protocol]) + b"cmace.modules.models\nMACE\n"
            archive.writestr("m/data.pkl", head + values[2:-1] + b"\x81.")
        assert read_torch(tmp_path / "a.model").args == (61.9625, 3)
