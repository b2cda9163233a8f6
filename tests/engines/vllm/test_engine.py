"""Settings become the words of a vLLM command line, always the same ones for the same settings."""

import pytest

from tuner.engines.base import Phase
from tuner.engines.causes import Cause, Evidence, Fate
from tuner.engines.vllm.engine import QUIET, VllmEngine
from tuner.errors import ConfigError

ENGINE = VllmEngine(executable=("vllm", "serve"), model="org/model-7b")
END = ("--host", "{host}", "--port", "{port}")


def words(args, alias=None):
    """The command line between the model and the address."""
    argv = ENGINE.command(args, {}, alias).argv
    assert argv[:3] == ("vllm", "serve", "org/model-7b")
    assert argv[-4:] == END
    return list(argv[3:-4])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, []),
        ({"max_num_seqs": 64}, ["--max-num-seqs", "64"]),
        ({"gpu_memory_utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"dtype": "auto"}, ["--dtype", "auto"]),
        ({"enable_prefix_caching": True}, ["--enable-prefix-caching"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"quantization": None}, []),
        ({"served_model_name": ["a", "b"]}, ["--served-model-name", "a", "b"]),
        ({"served_model_name": []}, []),
        ({"cudagraph_capture_sizes": [1, 2, 4]}, ["--cudagraph-capture-sizes", "1", "2", "4"]),
        ({"speculative_config": {"model": "m", "k": 3}}, ["--speculative-config", '{"k":3,"model":"m"}']),
        ({"b": 1, "a": 2}, ["--b", "1", "--a", "2"]),
        ({"host": "0.0.0.0", "port": 8000, "seed": 0}, ["--seed", "0"]),
    ],
)
def test_a_setting_becomes_a_flag(args, expected):
    assert words(args) == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"compilation_config.compile_sizes": [1, 2]}, ["--compilation-config", '{"compile_sizes":[1,2]}']),
        (
            {"compilation_config": {"mode": 3}, "compilation_config.cudagraph_mode": "FULL"},
            ["--compilation-config", '{"cudagraph_mode":"FULL","mode":3}'],
        ),
        (
            {"compilation_config.cudagraph_mode": "FULL", "compilation_config": '{"mode": 3}'},
            ["--compilation-config", '{"cudagraph_mode":"FULL","mode":3}'],
        ),
        (
            {"compilation_config": {"mode": 3, "level": 1}, "compilation_config.level": None},
            ["--compilation-config", '{"mode":3}'],
        ),
        ({"compilation_config": {"mode": 3}, "compilation_config.mode": None}, []),
        (
            {"compilation_config.pass_config.fuse": True, "compilation_config.pass_config.noop": None},
            ["--compilation-config", '{"pass_config":{"fuse":true}}'],
        ),
    ],
)
def test_a_dotted_name_sets_one_key_of_a_flags_object(args, expected):
    assert words(args) == expected


@pytest.mark.parametrize("owner", [3, ["a"], "not json", "[1]"])
def test_a_dotted_name_into_something_that_is_no_object_is_a_mistake_in_the_configuration(owner):
    with pytest.raises(ConfigError) as caught:
        words({"compilation_config": owner, "compilation_config.mode": 3})
    assert "compilation_config" in str(caught.value)


@pytest.mark.parametrize(
    ("own", "names"),
    [(None, ["org/model-7b", "me"]), ("a", ["a", "me"]), (["a", "b"], ["a", "b", "me"]), ([], ["org/model-7b", "me"])],
)
def test_the_alias_comes_after_the_servers_own_names(own, names):
    assert words({"served_model_name": own}, alias="me") == ["--served-model-name", *names]


def test_the_caller_s_settings_are_left_as_they_were():
    args = {"compilation_config": {"mode": 3}, "compilation_config.level": 1, "served_model_name": ["a"]}
    words(args, alias="me")
    assert args == {"compilation_config": {"mode": 3}, "compilation_config.level": 1, "served_model_name": ["a"]}


def test_a_trial_reports_to_nobody_unless_the_user_says_so():
    assert ENGINE.command({}, {"A": "1"}, None).env == {**QUIET, "A": "1"}
    assert ENGINE.command({}, {"DO_NOT_TRACK": "0"}, None).env["DO_NOT_TRACK"] == "0"


def test_the_engine_reads_its_own_log(log):
    failed = log("vllm-0.26.0-h100-F3_no_kv_blocks.log")
    assert ENGINE.diagnose(Evidence(tuple(failed), exit_code=1)).cause is Cause.NO_KV_CACHE
    reader = ENGINE.reader()
    for line in failed:
        reader.read(line)
    assert reader.diagnose(Fate(exit_code=1)) == ENGINE.diagnose(Evidence(tuple(failed), exit_code=1))
    assert ENGINE.facts(failed).weights_gib == 14.41
    assert ENGINE.phase("INFO 01-01 00:00:00 [a.py:1] Starting to load model org/model-7b...") is Phase.LOADING_WEIGHTS
