"""An engine is asked for its flags once; where it cannot be asked, nobody guesses."""

import gzip
import os
import sys
from pathlib import Path

import pytest

from tests.present import present
from tuner.engines.vllm.flags import known_flags, unknown_flags
from tuner.engines.vllm.help import HELP, of_version

PRINTED = Path(__file__).parents[2] / "data" / "vllm-0.32.0-serve-help.txt.gz"
HERE = os.environ.get("TUNER_TEST_VLLM")


@pytest.fixture
def vllm(tmp_path):
    """An executable that answers ``serve --help=all`` as vLLM 0.32.0 does, and notes that it was asked."""
    (tmp_path / "help.txt").write_bytes(gzip.decompress(PRINTED.read_bytes()))
    path = tmp_path / "vllm"
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$2" = --help=all ] && cat {tmp_path}/help.txt\n')
    path.chmod(0o755)
    return path


def asked(path):
    log = path.parent / "asked"
    return log.read_text().splitlines() if log.exists() else []


def test_an_executable_is_asked_for_its_flags_once(vllm, tmp_path):
    first, again = (present(HELP.of_executable((str(vllm), "serve"), tmp_path / "flags")) for _ in range(2))
    assert first == again
    assert len(first.flags) > 200
    assert "--disable-log-requests" not in first.flags
    assert first.source == f"{vllm} serve --help=all"
    assert asked(vllm) == ["serve --help=all"]


def test_an_executable_that_changed_is_asked_anew(vllm, tmp_path):
    HELP.of_executable((str(vllm), "serve"), tmp_path / "flags")
    vllm.write_text(vllm.read_text() + "# another version\n")
    HELP.of_executable((str(vllm), "serve"), tmp_path / "flags")
    assert len(asked(vllm)) == 2


@pytest.mark.parametrize("ending", ["exit 1", "echo usage: vllm; exit 0", "kill -9 $$"])
def test_an_executable_without_an_answer_is_unknown_and_asked_again_next_time(vllm, tmp_path, ending):
    vllm.write_text(f"#!/bin/sh\necho >> {tmp_path}/asked\n{ending}\n")
    for _ in range(2):
        assert HELP.of_executable((str(vllm), "serve"), tmp_path / "flags") is None
    assert len(asked(vllm)) == 2


def test_what_is_not_there_or_only_a_module_is_not_asked(tmp_path):
    assert HELP.of_executable((str(tmp_path / "nothing"), "serve"), tmp_path / "flags") is None
    assert HELP.of_executable((sys.executable, "-m", "tuner.sim", "serve"), tmp_path / "flags") is None


def test_an_image_is_asked_once_for_each_digest(tmp_path):
    asked: list[str] = []
    text = gzip.decompress(PRINTED.read_bytes()).decode()

    def ask(digest):
        def printed():
            asked.append(digest)
            return text

        return HELP.remembered(digest, printed, tmp_path, "vllm serve in an image")

    assert ask("sha256:a").flags == ask("sha256:a").flags == ask("sha256:b").flags
    assert asked == ["sha256:a", "sha256:b"]


def test_a_remembered_answer_that_cannot_be_read_is_asked_for_again(tmp_path):
    text = gzip.decompress(PRINTED.read_bytes()).decode()
    known = HELP.remembered("x", lambda: text, tmp_path, "x")
    (path,) = tmp_path.glob("*.json")
    path.write_text("{}")
    assert HELP.remembered("x", lambda: text, tmp_path, "x") == known


def test_a_version_alone_is_answered_by_the_shipped_table_with_the_choices_of_its_flags():
    known = of_version("0.15")
    assert known.flags == known_flags("0.15.0")
    assert "fp8" in known.choices["--kv-cache-dtype"]
    assert "0.15" in known.source


@pytest.mark.vllm
@pytest.mark.timeout(400)
@pytest.mark.skipif(not HERE, reason="needs real vLLM: TUNER_TEST_VLLM=DIR make test (DIR/venv/bin/vllm)")
def test_a_real_vllm_names_its_flags(tmp_path):
    known = present(HELP.of_executable((f"{HERE}/venv/bin/vllm", "serve"), tmp_path))
    assert {"--max-num-seqs", "--kv-cache-dtype", "--served-model-name", "--compilation-config"} <= known.flags
    (unknown,) = unknown_flags(["--max-num-seqs", "8", "--disable-log-requests"], known.flags)
    assert unknown.instead.startswith("--enable-log-requests")
