"""Sixty public models: weights, KV cache of a token and KV tokens on a card, or an honest "unknown".

``tests/data/models.json`` holds what their ``config.json`` files say of dimensions, written from what their authors
published, and what is expected of them, as arithmetic: parameters by number format, or a checkpoint's size as its index
has it; heads by width by layers. None of it came from the code under test. Towers, norms and tables of sines are a
percent at most.
"""

import json
import sys
from ast import BinOp, Constant, Expression, expr, parse
from collections.abc import Callable
from operator import add, mul, truediv
from pathlib import Path

import pytest

from tests.engines.vllm.real import asked
from tests.present import present
from tuner.engines.hardware import Hardware
from tuner.engines.vllm.memory.cache import GIB
from tuner.engines.vllm.memory.calibration import Calibration
from tuner.engines.vllm.memory.sizes import account, sizes_of, unknown
from tuner.engines.vllm.model.architecture import of_mapping

H100 = Hardware("H100", 8, 79.18, 78.66, (9, 0), 132)
MODELS = json.loads((Path(__file__).parents[2] / "data" / "models.json").read_text("utf-8"))
KNOWN = [model for model in MODELS if "weights" in model]
UNKNOWN = [model for model in MODELS if "weights" not in model]
LOOSE = {"Llama-4-Scout": 0.015}
"""Its table of sines is 2.5 GiB long: ten million positions."""
ASKED = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
_OPERATORS: dict[str, Callable[[float, float], float]] = {"Add": add, "Mult": mul, "Div": truediv, "Pow": pow}


def names(models):
    return [pytest.param(model, id=model["name"]) for model in models]


def computed(text: str) -> float:
    """An expectation's arithmetic."""
    return _value(parse(text, mode="eval"))


def _value(node: Expression | expr) -> float:
    match node:
        case Expression(body):
            return _value(body)
        case Constant(int() | float() as number):
            return number
        case BinOp(left, op, right):
            return _OPERATORS[type(op).__name__](_value(left), _value(right))
    raise ValueError(f"no arithmetic: {node}")


def architecture(model):
    return of_mapping(model["name"], "tests/data/models.json", model["config"])


def cards(model):
    """As many cards as its weights need, of those that its heads allow."""
    return next(n for n in (1, 2, 4, 8, 16) if computed(model["weights"]) / GIB / n < 60 or n == 16)


def demand(model, ranks=1, version="0.19.0", **args):
    length = min(32768, architecture(model).max_positions or 4096)
    return asked(
        {**ASKED, "max_model_len": length, "tensor_parallel_size": ranks, **args}, H100, version, architecture(model)
    )


@pytest.mark.parametrize("model", names(KNOWN))
def test_weights_are_what_the_checkpoint_has(model):
    found = present(sizes_of(architecture(model), demand(model), H100)).weights_gib
    assert found == pytest.approx(computed(model["weights"]) / GIB, rel=LOOSE.get(model["name"], 0.01))


@pytest.mark.parametrize("model", names(KNOWN))
def test_a_token_takes_what_its_layers_keep(model):
    assert present(sizes_of(architecture(model), demand(model), H100)).cache.token_bytes == computed(model["token"])


@pytest.mark.parametrize("model", names(KNOWN))
def test_what_is_left_of_the_card_is_cache(model):
    """Next to the weights a start of 8,192 tokens takes half a GiB to seven, and two more behind NVLink."""
    ranks = cards(model)
    asked_for = demand(model, ranks)
    terms = account(present(sizes_of(architecture(model), asked_for, H100)), asked_for, H100)
    left = 79.18 * 0.92 - computed(model["weights"]) / GIB / ranks
    assert 0.5 < left - terms.kv_gib < 9.0


@pytest.mark.parametrize("model", names(UNKNOWN))
def test_what_is_not_understood_is_unknown_and_never_a_number(model):
    assert unknown(architecture(model), demand(model))
    assert Calibration(architecture(model), H100).predict(demand(model)).terms is None


def test_the_table(capsys):
    rows = [_row(model) for model in MODELS]
    header = ("model", "kind", "weights GiB", "expected", "B/token", "cards", "KV tokens")
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(_line(row) for row in (header, *rows)) + "\n")
    assert len(KNOWN) > 40
    assert {"dense", "AWQ", "GPTQ", "FP8", "NVFP4", "experts", "latent", "windows", "hybrid", "vision"} <= {
        model["kind"] for model in KNOWN
    }


def _row(model):
    if model in UNKNOWN:
        return (model["name"], model["kind"], *[""] * 4, ", ".join(unknown(architecture(model), demand(model))[:1]))
    ranks = cards(model)
    whole, cut = (present(sizes_of(architecture(model), demand(model, n), H100)) for n in (1, ranks))
    tokens = account(cut, demand(model, ranks), H100).kv_tokens
    expected = computed(model["weights"]) / GIB
    figures = (
        f"{whole.weights_gib:.2f}",
        f"{expected:.2f}",
        f"{whole.cache.token_bytes:.0f}",
        str(ranks),
    )
    return (model["name"], model["kind"], *figures, f"{tokens:,}")


def _line(row):
    name, kind, *rest = row
    return f"  {name:<26}{kind:<15}" + "".join(f"{cell:>13}" for cell in rest)
