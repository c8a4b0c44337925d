"""--list: each name is one that there is, and none is missing."""

import inspect

import keras
import pytest

from gradloop import data
from gradloop.cli import catalog
from gradloop.cli.config import MODES, JobConfig
from gradloop.cli.flags import parse_flags
from gradloop.cli.settings import output, work
from gradloop.engine import config as engine_config
from gradloop.engine import hooks
from gradloop.models import registry

BASES = {
    "Hook", "HookInfo", "LambdaHook", "StopKind",  # of the engine
    "Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap",  # of other optimizers
    "Mean", "Sum", "Metric",  # of numbers without labels
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here builds a model."""


def classes(module):
    return {
        name: one
        for name, one in vars(module).items()
        if inspect.isclass(one) and name not in BASES
    }


def test_optimizers_are_those_of_keras():
    # That one trains other weights than it evaluates, which the loop does not know of.
    names = {name.lower() for name in classes(keras.optimizers)} - {"schedulefreeadamw"}
    assert set(catalog.OPTIMIZERS) == names


def can_get(get, name):
    try:
        return bool(get(name))
    except ValueError:
        return False


def test_losses_are_those_that_keras_takes_by_name():
    functions = [name for name, one in vars(keras.losses).items() if inspect.isfunction(one)]
    others = {"get", "serialize", "deserialize"}
    legal = {name for name in functions if name not in others and can_get(keras.losses.get, name)}
    assert set(catalog.LOSSES) == legal


def test_metrics_are_those_of_keras_that_need_no_argument():
    found = {type(keras.metrics.get(name)) for name in catalog.METRICS}
    assert len(found) == len(catalog.METRICS)
    needing = {"IoU", "MeanIoU", "MeanMetricWrapper", "OneHotIoU", "OneHotMeanIoU",
               "PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity",
               "SpecificityAtSensitivity"}  # fmt: skip
    assert {one.__name__ for one in found} == set(classes(keras.metrics)) - needing


def test_our_own_names_are_those_that_there_are():
    assert set(catalog.GROUPS["models"][1]) == set(registry.names())
    assert set(catalog.DATASETS) == set(data.DATASETS)
    assert set(catalog.OPTIMIZERS) == set(work.OPTIMIZERS)
    assert set(catalog.SCHEDULES) == set(work.SCHEDULES)
    assert set(catalog.GROUPS["loggers"][1]) == set(output.LOGGERS)
    assert set(catalog.STRATEGIES) == set(engine_config.STRATEGIES)
    assert set(catalog.GROUPS["hooks"][1]) == set(hooks.__all__) - BASES
    assert all(catalog.GROUPS["modes"][1][mode] for mode in MODES)


def test_the_flags_that_it_names_are_there():
    flags = [flag for flag, _ in catalog.GROUPS.values() if flag]
    lines = [line for _, lines in catalog.GROUPS.values() for line in lines.values()]
    words = [word.strip(",:;()") for line in lines for word in line.split()]
    flags += [word for word in words if word.startswith("--")]
    names = {f"--{name}" for name in JobConfig.__dataclass_fields__}
    assert [flag for flag in flags if flag not in names] == []


@pytest.mark.parametrize("group", [None, *catalog.GROUPS])
def test_each_name_has_a_line(group, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_flags(["--list", *([group] if group else [])], prog="train.py", description="")
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in [group] if group else catalog.GROUPS:
        for word, line in catalog.GROUPS[name][1].items():
            assert f"  {word} " in out and f"  {line}\n" in out
    assert max(map(len, out.splitlines())) <= 100
    assert ("mnist" in out) == (group in (None, "datasets"))


def test_a_group_that_is_none_gets_a_hint(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_flags(["--list=modls"], prog="train.py", description="")
    assert stop.value.code == 2
    assert "no group 'modls'. Did you mean 'models'?" in capsys.readouterr().err


def test_the_version_names_what_it_runs_on(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_flags(["--version"], prog="train.py", description="")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert f"Keras {keras.__version__}" in out
