"""What is wrong with a file is one line that names it and the fix; nothing is kept."""

import gzip
import json

import numpy as np
import pytest

from gradloop import data
from gradloop.data import Split, Splits
from gradloop.data.own import FileError, FileOptions, from_value
from tests.data.own import files


def refuse(path, *expected, **options):
    with pytest.raises(FileError) as caught:
        data.load(str(path), options=FileOptions(**options))
    message = str(caught.value)
    assert "\n" not in message
    for text in expected:
        assert text in message, message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"y_train": None}, "no 'y_train'"),
        ({"x_trian": np.zeros(3), "x_train": None}, "Did you mean 'x_train'?"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, "both of x and x_train"),
        ({"y_train": np.arange(7)}, "x_train has 50 examples, and y_train has 7"),
        ({"y_train": np.zeros(50, int)}, "all examples are of one class"),
        ({"y_train": np.full(50, np.nan)}, "example 1 has nan (50 such in all)"),
        ({"y_train": np.array([None, {}] * 25)}, "Python objects, which can run any code"),
        ({"x_test": np.zeros((9, 2, 2))}, "expected the same"),
        (
            {"x_test": np.zeros((9, 6, 5), "float32")},
            "x_test is numbers of shape (6, 5), and one of x_train bytes",
        ),
        ({"y_test": np.arange(9)}, "expected class numbers 0 to 2, got 3 for example 4"),
        ({"class_names": np.array(["a", "b"])}, "expected class numbers 0 to 1, got 2"),
        ({"class_names": np.array(["a", "b", "a"])}, "another for each class"),
        ({"class_names": np.array(b"cat")}, "expected a list of names"),
        ({"y_train": np.arange(50) - 1, "y_test": np.full(9, 99)}, "is in no training example"),
    ],
)
def test_arrays(tmp_path, changes, expected):
    refuse(files.write_npz(tmp_path, **changes), expected)


