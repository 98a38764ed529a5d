"""Figures of the microscope show every class and every interval."""

import numpy as np
import pytest

from mlipjax.report.representation import _looks, class_maps, estimate_panels, estimates_along


def test_every_class_is_named_once_and_rare_ones_are_other():
    classes = ["H"] * 9 + ["C4"] * 8 + ["C3"] * 7 + ["Fe6"] * 2 + ["Xe"]
    points = np.random.default_rng(0).standard_normal((27, 2))
    figure = class_maps({"a": points, "b": -points}, classes, notes={"a": "n = 27"}, n_shown=4)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["other", "C3", "C4", "Fe6", "H"]
    drawn = [collection.get_offsets() for collection in figure.axes[0].collections]
    assert sorted(map(len, drawn)) == [1, 2, 7, 8, 9]
    assert figure.axes[0].get_title() == "a\nn = 27"
    with pytest.raises(ValueError, match="map of a has 27 points, there are 26 atoms"):
        class_maps({"a": points}, classes[1:])


def test_pairs_have_the_colour_of_their_elements_and_bonds_a_marker_of_their_own():
    names = [f"{a}{kind}{b}" for a in "CHNO" for b in "CHNO" for kind in ("-", "..")]
    looks = _looks(np.array(names), n_shown=len(names))
    assert looks["C-H"][0] == looks["C..H"][0]
    assert looks["C-H"][1] != looks["C..H"][1]
    # sixteen pairs of elements, more than there are ramps of colour
    assert len(set(looks.values())) == len(names)


def test_panels_show_values_intervals_and_lines():
    rows = {"before": (1.0, np.nan, np.nan), "after": (2.0, 1.5, 2.5)}
    figure = estimate_panels(
        {"DB": rows, "CKA": {"after": (0.9, 0.8, 1.0)}}, better={"DB": "lower"}, lines={"CKA": 1.0}
    )
    first, second = figure.axes
    assert first.get_xlabel() == "DB\n(lower)"
    lines = [line.get_xdata() for line in first.lines]
    assert [len(line) for line in lines] == [1, 2, 1]
    np.testing.assert_array_equal(lines[1], [1.5, 2.5])
    assert len(second.lines) == 3
    assert [text.get_text() for text in first.get_yticklabels()] == ["before", "after"]
    assert first.get_xscale() == "linear"
    far = estimate_panels({"Q": {"near": (1.5, 1.4, 1.6), "stranger": (1100.0, 1000.0, 1200.0)}})
    assert far.axes[0].get_xscale() == "log"
    with pytest.raises(ValueError, match="no number"):
        estimate_panels({})


def test_numbers_along_training_have_a_line_a_band_and_a_star_for_each_run():
    nan = np.nan
    ft = [(0, 1.0, nan, nan), (10, 0.9, 0.8, 0.95), (20, 0.8, 0.7, 0.9), (10, 0.9, 0.8, 0.95)]
    lp = [(0, 1.0, nan, nan), (15, 1.0, 1.0, 1.0), (15, 1.0, 1.0, 1.0)]
    figure = estimates_along(
        {"CKA": {"ft": ft, "lp": lp}, "rank": {"lp": lp}}, better={"CKA": "1: same"}, lines={"CKA": 1.0}
    )
    first, second = figure.axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("CKA\n(1: same)", "rank")
    curve, star = first.lines[:2]
    np.testing.assert_array_equal(curve.get_xydata(), [[0, 1.0], [10, 0.9], [20, 0.8]])
    np.testing.assert_array_equal(star.get_xydata(), [[10, 0.9]])
    (band,) = first.collections[0].get_paths()
    assert (band.vertices[:, 1].min(), band.vertices[:, 1].max()) == (0.7, 0.95)
    # a run has the same colour in a panel that lacks the other
    assert second.lines[0].get_color() == first.lines[2].get_color() != curve.get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ft", "lp", "the model that was kept"]
    with pytest.raises(ValueError, match="no number"):
        estimates_along({})
