"""What workers decide together, with stand-ins for the other workers."""

import dataclasses

import pytest
import tensorflow as tf

from gradloop import engine, signals
from gradloop.cli import together
from gradloop.cli.config import JobConfig
from gradloop.cli.hooks import watchdogs
from gradloop.engine.workers.cluster import Cluster

CLUSTER = Cluster(("10.0.0.1:2222", "10.0.0.2:2222", "10.0.0.3:2222"), 0)


class Others:
    """Worker `worker` of two, whose peer answers what it is told here."""

    def __init__(self, worker, *answers):
        self.worker, self.is_chief, self.is_alone, self.num_workers = worker, worker == 0, False, 2
        self.answers = list(answers)
        self.sent, self.num_barriers = [], 0

    def share(self, message):
        self.sent.append(message)
        other = self.answers.pop(0)
        return [message, other] if self.is_chief else [other, message]

    def of_chief(self, message):
        return self.share(message)[0]

    def barrier(self):
        self.num_barriers += 1


class Alone(Others):
    def __init__(self):
        super().__init__(0)
        self.is_alone = True


def refuse():
    raise engine.ConfigError("the folder is in use")


def test_the_chief_is_asked_and_the_others_do_not_call():
    assert together.ask_chief(Others(0, None), lambda: ["run", "start"]) == ["run", "start"]
    assert together.ask_chief(Others(1, [["run", "start"], None]), refuse) == ["run", "start"]
    assert together.ask_chief(Alone(), lambda: 3) == 3


def test_what_the_chief_refuses_all_refuse_and_nobody_leaves_before_all_know():
    chief, other = Others(0, None), Others(1, [None, "the folder is in use"])
    with pytest.raises(engine.ConfigError, match=r"^the folder is in use$"):
        together.ask_chief(chief, refuse)
    assert chief.sent == [[None, "the folder is in use"]]
    with pytest.raises(engine.ConfigError, match="the chief says: the folder is in use"):
        together.ask_chief(other, refuse)
    assert (chief.num_barriers, other.num_barriers) == (1, 1)


def test_workers_with_other_settings_are_told_which():
    config, sent = JobConfig(), Others(0, "")
    with pytest.raises(engine.ConfigError, match="worker 0 has another version of the code than"):
        together.check_equal(sent, config)
    local = dataclasses.replace(config, run_dir="x", data_dir="y", intra_op_threads=3)
    together.check_equal(Others(1, *sent.sent), local)
    other = dataclasses.replace(config, epochs=7)
    with pytest.raises(engine.ConfigError, match="worker 1 has another epochs than worker 0"):
        together.check_equal(Others(1, *sent.sent), other)


def test_a_message_about_the_settings_has_room():
    sent = Others(0, "")
    with pytest.raises(engine.ConfigError):
        together.check_equal(sent, JobConfig())
    assert len(sent.sent[0]) < 900


def test_a_folder_that_is_not_shared_is_noticed():
    together.check_start(Others(0, 40), 40)
    with pytest.raises(engine.ConfigError, match="at the steps 40, 0: the folder of the run"):
        together.check_start(Others(0, 0), 40)


LOSSES = [
    tf.errors.UnavailableError(None, None, "Connection reset by peer"),
    tf.errors.AbortedError(None, None, "all-reduce aborted"),
    tf.errors.InternalError(None, None, "Shape mismatch in the collective instance 3"),
]
NO_LOSSES = [
    tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [3] vs. [4]"),
    ValueError("a collective noun"),
    OSError("No space left on device"),
]


@pytest.mark.parametrize("error", LOSSES)
def test_errors_that_say_that_a_peer_is_gone(error):
    assert together.is_loss(error)
    wrapped = ValueError("in a sentence")
    wrapped.__cause__ = error
    assert together.is_loss(wrapped)


@pytest.mark.parametrize("error", NO_LOSSES)
def test_errors_of_ones_own_keep_theirs(error):
    assert not together.is_loss(error)
    with pytest.raises(type(error)), together.ending_alone(JobConfig(strategy="multi_worker")):
        raise error


def test_an_error_of_one_process_is_no_loss():
    with pytest.raises(tf.errors.UnavailableError), together.ending_alone(JobConfig()):
        raise LOSSES[0]


def test_the_line_names_the_peers_that_are_gone_and_what_to_do():
    error = tf.errors.UnavailableError(
        None, None, "failed to connect to /job:worker/replica:0/task:2\nAdditional information"
    )
    line = together.describe_loss(error, CLUSTER)
    assert line.startswith("worker 2 (10.0.0.3:2222) is gone; this is worker 0 of 3 (")
    assert "exit code 75" in line and "--resume auto" in line and "\n" not in line
    error = tf.errors.AbortedError(None, None, "aborted")
    assert together.describe_loss(error, CLUSTER).startswith("another worker is gone;")


def test_a_signal_on_any_worker_is_known_to_all():
    assert together.signal_of_any(Others(0, 15)) == 15
    assert together.signal_of_any(Others(1, 0)) == 0
    with signals.listening(signals.note):
        signals.signal.raise_signal(signals.signal.SIGTERM)
        assert together.signal_of_any(Others(1, 0)) == 15


def test_several_workers_are_watched_by_default():
    assert watchdogs(JobConfig()) == []
    (dog,) = watchdogs(JobConfig(strategy="multi_worker"))
    assert (dog.secs, dog.traced_secs) == (600, 900)
    (dog,) = watchdogs(JobConfig(strategy="multi_worker", hang_secs=3, start_secs=5))
    assert (dog.secs, dog.traced_secs) == (3, 8)
