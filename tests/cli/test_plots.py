"""Pictures: right content, no global state, clear words where they cannot be made."""

import importlib.util
import sys

import numpy as np
import pytest

from gradloop.cli import plots
from gradloop.engine.storage import figures as figure_files
from gradloop.engine.storage.extras import MissingExtra

pytest.importorskip("matplotlib")

_RECORDS = [
    {"step": 4, "epoch": 0, "kind": "epoch", "accuracy": 0.5, "loss": 1.0},
    {"step": 8, "epoch": 1, "kind": "epoch", "accuracy": 0.75, "loss": 0.5},
    {"step": 12, "epoch": 2, "kind": "epoch", "accuracy": 0.8, "loss": 0.4},
]


def _validated(records):
    return [r | {"val_accuracy": r["accuracy"] + 0.1, "val_loss": r["loss"] - 0.1} for r in records]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, to be looked at piece by piece."""
    saved = []
    save = figure_files.save_figure
    monkeypatch.setattr(
        figure_files, "save_figure", lambda figure, path: saved.append(figure) or save(figure, path)
    )
    return saved


def _curves(axes):
    return {
        line.get_label().partition(",")[0].partition(":")[0]: (
            list(line.get_xdata()),
            list(line.get_ydata()),
        )
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_history_has_a_panel_a_metric_with_the_loss_first(tmp_path, figures):
    path = plots.plot_history(_validated(_RECORDS), tmp_path / "deep" / "history.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    loss, accuracy = figures[0].axes
    assert [loss.get_title("left"), accuracy.get_title("left")] == ["loss", "accuracy"]
    assert _curves(loss) == {
        "training": ([1, 2, 3], [1.0, 0.5, 0.4]),
        "validation": ([1, 2, 3], [0.9, 0.4, 0.4 - 0.1]),
    }
    assert _curves(accuracy)["validation"][1] == [0.6, 0.85, 0.8 + 0.1]


def test_history_puts_rare_validations_at_their_epochs(tmp_path, figures):
    records = [_RECORDS[0], *_validated(_RECORDS[1:2]), _RECORDS[2]]
    plots.plot_history(records, tmp_path / "h.png")
    assert _curves(figures[0].axes[0])["validation"] == ([2], [0.4])


def test_history_of_a_resumed_run_takes_the_later_record(tmp_path, figures):
    records = [*_RECORDS[:2], _RECORDS[1] | {"loss": 0.25}, _RECORDS[2]]
    plots.plot_history(records, tmp_path / "h.png")
    assert _curves(figures[0].axes[0])["training"] == ([1, 2, 3], [1.0, 0.25, 0.4])


def test_one_epoch_is_drawn_over_steps_if_there_are_records_of_them(tmp_path, figures):
    records = [
        {"step": 4, "epoch": 0, "kind": "execution", "loss": 1.0},
        {"step": 8, "epoch": 0, "kind": "execution", "loss": 0.5},
        {"step": 10, "epoch": 0, "kind": "epoch", "loss": 0.25, "val_loss": 0.5},
    ]
    plots.plot_history(records, tmp_path / "h.png")
    curves = _curves(figures[0].axes[0])
    assert curves["training"] == ([4, 8, 10], [1.0, 0.5, 0.25])
    assert curves["validation"] == ([10], [0.5])


def test_one_epoch_without_records_of_steps_has_markers(tmp_path, figures):
    plots.plot_history(_validated(_RECORDS[:1]), tmp_path / "h.png")
    lines = figures[0].axes[0].get_lines()
    assert [line.get_marker() for line in lines] == ["o", "s"]


def test_nan_and_results_that_are_arrays_do_no_harm(tmp_path, figures):
    records = [r | {"f1": [0.0, 1.0], "loss": float("nan")} for r in _RECORDS]
    plots.plot_history(records, tmp_path / "h.png")
    assert [axes.get_title("left") for axes in figures[0].axes] == ["loss", "accuracy"]


@pytest.mark.parametrize("records", [[], [{"step": 4, "epoch": 0, "kind": "execution", "loss": 1}]])
def test_records_without_an_epoch_are_refused(tmp_path, records):
    with pytest.raises(ValueError, match="no epoch in the records"):
        plots.plot_history(records, tmp_path / "h.png")


def test_confusion_matrix_counts_truth_in_rows(tmp_path, figures):
    labels, predictions = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1], "uint8")
    plots.plot_confusion_matrix(labels, predictions, 3, tmp_path / "c.png")
    axes, bar = figures[0].axes
    cells = {tuple(map(int, t.get_position())): t.get_text() for t in axes.texts}
    expected = {(0, 0): "2\n66.7%", (1, 0): "1\n33.3%", (1, 1): "1\n100%", (1, 2): "1\n100%"}
    assert cells == expected, "(column, row): count and share of the true class"
    assert bar.get_ylabel() == "share of the true class"
    assert axes.get_ylabel() == "true class"
    assert axes.get_title("left") == "5 examples, 60.00% right"


def test_confusion_matrix_of_many_classes_lists_the_most_frequent_confusions(tmp_path, figures):
    labels = np.array([*range(100), 7, 7, 8])
    predictions = np.array([*range(100), 3, 3, 4])
    names = [f"kind {index}" for index in range(100)]
    path = tmp_path / "c.png"
    plots.plot_confusion_matrix(labels, predictions, 100, path, class_names=names)
    matrix, beside, _ = figures[0].axes
    assert len(matrix.texts) == 0
    lines = [line.strip() for line in beside.texts[0].get_text().splitlines()]
    assert lines == ["most frequent confusions", "2  kind 7 as kind 3", "1  kind 8 as kind 4"]


def test_pictures_name_the_classes(tmp_path, figures):
    names = ["cat", "dog", "$" + "eel" * 40]
    labels = np.array([0, 0, 1, 2])
    plots.plot_confusion_matrix(labels, labels, 3, tmp_path / "c.png", class_names=names)
    shown = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert shown[:2] == ["cat", "dog"] and shown[2].startswith(r"\$eel") and len(shown[2]) == 23
    images = np.zeros((4, 5, 5))
    plots.plot_worst_mistakes(
        images.__getitem__, labels, _PROBABILITIES, tmp_path / "w.png", class_names=names
    )
    titles = [axes.get_title() for axes in figures[1].axes]
    assert "dog / cat\n60.0%, #1" in titles


def test_the_best_epoch_is_marked_and_the_learning_rate_has_a_panel_where_it_changes(
    tmp_path, figures
):
    rates = [0.1, 0.1, 0.01]
    records = [r | {"learning_rate": rate} for r, rate in zip(_RECORDS, rates, strict=True)]
    plots.plot_history(records, tmp_path / "h.png", title="cnn on mnist", best_epoch=1)
    loss, _, rate = figures[0].axes
    assert figures[0].get_suptitle() == "cnn on mnist"
    assert _curves(loss)["best"][0] == [2, 2]
    assert list(rate.get_lines()[0].get_ydata()) == rates
    plots.plot_history(
        [r | {"learning_rate": 0.1, "time": 5.0} for r in _RECORDS], tmp_path / "h.png"
    )
    assert [axes.get_title("left") for axes in figures[1].axes] == ["loss", "accuracy"]


def test_a_loss_over_decades_has_a_logarithmic_axis(tmp_path, figures):
    records = [r | {"loss": 10.0 ** -r["epoch"]} for r in _RECORDS]
    plots.plot_history(records, tmp_path / "h.png")
    assert [axes.get_yscale() for axes in figures[0].axes] == ["log", "linear"]


def test_numbers_are_drawn_predicted_over_true(tmp_path, figures):
    targets, predictions = np.array([1.0, 2.0, 3.0]), np.array([[1.5], [2.0], [np.nan]])
    plots.plot_numbers(targets, predictions, tmp_path / "n.png")
    (axes,) = figures[0].axes
    dots = axes.get_lines()[1]
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([1.0, 2.0], [1.5, 2.0])
    assert "mean absolute error 0.25" in axes.texts[0].get_text()
    with pytest.raises(ValueError, match=r"same shape, not \(3, 1\) and \(3, 2\)"):
        plots.plot_numbers(targets, np.zeros((3, 2)), tmp_path / "n.png")


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], "differ in length"),
        ([0, 3], [0, 1], r"labels must lie in 0\.\.2, not 0\.\.3"),
        ([0, 1], [0, -1], r"predictions must lie in 0\.\.2, not -1\.\.0"),
        ([0, 1], [0.5, 0.5], "predictions must be class indices"),
        ([[0, 1]], [0, 1], "labels must be class indices"),
    ],
)
def test_confusion_matrix_refuses_what_does_not_fit(tmp_path, labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_confusion_matrix(np.array(labels), np.array(predictions), 3, tmp_path / "c.png")


_PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.0, 0.05, 0.95], [0.2, 0.8, 0.0]], "float32"
)


@pytest.mark.parametrize("shape", [(4, 5, 5), (4, 5, 5, 1), (4, 5, 5, 3)])
def test_worst_mistakes_come_first(tmp_path, figures, shape):
    images = np.arange(np.prod(shape)).reshape(shape).astype("uint8")
    labels = np.array([0, 0, 1, 2])  # The first is right.
    plots.plot_worst_mistakes(
        images.__getitem__, labels, _PROBABILITIES, tmp_path / "w.png", num_images=2
    )
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["2 / 1\n95.0%, #2", "1 / 2\n80.0%, #3"], "predicted / true, index"
    shown = np.asarray(figures[0].axes[0].get_images()[0].get_array())
    assert (shown == images[2].reshape(shown.shape)).all()
    assert figures[0].get_suptitle().startswith("3 mistakes in 4 images, the 2 surest")


def test_no_mistakes_is_a_picture_too(tmp_path, figures):
    labels = _PROBABILITIES.argmax(axis=1)
    path = plots.plot_worst_mistakes(
        np.zeros((4, 5, 5)).__getitem__, labels, _PROBABILITIES, tmp_path / "w.png"
    )
    assert path.exists() and figures[0].get_suptitle() == "0 mistakes in 4 images"


def test_worst_mistakes_refuses_what_does_not_fit(tmp_path):
    take, labels = np.zeros((4, 25)).__getitem__, np.zeros(4, int)
    with pytest.raises(ValueError, match="differ in length"):
        plots.plot_worst_mistakes(take, labels[:3], _PROBABILITIES, tmp_path / "w.png")
    with pytest.raises(ValueError, match=r"channels\], not \(3, 25\)"):
        plots.plot_worst_mistakes(take, labels, _PROBABILITIES, tmp_path / "w.png")


def test_without_matplotlib_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"matplotlib is not installed: run `pip install gradloop"
    ):
        plots.plot_history(_RECORDS, tmp_path / "h.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_never_imported(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plots.plot_history(_RECORDS, tmp_path / "h.png")
    plots.plot_confusion_matrix(np.zeros(2, int), np.zeros(2, int), 2, tmp_path / "c.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
