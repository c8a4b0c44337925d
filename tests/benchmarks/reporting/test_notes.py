"""Each target that is missed is shown with the words that a person wrote on it."""

from benchmarks.reporting import notes
from tests.benchmarks.reporting.made_up import arm, races_of, ratio, record

ARMS = {"engine": arm(100.0), "engine_resident": arm(100.0), "keras_fit_tuned": arm(1.0)}
WORDS = notes.parse("For all.\n\n## cnn\n- `keras_fit_tuned`: oneDNN.\n\n## dense\ninput\n")
MISSED = record(
    ARMS,
    ratios=[ratio("engine", "keras_fit_tuned", 1.0), ratio("engine", "engine_resident", 0.9)],
)


def find(record, *others):
    return notes.misses(races_of(record), others)


def test_each_miss_has_a_line_and_is_asked_for_by_what_it_misses():
    tuned, of_input = find(MISSED)
    assert tuned.text == "`engine` over `keras_fit_tuned`, 1.00 for 1.05: **missed by 4.8 %**"
    assert of_input.text.startswith("input: `engine` over `engine_resident`, 0.9 for 0.97: ")
    assert tuned.has_reason(WORDS)
    assert not of_input.has_reason(WORDS)


def test_the_page_shows_the_words_beside_the_misses_and_what_has_none():
    written = notes.parse(
        "For all.\n\n## cnn\n- `keras_fit_tuned`: oneDNN.\n\n## dense\nNothing.\n"
    )
    text = notes.missed_part(find(MISSED), written)
    general, heading, lines, words, warning = text.split("\n\n")
    assert (general, heading, words) == ("For all.", "### cnn", "- `keras_fit_tuned`: oneDNN.")
    assert len(lines.splitlines()) == 2
    assert warning == "**No reason is written yet for input, engine_resident.**"


def test_a_cost_that_is_not_flat_is_a_miss_too():
    scaling = record({}, workload="scaling", images=[{"ratio": 1.0}, {"ratio": 1.1}])
    (miss,) = notes.misses({}, [scaling])
    assert miss.workload == "scaling"
    assert "missed by 7.0 %" in miss.text
    assert miss.has_reason({"scaling": "The images of 60,000 fit into the cache."})
