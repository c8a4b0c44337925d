"""What do the steps of docs/custom_steps.md cost in the engine, against a loop without one?

    python -m benchmarks.gallery --record

Runs each step of the gallery, as it stands on its page, in ways that take turns within seconds:
`engine.fit`, and a `tf.function` with a `tf.while_loop` that takes batches from a tf.data dataset
and calls the same step. The bare loop has no hooks, averages no logs, resets no metrics and looks
for no end of the data.

`engine` makes batches in its graph, its default on one CPU; `streamed` takes them from the dataset
of the bare loop. Ends a step when the intervals of the ratios are narrower than 5 %, or after
`--max_secs`. With `--record`, writes benchmarks/results/gallery_<hardware>_<date>T<time>.json.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks import ROOT
from benchmarks.hardware import devices
from benchmarks.race import turns
from benchmarks.reporting import other_tables, records, stats
from gradloop import engine
from gradloop.data import pipeline
from gradloop.usage import EXIT_USAGE

PAGES = ROOT / "docs" / "custom_steps"
_BASELINE = "bare"
# Of a record: the ratio to the arm that is compared with the bare loop.
RATIOS = {"ratio": "engine", "ratio_streamed": "streamed"}
Arm = Callable[[int], float]  # number of epochs -> seconds


def read_sections(pages: Path = PAGES) -> dict[str, tuple[str, str]]:
    """Returns the two Python blocks of each section by its name: the step, and the set-up."""
    sections = {}
    for page in sorted(pages.glob("*.md")):
        for section in re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            step, set_up = re.findall(r"(?ms)^```python\n(.*?)^```", section)
            sections[section.split(":")[0]] = step, set_up
    return sections


def count_lines(step: str) -> int:
    """Returns the lines of the functions and classes of a block, without empty ones."""
    nodes = [n for n in ast.parse(step).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    texts = (ast.get_source_segment(step, node) or "" for node in nodes)
    return sum(bool(line.strip()) for text in texts for line in text.splitlines())


def make_arrays(name: str, num_examples: int) -> tuple[np.ndarray, ...]:
    """Returns the arrays that the step of a section trains on: `(x, y)` or `(x,)`."""
    rng = np.random.default_rng(0)
    if name == "MAML":  # sine waves, each with its own height and phase
        height, phase = rng.uniform(0.5, 2.0, (2, num_examples, 1, 1))
        x = rng.uniform(-3.0, 3.0, (num_examples, 10, 1))
        return x.astype("float32"), (height * np.sin(x + phase)).astype("float32")
    if name == "REINFORCE":
        return (rng.normal(size=(num_examples, 2)).astype("float32"),)
    if name == "Language model":  # a text that repeats itself after eight characters
        return ((rng.integers(8, size=(num_examples, 1)) + np.arange(17)).astype("int32") % 8,)
    x = rng.normal(size=(num_examples, 8)).astype("float32")
    return x, np.argmax(x[:, :3], axis=1)


def define(name: str, **replacements: Any) -> dict[str, Any]:
    """Executes the first block of a section; returns its names, with some of them replaced."""
    names: dict[str, Any] = {}
    exec(compile(read_sections()[name][0], name, "exec"), names)
    names.update(replacements)  # the functions of the block look here
    return names


def set_up(name: str, names: dict[str, Any], *, fits: bool = False) -> engine.TrainState:
    """Executes the second block of a section; returns the state that it makes.

    Args:
      name: Of the section.
      names: What `define` returned, `strategy`, and to fit also `config` and `train_ds`.
      fits: Whether to execute its last statement too, which calls `engine.fit`.
    """
    module = ast.parse(read_sections()[name][1])
    module.body = module.body if fits else module.body[:-1]
    exec(compile(module, name, "exec"), names)
    state: engine.TrainState = names["state"]
    return state


def make_arms(name: str, global_batch_size: int, num_batches: int) -> dict[str, Arm]:
    """Returns the ways to run the step of a section, each with a state of its own."""
    arrays = make_arrays(name, global_batch_size * num_batches)
    train_ds = pipeline.make_dataset(*arrays, global_batch_size=global_batch_size, shuffle=True)
    arms: dict[str, Arm] = {}
    for arm, source in (("engine", "auto"), ("streamed", "streamed")):
        names = define(name, strategy=tf.distribute.get_strategy())
        arms[arm] = _engine_arm(set_up(name, names), names, train_ds, source)
        arms[arm](1)  # traces, and creates the seeds that a bare loop takes too
    arms[_BASELINE] = _bare_arm(names["state"], names["train_step"], train_ds, num_batches)
    return arms


def _engine_arm(state: engine.TrainState, names: Any, train_ds: Any, source: str) -> Arm:
    def run(num_epochs: int) -> float:
        config = engine.TrainConfig(epochs=num_epochs, input=source)
        began = time.perf_counter()
        engine.fit(state, train_ds, config, train_step=names["train_step"])
        return time.perf_counter() - began

    return run


def _bare_arm(state: engine.TrainState, step: Any, train_ds: Any, num_batches: int) -> Arm:
    def one_step(iterator: Any) -> dict[str, tf.Tensor]:
        logs = step(state, next(iterator))
        if state.notes.takes_seeds:
            state.step_variables.advance_seeds()
        # The results of metrics are variables: they can be had at the end.
        return {n: value for n, value in logs.items() if n not in state.metrics_result()}

    @tf.function(autograph=False)
    def loop(iterator: Any, num_steps: tf.Tensor) -> Any:
        def body(index: tf.Tensor, logs: Any) -> Any:
            return index + 1, one_step(iterator)

        first = tf.constant(1), one_step(iterator)
        return tf.while_loop(lambda index, logs: index < num_steps, body, first)

    def run(num_epochs: int) -> float:
        began = time.perf_counter()
        for _ in range(num_epochs):
            done, _ = loop(iter(train_ds), tf.constant(num_batches))
            done.numpy()
        return time.perf_counter() - began

    return run


def measure(arms: Mapping[str, Arm], num_batches: int, flags: argparse.Namespace) -> dict[str, Any]:
    """Returns what a record says of one step.

    Args:
      arms: Of `make_arms`.
      num_batches: Steps of an epoch.
      flags: Of which `min_secs` and `max_secs` count.
    """
    arms[_BASELINE](1)  # traces
    num_epochs = max(1, round(flags.min_secs / arms[_BASELINE](1)))
    runs = {name: functools.partial(run, num_epochs) for name, run in arms.items()}
    secs = turns.take_turns(runs, [(arm, _BASELINE) for arm in RATIOS.values()], flags.max_secs)
    speeds = turns.to_speeds(secs, num_epochs * num_batches)
    found: dict[str, Any] = {
        arm: dataclasses.asdict(stats.summarize(values)) for arm, values in speeds.items()
    }
    for ratio, arm in RATIOS.items():
        found[ratio] = dataclasses.asdict(stats.compare(speeds[arm], speeds[_BASELINE]))
    return found | {"num_rounds": len(secs[_BASELINE])}


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns the record.

    Raises:
      ValueError: If a number is too small.
    """
    for name, least in (("global_batch_size", 1), ("num_batches", 1), ("min_secs", 0)):
        if not getattr(flags, name) >= least:
            raise ValueError(f"--{name} {getattr(flags, name)}: must be {least} or more")
    found = {}
    for name in flags.sections or read_sections():
        keras.utils.clear_session()
        arms = make_arms(name, flags.global_batch_size, flags.num_batches)
        found[name] = measure(arms, flags.num_batches, flags)
        print(f"{name}: {found[name]['num_rounds']} rounds", file=sys.stderr, flush=True)
    command = shlex.join(["python", "-m", "benchmarks.gallery", *flags.argv])
    return {
        "workload": "gallery",
        **records.describe_run(devices.short_name("cpu"), command),
        "global_batch_size": flags.global_batch_size,
        "steps_per_epoch": flags.num_batches,
        "gallery": found,
    }


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sections", nargs="+", choices=list(read_sections()), help="default: all")
    add("--global_batch_size", type=int, default=64, help="examples of a step (default: 64)")
    add("--num_batches", type=int, default=250, help="steps of an epoch (default: 250)")
    add("--min_secs", type=float, default=0.1, help="of an arm in a round (default: 0.1)")
    add("--max_secs", type=float, default=40.0, help="limit for a step (default: 40)")
    add("--record", action="store_true", help="write the record into benchmarks/results")
    add("--output", type=Path, help="write the record to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and records; returns 0, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    flags = make_parser().parse_args(argv)
    flags.argv = list(argv)
    try:
        record = run(flags)
        print(other_tables.gallery_table(record))
        if flags.record or flags.output:
            path = flags.output or records.default_path(record)
            records.write(record, path)
            print(f"Record: {path}")
    except (ValueError, OSError) as error:
        print(f"benchmarks.gallery: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
