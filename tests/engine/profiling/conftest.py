"""Two traces that were recorded.

`data/*.xplane.pb.gz` are steps 6 to 8 of a net 64-16-10 with batches of 32, each step in an
execution of its own, on two cores: on one replica, which makes its batches in the graph, and on two
under MirroredStrategy, with tf.data. Statistics of events were removed, except for the step.
"""

import gzip
from pathlib import Path

import pytest

from gradloop.engine.profiling.xplane import parse_trace

DATA = Path(__file__).parent / "data"


def recorded(name):
    return parse_trace(gzip.decompress((DATA / f"{name}.xplane.pb.gz").read_bytes()))


@pytest.fixture(scope="session")
def one_replica():
    return recorded("one_replica")


@pytest.fixture(scope="session")
def two_replicas():
    return recorded("two_replicas")
