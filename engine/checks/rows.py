"""The rows of `check_setup`: what in a setup does not go together, why, and what to do.

Each looks at some of: strategy, precision, XLA, batch size, model, optimizer and devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.trainer import model_supports_jit

from ..fused_lstm import find_fused_lstms
from ..replicas.rules import find_rules
from ..runtime import has_fast_bfloat16
from ..strategy import may_train_resident
from .findings import Finding, Setup, Verdict

OK, SLOW, RISKY, UNSUPPORTED = Verdict

# The moments of fewer examples are too noisy: the error of ResNet-50 on ImageNet is 23.6 % with 32
# examples a replica, 24.8 % with 8, 27.3 % with 4 and 34.7 % with 2 (Wu and He, "Group
# Normalization", 2018, table 2).
MIN_BATCH_NORM_EXAMPLES = 8

_CONVOLUTIONS = (
    keras.layers.Conv1D,  # the bases of separable and depthwise ones are private
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


# The rows. Each returns its finding; None where it has nothing to look at.


def devices_used(setup: Setup) -> Finding | None:
    """Which of the devices train."""
    what = f"strategy={setup.config.strategy or 'default'}"
    if setup.num_replicas == 1 and setup.num_gpus > 1:
        fix = "Set strategy='mirrored', or hide the others: CUDA_VISIBLE_DEVICES=0."
        return Finding(f"{what} with {setup.num_gpus} GPUs", SLOW, "it uses one of them", fix)
    if setup.num_replicas > setup.num_workers and not setup.num_gpus:
        why = "there is no GPU, and the replicas share one processor: to try things out"
        return Finding(f"{setup.replicas} on a CPU", SLOW, why, "For speed, use one replica.")
    if setup.num_gpus == 1 and what == "strategy=default":
        why = "1 replica on GPU; strategy='one_device' also copies batches there before their step"
        return Finding(what, OK, why)
    kind = "GPU" if setup.num_gpus else "CPU"
    return Finding(what, OK, f"{setup.replicas} on {kind}")


def model_scope(setup: Setup) -> Finding | None:
    """Whether the model was created under the strategy."""
    if setup.model is None:
        return None
    with setup.strategy.scope():
        expected = setup.strategy if tf.distribute.has_strategy() else None
    found = setup.model._distribute_strategy
    if found is expected:
        return None
    names = [type(s).__name__ if s is not None else "no strategy" for s in (found, expected)]
    why = f"it was created under {names[0]}, and trains under {names[1]}"
    if names[0] == names[1]:
        why = f"it was created under another {names[0]}"
    fix = "Create it in the scope of the strategy: with strategy.scope(): model = build()."
    return Finding(f"model {setup.model.name!r}", UNSUPPORTED, why, fix)


def batch_of_replicas(setup: Setup) -> Finding | None:
    """Whether the batch divides among the replicas."""
    batch, num_replicas = setup.config.global_batch_size, setup.num_replicas
    if batch is None:
        return None
    what = f"global_batch_size={batch} on {setup.replicas}"
    if batch < num_replicas:
        fix = f"Set {num_replicas} or more, or use fewer replicas."
        return Finding(what, UNSUPPORTED, "a replica has no example in any step", fix)
    if batch % num_replicas == 0:
        return Finding(what, OK, f"{batch // num_replicas} examples each")
    share = -(-batch // num_replicas)  # tf.data fills one replica after the other
    last = max(0, batch - share * (num_replicas - 1))
    why = f"the first replica has {share} examples, the last one {last}"
    fix = f"Set a multiple of {num_replicas}"
    if find_rules(setup.config, num_replicas).weighs_examples:
        return Finding(what, SLOW, f"{why}, and waits", f"{fix}.", fit_warns=True)
    why += ", whose examples weigh more, as in fit"
    return Finding(what, RISKY, why, f"{fix}, or uneven='exact'.", fit_warns=True)


def batch_of_workers(setup: Setup) -> Finding | None:
    """Whether the batch divides among the workers."""
    batch, num_workers = setup.config.global_batch_size, setup.num_workers
    if num_workers == 1 or batch is None or batch % num_workers == 0:
        return None
    why = "the workers have unequal shares of each batch, and wait for the largest"
    fix = f"Set a multiple of {num_workers}."
    return Finding(f"global_batch_size={batch} on {num_workers} workers", SLOW, why, fix)


def precision(setup: Setup) -> Finding | None:
    """Whether the devices compute in the dtype of the policy."""
    policy = setup.config.precision
    if policy is None and setup.model is not None:
        policy = setup.model.dtype_policy.name
    what = f"precision={policy}"
    if policy == "mixed_float16" and not setup.num_gpus:
        fix = "Set precision='float32'."
        return Finding(what, SLOW, "on a CPU, float16 is slower than float32: for tests", fix)
    if policy == "mixed_bfloat16" and not setup.num_gpus and not has_fast_bfloat16():
        why = "this processor has no instructions for bfloat16"
        return Finding(what, SLOW, why, "Set precision='float32'.")
    return None if policy is None else Finding(what, OK, "the devices compute in it")


def xla(setup: Setup) -> Finding | None:
    """Whether XLA can compile the step, and makes it faster."""
    config = setup.config
    what = f"jit_compile=true, jit_scope={config.jit_scope}"
    if not config.jit_compile:
        return None
    if setup.num_replicas > 1 and config.jit_scope != "step":
        why = "XLA cannot compile the exchange between replicas"
        return Finding(what, UNSUPPORTED, why, "Set jit_scope='step', or use one replica.")
    synchronized = [
        one for one in setup.layers(keras.layers.BatchNormalization) if one.synchronized
    ]
    if setup.num_replicas > 1 and synchronized:
        why = f"XLA cannot compile the exchange between replicas: {_name(synchronized)}"
        return Finding(what, UNSUPPORTED, why, "Set jit_compile=False, or synchronized=False.")
    if setup.model is not None and not model_supports_jit(setup.model):
        why = "a layer does not support XLA, or operations are deterministic: not compiled"
        return Finding(what, SLOW, why, "Set jit_compile=False.", fit_warns=True)
    convolutions = setup.layers(*_CONVOLUTIONS)
    if convolutions and not setup.num_gpus and config.jit_scope != "update":
        why = f"on a CPU, XLA is ten times slower on convolutions: {_name(convolutions)}"
        return Finding(what, SLOW, why, "Set jit_compile='auto'.")
    compiled = (
        "all of a step but the update" if setup.num_replicas > 1 else f"the {config.jit_scope}"
    )
    return Finding(what, OK, f"XLA compiles {compiled}")


def numerics(setup: Setup) -> Finding | None:
    """Whether fast numerics meet replicas, and which recurrent layers they reach."""
    if setup.config.numerics == "exact":
        return None
    if setup.num_replicas == 1:
        why = "free: bits of its own, and the learning of fit" + _describe_lstms(setup)
        return Finding("numerics=fast", OK, why)
    why = "its updates are for one replica"
    fix = "Set numerics='exact', or use one replica."
    return Finding(f"numerics=fast on {setup.replicas}", UNSUPPORTED, why, fix)


def _describe_lstms(setup: Setup) -> str:
    """Returns which LSTM layers the engine fuses, and which keep Keras's loop."""
    in_xla = setup.config.jit_compile and setup.config.jit_scope != "update"
    if setup.model is None or setup.num_gpus or setup.config.run_eagerly or in_xla:
        return ""
    fused = find_fused_lstms(setup.model)
    others = [one for one in setup.layers(keras.layers.LSTM) if one not in fused]
    found = {"LSTM fused": fused, "LSTM as in Keras": others}
    return "".join(f"; {what}: {_name(layers)}" for what, layers in found.items() if layers)


