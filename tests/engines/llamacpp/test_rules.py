"""What llama.cpp refuses as a whole, and requests that no slot holds."""

import pytest

from tests.present import present
from tuner.engines.llamacpp.rules import refused, refused_requests
from tuner.load.workload import Workload
from tuner.space import Settings


@pytest.mark.parametrize("args", [{"flash_attn": False}, {"fa": "off"}, {}])
def test_a_quantized_value_cache_needs_flash_attention(args):
    asked = Settings({"cache_type_v": "q8_0", **args})
    assert present(refused(asked, False)).fix == "switch flash_attn on"
    assert refused(Settings({"cache_type_v": "q8_0", "flash_attn": True}), False) is None


def test_a_build_that_decides_by_itself_is_left_to_it():
    assert refused(Settings({"cache_type_v": "q8_0"}), None) is None


def test_a_server_without_slots_is_refused():
    assert present(refused(Settings({"parallel": 0}), None)).message == "parallel=0 leaves no slot"


def messages(args):
    workload = Workload(name="any", prompt_tokens=3000, output_tokens=500)
    return [each.message for each in refused_requests(workload, Settings(args), 131072)]


def test_a_request_longer_than_its_slot_is_refused_every_time():
    (said,) = messages({"ctx_size": 8192, "np": 4})
    assert said == "3000 prompt + 500 output tokens exceed the 2048 tokens of a slot (ctx_size 8192 among 4)"
    assert not messages({"ctx_size": 16384, "np": 4})
    assert not messages({"ctx_size": 0})
    assert not messages({"ctx_size": 8192, "np": 4, "kv_unified": True})
