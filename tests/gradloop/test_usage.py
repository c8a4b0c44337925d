"""Wrong usage: hints that name the nearest legal value."""

import argparse

import pytest

from gradloop import usage


@pytest.mark.parametrize(
    ("value", "legal", "hint"),
    [
        ("mnst", ["mnist", "synthetic"], " Did you mean 'mnist'?"),
        ("MNIST", ["mnist", "synthetic"], " Did you mean 'mnist'?"),
        ("onstop", ["onStart", "onStop"], " Did you mean 'onStop'?"),
        ("MNIST", ["synthetic"], ""),
        ("CNN", ["cnn", "cnn_lstm"], " Did you mean 'cnn'?"),
        ("Float32", ["float32", "mixed_float16"], " Did you mean 'float32'?"),
        ("multi", ["mirrored", "multi_worker"], " Did you mean 'multi_worker'?"),
        ("mu", ["mirrored", "multi_worker"], ""),
        ("transformer", ["cnn", "dense"], ""),
        ("cnn", [], ""),
    ],
)
def test_the_hint_names_the_nearest_legal_value_if_one_is_close(value, legal, hint):
    assert usage.did_you_mean(value, legal) == hint


@pytest.mark.parametrize(("value", "hint"), [(12, " Did you mean '128'?"), (None, "")])
def test_values_that_are_no_text_are_compared_as_text(value, hint):
    assert usage.did_you_mean(value, [32, 128]) == hint


def test_wrong_usage_has_the_exit_code_of_argparse():
    with pytest.raises(SystemExit) as caught:
        argparse.ArgumentParser().parse_args(["--no-such-flag"])
    assert caught.value.code == usage.EXIT_USAGE
