"""check_setup: each row has its case, with the fix; fit refuses what is unsupported."""

import functools
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine import devices
from gradloop.engine.checks import findings, rows
from gradloop.engine.checks.setup import check_setup
from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.models import cnn
from tests.engine.nets import build_dense, compile_arguments, make_config, make_state, mirrored


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs there are: none, unless a test says otherwise."""
    logical = devices.logical

    def set_number(number):
        names = [f"/device:GPU:{i}" for i in range(number)]
        faked = [tf.config.LogicalDevice(name, "GPU") for name in names]
        monkeypatch.setattr(
            devices, "logical", lambda kind=None: faked if kind == "GPU" else logical(kind)
        )

    set_number(0)
    return set_number


pytestmark = pytest.mark.usefixtures("gpus")


def find(row, config=None, build=None, *, strategy=None, optimizer=None):
    """Returns what a row finds; the model is built in the scope of the strategy."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = build() if build is not None else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradloop.engine.checks.setup.ROWS", (row,))
        found = check_setup(config or TrainConfig(), model, optimizer=optimizer, strategy=strategy)
    return found[0] if found else None


def build_normalized(**options):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization(**options)]
    )


def test_a_plain_setup_is_ok():
    found = check_setup(TrainConfig(global_batch_size=32), build_normalized())
    assert {finding.verdict for finding in found} == {"ok"}
    assert findings.warning_lines(found) == []
    assert findings.is_supported(found)


def test_of_several_gpus_one_is_used_without_a_strategy(gpus):
    gpus(4)
    found = find(rows.devices_used)
    assert (found.what, found.verdict) == ("strategy=default with 4 GPUs", "slow")
    assert found.why == "it uses one of them" and "strategy='mirrored'" in found.fix
    gpus(1)
    assert find(rows.devices_used).verdict == "ok"


def test_replicas_on_one_cpu_are_not_for_speed(gpus):
    assert find(rows.devices_used, strategy=mirrored()).verdict == "slow"
    gpus(2)
    assert find(rows.devices_used, strategy=mirrored()).verdict == "ok"


def test_a_model_of_another_scope_is_unsupported():
    assert find(rows.model_scope, build=build_dense, strategy=mirrored()) is None
    assert find(rows.model_scope, build=build_dense) is None
    model = build_dense()
    found = find(rows.model_scope, build=lambda: model, strategy=mirrored())
    assert found.verdict == "unsupported"
    assert "created under no strategy, and trains under MirroredStrategy" in found.why
    with mirrored().scope():
        model = build_dense()
    assert find(rows.model_scope, build=lambda: model).verdict == "unsupported"
    found = find(rows.model_scope, build=lambda: model, strategy=mirrored(3))
    assert found.why == "it was created under another MirroredStrategy"


@pytest.mark.parametrize(
    ("fields", "verdict", "part"),
    [
        ({"global_batch_size": 16}, "ok", "4 examples each"),
        ({"global_batch_size": 15}, "slow", "the first replica has 4 examples, the last one 3"),
        ({"global_batch_size": 9}, "slow", "the first replica has 3 examples, the last one 0"),
        ({"global_batch_size": 15, "parity": "fit"}, "risky", "whose examples weigh more"),
        ({"global_batch_size": 15, "uneven": "fit"}, "risky", "whose examples weigh more"),
        ({"global_batch_size": 3}, "unsupported", "a replica has no example"),
    ],
)
def test_a_batch_that_does_not_divide_among_replicas(fields, verdict, part):
    found = find(rows.batch_of_replicas, TrainConfig(**fields), strategy=mirrored(4))
    assert found.verdict == verdict
    assert part in found.why
    assert found.fix == "" or "4" in found.fix


def test_replicas_get_what_the_row_says():
    strategy = mirrored(4)
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.range(9).batch(9))
    sizes = [len(t) for t in strategy.experimental_local_results(next(iter(dataset)))]
    assert sizes == [3, 3, 3, 0]


