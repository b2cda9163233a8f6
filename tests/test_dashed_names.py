"""A flag means the same whether it is written with dashes, as on vLLM's command line, or with underscores."""

import pytest

from tuner import composing
from tuner.errors import ConfigError

WITH_DASHES = """
id: QuantTrio/GLM-4.7-Flash-AWQ
args:
  tensor-parallel-size: 2
  max-num-seqs: 16
  --gpu-memory-utilization: 0.92
  served-model-name: glm
known_good: [{max-num-seqs: 32}]
"""
SPACE = """
params:
  max-num-seqs: {choices: [8, 16, 32]}
  sizes: {flag: compilation-config.compile_sizes, choices: [null, [1, 2]]}
"""


@pytest.fixture
def compose(tmp_path):
    def load(model, *overrides):
        for group, text in (("model", model), ("space", SPACE)):
            (tmp_path / group).mkdir(exist_ok=True)
            (tmp_path / group / "mine.yaml").write_text(text)
        return composing.load(["experiment=demo", "model=mine", "space=mine", *overrides], tmp_path)

    return load


def test_dashes_are_read_as_underscores_wherever_a_flag_is_named(compose):
    asked = compose(WITH_DASHES)
    assert asked.model.args == {
        "tensor_parallel_size": 2,
        "max_num_seqs": 16,
        "gpu_memory_utilization": 0.92,
        "served_model_name": "glm",
    }
    assert asked.model.known_good == ({"max_num_seqs": 32},)
    assert asked.space.set_by(asked.model.settings) == {"max_num_seqs": 16, "sizes": None}
    assert asked.space.target("sizes") == ("flag", "compilation_config.compile_sizes")


def test_two_spellings_of_one_flag_are_refused(compose):
    with pytest.raises(ConfigError, match=r"model\.args: max_num_seqs is given twice"):
        compose(WITH_DASHES.replace("args:", "args:\n  max_num_seqs: 64"))


def test_a_key_on_the_command_line_may_have_dashes_too(compose):
    asked = compose(WITH_DASHES.replace("max-num-seqs: 16", "max_num_seqs: 16"), "model.args.max-num-seqs=8")
    assert asked.model.args["max_num_seqs"] == 8
    narrowed = compose(WITH_DASHES, "space.params.max-num-batched-tokens={choices: [1024, 2048]}")
    assert "max_num_batched_tokens" in narrowed.space.params
