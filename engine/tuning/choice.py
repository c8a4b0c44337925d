"""What `tune` found to be fastest on this machine, kept for later runs.

A choice is a few fields of a config, in a file of the user's cache whose name is made of what the
choice depends on. Later runs take it for fields that nobody set: always what keeps the bits of fit,
the rest only with `numerics="fast"`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gradloop.files import write_atomically
from gradloop.machine import cache_dir, num_cores, processor_name

from ..config import TrainConfig
from ..options import ConfigError, show

# A smaller gain is noise, and not worth a setting.
MIN_GAIN = 1.03
Config = TypeVar("Config", bound=TrainConfig)
Key = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A change of the config, and the speed that was measured with it.

    Attributes:
      changes: Fields and values in which it differs from what it is compared with.
      gain: Its speed divided by that of the other, median over rounds; None: not measured.
      usecs_per_step: Microseconds of a step, median; None: not measured.
      changes_bits: Whether the weights differ from those of fit with its defaults.
      note: Why it was not measured.
      is_sure: Whether it was faster in all rounds, or all but one.
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
      measurements: In the order in which they were made.
      exact: Fields to change, and their values, that keep fit's bits.
      fast: The same for `numerics="fast"`.
    """

    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    exact: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_table(self) -> str:
        """Returns the trials and the choice as text."""
        names = [_show_changes(one.changes) or "as it is" for one in self.measurements]
        width = max(map(len, ["trial", *names]))
        lines = [f"{'trial':<{width}}{'us a step':>12}{'speed':>9}  bits"]
        for name, one in zip(names, self.measurements, strict=True):
            usecs = "-" if one.usecs_per_step is None else f"{one.usecs_per_step:,.0f}"
            gain = "-" if one.gain is None else f"{one.gain:.2f} x"
            bits = "others" if one.changes_bits else "fit's"
            lines.append(f"{name:<{width}}{usecs:>12}{gain:>9}  {bits}  {one.note}".rstrip())
        return "\n".join(
            [
                *lines,
                f"chosen, with fit's bits:   {_show_changes(self.exact) or 'nothing to change'}",
                f"chosen, with numerics=fast: {_show_changes(self.fast) or 'nothing to change'}",
            ]
        )

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


def apply_choice(config: Config, key: Key, chosen: Collection[str]) -> tuple[Config, Path | None]:
    """Returns the config with the kept choice, and its file; None if nothing changes.

    Args:
      config: The run's.
      key: See `choice_path`.
      chosen: Fields that a person has set; they win.

    Raises:
      ConfigError: If the file is damaged.
    """
    path = choice_path(key)
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
    """Returns the changes that gain the most; empty if none gains more than noise."""
    measured = [one for one in measurements if one.gain is not None and one.is_sure]
    best = max(measured, key=lambda one: one.gain or 0.0, default=None)
    return best.changes if best is not None and (best.gain or 0.0) >= MIN_GAIN else {}


def _on_this_machine(key: Key) -> dict[str, Any]:
    import importlib.metadata  # slow, and --help does not need it

    machine = {"processor": processor_name(), "num_cores": num_cores()}
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    return {**key, **machine, **versions}


def _show_changes(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in changes.items())
