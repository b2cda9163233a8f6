"""A server's log is read line by line while it grows."""

import os

import pytest

from tuner.launchers.log import ServerLog
from tuner.launchers.redacting import RedactedLog


def test_a_line_comes_once_and_only_when_it_is_whole(tmp_path):
    path = tmp_path / "server.log"
    log = ServerLog(path)
    assert log.read_new() == []
    path.write_text("one\ntw")
    assert log.read_new() == ["one"]
    with path.open("a") as file:
        file.write("o\n")
    assert log.read_new() == ["two"]
    assert log.read_new() == []
    assert log.lines == ["one", "two"]


def test_each_step_of_a_progress_bar_is_a_line(tmp_path):
    path = tmp_path / "server.log"
    path.write_bytes(b"loading:  10%\rloading:  20%\rloading: 100%\ndone\n")
    assert ServerLog(path).read_new() == ["loading:  10%", "loading:  20%", "loading: 100%", "done"]


def test_a_torn_last_line_is_kept_at_the_end(tmp_path):
    path = tmp_path / "server.log"
    path.write_bytes("fine\ndied at ü".encode()[:-1])
    log = ServerLog(path)
    assert log.finish() == ["fine", "died at \ufffd"]
    assert log.finish() == []


@pytest.mark.parametrize("turn", range(10))
def test_the_last_words_are_written_once_however_many_wait_for_them(tmp_path, turn):
    with RedactedLog(tmp_path / "server.log", ()) as log:
        with log.inlet() as inlet:
            os.write(inlet, b"last words")
        log.settle()
    assert (tmp_path / "server.log").read_text() == "last words"
