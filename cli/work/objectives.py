"""Loss and metrics, and the labels that they need: one-hot rows, or class numbers and targets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras

from gradloop.engine.options import ConfigError
from gradloop.usage import did_you_mean

from ..own_code import call_with, is_own, load_object

_TOP = re.compile(r"top_(\d+)_accuracy")
ACCURACY = "accuracy"  # as `compile` takes it, by the shapes of labels and output
# Names that Keras takes where a metric is compiled, beside those of `keras.metrics.get`.
_COMPILED = (ACCURACY, "acc", "crossentropy", "ce")


def are_one_hot(loss: Any, num_classes: int | None, width: int | None) -> bool:
    """Returns whether labels become one-hot rows: else they stay as the dataset has them.

    Class numbers stay for a loss that takes them (its name begins with "sparse"), and for one
    output, such as the probability of the second of two classes.

    Args:
      loss: What a model is compiled with, in any structure, or a name.
      num_classes: Of the dataset; None: numbers are predicted.
      width: Size of the last axis of the output; None: unknown.
    """
    if num_classes is None or width == 1:
        return False
    return not any(name_of(one).startswith("sparse") for one in keras.tree.flatten(loss))


def name_of(thing: Any) -> str:
    """Returns the name of a loss or a metric as `keras.losses.get` takes it.

    Example:
      >>> name_of(keras.losses.SparseCategoricalCrossentropy()), name_of("mse")
      ('sparse_categorical_crossentropy', 'mse')
    """
    if isinstance(thing, str):
        name = thing
    elif inspect.isfunction(thing):
        name = thing.__name__
    else:
        name = getattr(getattr(thing, "fn", None), "__name__", type(thing).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def make_loss(name: str, chosen: Mapping[str, Any]) -> Any:
    """Returns a loss by its name, as `compile` takes it.

    Args:
      name: Keras's, or "pkg.module:name" of a function `(y_true, y_pred)` or a class.
      chosen: Arguments of its class that a person has set.

    Raises:
      ConfigError: If there is no such loss, or it takes no such argument.
    """
    if is_own(name):
        found = load_object(name, "loss")
        is_class = inspect.isclass(found)
        return call_with(found, {}, chosen, "loss") if is_class else _plain(found, name, chosen)
    found = _get(keras.losses, name, "loss", ())
    if not chosen:
        return name
    classes = {name_of(kind()): kind for kind in _classes(keras.losses, keras.losses.Loss)}
    kind = classes.get(name_of(found))
    if kind is None:
        return _plain(found, name, chosen)
    return call_with(kind, {}, chosen, "loss")


def change_loss(loss: Any, chosen: Mapping[str, Any]) -> Any:
    """Returns a loss with other values of some arguments; the others are as in it.

    Args:
      loss: What a model was compiled with, or a recipe has.
      chosen: Arguments of its class that a person has set.

    Raises:
      ConfigError: If it takes no such argument.
    """
    if type(loss) not in _classes(keras.losses, keras.losses.Loss):
        return make_loss(name_of(loss), chosen)
    # Not all classes tell their own arguments in `get_config`: Huber leaves out `delta`.
    arguments = {"name": loss.name, "reduction": loss.reduction, "dtype": loss.dtype}
    arguments |= loss._fn_kwargs
    return call_with(type(loss), arguments, chosen, "loss")


def _plain(found: Any, name: str, chosen: Mapping[str, Any]) -> Any:
    if chosen:
        raise ConfigError(
            f"set=loss.{next(iter(chosen))}, but loss={name!r} is a function of labels and "
            "outputs: leave it out."
        )
    return found


def make_metrics(
    names: list[str], loss: Any, *, one_hot: bool, has_width: bool, classes: bool
) -> list[Any]:
    """Returns metrics by their names, as `compile` takes them. Context: inside the scope.

    Args:
      names: Keras's, "top_5_accuracy" with any number, or "pkg.module:name".
      loss: Named in errors.
      one_hot: Whether labels are one-hot rows.
      has_width: Whether there is more than one output an example.
      classes: Whether there are classes.

    Raises:
      ConfigError: If there is no such metric, or it needs other labels than the loss.
    """
    made = []
    for name in names:
        if classes and not is_own(name) and not _TOP.fullmatch(name) and name not in _COMPILED:
            _get(keras.metrics, name, "metrics", _COMPILED)
            _check_labels(name, loss, one_hot, has_width)
        made.append(_make_metric(name, one_hot))
    return made


def _check_labels(name: str, loss: Any, one_hot: bool, has_width: bool) -> None:
    """Raises ConfigError if a metric is for other labels than there are."""
    is_sparse = name_of(name).startswith("sparse")
    if is_sparse == (not one_hot) or not has_width:
        return
    have = "one-hot rows" if one_hot else "class numbers"
    raise ConfigError(
        f"metrics={name!r} is for other labels than loss={name_of(loss)!r}, for which they are "
        f"{have}: use 'accuracy' or 'top_5_accuracy', which fit both."
    )


def _make_metric(name: str, one_hot: bool) -> Any:
    top = _TOP.fullmatch(name)
    if top:
        kind = keras.metrics.TopKCategoricalAccuracy
        kind = kind if one_hot else keras.metrics.SparseTopKCategoricalAccuracy
        return kind(k=int(top[1]), name=name)
    if is_own(name):
        found = load_object(name, "metrics")
        return call_with(found, {}, {}, "metrics") if inspect.isclass(found) else found
    if name not in _COMPILED:
        _get(keras.metrics, name, "metrics", _COMPILED)
    return name


def _get(module: Any, name: str, field: str, more: tuple[str, ...]) -> Any:
    try:
        return module.get(name)
    except (ValueError, TypeError):
        kind = module.Loss if field == "loss" else module.Metric
        legal = {name_of(one.__name__) for one in _classes(module, kind)}
        legal |= {key for key, value in vars(module).items() if inspect.isfunction(value)} | {*more}
        legal = {one for one in legal if _is_known(module, one) or one in more}
        raise ConfigError(
            f"{field}={name!r} is unknown to Keras: use one of its names, or pkg.module:name of "
            f"your own.{did_you_mean(name, sorted(legal))}"
        ) from None


def _is_known(module: Any, name: str) -> bool:
    try:
        return module.get(name) is not None
    except (ValueError, TypeError):
        return False


def _classes(module: Any, kind: type) -> list[Any]:
    found = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, kind)]
    return [one for one in found if one is not kind]


def guess_loss(model: Any, num_classes: int | None, width: int | None) -> Any:
    """Returns the loss for a model that has none, or None if none fits.

    Numbers: the mean squared error. Classes: cross-entropy, of one output for two classes. Where
    the last layer is linear, outputs are logits; else probabilities, as Keras takes them.

    Args:
      model: A person's.
      num_classes: Of the dataset; None: numbers are predicted.
      width: Size of the last axis of the output; None: unknown.
    """
    if num_classes is None:
        return "mse"
    logits = ends_in_logits(model)
    if width == 1 and num_classes == 2:
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    if width in (None, num_classes):
        return keras.losses.CategoricalCrossentropy(from_logits=logits)
    return None


def accuracy_of(model: Any, loss: Any, *, one_hot: bool, width: int | None) -> list[Any]:
    """Returns the metric of a model of classes that has none: the share that is right."""
    if one_hot:
        return [keras.metrics.CategoricalAccuracy(name=ACCURACY)]
    if width == 1:
        threshold = 0.0 if are_logits(model, loss) else 0.5
        return [keras.metrics.BinaryAccuracy(name=ACCURACY, threshold=threshold)]
    return [keras.metrics.SparseCategoricalAccuracy(name=ACCURACY)]


def are_logits(model: Any, loss: Any) -> bool:
    """Returns whether the one output of a model is a logit, and no probability and no number.

    Its loss says so. A hinge, and a loss of a person's own, leave it to the last layer.

    Args:
      model: A person's.
      loss: What it is compiled with, in any structure, or a name; None: its own `compute_loss`.
    """
    one, *_ = keras.tree.flatten(loss) or [None]
    from_logits = getattr(one, "from_logits", None)
    if from_logits is not None:
        # Of a sigmoid Keras takes the argument, and warns.
        return bool(from_logits) and _last_activation(model) is not keras.activations.sigmoid
    function = getattr(one, "fn", one)
    kind = function if inspect.isfunction(function) else type(function)
    is_keras = isinstance(one, str) or kind.__module__.startswith("keras.")
    if is_keras and not name_of(one).endswith("hinge"):
        return False
    return ends_in_logits(model)


def are_probabilities(model: Any, loss: Any) -> bool:
    """Returns whether what a model of classes gives is probabilities, as far as anybody says.

    The last layer does; where it does not tell, a cross-entropy that takes probabilities. Arguments
    as of `are_logits`.
    """
    last = _last_activation(model)
    if last is not None:
        return last in (keras.activations.softmax, keras.activations.sigmoid)
    one, *_ = keras.tree.flatten(loss) or [None]
    is_of_scores = one is not None and "crossentropy" in name_of(one)
    return is_of_scores and not getattr(one, "from_logits", False)


def ends_in_logits(model: Any) -> bool:
    """Returns whether the last layer of a functional or sequential model is a linear one."""
    return _last_activation(model) is keras.activations.linear


def _last_activation(model: Any) -> Any:
    if not getattr(model, "outputs", None):
        return None  # a model's own `call`: no layer of it tells
    last = model.layers[-1]
    if isinstance(last, keras.Model):
        return _last_activation(last)
    return getattr(last, "activation", None)
