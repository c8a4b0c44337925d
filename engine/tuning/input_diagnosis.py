"""Is a training input bound? Its speed beside that of the same steps on one batch in memory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from gradloop.machine import memory_bytes, num_cores

from .. import devices
from .. import step as step_lib
from ..building import as_compiled
from ..config import TrainConfig
from ..protocols import Batch, Logs, Resident
from ..replicated_step import StepFn
from ..state import TrainState
from ..strategy import may_train_resident
from .trial import Trial, ratio_of, run_in_turn

# A training is input bound if it stays below this share of the ceiling.
BOUND_SHARE = 0.9
# A prefetch is advised if it gains more than this.
WORTHWHILE_GAIN = 1.1
# Batches differ in cost, so a pipeline alone should be faster than the ceiling by this factor.
AMPLE = 1.25
# A pipeline that keeps fewer cores busy than this waits rather than computes.
IDLE_CORES = 0.5
# To hand over a batch costs about as much as a step that is shorter than this.
SHORT_STEP_SECS = 5e-4
_NUM_REPEATS = 1 << 20


@dataclasses.dataclass(frozen=True)
class InputDiagnosis:
    """What was measured. Speeds are medians of short windows that took turns.

    Attributes:
      share: The training's speed divided by its ceiling: `images_per_sec` by
        `ceiling_images_per_sec`.
      share_low: The lower quartile of the same in pairs of neighboring windows, because the speed
        of a shared machine drifts.
      share_high: The upper quartile.
      images_per_sec: Of the training as `fit` does it.
      ceiling_images_per_sec: Of the same steps on one batch in memory.
      prefetch_gain: The training's speed with a `prefetch` at the end of its dataset, divided by
        that without. None if it was not tried: the training is not input bound, or its graph makes
        the batches.
      pipeline_images_per_sec: Of the input alone.
      waiting_share: Share of the training's time in which it only waited for a batch.
      cores_busy: Cores that the input alone kept busy.
      num_cores: Cores that this process may use.
      batch_size: Of the first batch.
      num_bytes: Of all batches of the dataset together; None if their number is unknown.
      is_resident: Whether the compiled function makes the batches itself.
    """

    share: float
    share_low: float
    share_high: float
    images_per_sec: float
    ceiling_images_per_sec: float
    prefetch_gain: float | None
    pipeline_images_per_sec: float
    waiting_share: float
    cores_busy: float
    num_cores: int
    batch_size: int
    num_bytes: int | None
    is_resident: bool

    @property
    def is_input_bound(self) -> bool:
        """Whether the input limits the speed of the training."""
        return self.share_high < BOUND_SHARE

    @property
    def advice(self) -> list[str]:
        """What to change, given what was measured; empty if the training is not input bound."""
        if not self.is_input_bound:
            return []
        is_slow = self.pipeline_images_per_sec < AMPLE * self.ceiling_images_per_sec
        others = self._advise_slow() if is_slow else self._advise_late()
        return [*self._advise_prefetch(), *others]

    def to_text(self) -> str:
        """Returns the diagnosis as lines of text."""
        verdict = "input bound" if self.is_input_bound else "not input bound"
        lines = {
            "input": f"{verdict}: {self.share:.1%} of the ceiling ({self.share_low:.0%} to "
            f"{self.share_high:.0%}), {self.waiting_share:.1%} of the time waiting for a batch",
            "training": f"{self.images_per_sec:,.0f} images/s",
            "ceiling": f"{self.ceiling_images_per_sec:,.0f} images/s, on one batch in memory",
            "pipeline": f"{self.pipeline_images_per_sec:,.0f} images/s alone "
            f"({self.pipeline_images_per_sec / self.batch_size:,.1f} batches/s), "
            f"{self.cores_busy:.1f} of {self.num_cores} cores busy"
            + (", made in the graph" if self.is_resident else ""),
        }
        shown = [f"  {name:<10} {text}" for name, text in lines.items()]
        return "\n".join([*shown, *(f"  {'change':<10} {text}" for text in self.advice)])

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis, JSON-ready."""
        found = {"is_input_bound": self.is_input_bound, "advice": self.advice}
        return dataclasses.asdict(self) | found

    def _advise_prefetch(self) -> Iterator[str]:
        if self.prefetch_gain is not None and self.prefetch_gain > WORTHWHILE_GAIN:
            yield (
                "end the dataset with .prefetch(tf.data.AUTOTUNE), so that batches are made while "
                f"the step runs: {self.prefetch_gain:.2f} times the speed was measured with it"
            )

    def _advise_slow(self) -> Iterator[str]:
        """Advises on a pipeline that is too slow even alone."""
        if self.cores_busy < IDLE_CORES:
            yield (
                "the pipeline waits more than it computes (files, network, Python): read and map "
                "several at once, .map(..., num_parallel_calls=tf.data.AUTOTUNE) and .interleave"
            )
        elif self.cores_busy < 0.75 * self.num_cores:
            yield (
                f"the pipeline computes on {self.cores_busy:.1f} of {self.num_cores} cores: "
                ".map(..., num_parallel_calls=tf.data.AUTOTUNE)"
            )
        else:
            yield (
                "the pipeline computes on all cores: do less in it, map whole batches and not "
                "examples, or prepare the data once and store it"
            )
        if self.num_bytes is not None and self.num_bytes < memory_bytes() / 4:
            yield (
                f"all batches together take {self.num_bytes / 2**20:,.0f} MiB: .cache() them, "
                "before what is random"
            )

    def _advise_late(self) -> Iterator[str]:
        """Advises on a pipeline that is fast enough alone."""
        step_secs = self.batch_size / self.ceiling_images_per_sec
        if step_secs < SHORT_STEP_SECS:
            yield (
                f"a step takes {1e6 * step_secs:,.0f} microseconds, and handing over a batch is a "
                "large part of it: use larger batches"
            )
        if self.is_resident:
            return
        if self.cores_busy < IDLE_CORES:
            yield (
                "the pipeline is fast enough on average, but some batches come late: a longer "
                ".prefetch, and .map(..., num_parallel_calls=tf.data.AUTOTUNE)"
            )
        else:
            yield (
                "the pipeline is fast enough alone, but takes cores from the step: if the data are "
                "arrays, use data.pipeline.make_dataset, whose batches the graph makes"
            )


