"""What `tune` found to be fastest on this machine, kept for later runs.

There are three classes of bits (docs/parity.md), and a choice for each, the fastest row that was
tried for it: a few fields of a config, in a file of the user's cache whose name is made of what the
choice depends on. Later runs take the choice of their own class for fields that nobody set.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gradloop.files import write_atomically
from gradloop.machine import cache_dir, num_cores, processor_name

from ..config import TrainConfig
from ..options import ConfigError, show

# Fields that trials vary; a process cannot change those of the second kind.
TRIED = (
    "numerics", "steps_per_execution", "jit_compile", "jit_scope", "input", "compile_update",
    "narrow_products",
)  # fmt: skip
OF_PROCESSES = ("inter_op_threads", "intra_op_threads")
# A smaller gain is noise.
MIN_GAIN = 1.03
Config = TypeVar("Config", bound=TrainConfig)
Key = Mapping[str, Any]


class Bits(enum.StrEnum):
    """Whose bits a training has."""

    FIT = "fit"
    XLA = "fit(jit_compile=True)"
    FREE = "free"  # bfloat16, fused updates, XLA for the update alone, sums split otherwise

    @classmethod
    def of(cls, changes: Mapping[str, Any], *, keeps_bits: bool = False) -> Bits:
        """Returns the class of a config with these changes of the defaults.

        Args:
          changes: Fields and values.
          keeps_bits: Whether a trial has shown that fields of `MAY_CHANGE_BITS` change none.
        """
        is_free = changes.get("numerics") == "fast"
        is_free |= not keeps_bits and may_change_bits(changes)
        if is_free or "precision" in changes or changes.get("jit_scope") == "update":
            return cls.FREE
        return cls.XLA if changes.get("jit_compile") else cls.FIT


# How sums are split between threads, or added up: the bits of many nets stay as they are.
MAY_CHANGE_BITS = ("intra_op_threads", "narrow_products")


def may_change_bits(changes: Mapping[str, Any]) -> bool:
    """Returns whether only a trial tells if changes of the defaults leave the bits as they are."""
    return any(name in changes for name in MAY_CHANGE_BITS)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Changes of the defaults, and the speed with them.

    The trial took turns, within seconds, with the best of its class so far, or with the defaults;
    all numbers are of these turns. Its gain is that over the other, times the gain of the latter.

    Attributes:
      changes: Fields and values in which the config differs from the defaults.
      gain: Its speed over that of the defaults, by the median of the turns; None: not measured.
      gain_low: Lower quartile of the same.
      gain_high: Upper quartile.
      usecs_per_step: Microseconds of a step, median.
      usecs_beside: Of what took turns with it.
      note: Why it was not measured, or what else was found.
      keeps_bits: Whether a trial has shown that it leaves the bits of its class as they are.
    """

    changes: dict[str, Any]
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    usecs_per_step: float | None = None
    usecs_beside: float | None = None
    note: str = ""
    keeps_bits: bool = False

    @property
    def bits(self) -> Bits:
        """Whose bits the training has."""
        return Bits.of(self.changes, keeps_bits=self.keeps_bits)

    def cells(self) -> list[str]:
        """Returns its row of the table."""
        if self.gain is None:
            return [_show_changes(self.changes), "-", "-", "-", self.bits, self.note]
        spread = f"{self.gain:.2f} x ({self.gain_low:.2f} to {self.gain_high:.2f})"
        usecs = [f"{usecs or 0:,.0f}" for usecs in (self.usecs_per_step, self.usecs_beside)]
        return [_show_changes(self.changes), *usecs, spread, self.bits, self.note]


# The field of `Tuning`, and the key in the file, of each class.
CHOICES = {Bits.FIT: "exact", Bits.XLA: "xla", Bits.FREE: "fast"}


@dataclasses.dataclass
class Tuning:
    """What was measured, and the choices that follow from it.

    Attributes:
      measurements: In the order in which they were made.
      exact: Fields to change, and their values, that keep fit's bits.
      xla: The same with the bits of `fit(jit_compile=True)`.
      fast: The same for `numerics="fast"`.
      notes: For a choice that a simpler one ties with, a line on it.
    """

    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    exact: dict[str, Any] = dataclasses.field(default_factory=dict)
    xla: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_table(self) -> str:
        """Returns the trials and the choices as text."""
        head = ["trial", "us a step", "beside", "speed (quartiles)", "bits", ""]
        rows = [head, *(one.cells() for one in self.measurements)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [_aligned(row, widths) for row in rows]
        for bits, name in CHOICES.items():
            fast = {"numerics": "fast"} if bits is Bits.FREE else {}
            found = _show_changes(fast | getattr(self, name))
            note = f" ({self.notes[name]})" if name in self.notes else ""
            lines.append(f"kept, bits {bits}: {found}{note}")
        return "\n".join(lines)

    def save(self, key: Key) -> Path:
        """Writes the choice for later runs with this key on this machine, and returns the file."""
        path = choice_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"key": _on_this_machine(key), **dataclasses.asdict(self)}
        write_atomically(path, lambda file: file.write(json.dumps(content, indent=2) + "\n"))
        return path


