"""What predict writes: by the kind of what was predicted, and only what makes sense."""

import csv

import numpy as np
import pytest

from gradloop.cli import predictions as predictions_module
from gradloop.cli.predictions import write_predictions
from gradloop.cli.run_folder import RunFolder
from gradloop.data.splits import Split

_IMAGES = np.zeros((3, 4, 4), np.uint8)


def _write(path, x, y, predictions, names=None, *, draws=False):
    folder = RunFolder.at(path, resume=True)
    folder.draws = draws
    with folder.open_log() as log:
        accuracy = write_predictions(folder, log, Split(x, y), predictions, names)
    table = path / "predictions.csv"
    rows = list(csv.reader(table.read_text().splitlines())) if table.exists() else None
    assert draws or not (path / "plots").exists()
    with np.load(path / "predictions.npz") as file:
        return accuracy, rows, {name: file[name] for name in file.files}


def test_classes_are_written_with_their_names(tmp_path):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], "float32")
    labels = np.array([0, 1, 1])
    accuracy, rows, arrays = _write(tmp_path, _IMAGES, labels, probabilities, ("cat", "dog"))
    assert accuracy == 2 / 3
    assert rows[0] == ["label", "predicted", "p0", "p1"]
    assert rows[3][:2] == ["1", "0"] and rows[3][2].startswith("0.6")
    assert arrays["class_names"].tolist() == ["cat", "dog"]
    np.testing.assert_array_equal(arrays["probabilities"], probabilities)


@pytest.mark.parametrize(
    ("targets", "scores", "predicted"),
    [
        ([0, 1, 1], [[0.1], [0.7], [0.2]], [0, 1, 0]),
        ([[0], [1], [1]], [[0.1], [0.7], [0.2]], [0, 1, 0]),
        ([0, 1, 1], [[3.0, -1.0], [0.0, 9.0], [5.0, 2.0]], [0, 1, 0]),
        ([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], [0, 1, 0]),
    ],
    ids=["sigmoid", "column", "logits", "one-hot"],
)
def test_classes_come_in_several_forms(tmp_path, targets, scores, predicted):
    accuracy, _, arrays = _write(tmp_path, _IMAGES, np.array(targets), np.array(scores, "float32"))
    assert accuracy == 2 / 3
    assert arrays["predicted"].tolist() == predicted
    np.testing.assert_allclose(arrays["probabilities"].sum(axis=1), 1.0, rtol=1e-5)


def test_one_linear_output_is_the_logit_of_the_second_class(tmp_path):
    folder = RunFolder.at(tmp_path, resume=True)
    folder.draws = False
    logits = np.array([[-0.5], [0.2], [-900.0]], "float32")
    with folder.open_log() as log:
        split = Split(_IMAGES, np.array([0, 1, 1]))
        accuracy = write_predictions(folder, log, split, logits, are_logits=True)
    assert accuracy == 2 / 3
    with np.load(tmp_path / "predictions.npz") as file:
        assert file["predicted"].tolist() == [0, 1, 0]
        np.testing.assert_allclose(file["probabilities"][1, 1], 1 / (1 + np.exp(-0.2)), rtol=1e-6)


def test_numbers_are_written_beside_the_true_ones(tmp_path):
    y, predictions = np.array([1.5, 2.5, 9.0]), np.array([[1.0], [2.0], [3.0]], "float32")
    accuracy, rows, arrays = _write(tmp_path, np.zeros((3, 7)), y, predictions)
    assert accuracy is None
    assert rows == [["true", "predicted"], ["1.5", "1.0"], ["2.5", "2.0"], ["9.0", "3.0"]]
    assert set(arrays) == {"targets", "predictions"}


def test_several_outputs_are_arrays_alone(tmp_path):
    predictions = {"a": np.zeros((3, 2)), "b": (np.ones((3, 1)),)}
    accuracy, rows, arrays = _write(tmp_path, np.zeros((3, 7)), np.zeros(3, int), predictions)
    assert (accuracy, rows) == (None, None)
    assert set(arrays) == {"predictions/a", "predictions/b/0"}


@pytest.mark.parametrize(
    ("x", "y", "names"),
    [
        (_IMAGES, np.array([0, 1, 1]), {"confusion_matrix.png", "worst_mistakes.png"}),
        (np.zeros((3, 7)), np.array([0, 1, 1]), {"confusion_matrix.png"}),
        (np.zeros((3, 7)), np.zeros((3, 2)), {"predicted_over_true.png"}),
    ],
    ids=["images", "rows", "numbers"],
)
def test_only_pictures_that_make_sense_are_drawn(tmp_path, x, y, names):
    pytest.importorskip("matplotlib")
    predictions = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], "float32")
    _write(tmp_path, x, y, predictions, draws=True)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names


def test_only_the_examples_that_are_drawn_are_read_again(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    asked = []

    class Counting(Split):
        def take(self, indices):
            asked.append(len(indices))
            return super().take(indices)

    monkeypatch.setattr(predictions_module.plots, "plot_confusion_matrix", lambda *args, **_: None)
    folder = RunFolder.at(tmp_path)
    split = Counting(np.zeros((500, 4, 4), np.uint8), np.zeros(500, int))
    predictions = np.tile(np.array([[0.1, 0.9]], "float32"), (500, 1))
    with folder.open_log() as log:
        assert write_predictions(folder, log, split, predictions) == 0.0
    assert asked == [1, 25]
