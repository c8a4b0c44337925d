"""Small files of each kind, all with the same number of examples."""

import json

import numpy as np
import tensorflow as tf

N = 50
CLASSES = ("cat", "dog", "eel")


def images(channels=3, n=N):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, 6, 5, channels), np.uint8)


def write_npz(folder, *, write=np.savez, **changes):
    x, y = images(1)[..., 0], np.arange(N) % 3
    arrays = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]} | changes
    write(folder / "set.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "set.npz"


def write_images(folder, *, n=N, extension=".png"):
    encode = tf.io.encode_png if extension == ".png" else tf.io.encode_jpeg
    for part in ("train", "test"):
        for i, image in enumerate(images(n=n)):
            path = folder / "pictures" / part / CLASSES[i % 3] / f"{i:03}{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image).numpy())
    return folder / "pictures"


def table():
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=N)
    return {
        "age": generator.integers(1, 90, N).tolist(),
        "height": numbers.round(3).tolist(),
        "town": generator.choice(["Rom", "Ulm, the old one"], N).tolist(),
        "kind": [CLASSES[i % 3] for i in range(N)],
        "price": (2 * numbers).round(3).tolist(),
    }


def write_csv(folder, columns=None):
    columns = columns or table()
    rows = [[f'"{cell}"' if "," in str(cell) else str(cell) for cell in row]
            for row in zip(*columns.values(), strict=True)]  # fmt: skip
    path = folder / "table.csv"
    path.write_text("\n".join(",".join(row) for row in [list(columns), *rows]) + "\n")
    return path


def write_parquet(folder):
    import pyarrow
    import pyarrow.parquet

    path = folder / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table()), path, row_group_size=20)
    return path


SPEC = {
    "features": {
        "png": {"encoding": "image", "shape": [6, 5, 3]},
        "raw": {"encoding": "raw", "dtype": "uint8", "shape": [6, 5, 3]},
        "floats": {"dtype": "float32", "shape": [4]},
        "number": {"dtype": "int64"},
        "name": {"dtype": "string"},
    },
    "x": "png",
    "y": "number",
}


def _feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=value))


def write_records(folder, spec=SPEC):
    with tf.io.TFRecordWriter(str(folder / "set.tfrecord")) as writer:
        for i, image in enumerate(images()):
            values = {
                "png": tf.io.encode_png(image).numpy(),
                "raw": image.tobytes(),
                "floats": [i, 2.0 * i, 3.0, i % 3],
                "number": i % 3,
                "name": CLASSES[i % 3].encode(),
            }
            feature = {name: _feature(value) for name, value in values.items()}
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    (folder / "set.json").write_text(json.dumps(spec))
    return folder / "set.tfrecord"
