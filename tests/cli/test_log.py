"""Log: what a person sees, and what the file keeps of it."""

import io

from gradloop.cli.log import Log


def test_the_log_shows_a_line_as_it_is_and_keeps_it_without_control_characters(tmp_path):
    stream = io.StringIO()
    with Log(tmp_path / "deep" / "train.log", stream) as log:
        log.line("\x1b[1;32mgreen\x1b[0m\rand\tback\x08")
        log.line()
        log.line("Größe")
    assert stream.getvalue() == "\x1b[1;32mgreen\x1b[0m\rand\tback\x08\n\nGröße\n"
    kept = (tmp_path / "deep" / "train.log").read_text("utf-8")
    assert kept == "greenand\tback\n\nGröße\n"


def test_a_line_may_go_to_another_stream(tmp_path):
    stream, other = io.StringIO(), io.StringIO()
    with Log(tmp_path / "train.log", stream) as log:
        log.line("an error", stream=other)
    assert (stream.getvalue(), other.getvalue()) == ("", "an error\n")
    assert (tmp_path / "train.log").read_text() == "an error\n"


def test_the_log_is_on_disk_at_once(tmp_path):
    log = Log(tmp_path / "train.log", io.StringIO())
    log.line("first")
    assert (tmp_path / "train.log").read_text() == "first\n"
    log.close()
    log.close()
