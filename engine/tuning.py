"""What is fastest on this machine: how a training is best executed, and what that changes.

A choice is nothing but some fields of a config. It is kept in the user's cache, under a key made of
what it depends on, and taken by later runs for the fields that nobody set: what keeps fit's bits
always, the rest with `numerics="fast"` only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from engine.config import ConfigError, TrainConfig, show
from engine.files import write_atomically
from engine.run import num_cores, processor_name

# Faster by less than this is noise, and not worth a setting.
MIN_GAIN = 1.03
# What a choice depends on, besides the machine.
_KEY_FIELDS = (
    "model", "dataset", "global_batch_size", "strategy", "num_replicas", "deterministic", "rescale"
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A change of the config, and what it was measured to give.

    Attributes:
      changes: Fields and values, against what the trial is compared with.
      gain: Speed over that, the median over rounds; None if it was not measured.
      is_sure: Whether it was faster in all rounds but one at the most.
      usecs_per_step: Median.
      changes_bits: Whether the weights differ from those of fit with its defaults.
      note: Why it was not measured, or cut short.
    """

    changes: dict[str, Any]
    gain: float | None
    usecs_per_step: float | None
    changes_bits: bool
    note: str = ""
    is_sure: bool = True


@dataclasses.dataclass
class Tuning:
    """What was measured, and the choice that follows from it.

    Attributes:
      measurements: In the order of measuring.
      exact: Fields to change that keep fit's bits.
      fast: Fields to change with `numerics="fast"`.
    """

    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    exact: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_table(self) -> str:
        """Returns the trials and the choice for people."""
        lines = [f"{'trial':<46}{'us a step':>12}{'speed':>9}  bits"]
        for one in self.measurements:
            name = _show_changes(one.changes) or "as it is"
            usecs = "-" if one.usecs_per_step is None else f"{one.usecs_per_step:,.0f}"
            gain = "-" if one.gain is None else f"{one.gain:.2f} x"
            bits = "others" if one.changes_bits else "fit's"
            lines.append(f"{name:<46}{usecs:>12}{gain:>9}  {bits}  {one.note}".rstrip())
        return "\n".join(
            [
                *lines,
                f"chosen, with fit's bits:   {_show_changes(self.exact) or 'nothing to change'}",
                f"chosen, with numerics=fast: {_show_changes(self.fast) or 'nothing to change'}",
            ]
        )

    def save(self, config: TrainConfig) -> Path:
        """Keeps the choice for later runs like this one, and returns the file."""
        path = choice_path(config)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"key": _key(config), **dataclasses.asdict(self)}
        write_atomically(path, lambda file: file.write(json.dumps(content, indent=2) + "\n"))
        return path


def choice_path(config: TrainConfig) -> Path:
    """Returns the file in which the choice for such a run is kept, whether it is there or not."""
    home = os.environ.get("XDG_CACHE_HOME")
    cache = Path(home) if home else Path.home() / ".cache"
    digest = hashlib.sha256(json.dumps(_key(config), sort_keys=True).encode()).hexdigest()
    return cache / "gradloop" / "tuning" / f"{config.model}-{digest[:16]}.json"


def apply_choice(config: TrainConfig, chosen: Collection[str]) -> tuple[TrainConfig, Path | None]:
    """Returns the config with the kept choice, if there is one, and the file it comes from.

    Args:
      config: Of the run. Under several replicas, nothing is changed.
      chosen: Fields that a person has set, which win.
    """
    path = choice_path(config)
    try:
        kept = json.loads(path.read_text("utf-8"))[config.numerics]
        changes = {name: value for name, value in kept.items() if name not in chosen}
        changed = dataclasses.replace(config, **changes)
    except FileNotFoundError:
        return config, None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be used ({error}): run --tune again, or delete the file."
        ) from error
    return (changed, path) if changes else (config, None)


def best_of(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Returns the changes that gain the most; none if none gains more than noise."""
    measured = [one for one in measurements if one.gain is not None and one.is_sure]
    best = max(measured, key=lambda one: one.gain or 0.0, default=None)
    return best.changes if best is not None and (best.gain or 0.0) >= MIN_GAIN else {}


def _key(config: TrainConfig) -> dict[str, Any]:
    fields = {name: getattr(config, name) for name in _KEY_FIELDS}
    machine = {"processor": processor_name(), "num_cores": num_cores()}
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    return fields | machine | versions


def _show_changes(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in changes.items())
