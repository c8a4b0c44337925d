"""RecordSpec: what the records of a TFRecord file hold, from a small JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradloop.usage import did_you_mean

from .errors import FileError, shown, unreadable

_KEYS = ("features", "x", "y", "class_names")
_FEATURE_KEYS = ("dtype", "shape", "encoding")
_ENCODINGS = ("image", "raw")
_DTYPES = (
    "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", "string",
)  # fmt: skip
_EXAMPLE = (
    '{"features": {"image": {"encoding": "image", "shape": [28, 28, 1]}, '
    '"label": {"dtype": "int64"}}, "x": "image", "y": "label"}'
)


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of the records.

    Attributes:
      dtype: Of its values.
      shape: Of its values in one record.
      encoding: "image": the bytes of a PNG or JPEG file; "raw": the bytes of the values; None: a
        list of integers, floats or strings, as a `tf.train.Feature` holds it.
    """

    dtype: tf.DType
    shape: tuple[int, ...]
    encoding: str | None

    @property
    def num_bytes(self) -> int:
        """Size of one value in memory."""
        return math.prod(self.shape) * int(self.dtype.size)

    def to_parse(self) -> tf.io.FixedLenFeature:
        """Returns what `tf.io.parse_example` is told."""
        if self.encoding is not None:
            return tf.io.FixedLenFeature([], tf.string)
        is_string, is_float = self.dtype == tf.string, self.dtype.is_floating
        stored = tf.string if is_string else tf.float32 if is_float else tf.int64
        return tf.io.FixedLenFeature(self.shape, stored)

    def decode(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the values of a batch of parsed features. Context: graph."""
        if self.encoding == "image":
            return tf.map_fn(self._decode_image, values, fn_output_signature=self._spec())
        if self.encoding == "raw":
            rows = values.shape[0]
            values = tf.io.decode_raw(values, self.dtype)
            return tf.reshape(values, [-1 if rows is None else rows, *self.shape])
        return values if values.dtype == self.dtype else tf.cast(values, self.dtype)

    def _decode_image(self, content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, self.shape[-1], self.dtype, expand_animations=False)
        return tf.ensure_shape(image, self.shape)

    def _spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """What the records hold.

    Attributes:
      features: By name; those that are inputs or the target.
      x: Name of the input, or names of several.
      y: Name of the target.
      class_names: Names of the classes; None if they are not said.
    """

    features: dict[str, Feature]
    x: str | tuple[str, ...]
    y: str
    class_names: tuple[str, ...] | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.x,) if isinstance(self.x, str) else self.x

    def parse(self, records: tf.Tensor, names: tuple[str, ...]) -> dict[str, tf.Tensor]:
        """Returns features of serialized records, string `[n]`, by name. Context: any."""
        told = {name: self.features[name].to_parse() for name in names}
        found = tf.io.parse_example(records, told)
        return {name: self.features[name].decode(values) for name, values in found.items()}


def read_spec(record_file: Path) -> RecordSpec:
    """Returns the spec that lies beside a TFRecord file: of its name with .json, or spec.json.

    Raises:
      FileError: If there is none, or it lacks something.
    """
    places = [record_file.with_suffix(".json"), record_file.parent / "spec.json"]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise FileError(
            f"{record_file} needs a file that says what its records hold, {places[0].name} or "
            f"spec.json beside it, such as {_EXAMPLE}."
        )
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return _to_spec(content, path)


def _to_spec(content: Any, path: Path) -> RecordSpec:
    content = _object(content, _KEYS, str(path))
    missing = [key for key in ("features", "x", "y") if key not in content]
    if missing:
        raise FileError(f"{path} has no {missing[0]!r}; expected such as {_EXAMPLE}.")
    features = {
        name: _to_feature(value, f"{path}: feature {name!r}")
        for name, value in _object(content["features"], None, f"{path}: features").items()
    }
    x, y, names = content["x"], content["y"], content.get("class_names")
    is_legal = isinstance(y, str) and (isinstance(x, str) or (x and _is_of_strings(x)))
    if not is_legal or not (names is None or _is_of_strings(names)):
        raise FileError(
            f"{path}: x={x!r}, y={y!r}, class_names={names!r}: expected for x the name of a "
            f"feature or a list of names, for y a name, and for class_names a list: {_EXAMPLE}."
        )
    for name in [*(x if isinstance(x, list) else [x]), y]:
        if name not in features:
            raise FileError(
                f"{path}: {name!r} is none of its features, {shown(features)}."
                f"{did_you_mean(name, features)}"
            )
    return RecordSpec(
        features, tuple(x) if isinstance(x, list) else x, y, None if names is None else tuple(names)
    )


def _is_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _to_feature(value: Any, where: str) -> Feature:
    value = _object(value, _FEATURE_KEYS, where)
    encoding, shape = value.get("encoding"), value.get("shape", [])
    if encoding not in (None, *_ENCODINGS):
        raise FileError(f"{where}: encoding={encoding!r}: expected {shown(_ENCODINGS)}, or none.")
    dtype = value.get("dtype", "uint8" if encoding == "image" else None)
    if dtype not in _DTYPES:
        raise FileError(
            f"{where}: dtype={dtype!r}: expected one of {shown(_DTYPES)}."
            f"{did_you_mean(dtype, _DTYPES)}"
        )
    is_shape = isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape)
    if not is_shape or (encoding == "image" and (len(shape) != 3 or shape[-1] not in (1, 3, 4))):
        wanted = "[height, width, 1, 3 or 4]" if encoding == "image" else "numbers of 1 or more"
        raise FileError(f"{where}: shape={shape!r}: expected {wanted}.")
    return Feature(tf.as_dtype(dtype), tuple(shape), encoding)


def _object(value: Any, legal: tuple[str, ...] | None, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not value:
        raise FileError(f"{where}: expected an object, got {value!r}.")
    for key in value:
        if legal is not None and key not in legal:
            raise FileError(
                f"{where} has {key!r}; legal are {shown(legal)}.{did_you_mean(key, legal)}"
            )
    return value
