"""What to conclude from the races on one machine: words and a table, made from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.reporting import races
from benchmarks.reporting.races import BEST_FIT, Found, Race
from benchmarks.reporting.tables import NOTHING, interval, number, runs_of, table

# By class of bits: the engine's arm, fit as it comes, and fit tuned. The first two classes have the
# bits of fit, and those of fit(jit_compile=True), of which the tuned one is the arm keras_fit_xla.
_ROWS = (
    ("`fit`", "engine", "keras_fit", "keras_fit_tuned"),
    ("`fit`", "engine_tuned", "keras_fit", "keras_fit_tuned"),
    ("`fit(jit_compile=True)`", "engine_xla", "keras_fit", "keras_fit_xla"),
    ("free", "engine_free", "keras_fit", BEST_FIT),
)
_NO_BITS = "none: fit's own vary"
_FIT_FLOAT32 = "keras_fit_float32"


def conclude(raced: Mapping[str, Race]) -> str:
    """Returns sentences on the speed of the engine, a line each; "" without a race.

    Args:
      raced: By `races.name_of`, all of the same hardware.
    """
    sentences = (
        _compare(raced, "fit(jit_compile=True)", ("engine_xla", "keras_fit_xla"), "that tuned fit"),
        _compare(raced, "fit", ("engine", "keras_fit"), "`fit`"),
        _compare(raced, "fit", ("engine", "keras_fit_tuned"), "tuned `fit`"),
        _compare(raced, "fit", ("engine_tuned", "keras_fit_tuned"), "tuned `fit`"),
        _name_faster_arms(raced),
    )
    return "\n".join(filter(None, sentences))


def _compare(raced: Mapping[str, Race], bits: str, pair: tuple[str, str], over: str) -> str:
    found = {
        name: races.ratio(race, *pair).median
        for name, race in raced.items()
        if _has_bits(race, pair[0])
    }
    measured = {name: number(median) for name, median in found.items() if median is not None}
    first, *more = measured or [""]
    parts = [f"{measured.get(first)} times as fast as {over} on {first}"]
    parts += [f"{measured[name]} times on {name}" for name in more]
    begin = f"With all bits of `{bits}`, `{pair[0]}` trains"
    return f"{begin} {_join(parts)}." if measured else ""


def _name_faster_arms(raced: Mapping[str, Race]) -> str:
    """Returns a sentence on the arms that are ahead of each of the engine's, beyond noise."""
    found = {name: _over_fastest(race) for name, race in raced.items()}
    known = {name: one for name, one in found.items() if one.median and one.interval}
    # In all runs, or in all of the interval of the one that there is.
    ahead = [
        f"`{one.over}` on {name} ({number(1 / (one.median or 1))} times its speed)"
        for name, one in known.items()
        if max(one.spread or (one.median or 1,)) < 1
    ]
    if ahead:
        return f"Ahead of the fastest of the engine's arms: {_join(ahead)}."
    nobody = f"No arm is clearly faster than the fastest of the engine's on {_join(known or [''])}."
    return nobody if known else ""


def _over_fastest(race: Race) -> Found:
    """Returns the ratio of the fastest of the engine's arms over the fastest other arm.

    Arms of another precision than the race's do not count.
    """
    record = race.fullest
    speeds = {
        name: arm["images_per_sec"]["median"]
        for name, arm in record["arms"].items()
        if arm["status"] == "ok" and not arm.get("is_ceiling")
        and races.precision_of(record, name) == record["task"]["precision"]
    }  # fmt: skip
    ours = [name for name in speeds if name.startswith("engine")]
    others = [name for name in speeds if name not in ours]
    if not ours or not others:
        return Found("")
    arm, over = (max(names, key=lambda name: speeds[name]) for names in (ours, others))
    return races.ratio(race, arm, over)


def ratios_table(raced: Mapping[str, Race]) -> str:
    """Returns a table with a row for each workload and engine arm: how many times the speed of fit.

    Where each run's interval is too wide for a ratio, that of the newest stands alone. Where the
    two ratios are of other runs, both numbers of runs stand in the last cell.

    Args:
      raced: As in `conclude`.
    """
    rows = []
    for name, race in raced.items():
        for bits, arm, fit, tuned in _ROWS:
            is_lower = arm == "engine_free" and _FIT_FLOAT32 in race.fullest["arms"]
            over_fit = races.ratio(race, arm, _FIT_FLOAT32 if is_lower else fit)
            over_tuned = races.ratio(race, arm, tuned)
            if over_fit.interval or over_tuned.interval:
                counts = [runs_of(found) for found in (over_fit, over_tuned) if found.num_runs]
                runs = " and ".join(dict.fromkeys(counts)) or NOTHING
                of_float32 = ", of float32" if is_lower else ""
                cells = [_cell(over_fit) + of_float32, _cell(over_tuned), runs]
                is_shown = bits == "free" or _has_bits(race, arm)
                label = _precise(race, arm, bits) if is_shown else _NO_BITS
                rows.append([name, label, f"`{arm}`", *cells])
    if not rows:
        return ""
    header = ["workload", "bits of", "arm", "times the speed of fit", "of fit, tuned", "runs"]
    return table(header, rows)


def _has_bits(race: Race, arm: str) -> bool:
    """Returns whether an arm had to have the bits of another one, weight by weight."""
    return race.fullest["arms"].get(arm, {}).get("bits_of") is not None


def _precise(race: Race, arm: str, bits: str) -> str:
    """Returns a class of bits, with the precision where it is another than the race's."""
    newest = next((run for run in reversed(race.runs) if arm in run.get("arms", {})), race.newest)
    precision = races.precision_of(newest, arm)
    return bits if precision == newest["task"]["precision"] else f"{bits}, {precision}"


def _cell(found: Found) -> str:
    """Returns a ratio with its spread."""
    if found.median is None:
        return f"{interval(*found.interval)}, too wide" if found.interval else NOTHING
    return f"{number(found.median)}{f' ({interval(*found.spread)})' if found.spread else ''}"


def _join(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
