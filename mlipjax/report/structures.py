"""Structures that stand out: as pictures by ASE, and to be turned in a viewer by chemiscope."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data.colors import jmol_colors
from ase.visualize.plot import plot_atoms
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mlipjax.files import digest
from mlipjax.report.html import Interactive
from mlipjax.report.style import new_figure, rounded, styled

_MARKED = (0.8, 0.0, 0.8)
_TURNED = "-75x,-15y,5z"
MOST_PICTURES = 4
MOST_FRAMES, _MOST_ATOMS = 100, 20_000
"""In a viewer: more would make a page that is slow to open."""


@styled
def pictures(
    frames: Sequence[Atoms],
    titles: Sequence[str],
    *,
    values: Sequence[np.ndarray] | None = None,
    unit: str = "",
    marked: Sequence[int] | None = None,
) -> Figure:
    """Draw structures beside each other, as ASE's viewer does.

    Args:
        frames: a few structures.
        titles: of each.
        values: (n,) of each atom, as its colour; by default colours are those of elements.
        unit: of these values, with their name.
        marked: atom of each structure that is drawn in magenta.
    """
    figure = new_figure(height=2.3)
    axes = np.atleast_1d(figure.subplots(1, max(len(frames), 2)))
    largest = (
        0.0 if values is None else max((float(np.max(one, initial=0.0)) for one in map(np.asarray, values)), default=0)
    )
    scale = ScalarMappable(Normalize(0.0, largest or 1.0), colormaps["viridis"])
    for number, panel in enumerate(axes):
        panel.set_axis_off()
        if number >= len(frames):
            continue
        colors = (
            jmol_colors[frames[number].numbers] if values is None else scale.to_rgba(np.asarray(values[number]))[:, :3]
        )
        if marked is not None:
            colors[marked[number]] = _MARKED
        plot_atoms(frames[number], panel, rotation=_TURNED, radii=0.6, colors=colors)
        panel.set_title(titles[number])
    if values is not None:
        figure.colorbar(scale, ax=list(axes), label=unit, shrink=0.8)
    return figure


def structure_viewer(
    frames: Sequence[Atoms], properties: Mapping[str, ArrayLike], *, caption: str, title: str
) -> Interactive | None:
    """A map of structures beside one of them, which can be turned; a point of the map chooses it.

    Args:
        frames: structures; of many or large ones the first are shown.
        properties: (n,) numbers of each, by name with unit; the first two are the axes of the map.
        caption: of the figure.
        title: of the figure.

    Returns:
        The figure; ``None`` where chemiscope (the extra ``report``) is not installed, or without frames.
    """
    try:
        import chemiscope
    except ImportError:
        return None
    sizes = np.cumsum([len(atoms) for atoms in frames[:MOST_FRAMES]])
    shown = int(np.sum(sizes <= max(_MOST_ATOMS, sizes[0]))) if len(sizes) else 0
    if not shown:
        return None
    bare = [Atoms(one.numbers, one.positions, cell=one.cell, pbc=one.pbc) for one in frames[:shown]]
    numbers = {name: np.asarray(values, float)[:shown] for name, values in properties.items()}
    x, y = list(properties)[:2]
    structure = [{"unitCell": any(any(one.pbc) for one in bare), "bonds": True}]
    data = chemiscope.create_input(
        structures=bare,
        metadata={"name": title},
        properties={name: {"target": "structure", "values": values} for name, values in numbers.items()},
        settings={"map": {"x": {"property": x}, "y": {"property": y}}, "structure": structure},
    )
    text = json.dumps(data).replace("<", "\\u003c")  # which could end the script
    place = digest(text)[:8]
    parts = {name: f"structures-{place}-{name}" for name in ("map", "structure", "meta", "info")}
    body = (
        f'<div class="pair"><div id="{parts["map"]}"></div><div id="{parts["structure"]}"></div></div>'
        f'<div id="{parts["meta"]}" hidden></div><div id="{parts["info"]}"></div>'
        f"<script>Chemiscope.DefaultVisualizer.load({json.dumps(parts)}, {text}, new Chemiscope.Warnings())"
        ".catch((error) => console.error(error));</script>"
    )
    script = Path(chemiscope.__file__).parent / "sphinx" / "static" / "chemiscope.min.js"
    return Interactive(body, (script.read_text(encoding="utf-8"),), caption, title)


def outstanding(
    frames: Sequence[Atoms],
    amounts: ArrayLike,
    *,
    quantity: str,
    title: str,
    colors: tuple[Sequence[np.ndarray], str] | None = None,
    marked: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Figure, list[Interactive]]:
    """Pictures of the structures with the largest amounts, and a viewer of these and the next ones.

    Args:
        frames: all structures.
        amounts: (n,) what they are ordered by.
        quantity: what that is, with unit.
        title: of the viewer.
        colors: of each structure (n,) numbers of its atoms, and what they are, with unit.
        marked: of each structure an atom to mark.
        names: of each structure; by default its number.

    Returns:
        The pictures, and the viewer, if it can be made.
    """
    amounts = np.asarray(amounts, float)
    order = np.argsort(-np.nan_to_num(amounts, nan=np.inf), kind="stable").tolist()
    first = order[:MOST_PICTURES]
    figure = pictures(
        [frames[i] for i in first],
        [f"{f'structure {i}' if names is None else names[i]}: {rounded(float(amounts[i]))}" for i in first],
        values=None if colors is None else [colors[0][i] for i in first],
        unit="" if colors is None else colors[1],
        marked=None if marked is None else [marked[i] for i in first],
    )
    viewer = structure_viewer(
        [frames[i] for i in order],
        {"number of the structure": order, quantity: amounts[order]},
        caption=f"{quantity} of structures, the largest first; a point of the map shows its structure.",
        title=title,
    )
    return figure, [] if viewer is None else [viewer]
