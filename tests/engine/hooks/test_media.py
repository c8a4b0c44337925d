"""What hooks add: values of the history, images, histograms, texts; and the learning rate."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.storage.writers import CSVWriter, MemoryWriter, MultiWriter, read_csv
from tests.engine.nets import make_config, make_tiny, mirrored


class Show(engine.Hook):
    def on_epoch_end(self, info):
        info.add("fid", 7.0)
        info.add_image("sample", np.zeros((4, 4, 1), "uint8"))
        info.add_histogram("weights", info.state.model.weights[0].numpy())
        info.add_text("said", "hello")


def test_what_a_hook_adds_is_in_the_history_and_with_the_writers(dataset, tmp_path):
    memory = MemoryWriter()
    writer = MultiWriter(CSVWriter(tmp_path / "metrics.csv"), memory)
    hooks = [Show(), engine.WriteMetrics(writer)]
    history = engine.fit(make_tiny(), dataset, make_config(epochs=2), hooks=hooks)
    assert history.history["fid"] == [7.0, 7.0]
    rows = [row for row in read_csv(tmp_path / "metrics.csv") if row["kind"] == "epoch"]
    assert [row["fid"] for row in rows] == [7.0, 7.0]
    assert [(step, m.kind, m.name) for step, m in memory.media] == [
        (step, kind, name)
        for step in (7, 14)
        for kind, name in (("image", "sample"), ("histogram", "weights"), ("text", "said"))
    ]


@pytest.mark.parametrize("hooks", [[], ["csv"]])
def test_what_nobody_writes_is_not_dropped_in_silence(dataset, tmp_path, hooks):
    writers = [engine.WriteMetrics(CSVWriter(tmp_path / "m.csv")) for _ in hooks]
    with pytest.warns(UserWarning, match=r"info\.add_image\('sample'\): no hook later"):
        engine.fit(make_tiny(), dataset, make_config(), hooks=[Show(), *writers])


def test_tensorboard_shows_them(dataset, tmp_path):
    pytest.importorskip("tensorboard")
    from gradloop.engine.storage.tensorboard import TensorBoardWriter

    hooks = [Show(), engine.WriteMetrics(TensorBoardWriter(tmp_path))]
    engine.fit(make_tiny(), dataset, make_config(), hooks=hooks)
    (events,) = (tmp_path / "train").iterdir()
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            found[value.tag] = value.metadata.plugin_data.plugin_name
    assert found["sample"] == "images"
    assert found["weights"] == "histograms"
    assert found["said"] == "text"
    assert found["epoch_learning_rate"] == "scalars"


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_the_learning_rate_is_in_the_history_and_in_each_record(dataset, num_replicas):
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        optimizer = keras.optimizers.SGD(rate)
        state = engine.TrainState(model, optimizer, loss="sparse_categorical_crossentropy")
    writer = MemoryWriter()
    hooks = [engine.WriteMetrics(writer)]
    history = engine.fit(state, dataset, make_config(epochs=2), hooks=hooks)
    np.testing.assert_allclose(history.learning_rate, [0.1 * 0.5**7, 0.1 * 0.5**14], rtol=1e-5)
    assert "learning_rate" not in history.history  # fit has none there
    assert len(writer.records) > 3
    for record in writer.records:
        np.testing.assert_allclose(record["learning_rate"], 0.1 * 0.5 ** record["step"], rtol=1e-5)
