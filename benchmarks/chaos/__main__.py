"""Kills a run again and again, resumes it with one command line, and compares it with one that ran.

    python -m benchmarks.chaos --kills 20 --model cnn [--strategy mirrored] [--net full] [--seed S]
    python -m benchmarks.chaos --compare RUN_A RUN_B

Compares every variable of the last checkpoint, the history, the tables, what TensorBoard shows, and
the summary but for times: bit for bit. `--compare` finds the first step at which two runs with
`--state_digest N` differ.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import ROOT
from gradloop.usage import EXIT_USAGE

from .comparison import Comparison, compare_digests, compare_runs
from .kills import EXIT_SIGTERM, FINAL, KINDS, Kill, Outcome, Runner, measure, plan

STEPS_PER_EPOCH = 20
_NUM_REPLICAS = 2
_EPOCHS_LEFT = 20
_MAX_SHOWN = 5
_TAIL_LINES = 15


def make_command(arguments: argparse.Namespace, num_epochs: int) -> tuple[Path, list[str]]:
    """Returns the program and its flags, without the folder: the one command line of all starts."""
    flags = ["--seed", str(arguments.seed), "--strategy", arguments.strategy]
    if arguments.strategy == "mirrored":
        flags += ["--num_replicas", str(_NUM_REPLICAS)]
    if arguments.net == "full":
        # Early stopping ends the run before its last epoch, and not before the last kill.
        flags += ["--epochs", str(num_epochs + _EPOCHS_LEFT), "--patience", str(num_epochs)]
        return ROOT / "benchmarks" / "chaos" / "full_net.py", flags
    flags += ["--epochs", str(num_epochs)]
    flags += ["--resume", "auto", "--model", arguments.model, "--dataset", "synthetic"]
    flags += ["--batch_size", "32", "--steps_per_epoch", str(STEPS_PER_EPOCH)]
    # Fixed, because a row of metrics.csv is an execution.
    flags += ["--validation_steps", "8", "--steps_per_execution", "4"]
    flags += [
        "--checkpoint_every_steps",
        "6",
        "--state_digest",
        "10",
        "--keep_best",
        "val_accuracy",
    ]
    return ROOT / "train.py", flags


class Trial:
    """A run that is killed, and what happened to it.

    Attributes:
      ended: Kind of kill to how its processes ended.
      failure: What went wrong before the end, in words; "" for nothing.
    """

    def __init__(self, runner: Runner) -> None:
        self.ended: dict[str, list[Outcome]] = collections.defaultdict(list)
        self.failure = ""
        self._runner = runner

    def kill(self, kill: Kill, number: int) -> bool:
        """Starts the run and kills it; returns whether it can go on."""
        outcome = self._runner.run(kill)
        fate = f"exit code {outcome.exit_code}" if not outcome.is_killed else "killed"
        print(f"  {number:>3}  {kill.kind:<20} {kill.where:<40} {fate}", flush=True)
        if outcome.is_killed:
            self.ended[kill.kind].append(outcome)
        elif outcome.exit_code != 0:
            self.failure = f"the run that kill {number} was for ended with {outcome.exit_code}"
        return not self.failure

    def finish(self) -> None:
        """Lets the run go to its end, and once more: all is done then."""
        for what in ("the run", "a run that was done"):
            outcome = self._runner.run()
            if outcome.exit_code != 0 and not self.failure:
                self.failure = f"{what} ended with {outcome.exit_code}"


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Does all in a folder; returns the exit code."""
    num_epochs = arguments.kills + 2  # No kill is further than an epoch from the one before.
    command = make_command(arguments, num_epochs)
    print(f"{command[0].name} {' '.join(command[1])} --run_dir ...")
    reference = Runner(*command, folder / "reference", folder / "reference.txt")
    undisturbed = reference.run()
    if undisturbed.exit_code != 0:
        print(f"The run that is not killed ended with {undisturbed.exit_code}:")
        return _fail(reference)
    victim = Runner(*command, folder / "killed", folder / "killed.txt")
    trial = Trial(victim)
    kills = plan(arguments.kills, measure(undisturbed), random.Random(arguments.seed))
    for number, kill in enumerate(kills, 1):
        if not trial.kill(kill, number):
            break
    if not trial.failure:
        trial.finish()
    print(format_table(trial.ended))
    if trial.failure:
        print(f"Failed: {trial.failure}:")
        return _fail(victim)
    found = compare_runs(victim.folder, reference.folder)
    print(format_verdict(found))
    return 1 if found.differences else 0


def _fail(runner: Runner) -> int:
    print("\n".join(runner.output.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]))
    return 1


def format_table(ended: Mapping[str, Sequence[Outcome]]) -> str:
    """Returns kills by kind, and the seconds from the signal to the end where it was asked for."""
    lines = [f"{'killed in, or by':<22}{'times':>6}   seconds to the end"]
    for kind in (*KINDS, FINAL):
        outcomes = ended.get(kind, [])
        asked = [o.secs for o in outcomes if o.exit_code == EXIT_SIGTERM]
        secs = f"up to {max(asked):.2f}" if asked else ""
        lines.append(f"{kind:<22}{len(outcomes):>6}   {secs}".rstrip())
    num_kills = sum(len(outcomes) for outcomes in ended.values())
    return "\n".join([*lines, f"{'all':<22}{num_kills:>6}"])


def format_verdict(found: Comparison) -> str:
    """Returns what was compared, and what differs."""
    counts = ", ".join(f"{name} {number:,}" for name, number in found.counts.items() if number)
    if not found.differences:
        return f"Equal, bit for bit: {counts}."
    shown = "\n".join(f"  {difference}" for difference in found.differences[:_MAX_SHOWN])
    more = len(found.differences) - _MAX_SHOWN
    return f"Different ({counts}):\n{shown}" + (f"\n  and {more} more" if more > 0 else "")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kills", type=int, default=20, help="how often (default: 20)")
    add("--model", default="cnn", help="of train.py (default: cnn)")
    add("--strategy", default="default", choices=("default", "mirrored"),
        help=f"mirrored: {_NUM_REPLICAS} replicas")  # fmt: skip
    add("--net", default="plain", choices=("plain", "full"),
        help="full: BatchNorm, dropout, moving average, schedule, early stopping")  # fmt: skip
    add("--seed", type=int, default=0, help="of the kills and of the training (default: 0)")
    add("--keep", type=Path, help="put both run folders and their screens there")
    add("--compare", type=Path, nargs=2, metavar="RUN", help="compare the digests of two runs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 with the first differences; 2 for wrong usage."""
    arguments = make_parser().parse_args(argv)
    try:
        if arguments.compare is not None:
            is_equal, text = compare_digests(*arguments.compare)
            print(text)
            return 0 if is_equal else 1
        if arguments.kills < 1:
            raise ValueError(f"--kills {arguments.kills}: must be 1 or more")
        if arguments.keep is not None and arguments.keep.exists():
            raise ValueError(f"--keep {arguments.keep} exists already: name another folder")
    except ValueError as error:
        print(f"benchmarks.chaos: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return run(arguments, Path(temporary))
        finally:
            if arguments.keep is not None:
                shutil.copytree(temporary, arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
