"""A summary in words: the log's few lines, and the whole text."""

from gradloop.engine.profiling.summary import summarize
from gradloop.engine.profiling.text import format_short, format_text

TITLES = ("Wall time", "Input and reduce", "Types of op", "Operations", "Threads", "Longest")


def test_the_text_has_all_parts(one_replica, two_replicas):
    text = format_text(summarize(one_replica))
    assert text.startswith("Steps 6 to 8 on CPU: ")
    for title in TITLES:
        assert f"\n{title}" in text
    assert "reduce: none" in text and "The step's own graph makes the batches" in text
    top = summarize(one_replica)["operations"][0]
    assert f"{top['share']:.1%}" in text and top["name"] in text
    text = format_text(summarize(two_replicas, num_replicas=2))
    assert "waiting included; 6 a step" in text and "own graph" not in text
    assert max(map(len, text.splitlines())) < 150


def test_the_short_form_is_a_few_lines(two_replicas):
    lines = format_short(summarize(two_replicas, num_replicas=2)).splitlines()
    assert [line.split()[0] for line in lines] == ["profile", "wall", "top", "input", "reduce"]
    assert "steps 6 to 8" in lines[0]


def test_a_long_name_keeps_its_end(one_replica):
    summary = summarize(one_replica)
    summary["operations"][0]["name"] = "layer/" * 30 + "MatMul"
    (line,) = (line for line in format_text(summary).splitlines() if line.endswith("layer/MatMul"))
    name = line.split()[-1]
    assert name.startswith("...") and len(name) == 60
