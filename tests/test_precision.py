"""Precision of products, as read off the programs."""

import collections
import dataclasses
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from jaxlib.mlir import ir
from programs import PROGRAMS, forces, model
from tiny_nequip import SMALLEST, graph_of, molecule, random_params

import mlipjax
from mlipjax.models import nequip
from mlipjax.models.heads import with_first_head
from mlipjax.potential import apply

PRODUCTS = ("stablehlo.dot_general", "stablehlo.dot", "stablehlo.convolution")


def products(traced, platform="cuda"):
    """How many products of floating-point numbers a program has in each precision, lowered for a platform."""
    found = collections.Counter()

    def look(operation):
        if operation.name in PRODUCTS and isinstance(operation.result.type.element_type, ir.FloatType):
            found.update({re.search(r"HIGHEST|HIGH|DEFAULT", str(operation.attributes["precision_config"]))[0]: 1})
        return ir.WalkResult.ADVANCE

    traced.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo").operation.walk(look)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_product_is_computed_in_full_on_every_platform(name):
    traced = PROGRAMS[name]()
    assert [set(products(traced, platform)) for platform in ("cpu", "cuda", "tpu")] == [{"HIGHEST"}] * 3


def test_a_product_that_was_forgotten_is_seen():
    square = jnp.ones((2, 2), jnp.float32)
    assert products(jax.jit(jnp.matmul).trace(square, square)) == {"DEFAULT": 1}


@pytest.mark.parametrize("precision", ["high", "default"])
def test_a_faster_mode_is_of_the_network_alone(precision):
    exact, faster = products(forces()), products(forces(model()[0].replace(precision=precision)))
    assert sum(faster.values()) == exact["HIGHEST"]
    # strain of positions and cells, edges over the faces of cells; and four derivatives of these three
    assert faster["HIGHEST"] == 7


def test_a_cpu_computes_the_same_in_every_mode():
    potential = nequip(SMALLEST)
    params, graph = random_params(potential, dtype=np.float32), graph_of(molecule(), dtype=np.float32)
    found = [
        apply(potential.replace(precision=precision), params, graph).forces for precision in ("highest", "default")
    ]
    np.testing.assert_array_equal(*found)


def test_a_model_keeps_its_precision_when_it_is_rebuilt():
    potential = nequip(dataclasses.replace(SMALLEST, heads=("energy", "other"))).replace(precision="high")
    params = random_params(potential, dtype=np.float32)
    assert with_first_head(potential, "other").precision == "high"
    calculator = mlipjax.Calculator(potential, params, dtype="float32")
    assert pickle.loads(pickle.dumps(calculator)).potential.precision == "high"
    with pytest.raises(ValueError, match="precision is one of highest, high, default; found 'fast'"):
        potential.replace(precision="fast")


@pytest.mark.slow
def test_no_program_of_any_verb_computes_in_less(tmp_path, monkeypatch):
    jax.clear_caches()
    jax.config.update("jax_dump_ir_to", str(tmp_path))
    try:
        run_verbs()
    finally:
        jax.config.update("jax_dump_ir_to", None)
    found = collections.Counter()
    for path in tmp_path.glob("*.mlir"):
        for line in path.read_text().splitlines():
            if re.match(r" *%\S+ = (stablehlo.dot_general|stablehlo.convolution).*xf32>", line):
                found["HIGHEST, HIGHEST" in line or path.name] += 1
    assert found[True] > 1000
    assert set(found) == {True}


def run_verbs():
    """Predict, fine-tune, simulate under charts, relax and find a path."""
    potential = nequip(dataclasses.replace(SMALLEST, species=(14,)))
    model = mlipjax.Model(potential, random_params(potential, dtype=np.float32))
    home = [bulk("Si", cubic=True) for _ in range(30)]
    for seed, atoms in enumerate(home):
        atoms.rattle(0.05, seed=seed)
    labelled = mlipjax.predict(model, home[:4])
    mlipjax.finetune(model, labelled, epochs=1, valid_fraction=0.0, anchor="none", ewc=1.0)
    charts = mlipjax.monitor(model, home, reference=home, level=0.1, components=1).monitor
    mlipjax.simulate(model, home[0], "npt", steps=4, monitor=charts, monitor_every=2, on_alarm="ignore")
    mlipjax.relax(model, home[0], cell="full", steps=2, dtype="float32")
    mlipjax.neb(model, home[:2], n_images=3, steps=2, relax_ends=False)
    mlipjax.periodic(model, home[0], oracle="sw", rounds=1, steps=2, train_steps=1, labels_per_round=2, batch_size=2)