def diagnose_input(
    make_state: Callable[[], TrainState],
    make_dataset: Callable[[], tf.data.Dataset],
    config: TrainConfig,
    *,
    strategy: tf.distribute.Strategy | None = None,
    train_step: StepFn = step_lib.train_step,
) -> InputDiagnosis:
    """Measures whether the input limits the speed of a training, in about ten seconds.

    Trains a state of its own, in short windows that take turns: on the dataset, and on one batch of
    it in memory. Under a strategy, or if a batch holds more than tensors, tf.data repeats that
    batch.

    Args:
      make_state: Returns the state; called once, inside the strategy's scope.
      make_dataset: Returns the dataset, as in `fit`.
      config: As in `fit`.
      strategy: Default: the current one.
      train_step: As in `fit`.

    Raises:
      ValueError: As in `fit`, if it cannot train on the dataset.
    """
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        state = make_state()
    dataset = make_dataset()
    state.build(dataset.element_spec)
    config = as_compiled(config, state.model)
    in_graph = config.input != "streamed" and may_train_resident(state.strategy, config)

    def trial(dataset: tf.data.Dataset, step: StepFn, *, resident: bool) -> Trial:
        return Trial(dataset, state, config, step, resident=resident)

    training = trial(make_dataset(), train_step, resident=in_graph)
    training.warm_up()
    batch = next(iter(dataset))
    one_batch = _repeated(batch, dataset.element_spec)
    is_in_memory = in_graph or not (state.has_scope or config.run_eagerly)
    ceiling = trial(one_batch, train_step, resident=is_in_memory)
    pipeline = trial(make_dataset(), _look_at, resident=in_graph)
    run_in_turn([training, ceiling, pipeline])
    is_resident = in_graph and isinstance(dataset, Resident)
    diagnosis = _diagnose(training, ceiling, pipeline, dataset, batch, is_resident=is_resident)
    if is_resident or not diagnosis.is_input_bound:
        return diagnosis
    prefetching = make_dataset().prefetch(tf.data.AUTOTUNE)
    prefetched = trial(prefetching, train_step, resident=False)
    run_in_turn([training, prefetched])
    return dataclasses.replace(diagnosis, prefetch_gain=ratio_of(prefetched, training).value)


