"""Which runs a sweep has."""

import random

import pytest

from gradloop.cli.reading import read_config
from gradloop.cli.sweeps import space
from gradloop.engine.options import ConfigError

RANDOM = ["--search", "random", "--num_runs", "2"]


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


def combinations(*flags):
    return space.combinations(read_config(["--mode", "sweep", *flags]).config)


def sets(*values):
    return [word for value in values for word in ("--set", value)]


def test_a_grid_has_each_with_each_in_the_order_of_the_flags():
    found = combinations(*sets("learning_rate=1e-3,1e-2", "model.units=128,256"))
    assert found == [
        {"learning_rate": 0.001, "model.units": 128},
        {"learning_rate": 0.001, "model.units": 256},
        {"learning_rate": 0.01, "model.units": 128},
        {"learning_rate": 0.01, "model.units": 256},
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("epochs=1,2", [1, 2]),
        ("batch_size=32", [32]),
        ("deterministic=true,false", [True, False]),
        ("seed=none,1", [None, 1]),
        ("model=dense,cnn", ["dense", "cnn"]),
        ("validation_freq=[1,5],2", [[1, 5], 2]),
        ("model.layers=[64,32],[128]", [[64, 32], [128]]),
        ("model.layers=[64,32]", [64, 32]),
        ("model.layers=[[64,32]]", [[64, 32]]),
        ('model.activation=relu,"a,b",tanh', ["relu", "a,b", "tanh"]),
        ("learning_rate=1e-3,0.001", [0.001]),
    ],
)
def test_values_as_people_write_them(text, values):
    found = combinations("--set", text)
    assert [value for one in found for value in one.values()] == values


def test_lists_of_a_config_file_are_values(tmp_path):
    file = tmp_path / "sweep.json"
    file.write_text('{"mode": "sweep", "set": {"learning_rate": [0.1, 0.2], "model.units": 3}}')
    found = space.combinations(read_config(["--config", str(file)]).config)
    assert found == [{"learning_rate": rate, "model.units": 3} for rate in (0.1, 0.2)]


def test_draws_are_seeded_and_within_their_ranges():
    flags = sets("learning_rate=log(1e-4,1e-1)", "model.units=logint(16,64)", "epochs=int(1,3)")
    flags += [*sets("momentum=uniform(0.5,0.9)", "model=dense,cnn"), "--search", "random"]
    found = combinations(*flags, "--num_runs", "20")
    assert found == combinations(*flags, "--num_runs", "20")
    assert found[:5] == combinations(*flags, "--num_runs", "5")
    assert found != combinations(*flags, "--num_runs", "20", "--seed", "1")
    rates = [one["learning_rate"] for one in found]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-1
    assert sum(rate < 1e-2 for rate in rates) > 8  # two thirds, evenly in the logarithm
    assert {one["model"] for one in found} == {"dense", "cnn"}
    assert {one["epochs"] for one in found} == {1, 2, 3}
    assert all(16 <= one["model.units"] <= 64 for one in found)
    assert all(type(one["model.units"]) is int for one in found)


def test_draws_of_a_sweep_without_a_seed_are_the_same_when_it_goes_on():
    flags = [*sets("learning_rate=log(1e-4,1e-1)"), *RANDOM, "--seed", "none"]
    assert combinations(*flags) == combinations(*flags)


def test_a_direction_is_of_those_runs_that_name_a_metric():
    flags = ["--direction", "max", *sets("keep_best=val_reward,none")]
    settings = read_config(["--mode", "sweep", *flags])
    found = [space.apply(settings.chosen, one) for one in space.combinations(settings.config)]
    assert [one.get("direction") for one in found] == ["max", None]


def test_a_small_space_has_no_run_twice():
    assert len(combinations(*sets("epochs=1,2"), "--search", "random", "--num_runs", "9")) == 2


def test_a_range_keeps_its_ends():
    low_high = space.Range("log", 1e-4, 1.0001e-4)
    assert all(1e-4 <= low_high.draw(random.Random(n)) <= 1.0001e-4 for n in range(50))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "mode='sweep' needs values to try"),
        (["--set", "lr=1"], "'lr' is no setting that runs can differ in"),
        (["--set", "learning_rat=1"], "Did you mean 'learning_rate'"),
        (["--set", "run_dir=a,b"], "'run_dir' is no setting that runs can differ in"),
        (["--set", "epochs=1,two"], "epochs=two must be of type int"),
        (["--set", "learning_rate=log(1e-4,1e-1)"], "is a range, which a grid cannot try"),
        (["--set", "learning_rate=log(0,1)", *RANDOM],
         r"must be log\(LOW,HIGH\), with LOW below HIGH and above 0"),
        (["--set", "epochs=int(3)", *RANDOM], "must be int"),
        (["--set", "epochs=int(1.2,1.8)", *RANDOM], "LOW below HIGH and a whole number among"),
        (["--set", "epochs=1", "--search", "random"], "num_runs=none with search='random': say"),
        (["--set", "epochs=1", "--num_runs", "3"], "num_runs=3 with search='grid': leave it out"),
        (["--set", "batch_size=1", "--set", "global_batch_size=2"], "twice: keep one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(flags, message):
    with pytest.raises(ConfigError, match=message):
        combinations(*flags)
