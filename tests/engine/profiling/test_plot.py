"""The picture of a profile."""

import numpy as np
import pytest

from gradloop.engine.profiling.plot import plot_profile
from gradloop.engine.profiling.summary import summarize
from gradloop.engine.storage import figures


def test_the_picture_has_a_bar_a_type_and_a_row_a_thread_that_works(
    tmp_path, monkeypatch, two_replicas
):
    pytest.importorskip("matplotlib")
    saved = []
    save = figures.save_figure
    monkeypatch.setattr(
        figures, "save_figure", lambda fig, path: saved.append(fig) or save(fig, path)
    )
    summary = summarize(two_replicas, num_replicas=2)
    path = plot_profile(two_replicas, summary, tmp_path / "deep" / "profile.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    types, threads = saved[0].axes
    labels = [text.get_text() for text in types.get_yticklabels()]
    assert labels == [row["type"] for row in summary["types"][:12]]
    widths = sorted((bar.get_width() for bar in types.patches), reverse=True)
    np.testing.assert_allclose(widths, [1e3 * r["secs"] / 3 for r in summary["types"][:12]])
    rows = [text.get_text() for text in threads.get_yticklabels()]
    assert "tf_Compute" in rows and "collective_ops" in rows and "python" not in rows
    assert {text.get_text() for text in threads.texts} == {"step 6", "step 7", "step 8"}
