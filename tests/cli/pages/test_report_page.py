"""report.html: it shows what the files say, trusts none of it, and lacks what they lack."""

import html.parser
import re

import numpy as np
import pytest

from gradloop.cli import pages, report
from gradloop.cli.run_folder import RunFolder
from tests.cli.pages.folders import CONFIG, CSV, SUMMARY, make_folder, write_predictions

_VOID = {"meta", "img", "br", "link", "input"}
_EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)> \"&\u202e\u00fc\ud800"


class _Checker(html.parser.HTMLParser):
    """Balanced elements, and what could load or run something."""

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.sources, self.handlers, self.text = [], 0, [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in _VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _check(path):
    text = path.read_text("utf-8")
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.scripts == 1 and checker.handlers == []
    assert all(source.startswith("data:image/png;base64,") for source in checker.sources)
    return re.sub(r"\s+", " ", " ".join(checker.text))


def test_the_page_shows_what_the_files_say(tmp_path):
    folder = make_folder(tmp_path / "run", log="warning: too warm\n")
    write_predictions(folder, class_names=["cat", "dog", "eel"])
    path = pages.write(folder)
    assert path == folder / "report.html"
    text = _check(path)
    for words in (
        "cnn on mnist", "completed", "75.00%", "2 (val_accuracy 0.7)", "loss", "learning rate",
        "computing steps 8 s 80.0%", "writer CSVWriter", "eel", "Most frequent confusions",
        "epochs 3 1", "git commit abc123", "warning: too warm", "python train.py --model cnn",
        "60 examples, 80.00% right",
    ):  # fmt: skip
        assert words in text, words
    assert "Not there" not in text


def test_nothing_that_a_run_writes_is_trusted(tmp_path):
    config = CONFIG | {"model": _EVIL, _EVIL: _EVIL, "run_name": _EVIL, "tags": [_EVIL]}
    summary = SUMMARY | {"exit_reason": _EVIL, "traces": [{"function": _EVIL, "cause": _EVIL}]}
    name = "a,<script>alert(1)</script>"
    folder = make_folder(
        tmp_path / "<b>run", config=config, summary=summary,
        csv=CSV.replace("accuracy", f'"{name}"', 1), log=f"warning: {_EVIL[:-1]}\n",
    )  # fmt: skip
    write_predictions(folder, class_names=[_EVIL[:20], "'", '"'])
    text = _check(pages.write(folder))
    assert "<script>alert('x')</script>" in text, "as text"
    assert name in text


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[1]", b"\xff\xfe\x00", b'{"timing": 3}', b"[" * 9999],
    ids=["missing", "empty", "torn", "list", "bytes", "types", "deep"],
)
def test_files_that_are_missing_or_damaged_are_not_there(tmp_path, content):
    folder = make_folder(tmp_path / "run")
    names = [
        "config.json", "summary.json", "environment.json", "metrics.csv", "command.txt",
        "train.log", "predictions.npz", "summary.evaluate.json",
    ]  # fmt: skip
    for name in names:
        path = folder / name
        path.write_bytes(content) if content is not None else path.unlink(missing_ok=True)
    text = _check(pages.write(folder))
    assert "Not there: curves," in text and "where the time went" in text


def test_a_summary_of_other_types_is_not_there(tmp_path):
    summary = dict.fromkeys(SUMMARY, 7) | {"timing": SUMMARY["timing"] | {"step_secs": "x"}}
    text = _check(pages.write(make_folder(tmp_path / "run", summary=summary)))
    assert "computing steps" in text


def test_a_torn_table_keeps_its_whole_rows(tmp_path):
    csv = CSV + "4x0,3,epoch,0.9\n400,"
    text = _check(pages.write(make_folder(tmp_path / "run", csv=csv)))
    assert "2 (val_accuracy 0.7)" in text


def test_numbers_that_are_not_finite_are_gaps(tmp_path):
    csv = CSV.replace("1.0,0.005", "nan,0.005").replace("0.5,1.5,0.01", "inf,nan,0.01")
    text = _check(pages.write(make_folder(tmp_path / "run", csv=csv)))
    assert "learning rate" in text


def test_a_run_that_goes_on_says_so(tmp_path):
    folder = make_folder(tmp_path / "run")
    (folder / "summary.json").unlink()
    text = _check(pages.write(folder))
    assert "not ended" in text and "the run is going on, or it was killed" in text


def test_predictions_that_are_no_classes_are_told(tmp_path):
    folder = make_folder(tmp_path / "run")
    arrays = {"targets": np.zeros((4, 1)), "predictions": np.full((4, 1), 0.5)}
    np.savez(folder / "predictions.npz", **arrays)
    assert "4 examples, mean absolute error 0.5." in _check(pages.write(folder))
    np.savez(folder / "predictions.npz", **{"predictions/left": np.zeros((4, 2))})
    assert "predictions/left [4, 2]" in _check(pages.write(folder))
    np.savez(folder / "predictions.npz", labels=np.array([5, -1]), predicted=np.array([1, 2]))
    assert "labels [2]" in _check(pages.write(folder))


def test_without_predictions_the_command_that_makes_them(tmp_path):
    folder = make_folder(tmp_path / "a run")
    assert f"--mode predict --run_dir '{folder}' --resume" in _check(pages.write(folder))
    summary = {name: value for name, value in SUMMARY.items() if name != "test_logs"}
    without_test_set = make_folder(tmp_path / "other", summary=summary)
    assert "--mode predict" not in _check(pages.write(without_test_set))


def test_pictures_are_inside_the_page(tmp_path):
    folder = make_folder(tmp_path / "run")
    write_predictions(folder)
    (folder / "plots").mkdir()
    (folder / "plots" / "worst_mistakes.png").write_bytes(b"\x89PNG and more")
    (folder / "plots" / "confusion_matrix.png").write_bytes(b"no picture")
    text = pages.write(folder).read_text("utf-8")
    assert text.count("data:image/png;base64,") == 1
    assert 'alt="The mistakes' in text


def test_a_run_survives_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report.pages, "write", lambda path: 1 / 0)
    folder = RunFolder.at(tmp_path / "run")
    with folder.open_log() as log:
        report.write_page(folder, log)
    assert "warning: report.html was not written" in capsys.readouterr().err


def test_one_of_several_workers_writes_no_page(tmp_path):
    folder = RunFolder(make_folder(tmp_path / "run"), writes=False)
    with folder.open_log() as log:
        report.write_page(folder, log)
    assert not (tmp_path / "run" / "report.html").exists()
