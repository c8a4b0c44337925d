"""Optimizers, schedules and their settings by Keras's names."""

import inspect

import keras
import numpy as np
import pytest

from gradloop import engine
from gradloop.cli import catalog
from gradloop.cli import main as train
from gradloop.cli.config import JobConfig
from gradloop.cli.settings import work
from gradloop.cli.splits import load_splits
from gradloop.cli.work.optimizers import make_optimizer
from gradloop.cli.work.schedules import Schedule, WarmUp
from gradloop.models import dense
from tests.cli.runs import SMALL, read

CLASSES = {
    name.lower(): one
    for name, one in vars(keras.optimizers).items()
    if inspect.isclass(one) and issubclass(one, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "ScheduleFreeAdamW")
}  # fmt: skip
schedules = keras.optimizers.schedules


def make(base=None, num_updates=100, **settings):
    return make_optimizer(JobConfig(**settings), base, num_updates)


def test_the_names_are_kerass():
    assert set(work.OPTIMIZERS) == set(CLASSES) == set(catalog.OPTIMIZERS)
    assert set(work.SCHEDULES) == set(catalog.SCHEDULES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_optimizer_is_kerass_with_the_settings(name):
    settings = {"learning_rate": 0.25, "weight_decay": 0.125, "clipnorm": 2.0}
    ours = make(optimizer=name, ema=0.75, **settings).get_config()
    kerass = CLASSES[name](use_ema=True, ema_momentum=0.75, **settings).get_config()
    assert {**ours, "name": ""} == {**kerass, "name": ""}
    plain = {**make(optimizer=name).get_config(), "name": ""}
    assert plain == {**CLASSES[name]().get_config(), "name": ""}


def test_a_setting_that_an_optimizer_does_not_take_names_those_that_it_takes():
    with pytest.raises(engine.ConfigError) as error:
        make(optimizer="adam", momentum=0.9)
    assert str(error.value).startswith("momentum=0.9, but Adam takes no momentum. Of the settings ")
    assert "takes learning_rate, weight_decay, clipnorm, " in str(error.value)
    assert make(optimizer="sgd", momentum=0.9).momentum == 0.9


def test_arguments_without_a_flag_are_set():
    assert make(optimizer="adam", set={"optimizer.beta_1": 0.5}).beta_1 == 0.5
    with pytest.raises(engine.ConfigError, match=r"no argument 'beta'. It takes learning_rate"):
        make(optimizer="adam", set={"optimizer.beta": 0.5})
    with pytest.raises(engine.ConfigError, match="it has a flag, --weight_decay"):
        make(optimizer="adam", set={"optimizer.weight_decay": 0.5})


def test_what_no_setting_changes_is_as_it_was():
    """The optimizer of a recipe, or that of a compiled model."""
    rate = schedules.ExponentialDecay(0.5, 10, 0.5)
    changed = make(keras.optimizers.Adam(rate, beta_1=0.5), weight_decay=0.25)
    assert (changed.beta_1, changed.weight_decay) == (0.5, 0.25)
    changed.build([keras.Variable(1.0)])
    changed.iterations.assign(10)
    assert float(changed.learning_rate) == 0.25
    fixed = make(keras.optimizers.Adam(rate), learning_rate=0.125)
    assert float(fixed.learning_rate) == 0.125


@pytest.mark.parametrize(
    ("name", "expected", "chosen"),
    [
        ("cosine", schedules.CosineDecay(0.5, 80), {}),
        ("cosine", schedules.CosineDecay(0.5, 80, alpha=0.25), {"alpha": 0.25}),
        ("cosine_restarts", schedules.CosineDecayRestarts(0.5, 12), {}),
        ("exponential", schedules.ExponentialDecay(0.5, 80, 0.01), {}),
        ("inverse_time", schedules.InverseTimeDecay(0.5, 80, 9.0), {}),
        ("linear", schedules.PolynomialDecay(0.5, 80, end_learning_rate=0.0), {}),
        ("polynomial", schedules.PolynomialDecay(0.5, 80, end_learning_rate=0.0, power=2.0), {}),
        ("step", schedules.PiecewiseConstantDecay([40, 60], [0.5, 0.05, 0.005]), {}),
        ("step", schedules.PiecewiseConstantDecay([9], [0.5, 0.05]), {"boundaries": [9]}),
        ("constant", lambda step: 0.5, {}),
    ],
)
def test_each_schedule_is_kerass_over_the_updates_of_the_run(name, expected, chosen):
    rate = Schedule(name, None, chosen, 80).rate(0.5)
    of = rate if callable(rate) else lambda step: rate
    assert [float(of(n)) for n in range(0, 90, 5)] == [float(expected(n)) for n in range(0, 90, 5)]
    late = Schedule(name, 20, chosen, 100).rate(0.5)
    if name != "constant":  # the same, after the warm-up
        shifted = [float(late(n + 20)) for n in range(0, 80, 5)]
        np.testing.assert_allclose(shifted, [float(expected(n)) for n in range(0, 80, 5)], 1e-6)
    assert [float(late(n)) for n in (0, 5, 10)] == [0.0, 0.125, 0.25]


@pytest.mark.parametrize("name", ["Constant", "Step", "COSINE"])
def test_names_of_schedules_are_taken_in_any_case(name):
    def rate(schedule):
        made = make(keras.optimizers.SGD(0.5), schedule=schedule, warmup_steps=20)
        return made.get_config()["learning_rate"]

    assert rate(name) == rate(name.lower())
    assert JobConfig(schedule="Constant", checkpoint="a.npz").checkpoint == "a.npz"


def test_a_warm_up_is_restored_from_its_config():
    of = WarmUp(schedules.ExponentialDecay(0.5, 10, 0.5), 4)
    again = schedules.deserialize(schedules.serialize(of))
    assert [float(again(n)) for n in range(9)] == [float(of(n)) for n in range(9)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_steps": 100}, "warmup_steps=100, but the run has 100 updates: pass fewer"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"schedule": "cosine", "set": {"schedule.alfa": 1}}, "no argument 'alfa'"),
        ({"set": {"schedule.alpha": 1}}, "without schedule"),
        ({"optimizer": "adamm"}, "Did you mean 'adam'?"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "clipnorm and clipvalue clip the same gradients"),
        ({"exclude": ["head"]}, "exclude=head without init_from"),
        ({"init_from": "a.npz", "checkpoint": "b.npz"}, "beside checkpoint='b.npz'"),
        ({"step": "own:step"}, "step='own:step' must be a number"),
        (
            {"schedule": "cosine", "checkpoint": "b.npz"},
            "schedule=cosine beside checkpoint=",
        ),
        ({"warmup_steps": 3, "checkpoint": "b.npz"}, "warmup_steps=3 beside checkpoint="),
        (
            {"schedule": "step", "set": {"schedule.boundaries": 100}},
            "set=schedule.boundaries=100 must be a list of numbers of updates",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(engine.ConfigError) as error:
        make(keras.optimizers.SGD(), **settings)
    assert message in str(error.value)


def test_a_run_has_the_bits_of_fit(tmp_path):
    """All settings at once, against what a person would write with Keras."""
    flags = ["--optimizer", "adamw", "--learning_rate", "0.01", "--weight_decay", "0.02"]
    flags += ["--schedule", "cosine", "--warmup_steps", "3", "--clipnorm", "0.5", "--ema", "0.75"]
    flags += ["--loss", "categorical_crossentropy", "--epochs", "2", "--limit_train_batches", "4"]
    flags += ["--validation_steps", "1", "--no_tensorboard", "--no_plots"]
    keras.utils.clear_session(free_memory=False)
    assert train.main([*SMALL, *flags, "--run_dir", str(tmp_path / "run")]) == 0

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    rate = schedules.CosineDecay(0.0, 5, warmup_target=0.01, warmup_steps=3)
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=0.02, clipnorm=0.5, use_ema=True, ema_momentum=0.75
    )
    model = dense.build()
    model.compile(optimizer, "categorical_crossentropy")
    config = JobConfig(model="dense", dataset="synthetic")
    train_ds = load_splits(config).train.make_dataset(
        global_batch_size=128, shuffle=True, seed=0, rescale=True
    )
    model.fit(train_ds, epochs=2, steps_per_epoch=4, shuffle=False, verbose=0)
    state = engine.TrainState(model)
    assert state.weights_sha256() == read(tmp_path / "run")["weights_sha256"]


def test_a_schedule_goes_over_the_updates_of_the_whole_run(tmp_path, capsys):
    run = ["--run_dir", str(tmp_path / "run"), "--no_tensorboard", "--no_plots"]
    flags = ["--schedule", "linear", "--learning_rate", "1", "--limit_train_batches", "8"]
    flags += ["--gradient_accumulation_steps", "2", "--validation_steps", "1"]
    keras.utils.clear_session(free_memory=False)
    assert train.main([*SMALL, *flags, *run, "--epochs", "2"]) == 0
    assert read(tmp_path / "run")["history"]["learning_rate"] == [0.5, 0.0]
    keras.utils.clear_session(free_memory=False)
    assert train.main(["--resume", "--epochs", "4", *run]) == 0
    assert read(tmp_path / "run")["history"]["learning_rate"][2:] == [0.25, 0.0]
    assert "the schedule linear goes over the new number of updates" in capsys.readouterr().out
    assert train.main(["--resume", "--epochs", "5", "--learning_rate", "2", *run]) == 2
    assert "its optimizer follows a schedule" in capsys.readouterr().err
