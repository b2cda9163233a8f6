"""What became of settings, by ``/props`` and log of a real server: ``-c 8192 -np 4 -t 2 -fa -ctk q8_0 --no-mmap``."""

from pathlib import Path

import pytest

from tuner.engines.effective import Status, Witness
from tuner.engines.llamacpp.engine import LlamaCppEngine
from tuner.space import Settings

ENGINE = LlamaCppEngine(("llama-server",), "tiny.gguf")
PROPS = (Path(__file__).parents[2] / "data" / "llamacpp-4227c9b-props.json").read_text()


@pytest.fixture
def witness(log):
    return Witness(log("llamacpp-4227c9b-cpu-flash.log"), server_info=PROPS)


def became(args, witness):
    return {each.name: (each.effective, each.status) for each in ENGINE.effective(Settings(args, {}), witness)}


def test_what_was_asked_runs(witness):
    args = {"ctx_size": 8192, "parallel": 4, "threads": 2, "flash_attn": True, "cache_type_k": "q8_0", "mmap": False}
    assert became(args, witness) == {name: (value, Status.HONOURED) for name, value in args.items()}


def test_another_value_runs_than_was_asked(witness):
    args = {"np": 8, "flash_attn": "off", "cache_type_v": "q8_0", "ubatch_size": 4096}
    assert became(args, witness) == {
        "np": (4, Status.OVERRIDDEN),
        "flash_attn": (True, Status.OVERRIDDEN),
        "cache_type_v": ("f16", Status.OVERRIDDEN),
        "ubatch_size": (512, Status.OVERRIDDEN),
    }


def test_what_is_left_to_the_server_is_honoured_whatever_it_chooses(witness):
    assert became({"threads": -1, "flash_attn": "auto"}, witness) == {
        "threads": (2, Status.HONOURED),
        "flash_attn": (True, Status.HONOURED),
    }


def test_the_context_is_divided_among_the_slots(witness):
    assert ENGINE.context_tokens(witness) == 2048
    assert ENGINE.context_tokens(Witness((), server_info="[]")) is None
