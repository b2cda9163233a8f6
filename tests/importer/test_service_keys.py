"""Every key of a compose service is read, travels into each trial's container, or is named as staying behind."""

from dataclasses import fields

import pytest
import yaml

from tuner import composing
from tuner.importer import sources
from tuner.importer.container import Options
from tuner.launchers.docker.carried import CarriedOptions
from tuner.launchers.docker.options import DockerLauncherConfig

BASE = {"image": "vllm/vllm-openai:v0.15.0", "command": "--model org/m --host 0.0.0.0"}

READ = {
    "build": {"context": ".", "dockerfile": "Dockerfile"},
    "command": "--model org/other",
    "configs": [{"source": "template", "target": "/templates/chat.jinja"}],
    "entrypoint": ["vllm", "serve"],
    "env_file": ["more.env"],
    "environment": {"OMP_NUM_THREADS": "4"},
    "gpus": "all",
    "image": "vllm/vllm-openai:v0.14.0",
    "ports": ["127.0.0.1:5001:8000"],
    "secrets": ["hf"],
    "volumes": ["/models:/models:ro"],
}
CARRIED = {
    "cap_add": ["SYS_PTRACE"],
    "cap_drop": ["NET_RAW"],
    "cgroup": "host",
    "cgroup_parent": "serving.slice",
    "cpu_quota": 150000,
    "cpu_shares": 512,
    "cpus": 7.5,
    "cpuset": "0-7",
    "device_cgroup_rules": ["c 226:* rwm"],
    "devices": ["/dev/kfd:/dev/kfd"],
    "dns": "10.0.0.2",
    "dns_opt": ["use-vc"],
    "dns_search": ["internal"],
    "extra_hosts": ["models.internal:10.1.2.3"],
    "group_add": ["video"],
    "ipc": "host",
    "mem_limit": "64g",
    "memswap_limit": "-1",
    "pid": "host",
    "pids_limit": 4096,
    "privileged": True,
    "read_only": True,
    "runtime": "habana",
    "security_opt": ["seccomp=unconfined"],
    "shm_size": "16gb",
    "sysctls": ["net.core.somaxconn=1024"],
    "tmpfs": ["/tmp:size=1g"],
    "ulimits": {"memlock": -1},
    "user": "1000:1000",
    "userns_mode": "host",
    "working_dir": "/work",
}
STAYS = {
    "annotations": {"a": "b"},
    "attach": True,
    "container_name": "mine",
    "depends_on": ["redis"],
    "develop": {"watch": [{"path": ".", "action": "rebuild"}]},
    "domainname": "example.org",
    "expose": ["8000"],
    "healthcheck": {"test": "true"},
    "hostname": "llm",
    "label_file": "labels",
    "labels": ["traefik.enable=true"],
    "logging": {"driver": "journald"},
    "mac_address": "02:42:ac:11:00:02",
    "network_mode": "bridge",
    "networks": {"web": {"aliases": ["llm"]}},
    "pull_policy": "never",
    "pull_refresh_after": "24h",
    "restart": "always",
    "scale": 2,
    "stdin_open": True,
    "stop_grace_period": "30s",
    "stop_signal": "SIGINT",
    "tty": True,
    "uts": "host",
}
MAY_MATTER = {
    "blkio_config": {"weight": 300},
    "cpu_count": 2,
    "cpu_percent": 50,
    "cpu_rt_period": 1000,
    "cpu_rt_runtime": 400,
    "credential_spec": {"file": "spec.json"},
    "external_links": ["redis"],
    "isolation": "default",
    "links": ["redis"],
    "mem_reservation": "1g",
    "mem_swappiness": 10,
    "models": ["draft"],
    "oom_kill_disable": True,
    "oom_score_adj": -500,
    "platform": "linux/amd64",
    "post_start": [{"command": "true"}],
    "pre_stop": [{"command": "true"}],
    "provider": {"type": "model"},
    "storage_opt": {"size": "100G"},
    "use_api_socket": True,
    "volumes_from": ["other"],
}
ELSEWHERE = {"cpu_period", "deploy", "extends", "init", "profiles"}
"""With a test of its own, or without an effect on one container: a period alone, an init, which each trial has."""
SCHEMA = {
    *("annotations", "attach", "build", "blkio_config", "cap_add", "cap_drop", "cgroup", "cgroup_parent", "command"),
    *("configs", "container_name", "cpu_count", "cpu_percent", "cpu_shares", "cpu_quota", "cpu_period"),
    *("cpu_rt_period", "cpu_rt_runtime", "cpus", "cpuset", "credential_spec", "depends_on", "deploy", "develop"),
    *("device_cgroup_rules", "devices", "dns", "dns_opt", "dns_search", "domainname", "entrypoint", "env_file"),
    *("environment", "expose", "extends", "external_links", "extra_hosts", "gpus", "group_add", "healthcheck"),
    *("hostname", "image", "init", "ipc", "isolation", "label_file", "labels", "links", "logging", "mac_address"),
    *("mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit", "models", "network_mode", "networks"),
    *("oom_kill_disable", "oom_score_adj", "pid", "pids_limit", "platform", "ports", "post_start", "pre_stop"),
    *("privileged", "profiles", "provider", "pull_policy", "pull_refresh_after", "read_only", "restart", "runtime"),
    *("scale", "secrets", "security_opt", "shm_size", "stdin_open", "stop_grace_period", "stop_signal"),
    *("storage_opt", "sysctls", "tmpfs", "tty", "ulimits", "use_api_socket", "user", "userns_mode", "uts"),
    *("volumes", "volumes_from", "working_dir"),
}
"""The keys of a service in the Compose Specification."""