def test_arrays_that_are_no_archive_or_compressed(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"text")
    refuse(tmp_path / "a.npz", "a.npz cannot be read")
    path = files.write_npz(tmp_path, write=np.savez_compressed)
    refuse(path, "compressed", "numpy.savez", in_memory=False)
    packed = bytearray(path.read_bytes())
    packed[100:140] = bytes(40)  # within the deflated data
    path.write_bytes(packed)
    refuse(path, "set.npz cannot be read")
    wide = np.zeros((50, 3), "uint64")
    path = files.write_npz(tmp_path, x_train=wide, x_test=wide[:9])
    refuse(path, "is of dtype uint64", "--in_memory true", in_memory=False)
    whole = files.write_npz(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(path, "set.npz cannot be read")


def test_bytes_of_another_order_are_the_same_numbers(tmp_path):
    x = np.random.default_rng(0).normal(size=(files.N, 3))
    path = files.write_npz(tmp_path, x_train=x.astype(">f4"), x_test=x[:9].astype(">f4"))
    of_memory, of_disk = (
        data.load(str(path), options=FileOptions(in_memory=is_in_memory)).train.take([0, 7])[0]
        for is_in_memory in (True, False)
    )
    np.testing.assert_array_equal(of_memory, of_disk)
    np.testing.assert_array_equal(of_disk, x[[0, 7]].astype("float32"))


@pytest.mark.parametrize(
    "changes", [{"y": ["number"]}, {"x": []}, {"class_names": "cat"}, {"class_names": 5}]
)
def test_a_spec_of_the_wrong_kind(tmp_path, changes):
    path = files.write_records(tmp_path)
    spec = path.with_suffix(".json")
    spec.write_text(json.dumps(json.loads(spec.read_text()) | changes))
    refuse(path, "expected for x the name of a feature or a list of names")


def test_numbers_and_words_in_one_column(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    folder = tmp_path / "tables"
    folder.mkdir()
    parquet.write_table(table({"code": [1, 2], "y": [0, 1]}), folder / "train.parquet")
    parquet.write_table(table({"code": ["a", "2"], "y": [0, 1]}), folder / "test.parquet")
    refuse(folder, "column 'code' has numbers in one file and words in another", target="y")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refuse(files.write_records(tmp_path), "cannot be written", "set XDG_CACHE_HOME")


def test_paths(tmp_path):
    files.write_csv(tmp_path)
    refuse(tmp_path / "tabel.csv", "does not exist", "Did you mean 'table.csv'?")
    refuse(tmp_path / "there" / "a.csv", "Neither does the folder")
    (tmp_path / "a.txt").write_text("a")
    refuse(tmp_path / "a.txt", "'.txt' is none of a dataset", ".npz, .csv")
    refuse(tmp_path / "table.csv", "image_size=(3, 3) is not for", image_size=(3, 3))
    with pytest.raises(ValueError, match="or the path of a file or folder, got 'minst'"):
        data.load("minst")


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("", {}, "is empty"),
        ("1,2\n3,4\n", {}, "expected a row with the names"),
        ("a,y\n", {}, "has no rows"),
        ("a,a\n1,2\n", {}, "two columns 'a'"),
        ("a,y\n1,2\n3\n", {}, "line 3: 1 cells, and the table has 2 columns"),
        ("a,y\n1,0\n\n3,\n", {}, "line 4: column 'y' has no value"),
        ("a,y\n1,nan\n3,1\n", {}, "line 2: column 'y' has no value"),
        ("a,y\n1,0\nNA,1\n", {}, "line 3: column 'a' has no value"),
        ("a,y\n1,0\ninf,1\n", {}, "line 3: column 'a' has no value"),
        ("a,y\n1,0\n1e39,1\n", {}, "line 3: column 'a' has no value"),
        ("a,y\n1,0.5\n2,1e39\n", {}, "example 2 has 1e+39"),
        ('a,y\n1,0\n"3,1\n', {}, "line 3: unexpected end of data"),
        ("a,y\n1,0\n2,0\n", {}, "all examples are of one class"),
        ("y\n1\n0\n", {}, "there is no column but the target"),
        ("a,y\n1,0\n", {"target": None}, "Pass --target NAME: a, y"),
        ("a,kind\n1,0\n", {"target": "knid"}, "Did you mean 'kind'?"),
        ("a,y\n1,0\n", {"features": ("b",)}, "no column 'b'; it has a, y"),
        ("a,y\n1,0\n", {"features": ("a", "y")}, "'y' is predicted"),
        ("a,y\n1,u\n2,v\n", {"target_type": "numbers"}, "expected numbers, got strings"),
        ("a,y\n1,0.5\n2,1\n", {"target_type": "classes"}, "expected classes, got 0.5"),
        ("a,y\n" + "".join(f"w{i},{i % 2}\n" for i in range(101)), {}, "more than 100 different"),
        ("a,y\n" + "".join(f"1,{i}\n" for i in range(1001)), {}, "1,001 different integers"),
    ],
)
def test_tables(tmp_path, cache, text, options, expected):
    (tmp_path / "t.csv").write_text(text)
    for in_memory in (True, False):
        refuse(tmp_path / "t.csv", expected, **{"target": "y", "in_memory": in_memory} | options)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_table_of_bytes(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xff,1\n")
    refuse(tmp_path / "t.csv", "t.csv cannot be read", target="y")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and more")
    refuse(tmp_path / "t.parquet", "t.parquet cannot be read", target="y")


def test_images(tmp_path):
    root = files.write_images(tmp_path)
    train, whole = root / "train", (root / "train" / "cat" / "000.png").read_bytes()
    new = train / "cat" / "new.png"
    for content, expected in [
        (b"text", "neither a PNG nor a JPEG"),
        (b"", "is empty"),
        (whole[:90], "damaged, or ends early"),
        (whole[:60] + b"garbage" + whole[67:], "new.png cannot be decoded"),
        (files.tf.io.encode_jpeg(np.zeros((9, 9, 3), np.uint8)).numpy(), "--image_size 6,5"),
    ]:
        new.write_bytes(content)
        refuse(root, "new.png", expected)
    new.unlink()
    for where, expected in [
        (root / "more", "has more beside train/"),
        (train / "fish", "fish has no image"),
        (root / "test" / "fish", "of a class that is not in training"),
    ]:
        where.mkdir()
        refuse(root, expected)
        where.rmdir()
    (train / "loose.png").write_bytes(whole)
    refuse(root, "lies in no folder of a class")
    refuse(train / "cat", "lies in no folder of a class")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "has 0 folders of a class")
    jpegs = files.write_images(tmp_path / "jpegs", extension=".jpg")
    refuse(jpegs, "color_mode='rgba' is for PNG", color_mode="rgba")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (None, "set.json or spec.json beside it, such as {"),
        ({"z": 1}, "has 'z'; legal are features, x, y"),
        ({"y": "nmae"}, "Did you mean 'name'?"),
        ({"features": {"png": {"shape": [2]}}}, "dtype=None: expected one of"),
        ({"features": {"png": {"encoding": "jpg"}}}, "encoding='jpg': expected image, raw"),
        ({"features": {"png": {"encoding": "image", "shape": [6, 5]}}}, "[height, width, 1, 3"),
        ({"png": {"encoding": "image", "shape": [6, 6, 3]}}, "does not hold what its spec says"),
        ({"number": {"dtype": "float32"}}, "does not hold what its spec says"),
        ({"png": {"encoding": "image", "shape": [6, 5, 3], "x": 1}}, "has 'x'; legal are dtype"),
    ],
)
def test_specs(tmp_path, changes, expected):
    path, changes = files.write_records(tmp_path), changes and dict(changes)
    features = {k: changes.pop(k) for k in files.SPEC["features"] if changes and k in changes}
    spec = files.SPEC | {"features": files.SPEC["features"] | features} | (changes or {})
    (tmp_path / "set.json").write_text(json.dumps(spec))
    if changes is None:
        (tmp_path / "set.json").unlink()
    refuse(path, expected)


def test_records(tmp_path):
    path = files.write_records(tmp_path)
    whole = path.read_bytes()
    for content, expected in [
        (whole[:-7], "damaged or ends early"),
        (whole[:70] + b"x" + whole[71:], "damaged or ends early"),
        (b"", "has no records"),
        (b"text, and no records", "damaged or ends early"),
        (gzip.compress(whole), "compressed"),
    ]:
        path.write_bytes(content)
        refuse(path, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "returned a NoneType: expected (x_train, y_train)"),
        ({"x": np.zeros(3)}, "no 'y'"),
        (((np.zeros(3), [0, 1]), (np.zeros(3), [0, 1, 1])), "x_train has 3 examples, and y_train"),
        ({"x": [[1], [2, 3]], "y": [0, 1]}, "x"),
    ],
)
def test_what_a_function_returns(value, expected):
    with pytest.raises(FileError, match="own:load") as caught:
        from_value(value, "own:load", FileOptions())
    assert expected in str(caught.value)


def test_splits_of_a_function_have_the_targets_that_they_have():
    splits = Splits(Split(np.zeros((3, 2)), np.arange(3), num_classes=3))
    assert from_value(splits, "own:load", FileOptions()) is splits
    with pytest.raises(FileError, match="target_type='numbers' is not for the Splits that own:"):
        from_value(splits, "own:load", FileOptions(target_type="numbers"))
