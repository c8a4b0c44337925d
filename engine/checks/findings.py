"""What `check_setup` looks at, and what it finds: rows of a table, lines of warnings, errors."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ..config import TrainConfig
from ..options import ConfigError


class Verdict(enum.StrEnum):
    """What a finding says of a setup."""

    OK = "ok"
    SLOW = "slow"
    RISKY = "risky"  # it runs, and its numbers may not be what is wanted
    UNSUPPORTED = "unsupported"


class Finding(NamedTuple):
    """One row of `check_setup`.

    Attributes:
      what: The settings that are looked at, with their values.
      verdict: See `Verdict`.
      why: One sentence without its full stop.
      fix: What to do instead, one sentence; "" if nothing is wrong.
      fit_warns: Whether `fit` warns of it by itself.
    """

    what: str
    verdict: Verdict
    why: str
    fix: str = ""
    fit_warns: bool = False

    def __str__(self) -> str:
        """The finding as a line of a warning or an error."""
        return f"{self.what}: {self.why}. {self.fix}".rstrip()


class Setup(NamedTuple):
    """What the rows look at; see `check_setup`."""

    config: TrainConfig
    strategy: tf.distribute.Strategy
    model: Any
    optimizer: Any
    num_replicas: int
    num_workers: int
    num_gpus: int

    def layers(self, *kinds: type) -> list[Any]:
        """Returns the model's layers of some classes, at any depth."""
        if self.model is None:
            return []
        return [layer for layer in self.model._flatten_layers() if isinstance(layer, kinds)]

    @property
    def replicas(self) -> str:
        """The number of replicas in words."""
        return f"{self.num_replicas} replica{'s' if self.num_replicas > 1 else ''}"


def is_supported(findings: Iterable[Finding]) -> bool:
    """Returns whether nothing that was found is unsupported."""
    return all(finding.verdict is not Verdict.UNSUPPORTED for finding in findings)


def refuse_unsupported(findings: Iterable[Finding]) -> None:
    """Raises ConfigError for the first finding that is unsupported."""
    for finding in findings:
        if finding.verdict is Verdict.UNSUPPORTED:
            raise ConfigError(str(finding))


def warning_lines(findings: Iterable[Finding]) -> list[str]:
    """Returns one line for each finding that is slow or risky, and that `fit` does not warn of."""
    verdicts = (Verdict.SLOW, Verdict.RISKY)
    return [f"{f.verdict}: {f}" for f in findings if f.verdict in verdicts and not f.fit_warns]


def to_table(findings: Sequence[Finding]) -> str:
    """Returns the findings as a table of text: verdict, settings, reason; the fix below it."""
    width = max((len(finding.what) for finding in findings), default=0)
    width_of_verdict = max(map(len, Verdict))
    lines = []
    for what, verdict, why, fix, _ in findings:
        lines.append(f"{verdict:<{width_of_verdict}}  {what:<{width}}  {why}")
        if fix:
            lines.append(" " * (width_of_verdict + width + 4) + fix)
    return "\n".join(lines)
