"""Memory is predicted from a GGUF header as a real server (build 4227c9b, a CPU) printed it, and corrected by it."""

import struct

import pytest

from tests.present import present
from tuner.engines.base import StartupFacts
from tuner.engines.foresight import Premises, ServerStart
from tuner.engines.hardware import Hardware
from tuner.engines.llamacpp.engine import LlamaCppEngine
from tuner.engines.llamacpp.foresight import LlamaCppMemory, foresight_of
from tuner.engines.llamacpp.gguf import find
from tuner.engines.llamacpp.memory.calibration import BufferCalibration
from tuner.engines.llamacpp.memory.demand import demand_of
from tuner.engines.llamacpp.memory.sizes import sizes
from tuner.space import Settings

MIB = 1024
PLAIN, FLASH = {"flash_attn": False}, {"flash_attn": True}


def gguf(path, *, layers=6, width=256, output=True, **more):
    """A file with the header of the tiny model that the servers of these tests served, and nothing behind it."""
    facts = {
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": 3 * width,
        "llama.attention.head_count": width // 64,
        "llama.attention.head_count_kv": width // 128,
        "llama.vocab_size": 448,
        "tokenizer.ggml.tokens": ["<unk>", "<s>"],
        **more,
    }
    shapes = {"token_embd.weight": (width, 448), "output_norm.weight": (width,)}
    shapes |= {"output.weight": (width, 448)} if output else {}
    for layer in range(layers):
        for name, shape in _layer(width).items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(facts))
    tensors = b"".join(
        text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, int(len(shape) > 1), 0)
        for name, shape in shapes.items()
    )
    path.write_bytes(head + b"".join(text(name) + value(fact) for name, fact in facts.items()) + tensors)
    return str(path)


