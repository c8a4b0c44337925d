"""Words written by hand on targets that are missed: docs/benchmarks_notes.md.

    What comes before the first heading is on all workloads.

    ## dense
    - **over `tf_loop`**: ...

A heading names a workload. The words under it must name what is missed: the arm that the target
compares with, or the measure: input, start, memory, predict, evaluate.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.reporting import other_tables, tables, targets
from benchmarks.reporting.races import Race, Record, name_of
from benchmarks.reporting.targets import Outcome

_HEADING = re.compile(r"^## +(.+?) *$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Miss:
    """A target that is missed.

    Attributes:
      workload: As `races.name_of` has it: a heading of the notes.
      text: A line on it.
      names: The reason names one of these.
    """

    workload: str
    text: str
    names: tuple[str, ...]

    def has_reason(self, notes: Mapping[str, str]) -> bool:
        """Returns whether the words under the workload's heading name what is missed."""
        return any(name in notes.get(self.workload, "") for name in self.names)


def parse(text: str) -> dict[str, str]:
    """Returns heading to the words under it; "" is what comes before the first heading."""
    first, *rest = _HEADING.split(text)
    return {"": first.strip()} | {
        heading: words.strip() for heading, words in zip(rest[::2], rest[1::2], strict=True)
    }


def misses(raced: Mapping[str, Race], others: Iterable[Record]) -> list[Miss]:
    """Returns what is missed on one kind of machine.

    Args:
      raced: By `races.name_of`, all of the same hardware.
      others: Records that are no races; of these, a record of scaling has targets.
    """
    outcomes = (targets.evaluate(target, raced) for target in targets.EVERY)
    found = [_miss(outcome) for outcome in outcomes if outcome.is_missed]
    for record in others:
        for key in sorted(record.keys() & {"images", "steps"}):
            verdict = other_tables.flatness_verdict(other_tables.flatness(record[key]))
            if verdict != targets.REACHED:
                text = f"the same cost at any number of {key}: {tables.strong(verdict)}"
                found.append(Miss(name_of(record), text, (key,)))
    return found


def _miss(outcome: Outcome) -> Miss:
    target, found = outcome.target, outcome.found
    what = f"`{target.arm}` over `{found.over}`"
    if target.subject != target.over:
        what = f"{target.subject}: {what}"
    measured = tables.number(found.median)
    if found.median is None and found.interval:
        measured = tables.interval(*found.interval)
    text = f"{what}, {measured} for {target.ratio:g}: "
    names = (target.subject, found.over) if target.measure == targets.SPEED else (target.subject,)
    return Miss(target.workload, text + tables.strong(outcome.verdict), names)


def missed_part(found: Sequence[Miss], notes: Mapping[str, str]) -> str:
    """Returns what is missed by workload, each with the words written on it."""
    parts = [notes.get("", "")]
    for workload in dict.fromkeys(miss.workload for miss in found):
        here = [miss for miss in found if miss.workload == workload]
        parts += [f"### {workload}", "\n".join(f"- {miss.text}" for miss in here)]
        parts += [notes.get(workload, "")]
        parts += [
            f"**No reason is written yet for {', '.join(miss.names)}.**"
            for miss in here
            if not miss.has_reason(notes)
        ]
    return "\n\n".join(filter(None, parts))
