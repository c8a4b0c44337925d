"""The models in PyTorch, with the weights of the Keras models and the same mathematics.

Each is a body, which runs in the task's precision, and a linear head in float32 that gives logits.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from benchmarks.arms import torch_device, torch_resnet
from benchmarks.race.workloads import (
    FEED_FORWARD_FACTOR,
    LAYER_NORM_EPSILON,
    NUM_BLOCKS,
    NUM_HEADS,
    VOCABULARY_SIZE,
    Task,
    Workload,
)

_AUTOCAST_DTYPES = {"float32": None, "tf32": None, "mixed_bfloat16": torch.bfloat16}


class Net(nn.Module):
    """A body in the task's precision and a head in float32.

    Args:
      body: Gives `[batch, width]`.
      head: Gives logits.
      dtype: In which automatic mixed precision computes the body; None: float32.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self._dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits `[batch, num_classes]`, float32."""
        if self._dtype is None:
            return self.head(self.body(x))
        with torch.autocast(x.device.type, self._dtype):
            hidden = self.body(x)
        return self.head(hidden.float())


class Cnn(nn.Module):
    """The body of the tutorial's convolutional net."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        height, width, channels = workload.input_shape
        num_values = (height // 2 - 2) * (width // 2 - 2) * 64
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.conv_dropout = nn.Dropout(0.25)
        self.hidden = nn.Linear(num_values, workload.units)
        self.dense_dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[batch, units]` of images `[batch, height, width, channels]`."""
        x = x.permute(0, 3, 1, 2)
        x = self.conv1(x).relu()
        x = self.pool(self.conv2(x).relu())
        # Flattened in Keras's order.
        x = self.conv_dropout(x).permute(0, 2, 3, 1).flatten(1)
        return self.dense_dropout(self.hidden(x).relu())


class Lstm(nn.Module):
    """A recurrent layer over the rows of an image."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        _, width, channels = workload.input_shape
        self.lstm = nn.LSTM(width * channels, workload.units, batch_first=True)
        # Keras's has one bias.
        self.lstm.bias_hh_l0.requires_grad_(False).zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last state `[batch, units]` of images `[batch, height, width, channels]`."""
        _, (hidden, _) = self.lstm(x.flatten(2))
        return hidden[0]


class Attention(nn.Module):
    """Self-attention, with one product for queries, keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[batch, num_positions, width]`, as `x` is."""
        split = self.inputs(x).unflatten(2, (3, NUM_HEADS, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        x = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.output(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and two dense layers, each on a normalized copy.

    The layers are created in Keras's order of the weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, LAYER_NORM_EPSILON)
        self.attention = Attention(width)
        self.norm2 = nn.LayerNorm(width, LAYER_NORM_EPSILON)
        self.hidden = nn.Linear(width, FEED_FORWARD_FACTOR * width)
        self.output = nn.Linear(FEED_FORWARD_FACTOR * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[batch, num_positions, width]`, as `x` is."""
        x = x + self.attention(self.norm1(x))
        return x + self.output(nn.functional.gelu(self.hidden(self.norm2(x))))


class Transformer(nn.Module):
    """Blocks over embedded tokens, and the mean over positions.

    The layers are created in Keras's order of the weights.
    """

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        (num_positions,), width = workload.input_shape, workload.units
        self.tokens = nn.Embedding(VOCABULARY_SIZE, width)
        self.positions = nn.Embedding(num_positions, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(NUM_BLOCKS)])
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[batch, width]` of token ids `[batch, num_positions]`."""
        x = self.tokens(x) + self.positions.weight
        return self.norm(self.blocks(x)).mean(1)


def build(task: Task) -> Net:
    """Returns the workload's model with random weights, on the task's device.

    Raises:
      NotImplementedError: If these arms do not support the model, precision or device.
    """
    is_known = task.precision in _AUTOCAST_DTYPES
    if not is_known or (task.device == "cpu" and task.precision == "tf32"):
        raise NotImplementedError(f"no PyTorch arm on {task.device} in {task.precision}")
    body, width = _build_body(task.workload)
    for module in body.modules():
        if isinstance(module, nn.Dropout) and not task.dropout:
            module.p = 0.0
    head = nn.Linear(width, task.workload.num_classes)
    net = Net(body, head, _AUTOCAST_DTYPES[task.precision])
    return net.to(torch_device.find(task))


def _build_body(workload: Workload) -> tuple[nn.Module, int]:
    """Returns the body and the width of its output."""
    match workload.model:
        case "dense":
            sizes = [math.prod(workload.input_shape), *[workload.units] * workload.num_hidden]
            pairs = [(nn.Linear(*pair), nn.ReLU()) for pair in itertools.pairwise(sizes)]
            layers = itertools.chain.from_iterable(pairs)
            return nn.Sequential(nn.Flatten(), *layers), workload.units
        case "cnn":
            return Cnn(workload), workload.units
        case "lstm":
            return Lstm(workload), workload.units
        case "transformer":
            return Transformer(workload), workload.units
        case "resnet50":
            return torch_resnet.ResNet50(), torch_resnet.WIDTH
    raise NotImplementedError(f"no PyTorch model {workload.model!r}")


def keras_views(module: nn.Module) -> list[torch.Tensor]:
    """Returns views of all weights, in the order and layout of Keras's `get_weights()`."""
    match module:
        case Attention():
            return _attention_views(module)
        case nn.Linear():
            views = [module.weight.T, module.bias]
        case nn.Conv2d():
            views = [module.weight.permute(2, 3, 1, 0), module.bias]
        case nn.BatchNorm2d():
            views = [module.weight, module.bias, module.running_mean, module.running_var]
        case nn.LSTM():
            views = [module.weight_ih_l0.T, module.weight_hh_l0.T, module.bias_ih_l0]
        case nn.LayerNorm():
            views = [module.weight, module.bias]
        case nn.Embedding():
            views = [module.weight]
        case _:
            views = [view for child in module.children() for view in keras_views(child)]
    return [view.detach() for view in views]


def _attention_views(attention: Attention) -> list[torch.Tensor]:
    views = []
    parts = zip(attention.inputs.weight.chunk(3), attention.inputs.bias.chunk(3), strict=True)
    for weight, bias in parts:
        kernel = weight.detach().unflatten(0, (NUM_HEADS, -1)).permute(2, 0, 1)
        views += [kernel, bias.detach().unflatten(0, (NUM_HEADS, -1))]
    weight = attention.output.weight.detach()
    kernel = weight.unflatten(1, (NUM_HEADS, -1)).permute(1, 2, 0)
    return [*views, kernel, attention.output.bias.detach()]
