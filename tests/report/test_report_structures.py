"""Structures that stand out: the right ones, in the right colours, and a viewer that is whole or not there."""

import builtins
import json
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mlipjax.report import figure_png, interactive_curves, pictures, structure_viewer
from mlipjax.report.structures import MOST_FRAMES, MOST_PICTURES, outstanding


@pytest.fixture
def frames():
    return [bulk("MgO", "rocksalt", a=4.2, cubic=True) for _ in range(5)] + [molecule("H2O")]


def test_the_largest_come_first_and_what_is_not_finite_before_them(frames):
    amounts = [3.0, 1.0, np.nan, 2.0, 5.0, 0.1]
    figure, _ = outstanding(frames, amounts, quantity="error (meV/Å)", title="Largest")
    titles = ["structure 2: nan", "structure 4: 5", "structure 0: 3", "structure 3: 2"]
    assert [panel.get_title() for panel in figure.axes] == titles
    assert len(titles) == MOST_PICTURES


def test_colours_are_values_or_elements_and_marks_stand_out(frames):
    values = [np.arange(8.0), np.array([0.0, 1.0, 7.0])]
    drawn = pictures([frames[0], frames[-1]], ["a", "b"], values=values, unit="force error (meV/Å)")
    assert drawn.axes[-1].get_ylabel() == "force error (meV/Å)"
    # one scale for all: the largest value of either has the last colour
    tops = [
        max((patch.get_facecolor() for patch in panel.patches), key=lambda c: c[0] + c[1]) for panel in drawn.axes[:2]
    ]
    assert tops[0] == pytest.approx(tops[1])
    marked = pictures([frames[-1]], ["water"], marked=[2])
    colours = [patch.get_facecolor()[:3] for patch in marked.axes[0].patches]
    assert colours.count((0.8, 0.0, 0.8)) == 1
    assert len(figure_png(marked, dpi=60)) > 2000


def test_a_viewer_holds_the_frames_and_their_numbers(frames):
    pytest.importorskip("chemiscope")
    title = "a </script> title"
    found = structure_viewer(frames, {"frame": np.arange(6), "error (meV/Å)": np.ones(6)}, caption="c", title=title)
    assert len(found.scripts) == 1
    assert "</script> title" not in found.body
    data = json.loads(re.search(r"load\(\{.*?\}, (\{.*\}), new", found.body)[1])
    assert [structure["size"] for structure in data["structures"]] == [8] * 5 + [3]
    assert data["properties"]["error (meV/Å)"]["values"] == [1.0] * 6
    assert data["meta"]["name"] == title


def test_a_viewer_shows_as_many_as_a_page_bears(frames):
    pytest.importorskip("chemiscope")
    many = frames[:1] * (MOST_FRAMES + 20)
    numbers = {"frame": np.arange(len(many)), "error": np.ones(len(many))}
    body = structure_viewer(many, numbers, caption="c", title="t").body
    assert body.count('"names"') == MOST_FRAMES
    large = [Atoms("H15000", np.zeros((15000, 3)))] * 3
    body = structure_viewer(large, {"frame": np.arange(3), "error": np.ones(3)}, caption="c", title="t").body
    assert body.count('"names"') == 1
    assert structure_viewer([], {"frame": [], "error": []}, caption="c", title="t") is None


def test_without_the_packages_there_is_neither_viewer_nor_curve(frames, monkeypatch):
    own = builtins.__import__

    def gone(name, *args, **kwargs):
        if name.split(".")[0] in ("bokeh", "chemiscope"):
            raise ImportError(name)
        return own(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", gone)
    assert structure_viewer(frames, {"frame": np.arange(6), "error": np.ones(6)}, caption="c", title="t") is None
    words = {"x_label": "epoch", "caption": "c", "title": "t"}
    assert interactive_curves([1, 2], {"loss": {"train": [1.0, 0.5]}}, **words) is None


def test_curves_hold_their_numbers_and_are_logarithmic_where_they_can_be():
    pytest.importorskip("bokeh")
    panels = {"loss": {"train": [1.0, 0.5]}, "energy (eV)": {"validation": [0.25, -0.5]}}
    found = interactive_curves([1, 2], panels, x_label="epoch", caption="c", title="t")
    assert sum(map(len, found.scripts)) < 1.6e6
    assert found.body.count('"LogScale"') == found.body.count('"LinearScale"') - 2  # and two x axes
    assert "energy (eV)" in found.body
    # the same again: a report that is made anew is the report that was
    assert interactive_curves([1, 2], panels, x_label="epoch", caption="c", title="t").body == found.body
