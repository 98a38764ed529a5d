"""Control charts: what is drawn, and what is refused."""

import numpy as np
import pytest

from mlipjax.report import figure_png
from mlipjax.report.monitor import control_charts


def chart(**options):
    rng = np.random.default_rng(0)
    values = {"Q / limit": rng.random(40), "T² / limit": rng.random(40)}
    values["Q / limit"][[3, 20]] = 1.5
    return control_charts(values, {"Q / limit": 1.0, "T² / limit": np.inf}, **options)


def test_alarms_are_marked_and_limits_drawn():
    figure = chart(runs=[0, 1] * 20)
    top, bottom = figure.axes
    marked = [line for line in top.lines if line.get_marker() == "o"]
    assert sorted(y for line in marked for y in line.get_ydata()) == [1.5, 1.5]
    assert any(np.allclose(line.get_ydata(), 1.0) for line in top.lines)
    assert not any(len(line.get_ydata()) for line in bottom.lines if line.get_marker() == "o")
    # frames of a run are numbered within it: 3 is the second of run 1, 20 the eleventh of run 0
    assert sorted(x for line in marked for x in line.get_xdata()) == [1, 10]
    assert "dimensionless" in top.get_ylabel()
    assert bottom.get_xlabel() == "frame (number)"
    assert figure_png(figure, dpi=60) == figure_png(chart(runs=[0, 1] * 20), dpi=60)


def test_frames_without_a_number_are_marked_at_the_limit():
    figure = control_charts({"Q": [0.2, np.nan, 0.3]}, {"Q": 1.0})
    marked = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in marked] == [[1.0]]


def test_disagreeing_lengths_are_refused():
    for indices, runs in (({}, None), ({"Q": []}, None), ({"Q": [1.0]}, [0, 1])):
        with pytest.raises(ValueError, match="at least one frame"):
            control_charts(indices, {"Q": 1.0}, runs=runs)