def written(folder, **more):
    service = {name: value for name, value in {**BASE, **more}.items() if value is not None}
    tree = {
        "services": {"llm": service},
        "configs": {"template": {"file": "./chat.jinja"}, "inline": {"content": "x"}},
        "secrets": {"hf": {"file": "./token"}},
    }
    for name in ("chat.jinja", "token", "Dockerfile"):
        (folder / name).write_text("FROM vllm/vllm-openai:v0.15.0\n")
    (folder / "more.env").write_text("VLLM_LOGGING_LEVEL=INFO\n")
    path = folder / "compose.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def read(folder, **more):
    return sources.read([written(folder, **more)], None, {"HOME": "/home/somebody"})


def test_the_four_kinds_are_all_keys_that_a_service_may_have():
    kinds = [set(READ), set(CARRIED), set(STAYS), set(MAY_MATTER), ELSEWHERE]
    assert set().union(*kinds) == SCHEMA
    assert sum(map(len, kinds)) == len(SCHEMA)


@pytest.mark.parametrize("key", READ)
def test_what_is_read_changes_what_is_understood(key, tmp_path):
    more = {"build": READ["build"], "image": None} if key == "build" else {key: READ[key]}
    before = read(tmp_path)
    after = read(tmp_path, **more)
    assert before.container != after.container
    assert key == "entrypoint" or before.understood != after.understood
    assert not any("carried" in said or key in said for said in after.understood.unread)


@pytest.mark.parametrize("key", CARRIED)
def test_what_is_carried_is_an_option_of_the_container(key, tmp_path):
    before, after = read(tmp_path).container.options, read(tmp_path, **{key: CARRIED[key]}).container.options
    assert len([each.name for each in fields(Options) if getattr(before, each.name) != getattr(after, each.name)]) == 1


def launcher(folder, **more):
    found = composing.load([f"deployment={written(folder, **more)}"]).launcher
    assert isinstance(found, DockerLauncherConfig)
    return found


def test_each_option_reaches_the_trials_containers_and_the_winners_compose_file(tmp_path):
    asked = launcher(tmp_path, **CARRIED)
    as_usual = DockerLauncherConfig(kind="docker", image="any")
    same = [name for name in CarriedOptions.model_fields if getattr(asked, name) == getattr(as_usual, name)]
    assert same == []
    assert (asked.shm_gib, asked.memory_swap_gib, asked.cpus) == (16, -1, 7.5)
    engines = {name for name, value in asked.engine_options.items() if value not in (None, [], {}, False)}
    assert len(engines) == len(CarriedOptions.model_fields) - len(("security_opt", "cap_drop", "ulimits"))
    named = {"shm_size", "ipc", "pids_limit", "cpu_quota"}  # written elsewhere, a trial's own, or as ``cpus``
    assert set(CARRIED) - named == set(asked.compose_options)
    assert asked.compose_options["memswap_limit"] == -1


