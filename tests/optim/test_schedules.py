import jax
import numpy as np
import pytest

from mlipjax.optim import schedule_factor


@pytest.mark.parametrize("name", ["cosine", "exponential"])
def test_rises_linearly_to_one_then_falls_to_the_final_factor(name):
    factor = schedule_factor(name, total_steps=100, warmup_steps=9, final_factor=0.02)
    values = np.array([factor(step) for step in range(120)])
    np.testing.assert_allclose(values[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert np.all(np.diff(values[9:101]) < 0.0)
    np.testing.assert_allclose(values[100:], 0.02, rtol=1e-6)


def test_shapes_after_the_warm_up():
    cosine = schedule_factor("cosine", 100, final_factor=0.2)
    exponential = schedule_factor("exponential", 100, final_factor=0.01)
    np.testing.assert_allclose(cosine(50), 0.6, rtol=1e-6)
    np.testing.assert_allclose([exponential(50), exponential(25)], [0.1, 0.1**0.5], rtol=1e-5)
    constant = schedule_factor("constant", 100, warmup_steps=1)
    np.testing.assert_allclose([constant(0), constant(1), constant(99)], [0.5, 1.0, 1.0])


def test_step_may_be_traced():
    factor = schedule_factor("cosine", 10, 3)
    np.testing.assert_allclose(jax.jit(factor)(5), factor(5), rtol=1e-6)


def test_a_single_step_is_a_whole_schedule():
    assert schedule_factor("cosine", 1)(0) == 1.0


@pytest.mark.parametrize(
    "arguments", [("cosine", 0), ("cosine", 10, 10), ("cosine", 10, -1), ("cosine", 10, 0, 0.0), ("linear", 10)]
)
def test_bad_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match=r"found|choose"):
        schedule_factor(*arguments)
