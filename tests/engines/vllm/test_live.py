"""Which settings a running vLLM takes, by version, and what is believed of a reading."""

import json

import pytest

from tuner.engines.live import NoLive
from tuner.engines.vllm.live import VllmLive, live_of

LIVE = VllmLive(("max_num_seqs", "max_num_batched_tokens"))
MOST = '(EngineCore_DP0 pid=7) INFO 11-30 02:08:56 [x.py:37] live settings: at most {"max_num_seqs": 64}'


def settings_of(version):
    live = live_of(version, {})
    assert isinstance(live, VllmLive)
    return live.settings


def test_older_versions_take_fewer():
    assert settings_of("0.33.0") == settings_of("0.31.0") == (*LIVE.settings, "long_prefill_token_threshold")
    assert settings_of("0.26.0") == settings_of("0.15.0") == LIVE.settings


@pytest.mark.parametrize(
    ("version", "args", "reason"),
    [
        ("0.14.1", {}, "vLLM 0.14.1 is older than 0.15"),
        (None, {}, "the engine has not said which version it is"),
        ("0.32.0", {"scheduler_cls": "my.Scheduler"}, "the deployment has a scheduler of its own (my.Scheduler)"),
    ],
)
def test_where_none_can_be_changed_there_is_a_reason(version, args, reason):
    assert live_of(version, args) == NoLive(reason)


def test_a_change_replaces_the_file_and_the_scheduler_lies_next_to_it(tmp_path):
    LIVE.prepare(tmp_path)
    LIVE.ask(tmp_path, 3, {"max_num_seqs": 4})
    assert LIVE.env("/seen") == {"TUNER_LIVE_SETTINGS": "/seen/settings.json"}
    assert json.loads((tmp_path / "settings.json").read_text()) == {"change": 3, "setting": {"max_num_seqs": 4}}
    module, _, name = str(LIVE.args["scheduler_cls"]).partition(".")
    assert f"def {name}(" in (tmp_path / f"{module}.py").read_text()
    assert "tuner." not in "".join(
        line for line in (tmp_path / f"{module}.py").read_text().splitlines() if line.startswith(("import", "from"))
    )


def test_every_engine_has_to_confirm():
    other = MOST.replace("DP0", "DP1")
    change = "(EngineCore_DP1 pid=8) INFO x live settings: change 2 in force: {}"
    status = LIVE.status([MOST, other, change, change.replace("change 2", "change 1")], 2)
    assert (status.most, status.engines, status.confirmed, status.refused) == ({"max_num_seqs": 64}, 2, 1, "")


def test_a_refusal_is_heard_and_so_is_a_scheduler_without_such_settings():
    refused = "WARNING x live settings: change 2 refused: max_num_seqs=65 is too much"
    assert LIVE.status([MOST, refused], 2).refused == "max_num_seqs=65 is too much"
    assert LIVE.status([MOST, refused], 3).refused == ""
    none = "WARNING x live settings: none: a step holds 512 tokens, not max_num_batched_tokens"
    assert LIVE.status([none]).refused == "a step holds 512 tokens, not max_num_batched_tokens"


@pytest.mark.parametrize(
    ("seqs", "tokens", "args", "doubted"),
    [
        (128, 512, {"max_num_seqs": 256}, True),  # read 3.2 times what the launch did: docs/h200.md
        (128, 256, {"max_num_seqs": 256}, False),
        (128, 2048, {"max_num_seqs": 256}, False),
        (16, 64, {"max_num_seqs": 32}, True),
        (16, 65, {"max_num_seqs": 32}, False),
        (128, 512, {"max_num_seqs": 256, "enforce_eager": True}, False),
        (128, 512, {"max_num_seqs": 256, "max_cudagraph_capture_size": 512}, False),
        (128, 512, {"max_num_seqs": 256, "compilation_config.cudagraph_capture_sizes": [1, 2]}, False),
        (128, 512, {"max_num_seqs": 256, "compilation_config": {"cudagraph_capture_sizes": [1, 2]}}, False),
    ],
)
def test_steps_that_would_have_no_graph_in_a_launch_are_not_believed(seqs, tokens, args, doubted):
    doubt = LIVE.doubt({"max_num_seqs": seqs, "max_num_batched_tokens": tokens}, args)
    assert bool(doubt) is doubted


def test_a_death_of_our_module_is_told_from_others():
    arguments = "INFO non-default args: {'scheduler_cls': 'tuner_live_settings.LiveScheduler'}"
    assert not LIVE.broke([MOST, arguments, "torch.OutOfMemoryError: CUDA out of memory."])
    assert LIVE.broke([arguments, "ModuleNotFoundError: No module named 'tuner_live_settings'"])
    assert LIVE.broke(['ERROR   File "/run/tuner/tuner_live_settings.py", line 44, in schedule'])
    assert LIVE.broke(["ValueError: live settings: a diffusion model has a scheduler of its own"])
