import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.nn.irreps import Irrep, parse
from mlipjax.nn.linear import EquivariantLinear, EquivariantRMSNorm, SpeciesLinear, gate, gated_irreps

N = 5
SPECIES = np.array([0, 2, 1, 2, 0])
INPUTS, OUTPUTS = parse("6x0e + 4x1o + 3x2e"), parse("5x0e + 4x1o + 2x1e")


def random_chunks(irreps, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(N, irrep.dim, irrep.mul)) for irrep in irreps]


def to_e3nn(irreps, chunks):
    """Ours has channels last, e3nn channels first."""
    text = "+".join(map(str, irreps))
    return e3nn.from_chunks(text, [jnp.swapaxes(x, -1, -2) for x in chunks], (N,))


def test_linear_maps_mix_channels_of_equal_irreps_only():
    chunks = random_chunks(INPUTS)
    kernels = {"0e": np.ones((6, 5)), "1o": np.arange(16.0).reshape(4, 4)}
    scalars, vectors, pseudovectors = EquivariantLinear(INPUTS, OUTPUTS).apply({"params": kernels}, chunks)
    assert pseudovectors is None
    np.testing.assert_allclose(scalars, np.repeat(chunks[0].sum(-1, keepdims=True), 5, axis=-1) / 6**0.5)
    expected = np.einsum("nmc,cd->nmd", chunks[1], kernels["1o"]) / 2.0
    np.testing.assert_allclose(vectors, expected, rtol=1e-13)


def test_linear_maps_per_species_use_the_kernels_of_the_atom():
    chunks = random_chunks(INPUTS)
    kernels = {"0e": np.random.default_rng(1).normal(size=(3, 6, 5)), "1o": np.zeros((3, 4, 4))}
    scalars = EquivariantLinear(INPUTS, OUTPUTS, 3).apply({"params": kernels}, chunks, SPECIES)[0]
    expected = np.stack([chunks[0][i] @ kernels["0e"][z] for i, z in enumerate(SPECIES)]) / 6**0.5
    np.testing.assert_allclose(scalars, expected, rtol=1e-13)


def test_species_tables_are_linear_maps_of_one_hot_vectors():
    one_hot = [np.eye(3)[SPECIES][:, None, :]]
    inputs, outputs = (Irrep(3, 0, 1),), (Irrep(7, 0, 1),)
    for n_species, shape in ((None, (3, 7)), (3, (3, 3, 7))):
        params = {"params": {"0e": np.random.default_rng(2).normal(size=shape)}}
        table = SpeciesLinear(3, 7, per_species=n_species is not None).apply(params, SPECIES)
        (expected,) = EquivariantLinear(inputs, outputs, n_species).apply(params, one_hot, SPECIES)
        np.testing.assert_allclose(table, expected, rtol=1e-13)


def test_the_norm_is_one_number_per_atom_over_all_irreps():
    chunks = random_chunks(INPUTS)
    scales = {f"scale_{irrep.label}": np.linspace(0.5, 1.5, irrep.mul) for irrep in INPUTS}
    result = EquivariantRMSNorm(INPUTS).apply({"params": scales}, chunks)
    for atom in range(N):
        squares = [np.sum(x[atom] ** 2) / (len(INPUTS) * irrep.dim**2) for irrep, x in zip(INPUTS, chunks, strict=True)]
        for irrep, x, y in zip(INPUTS, chunks, result, strict=True):
            expected = x[atom] * scales[f"scale_{irrep.label}"] / np.sqrt(sum(squares))
            np.testing.assert_allclose(y[atom], expected, rtol=1e-10)


def test_the_norm_of_zero_has_finite_derivatives():
    norm = EquivariantRMSNorm(INPUTS[:1])
    params = {"params": {"scale_0e": np.ones(6)}}
    slope = jax.grad(lambda x: jnp.sum(norm.apply(params, [x])[0]))(jnp.zeros((1, 1, 6)))
    assert np.isfinite(slope).all()


def test_gates_equal_those_of_e3nn():
    pre_gate = gated_irreps(OUTPUTS)
    assert [irrep.mul for irrep in pre_gate] == [5 + 4 + 2, 4, 2]
    chunks = random_chunks(pre_gate)
    ours = gate(chunks, OUTPUTS)

    @jax.jit
    def reference(chunks):
        return e3nn.gate(to_e3nn(pre_gate, chunks), even_act=jax.nn.silu, even_gate_act=jax.nn.silu).array

    np.testing.assert_allclose(to_e3nn(OUTPUTS, ours).array, reference(chunks), rtol=1e-6, atol=1e-9)


def test_gates_pass_on_missing_irreps():
    chunks = random_chunks(gated_irreps(OUTPUTS))
    assert gate([chunks[0], None, chunks[2]], OUTPUTS)[1] is None
