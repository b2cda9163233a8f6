"""vLLM's command line: each version's flags, and the words in which it refuses."""

import pytest

from tuner.engines.vllm.flags import known_flags
from tuner.sim import flags, versions
from tuner.sim.flags import UsageError


@pytest.mark.parametrize(
    ("version", "argument", "known"),
    [
        ("0.15", "--disable-log-requests", True),
        ("0.26", "--disable-log-requests", False),
        ("0.10", "--enable-log-requests", True),
        ("0.15", "--swap-space=4", True),
        ("0.26", "--swap-space=4", False),
        ("0.10", "--cuda-graph-sizes=8", True),
        ("0.15", "--cuda-graph-sizes=8", False),
        ("0.10", "--cudagraph-capture-sizes=8", False),
        ("0.15", "--cudagraph-capture-sizes=8", True),
        ("0.9.2", "--num-scheduler-steps=4", True),
        ("0.10", "--num-scheduler-steps=4", False),
        ("0.10", "--stream-interval=2", False),
        ("0.15", "--stream-interval=2", True),
        ("0.15", "--performance-mode=throughput", False),
        ("0.26", "--performance-mode=throughput", True),
        ("0.26", "--max-num-active-seqs=4", False),
        ("0.33", "--max-num-active-seqs=4", True),
    ],
)
def test_each_version_knows_its_own_flags(version: str, argument: str, known: bool) -> None:
    if known:
        assert flags.parse(versions.parse(version), ["model", argument])
    else:
        with pytest.raises(UsageError, match=f"error: unrecognized arguments: {argument}"):
            flags.parse(versions.parse(version), ["model", argument])


def test_an_unknown_flag_is_named_with_its_value_as_real_vllm_names_it() -> None:
    with pytest.raises(UsageError) as refused:
        flags.parse(versions.parse("0.26"), ["model", "--not-a-flag", "3"])
    assert refused.value.text.splitlines()[-1] == "vllm: error: unrecognized arguments: --not-a-flag 3"
    assert refused.value.exit_code == 2


def test_older_versions_say_vllm_serve() -> None:
    with pytest.raises(UsageError, match="vllm serve: error: unrecognized arguments: --nope"):
        flags.parse(versions.parse("0.15"), ["model", "--nope"])


def test_a_value_of_the_wrong_type_is_refused_with_the_value() -> None:
    with pytest.raises(UsageError, match="argument --max-num-seqs: invalid int value: 'many'"):
        flags.parse(versions.parse("0.15"), ["model", "--max-num-seqs", "many"])


def test_block_size_has_choices_before_0_20_and_none_after() -> None:
    with pytest.raises(UsageError, match="argument --block-size: invalid choice: 24"):
        flags.parse(versions.parse("0.15"), ["model", "--block-size", "24"])
    assert flags.parse(versions.parse("0.26"), ["model", "--block-size", "24"])["block_size"] == 24


def test_flags_that_do_nothing_here_are_still_known() -> None:
    words = ["model", "--no-disable-chunked-mm-input", "--hf-token", "x", "--max-num-seqs", "8"]
    assert flags.parse(versions.parse("0.15"), words)["max_num_seqs"] == 8


@pytest.mark.parametrize("version", ["0.9.2", "0.10.2", "0.11.2", "0.15.0", "0.20.0", "0.26.0", "0.33.0"])
def test_the_simulators_own_table_agrees_with_the_wheels(version: str) -> None:
    """Every flag of the table is in that wheel, but for -O, whose long form came later."""
    wheel = {name.removeprefix("--") for name in known_flags(version)}
    assert {flag.name for flag in versions.flags(versions.parse(version))} - wheel <= {"optimization-level"}


def test_help_lists_the_flags_of_its_version_only() -> None:
    old, new = (flags.help_text(versions.parse(version)) for version in ("0.15", "0.26"))
    assert "--swap-space" in old
    assert "--swap-space" not in new
    assert "--no-enable-prefix-caching" in new


def test_a_value_outside_its_choices_is_refused() -> None:
    with pytest.raises(UsageError, match="argument --kv-cache-dtype: invalid choice: 'fp7'"):
        flags.parse(versions.parse("0.15"), ["model", "--kv-cache-dtype", "fp7"])


def test_spellings_that_vllm_takes_mean_the_same() -> None:
    version = versions.parse("0.15")
    plain = flags.parse(version, ["m", "--max-num-seqs", "8", "--tensor-parallel-size", "2"])
    assert flags.parse(version, ["m", "--max_num_seqs=8", "-tp", "2"]) == plain


def test_booleans_have_a_no_form() -> None:
    parsed = flags.parse(versions.parse("0.15"), ["m", "--no-enable-prefix-caching", "--enforce-eager"])
    assert (parsed["enable_prefix_caching"], parsed["enforce_eager"]) == (False, True)


def test_compilation_config_is_json_or_dotted() -> None:
    version = versions.parse("0.15")
    whole = flags.parse(version, ["m", "-cc", '{"compile_sizes": [1, 8], "mode": 3}'])
    dotted = flags.parse(version, ["m", "-cc.compile_sizes=[1,8]", "--compilation-config.mode", "3"])
    assert whole["compilation_config"] == {"compile_sizes": [1, 8], "mode": 3}
    assert dotted == whole


def test_several_served_names_are_all_kept() -> None:
    parsed = flags.parse(versions.parse("0.15"), ["m", "--served-model-name", "a", "b", "c"])
    assert parsed["served_model_name"] == ["a", "b", "c"]


def test_lengths_take_suffixes() -> None:
    assert flags.parse(versions.parse("0.15"), ["m", "--max-model-len", "32k"])["max_model_len"] == 32000
    assert flags.parse(versions.parse("0.15"), ["m", "--max-model-len", "1K"])["max_model_len"] == 1024
