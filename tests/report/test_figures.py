import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from mlipjax import report
from mlipjax.report import style

LABELS = np.array([0, 10, 20])
ARMS = ("naive", "periodic", "single")


def with_interval(values):
    values = np.asarray(values, float)
    return np.stack([values, values - 1.0, values + 1.0], axis=1)


def error_curves():
    many = report.ErrorCurve(LABELS, *(with_interval([3.0, 2.0, 1.5]),) * 3, with_interval([90.0, 60.0, 50.0]))
    one = report.ErrorCurve([20], [-4.0], [0.5], [4.1], with_interval([70.0]))
    arms = {"zero-shot": report.ErrorCurve([0], [3.0], [1.0], [3.2], [90.0]), "naive": one, "periodic": many}
    return {"own trajectory": arms, "independent": {**arms, "single_trajectory": one}}


def example_figures():
    rng = np.random.default_rng(0)
    time = np.linspace(0.0, 1.0, 30)
    runs = {arm: report.Trace(time, 300 + rng.normal(size=30), rng.normal(size=30), [0.5]) for arm in ARMS}
    by_arm = {arm: rng.random(30) for arm in ARMS}
    forces = rng.normal(size=99)
    return {
        "errors": report.error_against_labels(error_curves()),
        "traces": report.traces(runs, target_temperature=300.0),
        "pca": report.pca_map({arm: rng.normal(size=(9, 2)) for arm in ARMS}, explained=(0.5, 0.2)),
        "q": report.q_residual(dict.fromkeys(ARMS, time), dict.fromkeys("HCNOF", by_arm), limits={"H": 0.9}),
        "parity": report.parity(forces, {"naive": 0.9 * forces, "mine": forces}, quantity="force", unit="eV/Å"),
        "history": report.training_history([1, 2, 3], {"train": [3, 2, 1]}, {"energy (meV)": [9, 3, 1]}, best=2),
    }


@pytest.fixture(scope="module")
def figures():
    return example_figures()


def inked(png):
    import io

    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3].min(axis=-1) < 0.99


def test_nothing_is_cut_off_at_the_border(figures):
    for name, figure in figures.items():
        ink = inked(report.figure_png(figure, dpi=80))
        border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
        assert ink.mean() > 0.01, name
        assert not border.any(), name


def test_every_axis_says_what_it_shows_and_in_which_unit(figures):
    units = ("meV/atom", "meV/Å", "ps", "K", "eV/Å", "dimensionless", "units", "unit", "labels", "structures", "epoch")
    for name, figure in figures.items():
        shared = f"{figure.get_supxlabel()} {figure.get_supylabel()}"
        for panel in figure.axes:
            x_label = panel.get_xlabel() or shared
            y_label = panel.get_ylabel() or shared or "shared with the panel to the left"
            lowest = panel.get_subplotspec().is_last_row() or name == "q"
            if lowest:
                assert any(unit in x_label for unit in units), (name, x_label)
            if panel.get_subplotspec().is_first_col():
                assert any(unit in y_label for unit in units), (name, y_label)


def test_an_arm_looks_the_same_in_every_figure():
    first = report.arm_styles(["mine", "periodic", "naive"])
    second = report.arm_styles(["naive", "periodic", "zero-shot"])
    assert first["periodic"] == second["periodic"]
    assert first["naive"] == second["naive"]
    colors = [to_rgba(look.color) for look in (first | second).values()]
    assert len(set(colors)) == 4
    with pytest.raises(ValueError, match="too many to tell apart"):
        report.arm_styles([f"model {i}" for i in range(20)])


def test_values_reach_the_figure(figures):
    panel = figures["errors"].axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in panel.lines}
    np.testing.assert_array_equal(lines["periodic"], [3.0, 2.0, 1.5])
    np.testing.assert_array_equal(lines["naive"], [-4.0])
    text = figures["parity"].axes[0].texts[0].get_text()
    assert text.startswith("n = 99\nMAE ")
    assert text.endswith("slope 0.900")
    assert "meV/Å" in text
    assert figures["parity"].axes[1].texts[0].get_text().startswith("n = 99\nMAE 0 ")


def test_another_zero_of_energy_is_said_and_leaves_the_points_at_the_diagonal():
    reference = np.linspace(-3.2, -3.1, 20)
    panel = report.parity(reference, {"model": reference + 2.2221}, quantity="energy", unit="eV/atom").axes[0]
    assert "MAE 2222 meV/atom" in panel.texts[0].get_text()
    assert panel.texts[0].get_text().endswith("not drawn: mean error\n+2222 meV/atom")
    np.testing.assert_allclose(panel.collections[0].get_offsets(), np.column_stack([reference, reference]))
    assert np.ptp(panel.get_xlim()) < 0.2


def test_the_numbers_of_a_parity_plot_are_printed_beside_its_points():
    reference = np.linspace(-3.2, -3.1, 20)
    for shift, place in ((0.03, "bottom"), (-0.03, "top")):
        panel = report.parity(reference, {"model": reference + shift}, quantity="energy", unit="eV/atom").axes[0]
        assert panel.texts[0].get_va() == place


def test_parity_refuses_mismatched_lengths():
    with pytest.raises(ValueError, match="naive: 3 predictions for 4 reference values"):
        report.parity(np.zeros(4), {"naive": np.zeros(3)}, quantity="energy", unit="eV")


def test_drawing_leaves_matplotlib_settings_and_pyplot_alone():
    before = dict(mpl.rcParams)
    figure = example_figures()["errors"]
    assert dict(mpl.rcParams) == before
    assert report.figure_png(figure) == report.figure_png(figure)
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_figures_are_saved_as_png(tmp_path, figures):
    report.save_figure(figures["pca"], tmp_path / "figures" / "pca.png")
    assert (tmp_path / "figures" / "pca.png").read_bytes().startswith(b"\x89PNG")


def test_a_legend_of_long_names_stays_within_its_figure():
    for names in ([f"name {k} of several long words" for k in range(6)], list("abcdef")):
        figure = style.new_figure(height=2.0)
        panel = figure.subplots()
        for name in names:
            panel.plot([0.0, 1.0], label=name)
        style.shared_legend(figure, [panel])
        (legend,) = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width
        assert [text.get_text() for text in legend.get_texts()] == names
