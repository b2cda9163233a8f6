"""What memory bandwidth allows a llama.cpp server: all weights and every slot's cache, read once in each step."""

import pytest

from tests.engines.llamacpp.test_memory import gguf
from tuner.engines.foresight import Premises
from tuner.engines.hardware import Hardware
from tuner.engines.llamacpp.engine import LlamaCppEngine
from tuner.engines.llamacpp.foresight import foresight_of
from tuner.load.workload import Workload
from tuner.space import Settings

CARDS = Hardware("two cards", 2, 24.0, bandwidth_gb_s=1000.0)
WHOLE = {"n_gpu_layers": 99, "ctx_size": 8192, "parallel": 4}
WORKLOAD = Workload(name="any", concurrency=4, prompt_tokens=900, output_tokens=200)


def ceilings(path, tmp_path, args=None, hardware=CARDS):
    premises = Premises(LlamaCppEngine(("llama-server",), path), path, hardware, tmp_path)
    return foresight_of(premises).ceilings(Settings(args or WHOLE), None, hardware, WORKLOAD)


def test_slots_and_bandwidth_are_the_ceilings(tmp_path):
    found = ceilings(gguf(tmp_path / "model.gguf"), tmp_path)
    layer = 2 * (256 * 256 + 2 * 256 * 128 + 256 * 256 + 3 * 256 * 768) + 4 * 2 * 256
    weights = 6 * layer + 2 * 256 * 448 + 4 * 256
    cached = 4 * (900 + 100) * 6 * 2 * 128 * 2
    assert (found.sequences, found.users, found.step_tokens) == (4, 4, None)
    assert found.alone_tokens_per_s == pytest.approx(1e12 / weights)
    assert found.tokens_per_s == pytest.approx(4 * 1e12 / (weights + cached))


def test_rows_are_read_by_all_gpus_at_once(tmp_path):
    model = gguf(tmp_path / "model.gguf")
    layers, rows = ceilings(model, tmp_path), ceilings(model, tmp_path, {**WHOLE, "split_mode": "row"})
    assert rows.tokens_per_s == pytest.approx(2 * layers.tokens_per_s)


@pytest.mark.parametrize(
    ("args", "hardware"),
    [
        ({**WHOLE, "n_gpu_layers": 3}, CARDS),
        ({"parallel": 4}, CARDS),
        (WHOLE, Hardware("a CPU", 0)),
        (WHOLE, Hardware("unknown", 1, 24.0)),
        ({**WHOLE, "cache_type_k": "unheard_of"}, CARDS),
    ],
)
def test_no_number_where_part_of_the_model_is_elsewhere_or_not_known(tmp_path, args, hardware):
    found = ceilings(gguf(tmp_path / "model.gguf"), tmp_path, args, hardware)
    assert found.sequences == 4
    assert found.tokens_per_s is None


def test_a_mixture_reads_an_unknown_part_of_its_weights(tmp_path):
    found = ceilings(gguf(tmp_path / "model.gguf", **{"llama.expert_used_count": 2}), tmp_path)
    assert found.tokens_per_s is None
