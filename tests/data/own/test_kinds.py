"""Each kind of file gives the same batches from memory and from the disk, from any position."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop import data
from gradloop.data import own
from gradloop.data.own import FileOptions
from tests.data.own import files

KINDS = {
    "npz": (files.write_npz, {}),
    "png": (files.write_images, {}),
    "resized": (files.write_images, {"image_size": (4, 4), "color_mode": "grayscale"}),
    "csv": (files.write_csv, {"target": "kind"}),
    "parquet": (files.write_parquet, {"target": "kind"}),
    "numbers": (files.write_csv, {"target": "price", "features": ("age", "height")}),
    "records": (files.write_records, {}),
}


def batches(dataset, epoch=0, step=0):
    dataset.seek(epoch, step)
    return [
        tf.nest.flatten(b) for b in dataset.take(dataset.num_batches - step).as_numpy_iterator()
    ]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize("kind", KINDS)
def test_from_memory_and_from_the_disk_the_batches_are_the_same(kind, tmp_path, cache):
    write, options = KINDS[kind]
    path = write(tmp_path)
    options = {"shuffle": True, "seed": 3, "global_batch_size": 8}, options
    there, away = (
        data.load(str(path), options=FileOptions(in_memory=in_memory, **options[1]))
        for in_memory in (True, False)
    )
    assert (there.class_names, there.num_classes) == (away.class_names, away.num_classes)
    assert there.input_shape == away.input_shape
    in_memory, streamed = (splits.train.make_dataset(**options[0]) for splits in (there, away))
    assert hasattr(in_memory, "resident") and not hasattr(streamed, "resident")
    whole = batches(streamed, 1)
    assert_equal(whole, batches(in_memory, 1))
    assert_equal(batches(streamed, 1, 4), whole[4:])
    assert streamed.element_spec[0].shape[1:] == there.input_shape
    indices = [7, 2, 2]
    for a, b in zip(away.train.take(indices), there.train.take(indices), strict=True):
        np.testing.assert_array_equal(np.reshape(a, np.shape(b)), b)
    np.testing.assert_array_equal(away.train.labels(), there.train.labels())


@pytest.mark.parametrize("kind", ["png", "csv"])
def test_validation_examples_are_others_and_the_same_each_time(kind, tmp_path):
    write, options = KINDS[kind]
    splits = data.load(str(write(tmp_path)), options=FileOptions(in_memory=False, **options))
    first, again, other = (splits.with_validation(0.2, seed).validation.x for seed in (1, 1, 2))
    assert len(first) == 10 and first.tolist() == again.tolist() != other.tolist()
    kept = splits.with_validation(0.2, 1).train.x
    assert sorted([*kept.tolist(), *first.tolist()]) == sorted(splits.train.x.tolist())


def test_class_names_and_labels_of_each_kind(tmp_path):
    for kind in ("png", "csv", "parquet"):
        write, options = KINDS[kind]
        splits = data.load(str(write(tmp_path)), options=FileOptions(**options))
        assert splits.class_names == files.CLASSES and splits.num_classes == 3
        assert sorted(splits.train.labels()) == sorted(np.arange(files.N) % 3)
    splits = data.load(str(tmp_path / "table.csv"), options=FileOptions(target="price"))
    assert (splits.class_names, splits.num_classes, splits.train.y.dtype) == (None, None, "float32")
    np.testing.assert_array_equal(splits.train.y, np.float32(files.table()["price"]))


def test_a_table_has_a_column_for_each_number_and_each_word(tmp_path):
    splits = data.load(str(files.write_csv(tmp_path)), options=FileOptions(target="price"))
    columns = files.table()
    expected = np.stack(
        [columns["age"], columns["height"]]
        + [np.array(columns["town"]) == word for word in ("Rom", "Ulm, the old one")]
        + [np.array(columns["kind"]) == word for word in files.CLASSES],
        axis=1,
    )
    np.testing.assert_array_equal(splits.train.x, expected.astype(np.float32))


@pytest.mark.parametrize("y", ["number", "name", "floats"])
@pytest.mark.parametrize("x", ["raw", ["png", "floats"]])
def test_records_have_inputs_and_targets_of_any_feature(x, y, tmp_path):
    path = files.write_records(tmp_path, files.SPEC | {"x": x, "y": y})
    found = []
    for in_memory in (True, False):
        splits = data.load(str(path), options=FileOptions(in_memory=in_memory))
        found.append(batches(splits.train.make_dataset(global_batch_size=8)))
    assert_equal(*found)
    assert splits.class_names == (files.CLASSES if y == "name" else None)
    assert splits.num_classes == (None if y == "floats" else 3)
    (picture, *_), expected = found[0][0], files.images()[:8] / np.float32(255)
    np.testing.assert_array_equal(picture if x == "raw" else found[0][0][1], expected)


def test_a_folder_of_files_has_training_and_test_examples(tmp_path):
    text = files.write_csv(tmp_path).read_text()
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("train-1.csv", "train-2.csv", "test.csv"):
        (folder / name).write_text(text)
    splits = data.load(str(folder), options=FileOptions(target="kind"))
    assert (splits.train.num_examples, splits.test.num_examples) == (2 * files.N, files.N)


def test_an_index_is_kept_until_a_file_changes(tmp_path, cache, monkeypatch):
    path, options = files.write_csv(tmp_path), FileOptions(target="price", in_memory=False)
    data.load(str(path), options=options)
    (made,) = cache.iterdir()
    first = made.stat().st_ino
    data.load(str(path), options=options)
    assert [folder.stat().st_ino for folder in cache.iterdir()] == [first]
    path.write_text(path.read_text() + "1,2,Rom,eel,7\n")
    splits = data.load(str(path), options=options)
    assert splits.train.num_examples == files.N + 1 and splits.train.take([files.N])[1] == [7]
    assert len(list(cache.iterdir())) == 1 and not made.exists()


def test_workers_make_their_parts_alone(tmp_path):
    splits = data.load(str(files.write_images(tmp_path)), options=FileOptions(in_memory=False))
    dataset = splits.train.make_dataset(global_batch_size=10, shuffle=True)
    whole = batches(dataset)
    context = tf.distribute.InputContext(2, 1, 2)
    dataset.seek(0)
    parts = [tf.nest.flatten(b) for b in dataset.slices(context).as_numpy_iterator()]
    assert_equal(parts, [[array[5:] for array in batch] for batch in whole])


def test_class_names_give_the_order_of_labels_by_name_and_make_numbers_classes():
    names = np.array([b"low", b"middle", b"high"])
    by_name = np.array(["high", "low", "high", "low"], object)  # as pandas has them
    x = np.zeros((4, 2), "float32")
    named = {"x": x, "y": by_name, "class_names": names}
    found = own.from_value(named, "here", FileOptions())
    assert found.class_names == ("low", "middle", "high") and found.num_classes == 3
    assert found.train.y.tolist() == [2, 0, 2, 0]
    numbers = np.array([2.0, 0.0, 2.0, 1.0])
    found = own.from_value(named | {"y": numbers}, "here", FileOptions())
    assert found.train.y.dtype == np.int32 and found.train.y.tolist() == [2, 0, 2, 1]