def _layer(width):
    norms = {"attn_norm": (width,), "ffn_norm": (width,)}
    attention = {"attn_q": (width, width), "attn_k": (width, width // 2), "attn_v": (width, width // 2)}
    network = {"ffn_gate": (width, 3 * width), "ffn_up": (width, 3 * width), "ffn_down": (3 * width, width)}
    return {**norms, **attention, "attn_output": (width, width), **network}


def text(word):
    return struct.pack("<Q", len(word)) + word.encode()


def value(fact):
    if isinstance(fact, list):
        return struct.pack("<IIQ", 9, 8, len(fact)) + b"".join(map(text, fact))
    return struct.pack("<I", 8) + text(fact) if isinstance(fact, str) else struct.pack("<II", 4, fact)


@pytest.fixture
def tiny(tmp_path):
    return find(gguf(tmp_path / "tiny.gguf"))


def on_host(model, args):
    return sizes(model, demand_of(Settings(args), model, flash_by_default=None), 0)


def test_the_weights_are_those_of_the_file(tiny):
    assert tiny.total_bytes / 2**20 == pytest.approx(9.45, abs=0.005)
    assert len(tiny.layers) == 6
    assert (tiny.context, tiny.heads, tiny.vocabulary) == (8192, 4, 448)


@pytest.mark.parametrize(
    ("args", "kv_mib", "compute_mib"),
    [
        ({**PLAIN, "c": 8192, "np": 4}, 24.0, 22.51),
        ({**PLAIN, "c": 4096}, 12.0, 42.51),
        ({**PLAIN, "c": 400_000}, 1171.88, 3908.76),
        ({**PLAIN, "c": 8192, "b": 65536, "ub": 65536}, 24.0, 1320.16),
        ({**PLAIN, "c": 8192, "np": 4, "kvu": True}, 24.0, 82.51),
        ({**PLAIN, "c": 4096, "ub": 128}, 12.0, 10.63),
        ({**FLASH, "c": 8192, "np": 4}, 24.0, 9.51),
        ({**FLASH, "c": 4096}, 12.0, 14.01),
        ({**FLASH, "c": 8192, "ub": 2048}, 24.0, 104.05),
        ({**FLASH, "c": 8192, "ctk": "q8_0", "ctv": "q8_0"}, 12.75, 26.01),
    ],
)
def test_cache_and_buffers_are_what_a_server_printed(tiny, args, kv_mib, compute_mib):
    predicted = on_host(tiny, args)
    assert predicted.kv_gib * MIB == pytest.approx(kv_mib, rel=0.001)
    assert predicted.compute_gib * MIB == pytest.approx(compute_mib, rel=0.11)


def test_a_wider_model_as_well(tmp_path):
    wide = find(gguf(tmp_path / "wide.gguf", layers=4, width=512))
    assert on_host(wide, {**PLAIN, "c": 4096}).compute_gib * MIB == pytest.approx(77.01, rel=0.001)
    assert on_host(wide, {**FLASH, "c": 4096}).compute_gib * MIB == pytest.approx(19.01, rel=0.001)
    assert on_host(wide, {"c": 4096}).kv_gib * MIB == 16.0


def on_gpus(model, args, gpus=2):
    return sizes(model, demand_of(Settings({"c": 8192, **args}), model, flash_by_default=None), gpus)


def test_layers_are_divided_among_gpus_and_the_fullest_counts(tiny):
    layer, output = tiny.layers[0] / 2**30, tiny.output_bytes / 2**30
    assert on_gpus(tiny, {"ngl": 99}).weights_gib == pytest.approx(4 * layer)
    assert on_gpus(tiny, {"ngl": 99, "ts": "3,1"}).weights_gib == pytest.approx(5 * layer)
    assert on_gpus(tiny, {"ngl": 99, "sm": "none"}).weights_gib == pytest.approx(6 * layer + output)
    assert on_gpus(tiny, {"ngl": 3}, gpus=1).weights_gib == pytest.approx(2 * layer + output)
    assert on_gpus(tiny, {"ngl": 3, "nkvo": True}, gpus=1).kv_gib == 0
    assert on_gpus(tiny, {"ngl": 3}, gpus=1).kv_gib * MIB == pytest.approx(8.0)
    assert on_gpus(tiny, {}) is None


def test_tied_embeddings_count_for_the_output_as_well(tmp_path):
    tied = present(find(gguf(tmp_path / "tied.gguf", output=False)))
    assert tied.output_bytes > tied.input_bytes > 0


@pytest.mark.parametrize("head", [b"", b"GGUF", b"\x00" * 200, b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_what_is_no_gguf_file_is_not_guessed_at(tmp_path, head):
    (tmp_path / "x.gguf").write_bytes(head)
    assert find(str(tmp_path / "x.gguf")) is None
    assert find("org/model") is None


def test_a_cache_of_another_kind_is_not_predicted(tmp_path):
    windowed = find(gguf(tmp_path / "swa.gguf", **{"llama.attention.sliding_window": 1024}))
    assert on_host(windowed, {"c": 4096}).kv_gib is None


def memory(model, room_gib, gpus=0):
    return LlamaCppMemory(model, gpus, room_gib, False, BufferCalibration())


def test_a_context_for_which_there_is_no_room_is_ruled_out(tiny):
    before, huge = memory(tiny, 8.0), Settings({"ctx_size": 4_000_000})
    assert before.shortage(Settings({"ctx_size": 8192})) is None
    said = before.shortage(huge)
    assert (said.cause, before.fits(huge)) == ("host_oom", False)
    assert said.numbers["kv_gib"] == pytest.approx(11.44, abs=0.01)
    assert memory(tiny, None).shortage(huge) is None
    on_gpu = Settings({"ctx_size": 4_000_000, "n_gpu_layers": 99})
    assert memory(tiny, 8.0, gpus=1).shortage(on_gpu).cause == "cuda_oom"


def test_the_logs_own_figures_correct_the_next_prediction(tiny):
    said = StartupFacts(weights_gib=9.45 / MIB, kv_cache_gib=12 / MIB, peak_activation_gib=85.02 / MIB)
    before, small = memory(tiny, 0.15), Settings({"ctx_size": 4096})
    double = Settings({"ctx_size": 8192})
    assert before.fits(double)
    after = before.after([ServerStart(small, said)] * 2)
    assert after.forecast(double).activation_gib == pytest.approx(2 * before.forecast(double).activation_gib, rel=0.01)
    assert after.shortage(double)
    assert before.forecast(double).starts == 0


def test_what_is_not_known_here_rules_nothing_out(tiny):
    assert memory(tiny, 0.001).shortage(Settings({"model_draft": "d.gguf", "ctx_size": 1 << 30})) is None


def test_foresight_reads_the_file_and_knows_this_hosts_memory(tmp_path):
    path = gguf(tmp_path / "tiny.gguf")
    engine = LlamaCppEngine(("no-such-program",), path)
    known = foresight_of(Premises(engine, path, Hardware("CPU", 0), tmp_path, on_this_host=True))
    assert present(known.model).architecture == "llama"
    assert known.memory(None, Hardware("CPU", 0)).shortage(Settings({"ctx_size": 1 << 34})) is not None
