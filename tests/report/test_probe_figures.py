"""Figures of probes: what is drawn is what was given, with units on every axis."""

from statistics import NormalDist

import numpy as np
import pytest

from mlipjax.report import figure_png, probes
from mlipjax.report import probe_figures as figures

X = np.linspace(0.5, 5.5, 60)
TIMES = np.linspace(0.0, 4.0, 30)

DRAWN = {
    "eos": lambda: figures.equation_of_state([18, 20, 22], [0.1, 0.0, 0.1], [18, 22], [0.1, 0.1]),
    "elastic": lambda: figures.elastic_constants(150.0 * np.eye(6), np.full((6, 6), np.nan)),
    "ladder": lambda: figures.frequencies([-1.0, 0.0, 5.0]),
    "bands": lambda: figures.phonon_bands(
        [0.0, 1.0, 1.0, 2.0], [[0.0, 5.0], [-1.0, 4.0]] * 2, [0.0, 1.0, 2.0], ["Γ", "K|U", "X"], np.linspace(0, 6, 300)
    ),
    "walls": lambda: figures.dimer_walls(X, {f"A-{i}": i / X - 2.0 for i in range(20)}, {"A-3": 0.7}),
    "softening": lambda: figures.softening(X, 0.8 * X, 0.8),
    "softening with structures apart": lambda: figures.softening(X, 0.8 * X, 0.8, np.arange(len(X)) > 0.9 * len(X)),
    "vacancies": lambda: figures.vacancies(["Si 0"], [4.3], [np.nan]),
    "rdf": lambda: figures.radial_distribution(X, ["all", "Cu-O"], np.ones((2, 60)), 0.1 * np.ones((2, 60))),
    "msd": lambda: figures.mean_square_displacement(X, {"Li": X, "O": 0 * X + 1}, {"Li": 0.1, "O": np.nan}, (1.0, 3.0)),
    "vdos": lambda: figures.vibrational_spectrum(TIMES, np.cos(TIMES), X, {"Si": np.exp(-((X - 2) ** 2))}),
    "events": lambda: figures.bond_events(TIMES, {"C-H": np.ones(30)}),
    "no events": lambda: figures.bond_events(TIMES, {}),
    "order": lambda: figures.crystal_order(TIMES, {"": 0.1 * TIMES}, {"": 0.1 * TIMES}),
    "slopes": lambda: figures.force_slopes({"a": (0.9, 0.8, 0.95)}, {"a": 80.0}),
}


@pytest.mark.parametrize("name", list(DRAWN))
def test_every_panel_says_what_it_shows(name):
    figure = DRAWN[name]()
    for panel in figure.axes:
        matrix = bool(panel.images)  # a table of colours has its strains as ticks and the unit in its title
        assert matrix or panel.get_xlabel() or panel.get_title()
        assert panel.lines or panel.collections or panel.patches or panel.images or name == "no events"
    assert len(figure_png(figure, dpi=60)) > 3000


def test_refused_coefficients_get_no_line():
    (panel,) = DRAWN["msd"]().axes
    dashed = [line for line in panel.lines if line.get_color() == "#000000"]
    assert len(dashed) == 1
    np.testing.assert_allclose(np.diff(dashed[0].get_ydata()) / np.diff(dashed[0].get_xdata()), 6 * 0.1)
    texts = [text.get_text() for text in panel.get_legend().get_texts()]
    assert any("refused" in text for text in texts)


def test_a_hole_is_marked_at_its_top():
    figure = DRAWN["walls"]()
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    assert crosses[0].get_xdata()[0] == pytest.approx(0.7)
    assert crosses[0].get_ydata()[0] == pytest.approx(np.interp(0.7, X, 3 / X - 2.0))


def test_elastic_constants_are_written_out():
    figure = figures.elastic_constants(np.diag([151.4] * 3 + [117.2] * 3), np.diag([151.4] * 3 + [56.4] * 3))
    assert len(figure.axes) == 2
    assert {text.get_text() for text in figure.axes[1].texts} == {"151", "56", "0"}


def test_gamma_surfaces_pass_through_their_shifts_and_are_smooth_between():
    def exact(n):
        u, v = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
        return 3.0 - np.cos(2 * np.pi * u) - np.cos(2 * np.pi * v) - np.cos(2 * np.pi * (u - v))

    np.testing.assert_allclose(probes.fourier_refined(exact(6), 4), exact(24), atol=1e-12)
    random = np.random.default_rng(0).normal(size=(6, 6))
    np.testing.assert_allclose(probes.fourier_refined(random, 4)[::4, ::4], random, atol=1e-12)
    vectors = 4.3 * np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)]])
    panel, bar = probes.gamma_surface(np.arange(6) / 6, exact(6), vectors, "rigid").axes
    assert "rigid" in bar.get_ylabel()
    shifts = panel.lines[0].get_xydata()
    assert len(shifts) == 4 * 36  # two cells each way
    np.testing.assert_allclose(shifts.max(axis=0), (11 / 6 * vectors[0]).clip(0) + 11 / 6 * vectors[1] * [0, 1])


def test_bands_break_off_where_the_path_does_and_states_add_up_to_one():
    values = np.array([NormalDist(5.0, 1.0).inv_cdf((i + 0.5) / 4000) for i in range(4000)])
    left, right = DRAWN["bands"]().axes
    # two pieces of two bands, each with its imaginary part over it
    assert sorted(len(line.get_xdata()) for line in left.lines[:8]) == [2] * 8
    assert [label.get_text() for label in left.get_xticklabels()] == ["Γ", "K|U", "X"]
    grid, density = figures._density(values)
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-3)
    known = np.exp(-0.5 * (grid - 5.0) ** 2) / np.sqrt(2.0 * np.pi)
    np.testing.assert_allclose(density, known, atol=0.005)
    assert right.get_xlim()[0] == 0.0
