"""``deployment=PATH[:SERVICE]``: a deployment's own file is trial 0, and nothing of it is typed again."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tuner import composing
from tuner.errors import ConfigError
from tuner.launchers.docker.options import DockerLauncherConfig
from tuner.premises import make_engine

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "deployments"


def load(name, *overrides):
    return composing.load([f"deployment={CORPUS / name}", *overrides])


def argv(config):
    return make_engine(config).command(config.model.args, config.model.env, None).argv


def test_a_compose_service_becomes_model_launcher_and_gpus():
    asked = load("anchors/compose.yaml")
    assert argv(asked) == (
        *("vllm", "serve", "org/chat", "--tensor-parallel-size", "2", "--swap-space", "8", "--disable-log-requests"),
        *("--host", "{host}", "--port", "{port}"),
    )
    assert (asked.study.name, asked.model.service.name, asked.model.service.port) == ("chat", "chat", 8080)
    assert asked.model.env == {"HF_HOME": "/hf", "VLLM_USE_V1": "0"}
    assert asked.hardware.gpus == (0, 1)
    assert (asked.launcher.kind, asked.launcher.image) == ("docker", "vllm/vllm-openai:v0.10.2")
    assert asked.launcher.mounts == (f"{Path.home()}/hf:/hf",)
    assert asked.launcher.volumes == ("anchors_cache:/home/vllm/.cache/vllm",)
    assert asked.launcher.ulimits == {"memlock": (-1, -1), "stack": (67108864, 67108864)}
    assert (asked.launcher.ipc, asked.launcher.shm_gib) == ("private", 16)


def test_what_a_rocm_container_needs_travels_into_each_trial():
    asked = load("rocm/compose.yaml").launcher
    assert (asked.devices, asked.group_add) == (("/dev/kfd:/dev/kfd:rwm", "/dev/dri:/dev/dri:rwm"), ("video", "109"))
    assert (asked.security, asked.cap_add) == (["seccomp=unconfined", "no-new-privileges:true"], ("SYS_PTRACE",))
    assert load("rocm/compose.yaml").hardware.gpus == ()
    assert load("rocm/compose.yaml").model.env["HIP_VISIBLE_DEVICES"] == "4,5"


def test_networks_labels_and_published_ports_stay_for_the_deployment():
    asked = load("gone-flags/compose.yaml")
    assert (asked.launcher.network, asked.launcher.port) == (None, None)
    assert "traefik" not in asked.to_yaml()


def test_one_of_several_services_is_named_behind_the_path():
    assert load("two-engines/compose.yaml:embed").model.id == "org/embed"
    with pytest.raises(ConfigError, match="2 services run an engine: chat, embed"):
        load("two-engines/compose.yaml")


def test_the_users_own_keys_count_more_than_the_file():
    asked = load("rocm/compose.yaml", "model.args.max_num_seqs=32", "model.args.kv_cache_dtype=null", "study.name=mine")
    assert asked.model.args == {"tensor_parallel_size": 2, "max_num_seqs": 32, "kv_cache_dtype": None}
    assert asked.study.name == "mine"
    assert load("rocm/compose.yaml", "launcher.image=other:1").launcher.image == "other:1"
    with pytest.raises(ConfigError, match="the model is the deployment's own"):
        load("rocm/compose.yaml", "model=glm-flash")


def test_secrets_are_named_and_reach_no_trial():
    asked = load("dotenv-variables/compose.yml")
    assert asked.secrets.deployment == {"HF_TOKEN": "HF_TOKEN"}
    assert asked.secrets.file == CORPUS / "dotenv-variables" / ".env"
    assert "notareal" not in asked.to_yaml()
    assert "not-a-real" not in asked.to_yaml()
    assert "api_key" not in asked.model.args


def test_values_are_what_the_flags_say():
    assert load("flow-list/docker-compose.yml").model.args["hf_overrides"] == {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0}
    }
    assert load("folded-string/compose.yaml").model.args["max_model_len"] == 16_000
    assert load("folded-string/compose.yaml").model.args["served_model_name"] == ["mistral", "chat"]


def test_the_settings_of_a_config_file_stand_in_its_place():
    asked = load("vllm-entrypoint/compose.yaml")
    assert (asked.model.id, asked.model.args) == ("org/model-awq", {"max_model_len": 8192, "max_num_seqs": 16})


def test_what_a_shell_does_before_the_engine_is_done_before_each_trial():
    words = argv(load("shell-wrapped/compose.yaml", "workload.tool_call=false"))
    assert words[:3] == ("/bin/sh", "-c", "pip install -q 'transformers>=5' && exec \"$@\"")
    assert words[3:7] == ("deployment", "vllm", "serve", "Qwen/Qwen3-8B")


def test_a_program_that_takes_the_model_behind_a_flag_gets_it_there():
    words = argv(load("python-module/compose.yaml"))
    assert words[:5] == ("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "/data/model")


def test_a_process_is_started_as_one():
    asked = load("unit/vllm.service")
    assert (asked.launcher.kind, asked.hardware.gpus) == ("process", (2,))
    assert argv(asked)[:3] == ("/opt/llm/venv/bin/vllm", "serve", "Qwen/Qwen3-1.7B")
    assert argv(load("serve-line/serve.sh"))[:2] == ("vllm", "serve")


def test_models_in_the_hosts_own_cache_are_shared_without_its_token():
    asked = load("docker-run/run.sh").launcher
    assert isinstance(asked, DockerLauncherConfig)
    assert (asked.hf_home, asked.mounts) == (f"{Path.home()}/.cache/huggingface", ())


def test_a_command_line_that_cannot_be_read_is_no_trial_0():
    with pytest.raises(ConfigError, match="starts an engine in 2 places"):
        load("two-places/compose.yaml")


def plan(*overrides):
    words = ["study", "start", *overrides, "--dry-run", "--json"]
    return subprocess.run(
        [sys.executable, "-m", "tuner", *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_a_plan_shows_the_command_line_of_trial_0():
    done = plan(f"deployment={CORPUS / 'flow-list' / 'docker-compose.yml'}")
    command = json.loads(done.stdout)["command"]
    assert shlex.join(command).startswith("vllm serve Qwen/Qwen3-32B-AWQ --tensor-parallel-size 2 --quantization")
    assert json.loads(done.stdout)["launcher"] == "docker: vllm/vllm-openai:latest"


def test_what_the_workload_needs_is_checked_against_the_deployment_before_any_launch():
    done = plan(f"deployment={CORPUS / 'rocm' / 'compose.yaml'}")
    assert done.returncode != 0
    assert "a tool call needs enable_auto_tool_choice" in " ".join(json.loads(done.stdout)["refused"])
    assert "seccomp=unconfined is carried into each trial's container" in done.stderr