def test_workers_with_unequal_shares_wait():
    def row(batch, num_workers):
        config = TrainConfig(global_batch_size=batch)
        setup = rows.Setup(config, None, None, None, num_workers, num_workers, 0)
        return rows.batch_of_workers(setup)

    assert row(6, 3) is row(7, 1) is None
    assert row(7, 3).verdict == "slow"


@pytest.mark.parametrize(
    ("policy", "has_bfloat16", "num_gpus", "verdict"),
    [
        ("mixed_float16", True, 0, "slow"),
        ("mixed_float16", True, 1, "ok"),
        ("mixed_bfloat16", True, 0, "ok"),
        ("mixed_bfloat16", False, 0, "slow"),
        ("mixed_bfloat16", False, 1, "ok"),
        ("float32", False, 0, "ok"),
    ],
)
def test_precisions_that_a_processor_is_slow_in(
    policy, has_bfloat16, num_gpus, verdict, gpus, monkeypatch
):
    monkeypatch.setattr(rows, "has_fast_bfloat16", lambda: has_bfloat16)
    gpus(num_gpus)
    assert find(rows.precision, TrainConfig(precision=policy)).verdict == verdict
    keras.config.set_dtype_policy(policy)
    assert find(rows.precision, build=build_dense).verdict == verdict


def test_xla_is_slow_on_convolutions_without_a_gpu(gpus):
    config = TrainConfig(jit_compile=True)
    found = find(rows.xla, config, cnn.build)
    assert found.verdict == "slow"
    assert "ten times slower on convolutions: layer 'conv1' and 1 more" in found.why
    update = TrainConfig(jit_compile=True, jit_scope="update")
    assert find(rows.xla, update, cnn.build).verdict == "ok"
    assert find(rows.xla, config, build_dense).verdict == "ok"
    assert find(rows.xla, TrainConfig(), cnn.build) is None
    gpus(1)
    assert find(rows.xla, config, cnn.build).verdict == "ok"


def test_layers_that_xla_cannot_compile_are_named_before_the_run():
    model = build_dense()
    model.layers[0].supports_jit = False
    found = find(rows.xla, TrainConfig(jit_compile=True), lambda: model)
    assert found.verdict == "slow" and "a layer does not support XLA" in found.why


def test_xla_under_replicas_compiles_what_exchanges_nothing():
    config = TrainConfig(jit_compile=True)
    found = find(rows.xla, config, build_dense, strategy=mirrored())
    assert (found.verdict, found.why) == ("ok", "XLA compiles all of a step but the update")
    found = find(rows.xla, TrainConfig(jit_compile=True, jit_scope="loop"), strategy=mirrored())
    assert (found.verdict, found.fix) == (
        "unsupported", "Set jit_scope='step', or use one replica.",
    )  # fmt: skip
    for is_synchronized, verdict in ((True, "unsupported"), (False, "ok")):
        build = functools.partial(build_normalized, synchronized=is_synchronized)
        assert find(rows.xla, config, build, strategy=mirrored()).verdict == verdict


def test_fast_numerics_are_for_one_replica():
    config = TrainConfig(numerics="fast")
    assert find(rows.numerics, config).verdict == "ok"
    found = find(rows.numerics, config, strategy=mirrored())
    assert (found.verdict, found.what) == ("unsupported", "numerics=fast on 2 replicas")


def test_batch_norm_wants_examples_on_each_replica():
    def row(batch, num_replicas, **options):
        config = TrainConfig(global_batch_size=batch)
        build = lambda: build_normalized(**options)  # noqa: E731
        return find(rows.batch_norm, config, build, strategy=mirrored(num_replicas))

    assert row(16, 2).verdict == "ok"
    found = row(14, 2)
    assert found.verdict == "risky"
    assert found.fix == (
        "Set global_batch_size=16 or more, or BatchNormalization(synchronized=True)."
    )
    assert row(14, 2, synchronized=True) is None
    assert row(14, 2, trainable=False) is None
    assert row(7, 1).fix == "Set global_batch_size=8 or more."


