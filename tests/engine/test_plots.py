"""Pictures: right content, no global state, clear words where they cannot be made."""

import importlib.util
import sys

import numpy as np
import pytest

from engine import plots
from engine.writers import MissingExtra

pytest.importorskip("matplotlib")

_HISTORY = {
    "accuracy": [0.5, 0.75, 0.8],
    "loss": [1.0, 0.5, 0.4],
    "val_accuracy": [0.6, 0.7, 0.75],
    "val_loss": [0.9, 0.6, 0.55],
}


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, to be looked at piece by piece."""
    saved = []
    save = plots._save
    monkeypatch.setattr(
        plots, "_save", lambda figure, path: saved.append(figure) or save(figure, path)
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
    path = plots.plot_history(_HISTORY, tmp_path / "deep" / "history.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    loss, accuracy = figures[0].axes
    assert [loss.get_title("left"), accuracy.get_title("left")] == ["loss", "accuracy"]
    assert _curves(loss) == {
        "training": ([1, 2, 3], _HISTORY["loss"]),
        "validation": ([1, 2, 3], _HISTORY["val_loss"]),
    }
    assert _curves(accuracy)["validation"][1] == _HISTORY["val_accuracy"]


def test_history_puts_rare_validations_at_their_epochs(tmp_path, figures):
    history = {"loss": [5.0, 4.0, 3.0, 2.0, 1.0], "val_loss": [4.5, 2.5]}
    plots.plot_history(history, tmp_path / "h.png", validation_freq=2)
    assert _curves(figures[0].axes[0])["validation"] == ([2, 4], [4.5, 2.5])


def test_one_epoch_is_drawn_over_steps_if_there_are_records(tmp_path, figures):
    history = {"loss": [0.25], "val_loss": [0.5]}
    records = [
        {"step": 4, "epoch": 0, "kind": "execution", "loss": 1.0},
        {"step": 8, "epoch": 0, "kind": "execution", "loss": 0.5},
        {"step": 10, "epoch": 0, "kind": "epoch", "loss": 0.25, "val_loss": 0.5},
    ]
    plots.plot_history(history, tmp_path / "h.png", records=records)
    curves = _curves(figures[0].axes[0])
    assert curves["training"] == ([4, 8, 10], [1.0, 0.5, 0.25])
    assert curves["validation"] == ([10], [0.5])


def test_one_epoch_without_records_has_markers(tmp_path, figures):
    plots.plot_history({"loss": [0.25], "val_loss": [0.5]}, tmp_path / "h.png")
    lines = figures[0].axes[0].get_lines()
    assert [line.get_marker() for line in lines] == ["o", "s"]


def test_nan_and_results_that_are_arrays_do_no_harm(tmp_path, figures):
    history = {"loss": [1.0, float("nan")], "f1": [np.zeros(3), np.ones(3)]}
    plots.plot_history(history, tmp_path / "h.png")
    assert len(figures[0].axes) == 1


@pytest.mark.parametrize("history", [{}, {"loss": []}, {"val_loss": [1.0]}])
def test_an_empty_history_is_refused(tmp_path, history):
    with pytest.raises(ValueError, match="the history is empty"):
        plots.plot_history(history, tmp_path / "h.png")


def test_confusion_matrix_counts_truth_in_rows(tmp_path, figures):
    labels, predictions = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1], "uint8")
    plots.plot_confusion_matrix(labels, predictions, 3, tmp_path / "c.png")
    (axes,) = figures[0].axes
    cells = {tuple(map(int, t.get_position())): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "2", (1, 0): "1", (1, 1): "1", (1, 2): "1"}, "(column, row): count"
    assert axes.get_ylabel() == "true class"
    assert axes.get_title("left") == "5 examples, 60.00% right"


def test_confusion_matrix_of_many_classes_has_no_numbers(tmp_path, figures):
    classes = np.arange(100)
    plots.plot_confusion_matrix(classes, classes, 100, tmp_path / "c.png")
    assert len(figures[0].axes[0].texts) == 0


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
    plots.plot_worst_mistakes(images, labels, _PROBABILITIES, tmp_path / "w.png", num_images=2)
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["2, 95.0%\ntruly 1", "1, 80.0%\ntruly 2"]
    shown = np.asarray(figures[0].axes[0].get_images()[0].get_array())
    assert (shown == images[2].reshape(shown.shape)).all()
    assert figures[0].get_suptitle() == "3 mistakes in 4 images"


def test_no_mistakes_is_a_picture_too(tmp_path, figures):
    labels = _PROBABILITIES.argmax(axis=1)
    path = plots.plot_worst_mistakes(
        np.zeros((4, 5, 5)), labels, _PROBABILITIES, tmp_path / "w.png"
    )
    assert path.exists() and figures[0].get_suptitle() == "0 mistakes in 4 images"


def test_worst_mistakes_refuses_what_does_not_fit(tmp_path):
    images, labels = np.zeros((4, 5, 5)), np.zeros(4, int)
    with pytest.raises(ValueError, match="differ in length"):
        plots.plot_worst_mistakes(images[:3], labels, _PROBABILITIES, tmp_path / "w.png")
    with pytest.raises(ValueError, match=r"not \(4, 25\) and \(4, 3\)"):
        plots.plot_worst_mistakes(images.reshape(4, 25), labels, _PROBABILITIES, tmp_path / "w.png")


def test_without_matplotlib_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"matplotlib is not installed: run `pip install gradloop"
    ):
        plots.plot_history(_HISTORY, tmp_path / "h.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_never_imported(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plots.plot_history(_HISTORY, tmp_path / "h.png")
    plots.plot_confusion_matrix(np.zeros(2, int), np.zeros(2, int), 2, tmp_path / "c.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
