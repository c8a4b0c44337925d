"""The body of ResNet50 in PyTorch, as in Keras Applications.

The stride is in the first convolution of a block, and all convolutions have a bias. The layers are
created in Keras's order of the weights.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTH = 2048
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # filters, blocks, stride
_EXPANSION = 4


class Block(nn.Module):
    """Three convolutions and a shortcut.

    Args:
      num_inputs: Channels of the input.
      filters: Channels inside; the output has four times as many.
      stride: Of the first convolution and of the shortcut.
    """

    def __init__(self, num_inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        num_outputs = _EXPANSION * filters
        has_conv = num_inputs != num_outputs
        self.conv1 = nn.Conv2d(num_inputs, filters, 1, stride)
        self.norm1 = _norm(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1)
        self.norm2 = _norm(filters)
        conv0 = nn.Conv2d(num_inputs, num_outputs, 1, stride) if has_conv else nn.Identity()
        self.conv0 = conv0
        self.conv3 = nn.Conv2d(filters, num_outputs, 1)
        self.norm0 = _norm(num_outputs) if has_conv else nn.Identity()
        self.norm3 = _norm(num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[batch, 4 * filters, height, width]` of images with the channels first."""
        shortcut = self.norm0(self.conv0(x))
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        return (shortcut + self.norm3(self.conv3(x))).relu()


class ResNet50(nn.Module):
    """All blocks, and the mean over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.norm = _norm(64)
        blocks, num_inputs = [], 64
        for filters, num_blocks, stride in _STAGES:
            for index in range(num_blocks):
                blocks.append(Block(num_inputs, filters, stride if index == 0 else 1))
                num_inputs = _EXPANSION * filters
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `[batch, 2048]` of images `[batch, height, width, 3]`."""
        x = self.norm(self.conv(x.permute(0, 3, 1, 2))).relu()
        # Keras pads with zeros and PyTorch with minus infinity: the same after a ReLU.
        x = nn.functional.max_pool2d(x, 3, 2, padding=1)
        return self.blocks(x).mean((2, 3))


def _norm(num_channels: int) -> nn.BatchNorm2d:
    # PyTorch's momentum is the share of the new value, Keras's (0.99) that of the old one.
    return nn.BatchNorm2d(num_channels, eps=1.001e-5, momentum=0.01)