def choice_path(key: Key) -> Path:
    """Returns the file of a choice, whether it exists or not.

    Args:
      key: What the choice depends on besides the machine, JSON-ready; has `model`.
    """
    text = json.dumps(_on_this_machine(key), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return cache_dir() / "tuning" / f"{key['model']}-{digest[:16]}.json"


def apply_choice(
    config: Config, key: Key, chosen: Collection[str], *, may_differ: bool = False
) -> tuple[Config, Path | None]:
    """Returns the config with the kept choice, and its file; None if nothing changes.

    A choice that the run's other settings exclude is left out: `tune` was of a run without them.
    So is what may change bits, unless the run is one whose bits were shown to stay.

    Args:
      config: The run's.
      key: See `choice_path`.
      chosen: Fields that a person has set; they win.
      may_differ: Whether the run may be another one than that of `tune`, beyond the key.

    Raises:
      ConfigError: If the file is damaged.
    """
    path = choice_path(key)
    try:
        kept = json.loads(path.read_text("utf-8"))[_choice_of(config)]
        may_differ |= any(getattr(config, name) != kept[name] for name in kept if name in chosen)
        left_out = MAY_CHANGE_BITS if may_differ and config.numerics != "fast" else ()
        changes = {k: v for k, v in kept.items() if k not in chosen and k not in left_out}
        changed = _changed(config, changes)
    except FileNotFoundError:
        return config, None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be used ({error}): run --tune again, or delete the file."
        ) from error
    return (config, None) if changed == config else (changed, path)


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Returns the config with the changes, or as it is if they are legal, but not beside it.

    Raises:
      ConfigError: If the changes are illegal by themselves.
    """
    try:
        return dataclasses.replace(config, **changes)
    except ConfigError:
        type(config)(**{"numerics": config.numerics, "jit_compile": config.jit_compile, **changes})
        return config


def _choice_of(config: TrainConfig) -> str:
    """Returns the name of the choice for the class of bits that a config asks for."""
    if config.numerics == "fast":
        return CHOICES[Bits.FREE]
    return CHOICES[Bits.XLA if config.jit_compile else Bits.FIT]


def choose(measurements: Sequence[Measurement]) -> tuple[dict[str, Any], str]:
    """Returns the changes of the fastest, and a note if a simpler one is as fast within noise.

    That is if the gain over it is below `MIN_GAIN`, or the quartiles overlap.

    Args:
      measurements: Of one class of bits, all beside the same defaults.

    Returns:
      The changes, {} if nothing was measured; and the note, or "". Without changes, it says why.
    """
    measured = [one for one in measurements if one.gain is not None]
    if not measured:
        return {}, measurements[0].note if measurements else ""
    fastest = max(measured, key=_gain)
    simpler = [one for one in measured if len(one.changes) < len(fastest.changes)]
    ties = [one for one in simpler if _ties(one, fastest)]
    if not ties:
        return fastest.changes, ""
    simplest = min(ties, key=lambda one: (len(one.changes), -_gain(one)))
    shown = _show_changes(simplest.changes) if simplest.changes else "the defaults"
    return fastest.changes, f"within noise of {shown}"


def _gain(one: Measurement) -> float:
    return one.gain or 0.0


def _ties(one: Measurement, fastest: Measurement) -> bool:
    overlaps = (one.gain_high or 0.0) >= (fastest.gain_low or 0.0)
    return overlaps or _gain(fastest) < MIN_GAIN * _gain(one)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers, bits, note = cells
    shown = [f"{first:<{widths[0]}}"]
    shown += [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=False)]
    return "  ".join([*shown, f"{bits:<{widths[-2]}}", note]).rstrip()


def _on_this_machine(key: Key) -> dict[str, Any]:
    import importlib.metadata  # slow, and --help does not need it

    machine = {"processor": processor_name(), "num_cores": num_cores()}
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    return {**key, **machine, **versions}


def _show_changes(changes: dict[str, Any]) -> str:
    named = (f"{name}={show(value)}" for name, value in changes.items())
    return ", ".join(named) or "as it is"