@pytest.mark.parametrize("key", STAYS)
def test_what_stays_with_the_deployment_is_named(key, tmp_path):
    said = read(tmp_path, **{key: STAYS[key]}).understood.unread
    assert f"{key} stays with the deployment: no trial has it" in said


@pytest.mark.parametrize("key", MAY_MATTER)
def test_what_may_matter_and_is_not_carried_is_named(key, tmp_path):
    said = read(tmp_path, **{key: MAY_MATTER[key]}).understood.unread
    assert f"{key} is not carried into a trial, and may matter" in said


def test_several_keys_are_one_sentence_and_unknown_ones_are_named(tmp_path):
    said = read(tmp_path, restart="always", networks=["web"], hostnme="x", links=["a"]).understood.unread
    assert said == (
        "networks, restart stay with the deployment: no trial has them",
        "hostnme, links are not carried into a trial, and may matter",
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pid": "service:web"}, "pid: service:web is not carried into a trial, and may matter"),
        ({"userns_mode": "keep-id"}, "userns_mode: keep-id is not carried into a trial, and may matter"),
        ({"ipc": "container:web"}, "ipc: container:web is not carried into a trial, and may matter"),
        (
            {"volumes": [{"type": "image", "source": "models", "target": "/models"}]},
            "the volume at /models (image) is not carried into a trial, and may matter",
        ),
        ({"configs": ["inline"]}, "the config inline is no file of this host: no trial has it (at /inline)"),
        ({"deploy": {"replicas": 2}}, "deploy.replicas stays with the deployment: no trial has it"),
        (
            {"deploy": {"restart_policy": {"condition": "any"}, "resources": {"reservations": {"memory": "1g"}}}},
            "deploy.resources.reservations.memory, deploy.restart_policy stay with the deployment: no trial has them",
        ),
        ({"pid": "host"}, "pid: host is carried into each trial's container, and overrides its hardening"),
        (
            {"userns_mode": "host"},
            "userns_mode: host is carried into each trial's container, and overrides its hardening",
        ),
        ({"cgroup": "host"}, "cgroup: host is carried into each trial's container, and overrides its hardening"),
        (
            {"pids_limit": -1},
            "no limit of processes is carried into each trial's container, and overrides its hardening",
        ),
    ],
)
def test_values_that_are_not_carried_or_weaken_a_trial_are_said(more, said, tmp_path):
    assert read(tmp_path, **more).understood.unread == (said,)


def test_what_compose_writes_for_nothing_is_not_named(tmp_path):
    nothing = {"networks": {"default": None}, "labels": {}, "tty": False, "scale": 1, "deploy": {"placement": {}}}
    assert read(tmp_path, **nothing, init=True).understood.unread == ()


def test_limits_of_a_deployment_are_those_of_each_trial(tmp_path):
    limits = {"cpus": "7.5", "memory": "64G", "pids": 4096}
    asked = launcher(tmp_path, deploy={"resources": {"limits": limits}})
    assert (asked.cpus, asked.memory_gib, asked.pids) == (7.5, 64, 4096)
    endless = launcher(tmp_path, pids_limit=-1, memswap_limit="-1")
    assert (endless.pids, endless.memory_swap_gib) == (None, -1)


def test_a_config_that_is_a_file_is_mounted(tmp_path):
    found = read(tmp_path, configs=READ["configs"]).understood
    assert found.mounts == (f"{tmp_path}/chat.jinja:/templates/chat.jinja:ro",)


def test_the_launcher_has_nothing_that_no_deployment_can_say():
    carried = {each.name for each in fields(Options)} - {"memory_bytes", "memory_swap_bytes", "shm_bytes", "ipc"}
    assert carried | {"memory_gib", "memory_swap_gib"} == set(CarriedOptions.model_fields)
