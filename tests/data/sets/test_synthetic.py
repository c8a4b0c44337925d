import numpy as np
import pytest

from gradloop import data
from gradloop.data.sets import synthetic


def load(**changed):
    arguments = {"shape": (8, 8), "num_classes": 4, "num_train": 400, "num_test": 100, **changed}
    return synthetic.load_data(**arguments)


@pytest.mark.parametrize("shape", [(5,), (8, 8), (4, 4, 3), (2, 3, 4, 1)])
def test_arrays_of_any_shape(shape):
    (x_train, y_train), (x_test, y_test) = load(shape=shape)
    assert x_train.shape == (400, *shape) and x_test.shape == (100, *shape)
    assert y_train.shape == (400,) and y_test.shape == (100,)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert set(y_train.tolist()) == {0, 1, 2, 3}


def test_the_seed_decides_everything():
    for one, same, other in zip(load()[0], load()[0], load(seed=1)[0], strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()


def test_more_training_images_leave_the_test_images_as_they_are():
    np.testing.assert_array_equal(load()[1][0], load(num_train=500)[1][0])


def test_images_larger_than_a_chunk_are_filled_to_the_end(monkeypatch):
    monkeypatch.setattr(synthetic, "CHUNK_BYTES", 64 * 7)
    (x_train, _), _ = load()
    assert (x_train.reshape(400, -1).std(axis=1) > 0).all()


def test_the_nearest_class_mean_learns_it():
    (x_train, y_train), (x_test, y_test) = load(shape=(28, 28), num_classes=10, num_train=2000)
    means = np.stack([x_train[y_train == c].mean(0).ravel() for c in range(10)])
    distances = ((x_test.reshape(100, 1, -1) - means) ** 2).sum(-1)
    assert (distances.argmin(1) == y_test).mean() > 0.95


def test_load_gives_sixty_thousand_by_name():
    loaded = data.load_arrays("synthetic", data_dir="ignored")
    assert loaded.x_train.shape == (60_000, 28, 28)
    assert loaded.num_classes == 10


@pytest.mark.parametrize(
    "changed", [{"num_train": 0}, {"num_test": -1}, {"shape": (0, 2)}, {"num_classes": 257}]
)
def test_illegal_sizes_are_named(changed):
    with pytest.raises(ValueError, match=f"{next(iter(changed))}.*expected 1"):
        load(**changed)