def batch_norm(setup: Setup) -> Finding | None:
    """Whether BatchNormalization has examples enough on each replica."""
    batch = setup.config.global_batch_size
    layers = setup.layers(keras.layers.BatchNormalization)
    layers = [layer for layer in layers if layer.trainable and not layer.synchronized]
    if not layers or batch is None:
        return None
    share = batch // setup.num_replicas
    what = f"{_name(layers)} on {share} examples a replica"
    if share >= MIN_BATCH_NORM_EXAMPLES:
        return Finding(what, OK, "enough for its moments")
    why = f"the moments of under {MIN_BATCH_NORM_EXAMPLES} examples are noisy"
    fix = f"Set global_batch_size={MIN_BATCH_NORM_EXAMPLES * setup.num_replicas} or more"
    fix += ", or BatchNormalization(synchronized=True)." if setup.num_replicas > 1 else "."
    return Finding(what, RISKY, why, fix)


def optimizer_accumulation(setup: Setup) -> Finding | None:
    """Whether Keras's own accumulation meets replicas."""
    num_steps = getattr(setup.optimizer, "gradient_accumulation_steps", None)
    if not num_steps:
        return None
    what = f"optimizer with gradient_accumulation_steps={num_steps}"
    if not _exchanges(setup):
        return Finding(what, OK, "its learning rate schedule counts batches, not updates")
    why = "Keras exchanges gradients inside a condition, which replicas cannot do"
    fix = f"Leave it out, and set gradient_accumulation_steps={num_steps} in TrainConfig."
    return Finding(what, UNSUPPORTED, why, fix)


