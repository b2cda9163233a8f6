"""The first user's services as data: each is a study's trial 0 by its name, and keeps to its own GPUs and port."""

import pytest

from tuner import composing
from tuner.catalog import groups
from tuner.errors import ConfigError, GpuBusy
from tuner.site.takeover import in_the_way

SITE = {
    "medium-glm": ((0, 1), 5002, "QuantTrio/GLM-4.7-Flash-AWQ", "glm47"),
    "micro": ((2,), 5000, "Qwen/Qwen3-1.7B", "hermes"),
    "mini": ((2,), 5001, "Qwen/Qwen3-8B", "hermes"),
    "medium": ((0, 1), 5002, "Qwen/Qwen3-32B-AWQ", "hermes"),
    "medium-vl": ((0, 1), 5003, "QuantTrio/Qwen3-VL-32B-Instruct-AWQ", "hermes"),
    "medium-coder": ((0, 1, 2), 5002, "cyankiwi/Qwen3-Coder-Next-AWQ-4bit", "hermes"),
}


def asked(name, *more):
    return composing.load([f"deployment={name}", *more])


def test_the_whole_site_is_there():
    (found,) = (group.choices for group in groups() if group.name == "deployment")
    assert set(found) == set(SITE)


@pytest.mark.parametrize("name", SITE)
def test_a_service_is_a_study_by_its_name(name):
    gpus, port, model, parser = SITE[name]
    config = asked(name)
    assert config.space.params
    assert config.study.name == config.model.service.name == name
    assert (config.gpus, config.model.service.port, config.model.id) == (gpus, port, model)
    assert (config.model.args["tool_call_parser"], config.model.args["enable_auto_tool_choice"]) == (parser, True)
    width = int(config.model.args.get("tensor_parallel_size", 1)) * int(
        config.model.args.get("pipeline_parallel_size", 1)
    )
    assert width == len(gpus)
    assert config.launcher.kind == "docker"
    assert config.launcher.port is None, "trials take a free port, never that of a service"
    assert set(config.secrets.deployment) == {"HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY"}
    assert config.secrets.trial == ()
    assert config.site.stop == (), "nothing is stopped that the user has not named"


def test_keys_are_one_to_a_service():
    keys = [asked(name, "space=none").secrets.deployment["VLLM_API_KEY"] for name in SITE]
    assert len(set(keys)) == len(SITE)


def test_what_the_user_says_counts_more_and_a_file_is_still_a_file(tmp_path):
    config = asked("mini", "space=none", "launcher.image=vllm/vllm-openai:v0.20.0", "study.name=other")
    assert (config.launcher.image, config.study.name) == ("vllm/vllm-openai:v0.20.0", "other")
    assert composing.load(["deployment=mini", "space=none", "launcher=process"]).launcher.kind == "process"
    with pytest.raises(ConfigError, match="deployment/none-such"):
        asked("none-such")
    with pytest.raises(ConfigError):
        asked(f"{tmp_path}/mini")


@pytest.mark.docker
@pytest.mark.parametrize(("name", "its_own"), [(name, bool({0, 1} & set(SITE[name][0]))) for name in SITE])
def test_a_study_never_takes_another_services_gpu_unless_it_is_told_to(production, name, its_own):
    """A container holds GPUs 0 and 1."""
    service, config = production(), asked(name, "space=none")
    if not its_own:
        assert in_the_way(config.site, config.gpus) == []
        return
    with pytest.raises(GpuBusy, match=service.name):
        in_the_way(config.site, config.gpus)
    told = asked(name, "space=none", f"site.stop=[{service.name}]")
    assert [one.name for one in in_the_way(told.site, told.gpus)] == [service.name]
    service.reload()
    assert service.status == "running"