def _diagnose(
    training: Trial,
    ceiling: Trial,
    pipeline: Trial,
    dataset: tf.data.Dataset,
    batch: Batch,
    *,
    is_resident: bool,
) -> InputDiagnosis:
    share, share_low, share_high, *_ = ratio_of(training, ceiling)
    batch_size = int(next(t.shape[0] for t in tf.nest.flatten(batch) if tf.is_tensor(t)))
    return InputDiagnosis(
        share=share,
        share_low=share_low,
        share_high=share_high,
        images_per_sec=batch_size * training.batches_per_step * training.speed,
        ceiling_images_per_sec=batch_size * ceiling.batches_per_step * ceiling.speed,
        prefetch_gain=None,
        pipeline_images_per_sec=batch_size * pipeline.speed,
        waiting_share=training.waiting_share,
        cores_busy=pipeline.cores_busy,
        num_cores=num_cores(),
        batch_size=batch_size,
        num_bytes=_num_bytes(dataset, batch),
        is_resident=is_resident,
    )


class _OneBatch:
    """`GraphBatches` that are always the same batch."""

    num_batches = _NUM_REPEATS
    stacks = None

    def __init__(self, batch: Batch, element_spec: Any) -> None:
        self._batch = batch
        self.element_spec = element_spec

    def seek(self, epoch: int, step: int = 0) -> None:
        """Does nothing."""

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns a function of the offset to the batch."""
        return lambda offset: self._batch

    def current_step(self) -> tf.Tensor:
        """Returns 0: there is no position."""
        return tf.constant(0, tf.int64)

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """Fails: there are no stacks."""
        raise AssertionError("stacks is None")

    def advance(self, num_steps: tf.Tensor) -> None:
        """Does nothing."""


def _repeated(batch: Batch, element_spec: Any) -> tf.data.Dataset:
    """Returns a dataset that repeats one batch, in long epochs."""
    dataset = tf.data.Dataset.from_tensors(batch).repeat(_NUM_REPEATS)
    if all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(element_spec)):
        gpus = devices.logical("GPU")
        with tf.device(gpus[0].name if gpus else "CPU:0"):
            dataset.resident = _OneBatch(tf.nest.map_structure(tf.identity, batch), element_spec)
    return dataset


def _look_at(state: TrainState, batch: Batch) -> Logs:
    """A step that does nothing but use its batch."""
    tensors = [t for t in _tensors(batch) if t.dtype != tf.string]
    firsts = [tf.cast(tf.reshape(t, [-1])[:1], tf.float32) for t in tensors]
    return {"first": tf.reduce_sum(tf.concat([*firsts, tf.zeros([1])], axis=0))}


def _tensors(batch: Batch) -> list[tf.Tensor]:
    """Returns the tensors of a batch, and those of which its sparse and ragged ones are made."""
    return [t for t in tf.nest.flatten(batch, expand_composites=True) if tf.is_tensor(t)]


def _num_bytes(dataset: tf.data.Dataset, batch: Batch) -> int | None:
    num_batches = int(dataset.cardinality())
    size = sum(t.dtype.size * int(tf.size(t)) for t in _tensors(batch))
    return size * num_batches if num_batches >= 0 else None
