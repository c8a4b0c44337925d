"""TrainConfig: the settings that the engine reads, and which values of them are legal."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from .config_checks import check_together
from .options import check_names, legal_value, option

STRATEGIES = ("default", "one_device", "mirrored", "multi_worker")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
NUMERICS = ("exact", "fast")
INPUTS = ("auto", "resident", "streamed")
JIT_SCOPES = ("step", "loop", "update")
ALL_REDUCES = ("auto", "nccl", "ring", "hierarchical", "one_device")

# `mirrored` without num_replicas on a machine without a GPU: the fewest that show the mechanism.
DEFAULT_NUM_CPU_REPLICAS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training. All have defaults; none is ignored.

    `strategy`, `num_replicas`, `precision`, `seed`, `deterministic` and the numbers of threads take
    effect in `configure_runtime` and `make_strategy`. `fit`, `evaluate` and `predict` check that
    the state and the process agree with those that are set. None means: whatever is there.

    Raises:
      ConfigError: If a value has the wrong type or is not legal.

    Example:
      >>> config = engine.TrainConfig(epochs=3, jit_compile=True)
      >>> dataclasses.replace(config, epochs=5).epochs
      5
    """

    epochs: int = option(1, "training", "index of the last epoch, plus one", minimum=1)
    initial_epoch: int = option(
        0, "training", "index of the first epoch", minimum=0, on_resume="refused"
    )
    global_batch_size: int | None = option(
        None, "training", "examples a step, over all replicas together", minimum=1,
        alias="batch_size", on_resume="refused",
    )  # fmt: skip
    steps_per_epoch: int | None = option(
        None, "training",
        "steps of an epoch; the next epoch continues in the data; none: all of the data",
        minimum=1, alias="limit_train_batches", on_resume="refused",
    )  # fmt: skip
    gradient_accumulation_steps: int = option(
        1, "training", "steps whose gradients are one update of the weights", minimum=1,
        on_resume="refused",
    )  # fmt: skip
    on_nonfinite: str | None = option(
        None, "training",
        "a gradient or loss that is not finite: stop, skip its step, or rollback to a checkpoint, "
        "before weights change; watch: stop once the logged loss shows it; off: train on",
        choices=("stop", "skip", "rollback", "off"), none="watch",
    )  # fmt: skip
    max_skipped_steps: int | None = option(
        20, "training",
        "steps in a row that a loss scale may skip, beyond those in which its initial value is "
        "halved to 1, before the run ends as diverged; none: any",
        minimum=1,
    )  # fmt: skip
    validation_freq: int | list[int] = option(  # noqa: RUF009 - no list is shared
        1, "training",
        "epochs between validations, or the epochs to validate after: 1,5,10", minimum=1,
    )  # fmt: skip
    validate_every_steps: int | None = option(
        None, "training", "steps between validations within an epoch; none: at its end alone",
        minimum=1,
    )  # fmt: skip
    validation_steps: int | None = option(
        None, "training", "steps of a validation; none: all of the data", minimum=1
    )
    seed: int | None = option(
        None, "training", "global seed: weights, dropout, order; none: unseeded",
        minimum=0, maximum=2**32 - 1, on_resume="refused",
    )  # fmt: skip

    strategy: str | None = option(
        None, "execution", "tf.distribute strategy; none: the current one", choices=STRATEGIES
    )
    num_replicas: int | None = option(
        None, "execution",
        "replicas of mirrored, none: all GPUs, or 2 logical CPU devices; of multi_worker, over all "
        "workers together",
        minimum=1,
    )  # fmt: skip
    precision: str | None = option(
        None, "execution", "dtype policy of Keras; none: the current one", choices=PRECISIONS
    )
    numerics: str = option(
        "exact", "execution",
        "whose bits; exact: those of fit, of fit(jit_compile=True) where XLA compiles steps; fast: "
        "free, with the same learning: fused updates, and bfloat16 if --tune chose it",
        choices=NUMERICS,
    )  # fmt: skip
    jit_compile: bool | None = option(
        None, "execution",
        "compile with XLA: the bits of fit(jit_compile=True); under replicas, where it fails, all "
        "of a step but the update; auto: Keras's rule, never on a CPU",
        none="auto",
    )  # fmt: skip
    jit_scope: str = option(
        "step", "execution",
        "what XLA compiles: each step; a loop of steps where the graph makes the batches, with the "
        "same bits; or the optimizer's update alone, with bits of its own",
        choices=JIT_SCOPES,
    )  # fmt: skip
    compile_update: bool = option(
        False, "execution",
        "compile the optimizer's update with XLA where a check finds all bits of Keras's "
        "operations, for SGD, Adam, AdamW, Nadam and Lion on one CPU: faster steps of nets with a "
        "million weights or more, a second or more later",
    )  # fmt: skip
    narrow_products: bool = option(
        False, "execution",
        "where XLA compiles steps on a CPU, gradients of weights of few outputs by a faster "
        "product; it has the same bits for most nets, and --tune shows whether for this one; "
        "numerics=fast has it too",
    )  # fmt: skip
    steps_per_execution: int | None = option(
        None, "execution", "steps in one host call; auto: about a tenth of a second", minimum=1,
        none="auto", on_resume="applied",
    )  # fmt: skip
    run_eagerly: bool = option(
        False, "execution", "run steps in Python, one by one, for a debugger; slow"
    )
    max_retraces: int | None = option(
        None, "execution", "graphs of a step beyond its first before it is an error; none: any",
        minimum=0, on_resume="applied",
    )  # fmt: skip
    deterministic: bool = option(False, "execution", "use deterministic ops")
    tf32: bool | None = option(
        None, "execution",
        "float32 products in TensorFloat-32 on NVIDIA GPUs since Ampere; auto: TensorFlow's "
        "choice, yes",
        none="auto",
    )  # fmt: skip
    intra_op_threads: int | None = option(
        None, "execution", "threads within an operation; none: TensorFlow's choice", minimum=1
    )
    inter_op_threads: int | None = option(
        None, "execution", "operations that run at once; none: TensorFlow's choice", minimum=1
    )
    all_reduce: str = option(
        "auto", "replicas",
        "how replicas exchange gradients; ring or nccl: collectives; hierarchical: by way of some "
        "GPUs; one_device: by way of the first; auto: nccl on GPUs, ring on CPUs, "
        "one_device on two logical ones",
        choices=ALL_REDUCES, on_resume="warned",
    )  # fmt: skip
    all_reduce_pack_mib: int | None = option(
        None, "replicas",
        "mebibytes of gradients that collectives exchange at once, which begins before all are "
        "there; none: all at once",
        minimum=1, on_resume="warned",
    )  # fmt: skip
    uneven: str | None = option(
        None, "replicas",
        "batches that do not divide among the replicas; exact: each example weighs the same; fit: "
        "each replica does, as in fit; none: exact unless parity=fit",
        choices=("exact", "fit"), on_resume="warned",
    )  # fmt: skip
    clip: str | None = option(
        None, "replicas",
        "gradients that the optimizer clips; global: the sum over the replicas; replica: each "
        "replica's own, as in fit; none: global unless parity=fit",
        choices=("global", "replica"), on_resume="warned",
    )  # fmt: skip
    replica_rng: str = option(
        "same", "replicas",
        "random numbers of layers, such as dropout's masks; same: alike on all replicas, as in "
        "fit; distinct: each replica has its own",
        choices=("same", "distinct"), on_resume="warned",
    )  # fmt: skip
    sync_statistics: bool | None = option(
        None, "replicas",
        "average statistics that layers keep, such as BatchNormalization's, over the replicas at "
        "each epoch's end; none: yes unless parity=fit",
        on_resume="warned",
    )  # fmt: skip
    parity: str | None = option(
        None, "replicas",
        "fit: what fit gives under several replicas, also where it is wrong",
        choices=("fit",), on_resume="warned",
    )  # fmt: skip
    input: str = option(
        "auto", "data",
        "who makes the batches: the training graph (resident) or tf.data (streamed); auto: "
        "resident where possible",
        choices=INPUTS,
    )  # fmt: skip

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Checks names before the `__init__` of the dataclass, which gives no hint."""
        check_names(cls, args, fields)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = legal_value(type(self), field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        check_together(self)
