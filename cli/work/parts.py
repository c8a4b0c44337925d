"""Work: the model, loss, metrics, optimizer and step that the settings name."""

from __future__ import annotations

import dataclasses
import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any

import keras

from gradloop import engine
from gradloop.engine.arguments import check_step
from gradloop.models import registry
from gradloop.models.recipe import Recipe

from ..config import JobConfig
from ..own_code import arguments_for, is_own, lies_in_working_directory, load_object
from ..settings.work import arguments_of
from . import objectives
from .optimizers import is_changed, make_optimizer


class Work:
    """What a config trains, and with what. A person's own modules are imported here.

    A model by name has a recipe. An own one is trained with what it was compiled with; without
    that, with Keras's default optimizer and what `objectives.guess_loss` says. Settings win.

    Args:
      config: All settings.
      input_shape: Of one input, as a model gets it; in the structure of the inputs.
      num_classes: Of the dataset; None: numbers are predicted.

    Attributes:
      recipe: Of a model by name; None: the model is a person's own.
      train_step: What trains.
      one_hot: Whether labels become one-hot rows; known once `make_state` was called.
      guessed_loss: In words, for the screen, once it was called; "": the loss was named.

    Raises:
      ConfigError: If a name is not found, or an argument is not taken.
    """

    def __init__(self, config: JobConfig, input_shape: Any, num_classes: int | None) -> None:
        self._config = config
        self._offered: dict[str, Any] = {"input_shape": input_shape}
        if num_classes is not None:
            self._offered["num_classes"] = num_classes
        self._num_classes = num_classes
        self.recipe: Recipe | None = None
        if not is_own(config.model):
            self.recipe = registry.get(config.model)
        self._build = self._find_build()
        self.train_step = _find_step(config)
        self.one_hot = num_classes is not None
        self.guessed_loss = ""

    def _find_build(self) -> Callable[..., Any]:
        config = self._config
        if self.recipe is None:
            return load_object(config.model, "model")
        if self._num_classes is None:
            raise engine.ConfigError(
                f"model={config.model!r} tells classes, and dataset={config.dataset!r} has numbers "
                "to predict: use a model of your own, --model pkg.module:build."
            )
        return self.recipe.build

    def build_model(self) -> keras.Model:
        """Returns a new model. Context: as the caller's.

        Raises:
          ConfigError: If it does not take an argument, or a model by name does not fit the data.
        """
        chosen = arguments_of(self._config, "model")
        arguments = arguments_for(self._build, self._offered, chosen, "model")
        try:
            model = self._build(**arguments)
        except (ValueError, TypeError) as error:
            if self.recipe is None:
                raise  # a person's own bug
            first = str(error).strip().partition("\n")[0]
            raise engine.ConfigError(
                f"model={self._config.model!r} cannot be built with "
                f"{', '.join(f'{k}={v}' for k, v in arguments.items())}: {first}"
            ) from error
        if not isinstance(model, keras.Model):
            raise engine.ConfigError(
                f"model={self._config.model!r} returned a {type(model).__name__}, and must return "
                "a keras.Model."
            )
        return model

    def make_state(self, num_updates: int) -> engine.TrainState:
        """Returns a new model with its loss, metrics and optimizer.

        Context: inside the scope of the strategy.

        Args:
          num_updates: Updates of the whole run, over which a schedule of the learning rate goes.
        """
        model = self.build_model()
        loss, width = self._loss(model), None
        if self.recipe is None and (loss is None or self._num_classes is not None):
            width = _width(model, self._offered["input_shape"])
        if loss is None and self.recipe is None and not model.compiled:
            loss = self._guessed(model, width)
        self.one_hot = objectives.are_one_hot(
            model.loss if loss is None and model.compiled else loss, self._num_classes, width
        )
        return engine.TrainState(
            model,
            self._optimizer(model, num_updates),
            loss=loss,
            metrics=self._metrics(model, loss, width),
        )

    def is_of_own_code(self, error: BaseException) -> bool:
        """Returns whether an error came through a person's own code, whose bug it is then."""
        named = (self._config.model, self._config.loss, *(self._config.metrics or ()))
        names = [name.partition(":")[0] for name in named if name and is_own(name)]
        files = {getattr(sys.modules[name], "__file__", None) for name in names}
        frames = traceback.extract_tb(error.__traceback__)
        return any(f.filename in files or lies_in_working_directory(f.filename) for f in frames)

    def _loss(self, model: keras.Model) -> Any:
        name, chosen = self._config.loss, arguments_of(self._config, "loss")
        if name is not None:
            return objectives.make_loss(name, chosen)
        loss = self.recipe.make_loss() if self.recipe else None
        if not chosen:
            return loss
        found = model.loss if loss is None and model.compiled else loss
        if found is None or isinstance(found, dict | list | tuple):
            raise engine.ConfigError(
                f"set=loss.{next(iter(chosen))} without loss: name it, as in --loss "
                "categorical_crossentropy."
            )
        return objectives.change_loss(found, chosen)

    def _guessed(self, model: keras.Model, width: int | None) -> Any:
        has_step = self._config.train_step is not None
        if has_step and self._num_classes is None:
            return None  # it may need none
        loss = objectives.guess_loss(model, self._num_classes, width)
        if loss is not None:
            is_of_logits = self._num_classes is not None and objectives.ends_in_logits(model)
            of = " of logits" if is_of_logits else ""
            self.guessed_loss = f"{objectives.name_of(loss)}{of}, by the data: the model has none"
        if loss is None and not has_step:
            raise engine.ConfigError(
                f"model={self._config.model!r} has outputs of size {width} and no loss, and "
                f"dataset={self._config.dataset!r} has {self._num_classes} classes: pass --loss, "
                "or let the function compile the model."
            )
        return loss

    def _optimizer(self, model: keras.Model, num_updates: int) -> Any:
        config, own = self._config, model.optimizer if model.compiled else None
        if self.recipe is not None:
            base = self.recipe.make_optimizer(config.learning_rate)
            if config.optimizer is None:  # the recipe's has the rate
                config = dataclasses.replace(config, learning_rate=None)
        else:
            base = own or keras.optimizers.RMSprop()  # as `compile` has it
        if is_changed(config):
            return make_optimizer(config, base, num_updates)
        return base if own is None else None

    def _metrics(self, model: keras.Model, loss: Any, width: int | None) -> Any:
        names, has_classes = self._config.metrics, self._num_classes is not None
        if names is not None:
            return objectives.make_metrics(
                names, loss or model.loss, one_hot=self.one_hot, has_width=width != 1,
                classes=has_classes,
            )  # fmt: skip
        if self.recipe is not None and self.one_hot:
            return self.recipe.make_metrics()
        if not has_classes or loss is None or (self.recipe is None and model.compiled):
            return None
        return objectives.accuracy_of(model, loss, one_hot=self.one_hot, width=width)


def _find_step(config: JobConfig) -> Callable[..., Any]:
    if config.train_step is None:
        return engine.train_step
    step = load_object(config.train_step, "step")
    chosen = arguments_of(config, "step")
    arguments_for(step, {"state": None, "batch": None, "iterator": None}, chosen, "step")
    bound = functools.partial(step, **chosen) if chosen else step
    try:
        check_step(bound, f"step={config.train_step!r}")
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    return bound


def _width(model: keras.Model, input_shape: Any) -> int | None:
    """Returns the size of the last axis of a model's one output; builds a model that is not yet."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        is_shape = isinstance(input_shape, tuple) and all(isinstance(n, int) for n in input_shape)
        shapes = [input_shape] if is_shape else None
        if shapes is None:
            return None  # of several inputs: what `call` takes, it alone knows
        outputs = keras.tree.flatten(model(keras.KerasTensor((None, *input_shape))))
    if len(outputs) != 1 or len(outputs[0].shape) < 2:
        return None
    size: int | None = outputs[0].shape[-1]
    return size
