"""What do the steps of docs/custom_steps.md cost in the engine, against a loop without one?

    python -m benchmarks.gallery

Runs each step of the gallery, as it stands on its page, in two ways that take turns: `engine.fit`,
and a `tf.function` with a `tf.while_loop` that takes batches from the same tf.data dataset and
calls the same step on the same state. The bare loop has no hooks, averages no logs, resets no
metrics and looks for no end of the data.

`engine` gets batches from tf.data, as `bare` does; `resident`, its default on one CPU, makes them
in its graph. Ratios are of medians, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
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
from benchmarks.reporting import stats
from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.runtime import describe_environment

PAGES = ROOT / "docs" / "custom_steps"
_BASELINE = "bare"
_SHOWN = ("processor", "num_cores", "tensorflow", "keras")
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
    for arm, source in (("engine", "streamed"), ("resident", "resident")):
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


def measure(
    arms: Mapping[str, Arm], num_batches: int, num_rounds: int, min_secs: float
) -> dict[str, list[float]]:
    """Returns the steps per second of each arm in each round."""
    arms[_BASELINE](1)  # traces
    num_epochs = max(1, round(min_secs / arms[_BASELINE](1)))
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(num_rounds):
        # In alternating order, so that no arm always runs after the same one.
        for name in list(arms)[:: 1 if index % 2 == 0 else -1]:
            speeds[name].append(num_epochs * num_batches / arms[name](num_epochs))
    return speeds


def to_row(name: str, speeds: Mapping[str, Sequence[float]]) -> str:
    """Returns the line of the table for one section."""
    medians = [f"{stats.summarize(values).median:,.0f}" for values in speeds.values()]
    cells = [name, str(count_lines(read_sections()[name][0])), *medians]
    for arm in ("engine", "resident"):
        ratio = stats.compare(speeds[arm], speeds[_BASELINE])
        cells.append(f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sections", nargs="+", choices=list(read_sections()), help="default: all")
    add("--global_batch_size", type=int, default=64, help="examples of a step (default: 64)")
    add("--num_batches", type=int, default=500, help="steps of an epoch (default: 500)")
    add("--num_rounds", type=int, default=7, help="counted rounds (default: 7)")
    add("--min_secs", type=float, default=1.0, help="of an arm in a round (default: 1)")
    flags = parser.parse_args(argv)
    if min(flags.global_batch_size, flags.num_batches, flags.num_rounds) < 1:
        parser.error("all numbers must be 1 or more")
    print(*(f"{k}={v}" for k, v in describe_environment().items() if k in _SHOWN))
    print("| step | lines | engine, steps/s | resident | bare | engine / bare | resident / bare |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in flags.sections or read_sections():
        keras.utils.clear_session()
        arms = make_arms(name, flags.global_batch_size, flags.num_batches)
        speeds = measure(arms, flags.num_batches, flags.num_rounds, flags.min_secs)
        print(to_row(name, speeds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
