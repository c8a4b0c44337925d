"""Peaks from the vendors' data sheets of GPUs, found by the name of a device."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataSheet:
    """The peaks of a GPU.

    Attributes:
      title: Name of the GPU, for people.
      words: Lower case; the driver's name for the GPU contains all of them.
      teraflops_per_sec: By precision; of the tensor cores where they support it, without sparsity,
        which training does not use.
      gigabytes_per_sec: Of the device's memory.
    """

    title: str
    words: tuple[str, ...]
    teraflops_per_sec: dict[str, float]
    gigabytes_per_sec: float

    def flops_per_sec(self, precision: str) -> float | None:
        """Returns the peak in a precision of `Task`, or None if the GPU does not support it."""
        value = self.teraflops_per_sec.get(precision)
        return None if value is None else value * 1e12


def _sheet(
    title: str, words: str, peaks: tuple[float, float | None, float | None, float], memory: float
) -> DataSheet:
    names = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
    known = {name: peak for name, peak in zip(names, peaks, strict=True) if peak is not None}
    return DataSheet(title, tuple(words.split()), known, memory)


# From NVIDIA's public data sheets of these names ("NVIDIA H100 Tensor Core GPU", "NVIDIA L4 Tensor
# Core GPU", ...). Those of Ada and Hopper have figures with sparsity alone: half of them is here.
# The first sheet that matches counts, so the longer names come first.
SHEETS = (
    _sheet("H200 NVL", "h200 nvl", (60, 417.5, 835.5, 835.5), 4800),
    _sheet("H200 SXM", "h200", (67, 494.5, 989.5, 989.5), 4800),
    _sheet("H100 NVL", "h100 nvl", (60, 417.5, 835.5, 835.5), 3900),
    _sheet("H100 PCIe", "h100 pcie", (51, 378, 756, 756), 2000),
    _sheet("H100 SXM", "h100", (67, 494.5, 989.5, 989.5), 3350),
    _sheet("A100 80GB SXM", "a100 sxm 80gb", (19.5, 156, 312, 312), 2039),
    _sheet("A100 80GB PCIe", "a100 80gb", (19.5, 156, 312, 312), 1935),
    _sheet("A100 40GB", "a100", (19.5, 156, 312, 312), 1555),
    _sheet("L40S", "l40s", (91.6, 183, 362, 362), 864),
    _sheet("L4", "l4", (30.3, 60, 121, 121), 300),
    _sheet("T4", "t4", (8.1, None, None, 65), 320),
    _sheet("V100 PCIe", "v100 pcie", (14, None, None, 112), 900),
    _sheet("V100 SXM2", "v100", (15.7, None, None, 125), 900),
)


def find(device_name: str | None) -> DataSheet | None:
    """Returns the data sheet of a device, or None if it is unknown.

    Args:
      device_name: As the driver has it, for example "NVIDIA A100-SXM4-80GB".
    """
    words = (device_name or "").lower().replace("-", " ").split()
    # "SXM4" and "SXM2" are sockets of the same family.
    have = {"sxm" if word.startswith("sxm") else word for word in words}
    return next((sheet for sheet in SHEETS if have.issuperset(sheet.words)), None)
