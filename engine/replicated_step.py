"""A step as a function of a global batch: `strategy.run`, and what it logs.

In the way of a batch: `step_function` traces what is made here, inside one of `graph_loops`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from .building import none_for_optionals
from .execution_mode import Mode
from .fused_lstm import fused_lstms
from .grouping import Pulls, takes_iterator
from .narrow_products import narrow_products
from .patching import adding_in_place, comparing_plainly, reading_once
from .protocols import Batch, Logs
from .replicas.example_weights import weighs_examples
from .replicas.rng import distinct_seeds
from .replicas.uneven import count_global, mean_over_replicas, of_all_replicas, take
from .replicas.updates import updates_of
from .replicas.xla import run_compiled
from .state import TrainState
from .step_errors import update_in_words
from .step_logs import StepLogs, flatten_logs, last, num_examples
from .trace_notes import TraceNotes
from .traced_step import check_traced, check_updates, unwritten_names
from .undo import Undo

StepFn = Callable[[TrainState, Batch], Logs | None]


class VariablesMissing(Exception):
    """A trace is given up for variables, which cannot be created in it.

    Attributes:
      creators: Functions that create them, to be called before the step is traced again.
    """

    def __init__(self, creators: list[Callable[[], None]]) -> None:
        super().__init__()
        self.creators = creators


class ReplicatedStep:
    """A step as a function of a global batch, for all replicas.

    Args:
      step: Of one batch on one replica, or of an iterator.
      state: Passed to the step; its strategy runs it.
      mode: Read: who computes the update, what XLA compiles, and how many steps are one.
      step_logs: Takes what the step logs.
      trains: Whether the step should update variables.
    """

    def __init__(
        self, step: StepFn, state: TrainState, mode: Mode, step_logs: StepLogs, *, trains: bool
    ) -> None:
        self.name = getattr(step, "__name__", type(step).__name__)
        self._step = step
        self._state = state
        self._mode = mode
        self._step_logs = step_logs
        self._trains = trains
        self._fuses_lstm = trains and mode.fuses_lstm
        self._is_grouped = takes_iterator(step)

    def __call__(self, batch: Batch) -> Logs:
        """Runs the step on each replica. Context: cross-replica.

        Returns:
          Name to scalar: what the step logs and no metric has, as the mean over the replicas.
        """
        state = self._state
        state.notes = TraceNotes(
            set(state.metrics.own_results()),
            accumulation_steps=self._mode.accumulation_steps if self._trains else 1,
            checks_finite=self._trains and self._mode.on_nonfinite is not None,
        )
        undo = Undo(state) if self._may_take_back() else None
        num_skipped = state.step_variables.num_skipped() if self._reacts_to_skips() else None
        with self._keras_changed(), updates_of(state, self._mode):
            args = batch, self._count_global(batch)
            logs, voids, num_examples = state.strategy.run(self._run_on_replica, args=args)
        if tf.executing_eagerly():
            check_updates(state, self.name, trains=self._trains)
        if state.notes.takes_seeds:
            state.step_variables.advance_seeds()
        if undo is not None:
            undo.look()
            for void in voids:
                undo.where_void(state.strategy.experimental_local_results(void))
            if num_skipped is not None:
                undo.where(state.step_variables.num_skipped() > num_skipped)
            if state.notes.checks_finite:
                self._end_checked(undo)
        totals = {n: logs.pop(n) for n in self._step_logs.totals & set(logs)}
        of_all = functools.partial(of_all_replicas, strategy=state.strategy)
        weighs = self._mode.rules.weighs_examples and logs
        counts = of_all(num_examples) if weighs else None
        means = {n: mean_over_replicas(of_all(value), counts) for n, value in logs.items()}
        return means | {n: tf.add_n(of_all(value)) for n, value in totals.items()}

    @contextlib.contextmanager
    def _keras_changed(self) -> Iterator[None]:
        """Changes of Keras what is faster and what the mode says, around the call of replicas."""
        rules, state = self._mode.rules, self._state
        with contextlib.ExitStack() as stack:
            if state.strategy.num_replicas_in_sync == 1 and not self._mode.compiles_step:
                stack.enter_context(adding_in_place())
                stack.enter_context(reading_once())
                stack.enter_context(comparing_plainly())
            if state.strategy.num_replicas_in_sync > 1:
                stack.enter_context(state.metrics.not_built_in_steps())
            stack.enter_context(narrow_products(is_on=self._mode.narrows_products))
            if rules.has_distinct_rng:
                stack.enter_context(distinct_seeds())
            if rules.weighs_examples:
                updates_itself = state.has_own("train_step")
                weighs = weighs_examples(state.notes, in_optimizers=updates_itself)
                stack.enter_context(weighs)
            stack.enter_context(fused_lstms(state.model, is_on=self._fuses_lstm))
            yield

    def _count_global(self, batch: Batch) -> list[tf.Tensor | None] | None:
        """Returns the examples of each batch of a step; None where they are not weighed."""
        if not self._mode.rules.weighs_examples or isinstance(batch, Pulls):
            return None
        batches = batch if self._is_grouped else (batch,)
        return [count_global(one, self._state.strategy) for one in batches]

    def _may_take_back(self) -> bool:
        """Returns whether what the step writes may be put back, on some replica or on all."""
        weighs_examples = self._mode.rules.weighs_examples
        return self._state.notes.checks_finite or weighs_examples or self._reacts_to_skips()

    def _reacts_to_skips(self) -> bool:
        """Returns whether updates that a loss scale skips are logged, and count in no metric."""
        is_scaled = bool(self._state.step_variables.loss_scalings)
        return is_scaled and self._trains and not self._mode.rules.counts_skipped

    def _end_checked(self, undo: Undo) -> None:
        """Takes back what a step has changed that is left out, and goes on unless the run ends."""
        record = self._state.step_variables.record
        if record is None:  # not before the next trace
            return

        def take_back() -> tf.Tensor:
            undo()
            if self._mode.on_nonfinite == "skip":
                record.reopen()
            return tf.constant(True)

        tf.cond(record.is_closed(), take_back, lambda: tf.constant(False))
        record.count_step()

    def count_batches(self, element_spec: Any) -> int:
        """Returns how many batches a step takes from an iterator; 0 for a step of one batch.

        Args:
          element_spec: Of one replica's part of a batch.

        Raises:
          ValueError: If the step takes an iterator, and no batch of it.
        """
        if not self._is_grouped:
            return 0
        pulls = Pulls(element_spec)
        tf.function(lambda: self(pulls), autograph=False).get_concrete_function()
        if not pulls.count:
            raise ValueError(f"{self.name} takes an iterator, but never calls next(iterator).")
        return pulls.count

    def trace(self, element_spec: Any) -> tuple[Any, Any]:
        """Returns the step as a compiled function of a batch, and its trace.

        What it logs and which variables it needs is known once it is traced.

        Raises:
          VariablesMissing: If there is none yet, such as for the mean of a log over the epoch, or
            if the step has made the compiled metrics.
        """
        compiled = self._compile()
        traced = compiled.get_concrete_function(element_spec)
        wanted, needed = self._state.notes.wanted, self._needed_means(traced)
        has_built = set(self._state.metrics.own_results()) != self._state.notes.metric_names
        if wanted or needed or has_built:
            raise VariablesMissing([*wanted.values(), lambda: self._step_logs.add_means(needed)])
        check_traced(traced, self._state, self.name, trains=self._trains)
        return compiled, traced

    def _compile(self) -> Any:
        # The step is a function of its own, as in fit: XLA compiles it and not the loop around it,
        # and its outputs are known before the loop is traced. With several replicas it also stays
        # one: inlined into the loop and optimized there, a convolution's bias gradient gets other
        # bits than in fit.
        stays_whole = self._state.strategy.num_replicas_in_sync > 1
        return tf.function(
            self.__call__,
            autograph=False,
            jit_compile=self._mode.compiles_step or None,
            experimental_attributes={"_noinline": True} if stays_whole else None,
        )

    def _needed_means(self, traced: Any) -> set[str]:
        """Returns the names of logs whose mean over the epoch does not exist yet."""
        unwritten: set[str] = set()
        if not self._state.notes.has_updated_metrics:
            unwritten = unwritten_names(traced, self._state.metrics.named())
        return self._step_logs.needed_means(set(self._state.metrics_result()), unwritten)

    def _run_on_replica(
        self, batch: Batch, counts: list[tf.Tensor | None] | None
    ) -> tuple[Logs, list[tf.Tensor], tf.Tensor]:
        """Returns what one replica logs, whether what it has written may be void, its examples.

        Args:
          batch: The replica's part of it; of a step that takes an iterator, of each of its batches.
          counts: What `_count_global` returned.
        """
        state = self._state
        notes, metric_names = state.notes.replica, set(state.metrics_result())
        batch = none_for_optionals(batch)
        notes.num_examples = _count(batch) if self._is_grouped else num_examples(batch)
        batches = iter(batch if self._is_grouped else (batch,))
        if counts is not None:
            batches = take(batches, counts, notes.add_share)
        elif isinstance(batch, tuple) and self._is_grouped:
            batches = _noting(batch, [num_examples(one) for one in batch], notes.add_examples)
        batch = batches if self._is_grouped else next(batches)
        logs = self._call_step(batch) | notes.logs
        notes.end_share()
        if self._reacts_to_skips():
            logs = {n: last(v) for n, v in state.step_variables.loss_scale_logs().items()} | logs
        scalars = self._step_logs.take(logs, metric_names, notes.num_examples)
        voids = [tf.reduce_any(tf.stack(notes.voids))] if notes.voids else []
        return scalars, voids, notes.num_examples

    def _call_step(self, batch: Any) -> Logs:
        """Returns the logs of a step, flat. Context: replica."""
        call = functools.partial(_call, self._step, self._state, batch)
        if not self._mode.compiles_replica:
            return flatten_logs(call())
        if self._is_grouped:
            raise ValueError(
                f"jit_compile=true under several replicas, and {self.name} takes an iterator: XLA "
                "compiles steps of one batch. Take a batch, or set jit_compile=False."
            )
        return run_compiled(call, self._state)


def _call(step: StepFn, state: TrainState, batch: Batch) -> Logs | None:
    try:
        with update_in_words():
            return step(state, batch)
    except tf.errors.OperatorNotAllowedInGraphError as error:
        name = getattr(step, "__name__", type(step).__name__)
        raise ValueError(
            f"{name} uses the value of a tensor in Python (if, while, for, and, not), but it is "
            "traced once for all batches: write tf.where or tf.cond for if, tf.while_loop or "
            "tf.map_fn for loops, tf.logical_and for and; apply_gradients(..., when=condition) for "
            "an update; or convert the function with tf.autograph.to_graph(function)."
        ) from error


def _noting(
    batches: Sequence[Batch], sizes: Sequence[tf.Tensor], note: Callable[[tf.Tensor], None]
) -> Iterator[Batch]:
    """Yields batches, and notes the examples of each when it is taken."""
    for batch, size in zip(batches, sizes, strict=True):
        note(size)
        yield batch


def _count(batches: Any) -> Any:
    if not isinstance(batches, tuple):  # of a trace that counts the batches
        return tf.constant(1)
    return tf.add_n([num_examples(batch) for batch in batches])