def optimizer_average(setup: Setup) -> Finding | None:
    """Whether the moving average is to overwrite the weights of replicas."""
    period = getattr(setup.optimizer, "ema_overwrite_frequency", None)
    if not (getattr(setup.optimizer, "use_ema", False) and period and _exchanges(setup)):
        return None
    why = "Keras overwrites the weights inside a condition, which replicas cannot do"
    fix = "Set ema_overwrite_frequency=None: the average is written when training ends."
    what = f"optimizer with ema_overwrite_frequency={period}"
    return Finding(what, UNSUPPORTED, why, fix)


def sparse_gradients(setup: Setup) -> Finding | None:
    """Whether gradients of embeddings meet replicas."""
    layers = [layer for layer in setup.layers(keras.layers.Embedding) if layer.trainable]
    if not layers or setup.num_replicas == 1:
        return None
    why = "replicas cannot exchange sparse gradients in a loop: each step is a call of its own"
    fix = "For speed, use one replica."
    return Finding(f"{_name(layers)} on {setup.replicas}", SLOW, why, fix)


def eager_steps(setup: Setup) -> Finding | None:
    """Whether Python runs the steps."""
    if not setup.config.run_eagerly:
        return None
    why = "Python runs each operation, for a debugger"
    return Finding("run_eagerly=true", SLOW, why, "Set run_eagerly=False.")


def tensor_float(setup: Setup) -> Finding | None:
    """Whether there is what computes in TensorFloat-32."""
    if not setup.config.tf32:
        return None
    if setup.num_gpus:
        return Finding("tf32=true", OK, "products have 10 bits after the point, not 23")
    why = "TensorFloat-32 is of NVIDIA GPUs, and there is none"
    return Finding("tf32=true", UNSUPPORTED, why, "Leave it out.")


def resident_input(setup: Setup) -> Finding | None:
    """Whether the graph can make the batches."""
    if setup.config.input != "resident":
        return None
    if may_train_resident(setup.strategy, setup.config):
        return Finding("input=resident", OK, "the training graph makes the batches")
    why = "the training graph makes batches on the CPU of one process alone"
    return Finding("input=resident", UNSUPPORTED, why, "Set input='auto'.")


ROWS = (
    devices_used,
    model_scope,
    batch_of_replicas,
    batch_of_workers,
    precision,
    xla,
    numerics,
    batch_norm,
    optimizer_accumulation,
    optimizer_average,
    sparse_gradients,
    eager_steps,
    tensor_float,
    resident_input,
)


def _exchanges(setup: Setup) -> bool:
    """Returns whether updates go through an exchange, as under MirroredStrategy of one, too."""
    single = tf.distribute.OneDeviceStrategy
    with setup.strategy.scope():
        return tf.distribute.has_strategy() and not isinstance(setup.strategy, single)


def _name(layers: Sequence[Any]) -> str:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"layer {layers[0].name!r}{more}"
