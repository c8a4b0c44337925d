"""The steps in docs/custom_steps/ run as they stand there, with all that the engine does."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import ROOT, gallery
from gradloop import engine
from tests.gallery import sections
from tests.gallery.sections import STEPS_PER_EPOCH, STEPS_PER_EXECUTION, assert_same_bits

MAX_LINES = 30
NAMES = [
    "BYOL", "DP-SGD", "Distillation", "Language model", "MAML", "Mixup", "REINFORCE", "SAM",
    "SimCLR", "VAE", "WGAN-GP",
]  # fmt: skip
slow = pytest.mark.slow
# Of each kind one, with seeds, `when=` and two gradients: all of them take a minute more.
QUICK = ("SAM", "VAE", "WGAN-GP")
SOME = [pytest.param(name, marks=[] if name in QUICK else slow) for name in NAMES]
ENTRY = ROOT / "docs" / "custom_steps.md"


class Reference:
    """A whole run of a section, with a checkpoint of its middle."""

    def __init__(self, name, path):
        self.path = path
        self.state, self.history, self.names = sections.run_saving(name, path)
        self.values = sections.values_of(self.state)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Returns a function of a name to its `Reference`."""
    return functools.cache(lambda name: Reference(name, tmp_path_factory.mktemp("checkpoints")))


def assert_trained(state, history):
    assert history.num_traces == 1
    assert history.epoch_steps == [STEPS_PER_EPOCH] * 2
    assert all(np.isfinite(values).all() for values in history.history.values())
    assert all_finite(state)


def all_finite(state):
    return all(
        np.isfinite(v).all() for values in sections.values_of(state).values() for v in values
    )


def test_the_pages_have_these_sections_each_with_a_short_step_and_a_paper():
    assert sorted(gallery.read_sections()) == NAMES
    for name, (step, set_up) in gallery.read_sections().items():
        assert 0 < gallery.count_lines(step) < MAX_LINES, name
        assert set_up.rstrip().splitlines()[-1].startswith("history = engine.fit("), name
    for page in gallery.PAGES.glob("*.md"):
        for section in re.split(r"^## ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            assert "https://arxiv.org/abs/" in section, section[:20]


def test_the_table_names_each_step_with_its_lines():
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \| (\d+) ", ENTRY.read_text("utf-8"), re.MULTILINE)
    steps = {name: str(gallery.count_lines(s)) for name, (s, _) in gallery.read_sections().items()}
    assert {name: lines for name, _, lines in rows} == steps
    for _, link, _ in rows:
        page, anchor = link.split("#")
        titles = re.findall(r"^## (.+)$", (ENTRY.parent / page).read_text("utf-8"), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]


def test_the_step_at_the_top_of_the_page_runs():
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```", ENTRY.read_text("utf-8"))
    x, y = np.eye(4, dtype="float32"), np.arange(4, dtype="float32")[:, None]
    state = engine.TrainState(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), "sgd")
    expected = np.mean((y - state.model(x).numpy()) ** 2)
    train_ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    names = {"state": state, "train_ds": train_ds, "config": engine.TrainConfig()}
    exec(compile(block, ENTRY.name, "exec"), names)
    np.testing.assert_allclose(names["history"].history["loss"], [expected], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_step_trains_in_float32(name, reference):
    run = reference(name)
    assert_trained(run.state, run.history)


@pytest.mark.parametrize("name", SOME)
def test_a_new_state_goes_on_in_mid_epoch_with_the_same_bits(name, reference):
    run = reference(name)
    state, history = sections.resume(name, run.path)
    assert history.num_steps == 2 * STEPS_PER_EPOCH - STEPS_PER_EXECUTION
    assert_same_bits(sections.values_of(state), run.values)
    assert history.history == run.history.history


@pytest.mark.parametrize("name", SOME)
def test_one_step_an_execution_gives_the_bits_of_eight(name, reference):
    run = reference(name)
    engine.restore_checkpoint(run.path, run.state)
    history = sections.fit(name, run.state, run.names, steps_per_execution=1, resume=True)
    assert history.num_steps == 2 * STEPS_PER_EPOCH - STEPS_PER_EXECUTION
    assert_same_bits(sections.values_of(run.state), run.values)
    assert history.history == run.history.history


def mark_of(name, place):
    """Returns the mark of a case: all of them take some minutes."""
    if place == (2, "mixed_bfloat16"):
        return pytest.mark.exhaustive
    return [] if (name, place) == ("WGAN-GP", (2, "float32")) else slow


PLACES = [
    pytest.param(name, *place, marks=mark_of(name, place))
    for name in NAMES
    for place in ((1, "mixed_bfloat16"), (2, "float32"), (2, "mixed_bfloat16"))
]


@pytest.mark.parametrize(("name", "num_replicas", "precision"), PLACES)
def test_step_trains_on_replicas_and_in_bfloat16(name, num_replicas, precision, reference):
    state, history, _ = sections.run(name, num_replicas=num_replicas, precision=precision)
    assert_trained(state, history)
    for variable, values in sections.values_of(state).items():
        # Of a metric, each replica has its own part.
        assert len(values) == 1 or variable.startswith("metrics/"), variable
    if num_replicas == 1:
        for key, values in reference(name).history.history.items():
            np.testing.assert_allclose(history.history[key][0], values[0], rtol=0.03, err_msg=key)


def mark_of_resumed(name, precision):
    """Likewise."""
    return slow if name in QUICK and precision == "float32" else pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=mark_of_resumed(name, precision))
        for name in NAMES
        for precision in ("float32", "mixed_bfloat16")
    ],
)
def test_replicas_go_on_in_mid_epoch_with_the_same_bits(name, precision, tmp_path):
    keywords = {"num_replicas": 2, "precision": precision}
    whole, expected, _ = sections.run_saving(name, tmp_path, **keywords)
    assert_trained(whole, expected)
    state, history = sections.resume(name, tmp_path, **keywords)
    assert_same_bits(sections.values_of(state), sections.values_of(whole))
    assert history.history == expected.history


@slow
@pytest.mark.parametrize("num_replicas", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
@pytest.mark.parametrize("name", NAMES)
def test_step_trains_in_float16(name, num_replicas):
    state, history, _ = sections.run(name, num_replicas=num_replicas, precision="mixed_float16")
    assert history.num_traces == 1
    assert all_finite(state)