def test_an_embedding_makes_each_step_of_replicas_a_call():
    def build():
        return keras.Sequential([keras.Input((3,)), keras.layers.Embedding(5, 2, name="words")])

    assert find(rows.sparse_gradients, build=build) is None
    found = find(rows.sparse_gradients, build=build, strategy=mirrored())
    assert (found.verdict, found.what) == ("slow", "layer 'words' on 2 replicas")


def test_eager_steps_are_slow():
    assert find(rows.eager_steps) is None
    assert find(rows.eager_steps, TrainConfig(run_eagerly=True)).verdict == "slow"


def test_tensor_float_is_of_gpus(gpus):
    assert find(rows.tensor_float) is find(rows.tensor_float, TrainConfig(tf32=False))
    found = find(rows.tensor_float, TrainConfig(tf32=True))
    assert (found.verdict, found.fix) == ("unsupported", "Leave it out.")
    gpus(1)
    assert find(rows.tensor_float, TrainConfig(tf32=True)).verdict == "ok"


def test_resident_input_is_for_cpus(gpus):
    config = TrainConfig(input="resident")
    assert find(rows.resident_input) is None
    assert find(rows.resident_input, config).verdict == "ok"
    assert find(rows.resident_input, config, strategy=mirrored()).verdict == "ok"
    gpus(1)
    assert find(rows.resident_input, config).verdict == "unsupported"


BREAKING = {
    "optimizer_accumulation": {"gradient_accumulation_steps": 2},
    "optimizer_average": {"use_ema": True, "ema_overwrite_frequency": 2},
}


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("name", BREAKING)
def test_options_of_the_optimizer_that_replicas_break_are_refused(name, num_replicas, dataset):
    """Without the refusal, Keras raises while it traces, also with one replica."""
    strategy, row = mirrored(num_replicas), getattr(rows, name)
    options = list(BREAKING[name])[-1]
    with strategy.scope():
        optimizer = keras.optimizers.SGD(0.1, **BREAKING[name])
        assert find(row, strategy=strategy, optimizer=keras.optimizers.SGD()) is None
        scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    for one in (optimizer, scaled):
        assert find(row, strategy=strategy, optimizer=one).verdict == "unsupported"
    state = make_state(
        build_dense, lambda: compile_arguments() | {"optimizer": optimizer}, strategy
    )
    with pytest.raises(ConfigError, match=rf"optimizer with {options}=2: .* replicas cannot") as e:
        engine.fit(state, dataset, make_config())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", BREAKING)
def test_the_same_options_train_on_one_device(name, dataset):
    def arguments():
        return compile_arguments() | {"optimizer": keras.optimizers.SGD(0.1, **BREAKING[name])}

    for strategy in (None, tf.distribute.OneDeviceStrategy("CPU:0")):
        state = make_state(build_dense, arguments, strategy)
        assert findings.is_supported(check_setup(TrainConfig(), state.model, strategy=strategy))
        assert engine.fit(state, dataset, make_config()).num_steps == 7


def test_the_table_has_a_line_for_each_finding_and_one_for_each_fix():
    found = [
        findings.Finding("a=1", findings.Verdict.OK, "it is"),
        findings.Finding("long=2", findings.Verdict.SLOW, "it waits", "Set long=1."),
    ]
    assert findings.to_table(found).splitlines() == [
        "ok           a=1     it is",
        "slow         long=2  it waits",
        "                     Set long=1.",
    ]
    assert findings.warning_lines(found) == ["slow: long=2: it waits. Set long=1."]
    found = [finding._replace(fit_warns=True) for finding in found]
    assert findings.warning_lines(found) == []
    assert findings.to_table([]) == ""


def test_every_row_has_a_test():
    text = Path(__file__).read_text("utf-8")
    names = [row.__name__ for row in rows.ROWS]
    assert [n for n in names if f"rows.{n}" not in text and n not in BREAKING] == []
