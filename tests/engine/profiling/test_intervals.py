"""The arithmetic of intervals, against sets of moments."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gradloop.engine.profiling.intervals import clip, complement, innermost, total, union
from gradloop.engine.profiling.xplane import Event

intervals = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda pair: (pair[0], sum(pair)))
)


@given(intervals)
def test_union_and_complement_split_a_window(some):
    covered = {moment for start, end in some for moment in range(start, end)}
    assert {m for start, end in union(some) for m in range(start, end)} == covered
    assert total(union(some)) == len(covered)
    rest = {m for start, end in complement(some, (5, 25)) for m in range(start, end)}
    assert rest == set(range(5, 25)) - covered
    assert all(a[1] < b[0] for a, b in itertools.pairwise(union(some)))


@given(intervals)
def test_each_moment_of_a_line_belongs_to_the_event_that_began_last(some):
    events = [
        Event(start, end, "op", str(i))
        for i, (start, end) in enumerate(sorted(some, key=lambda s: (s[0], -s[1])))
    ]
    owner = {
        moment: str(max(int(e.name) for e in events if e.start <= moment < e.end))
        for moment in range(45)
        if any(e.start <= moment < e.end for e in events)
    }
    found = {}
    for part in innermost(events):
        for moment in range(part.start, part.end):
            assert moment not in found
            found[moment] = part.name
    assert found == owner


def test_clip_leaves_what_lies_in_the_window():
    assert clip([(0, 5), (8, 12), (20, 30)], (4, 10)) == [(4, 5), (8, 10)]
