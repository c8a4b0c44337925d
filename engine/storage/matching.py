"""Which variable of a file belongs to which of a state, whatever Keras's counters say.

Keras numbers layers by how many of a kind the process has made: the same model, built a second time
in a notebook, has `dense_2` where the first had `dense`. Where the names of an owner (`model`,
`optimizer`, an extra) are equal on both sides, they decide; else the names without these numbers
do, equal ones in the order of the variables.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ..variables import METRICS_PREFIX

_NUMBER = re.compile(r"_\d+(?=[/_]|$)")
_REPETITION = re.compile(r"#\d+$")
_NUM_NAMED = 3  # Variables that an error message names before it only counts.


class Trait(NamedTuple):
    """What must be equal of a variable and its value in a file."""

    dtype: str
    shape: tuple[int, ...]


def canonical_keys(names: Iterable[str]) -> dict[str, str]:
    """Returns the key of each name: the name without Keras's numbers, told apart by `#2`, `#3`.

    The owner, up to the first slash, is a person's own name and stays.

    Example:
      >>> canonical_keys(["model/dense_4/kernel", "model/dense_5/kernel"])
      {'model/dense_4/kernel': 'model/dense/kernel', 'model/dense_5/kernel': 'model/dense/kernel#2'}
    """
    counts: dict[str, int] = {}
    keys = {}
    for name in names:
        owner, _, path = name.partition("/")
        key = f"{owner}/{_NUMBER.sub('', _REPETITION.sub('', path))}"
        counts[key] = counts.get(key, 0) + 1
        keys[name] = key if counts[key] == 1 else f"{key}#{counts[key]}"
    return keys


def match(saved: Collection[str], present: Collection[str]) -> dict[str, str]:
    """Returns the name in the state to the name in the file, for those that belong together.

    Args:
      saved: Names in the file, in its order.
      present: Names in the state, in its order.
    """
    matched: dict[str, str] = {}
    saved_by_owner, present_by_owner = _by_owner(saved), _by_owner(present)
    for owner, here in present_by_owner.items():
        there = saved_by_owner.get(owner, [])
        matched |= _match_owner(there, here, is_strict=f"{owner}/" != METRICS_PREFIX)
    return matched


def differences(
    saved: Mapping[str, Trait], present: Mapping[str, Trait], *, optional: tuple[str, ...]
) -> list[str]:
    """Returns in words what keeps the variables of a file from being those of a state.

    Args:
      saved: Of the file, by name.
      present: Of the state, by name.
      optional: Beginnings of names that the file may lack. Metrics may be missing on either side:
        they are not part of what was learned.
    """
    matched = match(saved, present)
    taken = set(matched.values())
    found = [
        _named(
            "missing in the file",
            [n for n in present if n not in matched and not n.startswith(optional)],
        ),
        _named(
            "only in the file",
            [n for n in saved if n not in taken and not n.startswith(METRICS_PREFIX)],
        ),
    ]
    for what in ("shape", "dtype"):
        pairs = [
            (here, getattr(saved[there], what), getattr(present[here], what))
            for here, there in matched.items()
        ]
        wrong = [f"{name} ({there}, here {here})" for name, there, here in pairs if there != here]
        found.append(_named(f"another {what}", wrong))
    return [difference for difference in found if difference]


def _match_owner(saved: list[str], present: list[str], *, is_strict: bool) -> dict[str, str]:
    if set(saved) == set(present):
        return {name: name for name in present}
    by_key = {key: name for name, key in canonical_keys(saved).items()}
    keys = canonical_keys(present)
    if is_strict or set(by_key) == set(keys.values()):
        return {name: by_key[key] for name, key in keys.items() if key in by_key}
    # Other metrics than those of the file: which of `mean_1` and `mean_2` is meant, no order tells.
    return {name: name for name in present if name in set(saved)}


def _by_owner(names: Iterable[str]) -> dict[str, list[str]]:
    def owner(name: str) -> str:
        return name.partition("/")[0]

    return {key: list(group) for key, group in itertools.groupby(sorted(names, key=owner), owner)}


def _named(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{what}: {', '.join(names[:_NUM_NAMED])}{more}" if names else ""
