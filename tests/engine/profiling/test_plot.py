"""The picture of a profile."""

import numpy as np
import pytest

from gradloop.engine.profiling.plot import plot_profile
from gradloop.engine.profiling.summary import summarize
from gradloop.engine.storage import figures


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws a trace and returns the figure and the path."""
    pytest.importorskip("matplotlib")
    saved = []
    save = figures.save_figure
    monkeypatch.setattr(
        figures, "save_figure", lambda fig, path: saved.append(fig) or save(fig, path)
    )

    def draw(trace, num_replicas=1):
        summary = summarize(trace, num_replicas=num_replicas)
        return saved, plot_profile(trace, summary, tmp_path / "deep" / "profile.png"), summary

    return draw


def test_the_picture_has_a_bar_a_type_and_a_row_a_thread_that_works(draw, two_replicas):
    saved, path, summary = draw(two_replicas, num_replicas=2)
    assert path.read_bytes().startswith(b"\x89PNG")
    types, threads = saved[0].axes
    labels = [text.get_text() for text in types.get_yticklabels()]
    assert labels == [row["type"] for row in summary["types"][:12]]
    widths = sorted((bar.get_width() for bar in types.patches), reverse=True)
    np.testing.assert_allclose(widths, [1e3 * r["secs"] / 3 for r in summary["types"][:12]])
    rows = [text.get_text() for text in threads.get_yticklabels()]
    assert "tf_Compute" in rows and "collective_ops" in rows and "python" not in rows
    assert {text.get_text() for text in threads.texts} == {"step 6", "step 7", "step 8"}


def test_the_picture_has_a_title_and_no_key_for_what_is_not_there(draw, one_replica, two_replicas):
    for trace, num_replicas in ((one_replica, 1), (two_replicas, 2)):
        saved, _, summary = draw(trace, num_replicas)
        assert saved[-1].get_suptitle().startswith("Profile of steps 6 to 8 on CPU: ")
        keys = {text.get_text() for text in saved[-1].legends[0].get_texts()}
        assert ("reduce" in keys) == (num_replicas == 2)
        assert {row["category"] for row in summary["types"][:12]} <= keys
