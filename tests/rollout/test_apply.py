"""A winner is applied to a real compose deployment: kept if its proof holds there, else all is as it was; also after
a kill -9 at any step.
"""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import docker
import httpx
import pytest

from tests.present import present
from tests.simulated import simulated_study
from tuner import composing
from tuner.export.origin import ProfileImage, ProfileMachine, digest_of
from tuner.export.profile import profile_of, read_profile
from tuner.importer import sources
from tuner.importer.baseline import served
from tuner.proof.decision import Kind
from tuner.rollout.journal import Step
from tuner.testing.launcher import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
IMAGE = "tuner-test/rollout:v0.15.0"
HASH = "com.docker.compose.config-hash"
SECRET = "k-0123456789abcdef"
COMPOSE = f"""# mine
services:
  qwen: # the one that is tuned
    image: {IMAGE}
    command: --model QuantTrio/GLM-4.7-Flash-AWQ -tp 2 --max-model-len 32K --max-num-seqs ${{SEQS:-16}} --host 0.0.0.0
    environment: [OMP_NUM_THREADS=4, "VLLM_API_KEY=${{VLLM_API_KEY}}"]
    ports: ["127.0.0.1::8000"]
    restart: unless-stopped
    labels: [traefik.enable=true]
  other:
    image: {IMAGE}
    entrypoint: [sleep, infinity]
    stop_grace_period: 0s
"""
DOTENV = f"VLLM_API_KEY={SECRET}\nSEQS=16\n"
BELOW = {"times": 50, "noise": 0.02}
BROKEN = {"gpu_memory_utilization": 0.99}
STUDY = (
    *("experiment=demo", "workload=tiny", "study.name=s", "engine.clock_scale=15"),
    *("workload.min_duration_s=0", "workload.ttft_prompt_tokens=[]", "workload.requests=16"),
    *("workload.single_user.requests=1", "workload.warm_up.longest_tokens=200"),
)


@pytest.fixture(scope="module")
def image(sim_image):
    """The simulated engine, fast, behind the entrypoint of vLLM's own image."""
    fast = "--sim-clock-startup 200 --sim-clock-serving 15"
    lines = [f"FROM {sim_image}", "USER root"]
    lines += [f"RUN printf '#!/bin/sh\\nexec python3 -m tuner.sim \"$@\" {fast}' > /usr/local/bin/vllm"]
    client = docker.from_env()
    text = "\n".join([*lines, 'ENTRYPOINT ["vllm", "serve"]'])
    built, _ = client.images.build(fileobj=io.BytesIO(text.encode()), tag=IMAGE, rm=True)
    yield built
    client.images.remove(present(built.id), force=True)
    client.close()


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """The profile of some study's winner."""
    found = profile_of(simulated_study(tmp_path_factory.mktemp("studies"), 12, "study.name=s"))
    assert found is not None
    return found


def compose(here, *words):
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the docker command with its compose plugin: apt-get install docker-compose-plugin")
    done = subprocess.run(["docker", "compose", *words], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def here(image, tmp_path):
    """A deployment that runs, next to another service of the same file."""
    folder = tmp_path / f"d{os.getpid()}"
    folder.mkdir()
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / ".env").write_text(DOTENV)
    compose(folder, "up", "-d")
    until_it_answers(folder)
    yield folder
    compose(folder, "down", "--volumes", "--timeout", "0")


@pytest.fixture
def winner(here, proven):
    """Writes the study of a winner with these settings, which reads so many times what its proof says."""

    def write(times=1.0, noise=0.5, **args):
        config = composing.load([*STUDY, f"study.folder={here}/studies"])
        config.study.path.mkdir(parents=True, exist_ok=True)
        (config.study.path / "config.yaml").write_text(config.to_yaml())
        (config.study.path / "profile.yaml").write_text(_profile(here, proven, config, times, noise, args).to_yaml())

    return write


def _profile(here, proven, config, times, noise, args):
    found = served(sources.read([here / "compose.yaml"], "qwen", {}))
    decision = proven.verdict.decision
    effect = decision.goals["output_tokens_per_s"]
    read = tuple(times * value for value in (700.0, 720.0, 680.0, 700.0))
    goal = effect.model_copy(update={"candidate": read, "noise": noise})
    decision = decision.model_copy(update={"goals": {"output_tokens_per_s": goal}, "limits": {}})
    return proven.model_copy(
        update={
            "model": found.model,
            "args": {**found.args, "max_num_seqs": 64, **args},
            "env": dict(found.env),
            "image": None,
            "machine": None,
            "revision": None,
            "deployed": None,
            "service": proven.service.model_copy(update={"name": "qwen"}),
            "study": proven.study.model_copy(
                update={"name": "s", "workload": "tiny", "workload_digest": digest_of(config.workload)}
            ),
            "verdict": proven.verdict.model_copy(update={"decision": decision, "kind": Kind.BETTER, "deploy": True}),
        }
    )


def tuner(here, *words, program=("-m", "tuner")):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *program, *words], cwd=here, env=env, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


def apply(here, *options, **more):
    return tuner(here, "profile", "apply", "compose.yaml", *options, **more)


def services(here, client):
    """Each service's container: its id, its command, and whether it answers."""
    label = f"com.docker.compose.project.working_dir={here}"
    found = {one.labels["com.docker.compose.service"]: one for one in client.containers.list(filters={"label": label})}
    return SimpleNamespace(**found)


def answers(container):
    (port,) = container.attrs["NetworkSettings"]["Ports"]["8000/tcp"]
    return httpx.get(f"http://127.0.0.1:{port['HostPort']}/health", timeout=10).status_code == 200


def until_it_answers(here):
    client = docker.from_env()
    until(lambda: _answers_now(services(here, client).qwen), timeout_s=300)
    client.close()


def _answers_now(container):
    with suppress(httpx.HTTPError, KeyError):  # no port is there between two starts
        return answers(container)
    return False


def texts(here):
    return (here / "compose.yaml").read_bytes(), (here / ".env").read_bytes()


def test_a_winner_whose_proof_holds_is_kept_verified_and_rolled_back(here, winner, engine, state_dir):
    before, old = texts(here), services(here, engine)
    winner()
    done = apply(here)
    assert done.returncode == 0, done.stderr
    assert "backup 1 is what runs now" in done.stderr
    assert "measuring" in done.stderr
    assert "holds  " in done.stdout
    new = services(here, engine)
    assert "SEQS=64" in (here / ".env").read_text()
    assert (here / "compose.yaml").read_bytes() == before[0]
    assert new.other.id == old.other.id, "another service is never touched"
    assert new.qwen.attrs["Config"]["Cmd"][7] == "64"
    assert answers(new.qwen)
    assert not list(state_dir.glob("rollouts/*/under-way.json"))
    assert not [path for path in here.iterdir() if path.name.endswith((".bak", ".tmp"))]
    holding = [path for path in state_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert [path.parent.name for path in holding] == ["0001"], "only the copy of the .env that was changed"
    assert "nothing to change" in apply(here).stdout
    assert json.loads(apply(here, "--json").stdout) == {"kept": True, "changed": False, "measured": [], "why": None}
    compose(here, "up", "-d")
    assert services(here, engine).qwen.id == new.qwen.id, "it is what the user's own command would have made"

    verified = tuner(here, "profile", "verify", "compose.yaml", "--json")
    assert verified.returncode == 0, verified.stderr
    found = json.loads(verified.stdout)
    assert (found["holds"], found["changed"]) == (True, [])
    assert found["measured"][0]["metric"] == "output_tokens_per_s"

    listed = tuner(here, "profile", "rollback", "compose.yaml")
    assert "   1  20" in listed.stdout
    assert "as it was before trial" in listed.stdout
    back = tuner(here, "profile", "rollback", "compose.yaml", "--to", "1")
    assert back.returncode == 0, back.stderr
    assert texts(here) == before
    assert services(here, engine).qwen.attrs["Config"]["Cmd"] == old.qwen.attrs["Config"]["Cmd"]
    services(here, engine).qwen.stop(timeout=1)
    forward = tuner(here, "profile", "rollback", "compose.yaml", "--to", "2")
    assert "does not answer now" in forward.stderr
    assert forward.returncode == 0, forward.stderr
    assert "SEQS=64" in (here / ".env").read_text()
    assert services(here, engine).other.id == old.other.id


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (BROKEN, "memory"),
        (BELOW, "it measures below its proof: "),
    ],
    ids=["does not start", "is slower than proven"],
)
def test_what_does_not_hold_is_put_back_by_itself(here, winner, engine, state_dir, wrong, said):
    before, old = texts(here), services(here, engine)
    winner(**wrong)
    done = apply(here, "--json")
    assert done.returncode == 3, done.stderr
    assert said in done.stderr
    told = json.loads(done.stdout)
    assert (told["kept"], told["changed"]) == (False, True)
    assert told["why"]
    assert "the old service is back" in done.stderr
    assert texts(here) == before
    assert_back(services(here, engine), old)
    assert not list(state_dir.glob("rollouts/*/0*"))


def assert_back(now, old):
    """The old service answers, as Compose itself compares services; nobody has touched the other one."""
    assert now.other.id == old.other.id
    assert now.qwen.attrs["Config"]["Cmd"] == old.qwen.attrs["Config"]["Cmd"]
    assert sorted(now.qwen.attrs["Config"]["Env"]) == sorted(old.qwen.attrs["Config"]["Env"])
    assert now.qwen.labels[HASH] == old.qwen.labels[HASH]
    assert now.qwen.attrs["Image"] == old.qwen.attrs["Image"]
    assert answers(now.qwen)


KILLED = """
import os, signal, sys, threading
from tuner.cli import main
from tuner.rollout.journal import RolloutFolder
step, after_s, number = sys.argv.pop(1), float(sys.argv.pop(1)), int(sys.argv.pop(1))
write = RolloutFolder.write
def dying(self, journal):
    write(self, journal)
    if journal.step == step:
        kill = threading.Timer(after_s, os.kill, (os.getpid(), number))
        kill.start() if after_s else kill.function(*kill.args)
RolloutFolder.write = dying
main()
"""
CLEAN, LIST = ("clean",), ("profile", "rollback", "compose.yaml")


@pytest.mark.parametrize(
    ("step", "after_s", "wrong", "command"),
    [
        (Step.SAVED, 0, {}, LIST),
        (Step.WRITING, 0, {}, CLEAN),
        (Step.DEPLOYING, 0, {}, LIST),
        (Step.DEPLOYING, 0.4, {}, CLEAN),
        (Step.MEASURING, 0, {}, CLEAN),
        (Step.MEASURING, 2, {}, LIST),
        (Step.RESTORING, 0, BROKEN, CLEAN),
        (Step.RESTORING, 0.4, BROKEN, LIST),
    ],
)
def test_what_a_kill_left_is_put_back_by_the_next_command(
    here, winner, engine, state_dir, step, after_s, wrong, command
):
    before, old = texts(here), services(here, engine)
    winner(**wrong)
    killed = apply(here, program=("-c", KILLED, step, str(after_s), str(int(signal.SIGKILL))))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(state_dir.glob("rollouts/*/under-way.json"))
    (here / "..env.tuner.tmp").write_text("what a kill in the middle of writing leaves")
    done = tuner(here, *command)
    assert "was interrupted" in done.stdout + done.stderr
    assert texts(here) == before
    assert_back(services(here, engine), old)
    assert not list(state_dir.glob("rollouts/*/under-way.json"))
    assert not [path for path in here.iterdir() if path.name.endswith((".bak", ".tmp"))]


def test_a_kill_after_the_verdict_loses_nothing_and_the_next_apply_goes_on(here, winner, engine):
    winner()
    killed = apply(here, program=("-c", KILLED, Step.KEEPING, "0", str(int(signal.SIGKILL))))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    new = services(here, engine)
    done = apply(here)
    assert "it is kept" in done.stderr
    assert "nothing to change" in done.stdout
    assert services(here, engine).qwen.id == new.qwen.id
    assert new.qwen.attrs["Config"]["Cmd"][7] == "64"


@pytest.mark.parametrize(("step", "after_s"), [(Step.DEPLOYING, 0.4), (Step.MEASURING, 1)])
def test_ctrl_c_puts_the_old_service_back(here, winner, engine, step, after_s):
    before, old = texts(here), services(here, engine)
    winner()
    done = apply(here, program=("-c", KILLED, step, str(after_s), str(int(signal.SIGINT))))
    assert done.returncode == 130, done.stderr
    assert texts(here) == before
    assert_back(services(here, engine), old)


def test_a_service_that_its_file_would_not_start_again_is_left_alone(here, winner, engine):
    old = services(here, engine)
    winner()
    (here / ".env").write_text(DOTENV.replace(SECRET, "k-another-secret-0123"))
    done = apply(here)
    assert done.returncode == 2, done.stderr
    assert "these variables are others in the file than in the container: VLLM_API_KEY" in done.stderr
    assert "k-another" not in done.stderr
    assert services(here, engine).qwen.id == old.qwen.id
    services(here, engine).qwen.pause()
    paused = apply(here)
    assert (paused.returncode, "does not answer now" in paused.stderr) == (2, True)
    services(here, engine).qwen.unpause()


@pytest.mark.parametrize("command", ["apply", "verify"])
def test_damaged_files_end_in_a_sentence_and_what_runs_stays(here, winner, engine, command):
    old = services(here, engine)
    winner()
    for name in ("compose.yaml", ".env", "studies/s/profile.yaml", "studies/s/config.yaml"):
        whole = (here / name).read_bytes()
        for damaged in (b"\0" + whole, *([] if name == ".env" else [b"[" * 99])):
            (here / name).write_bytes(damaged)
            done = tuner(here, "profile", command, "compose.yaml", "--study", "s")
            (here / name).write_bytes(whole)
            assert done.returncode == 2, (name, damaged[:20], done.stderr)
            assert name.rpartition("/")[2] in done.stderr, done.stderr
    now = services(here, engine)
    assert (now.qwen.id, now.other.id) == (old.qwen.id, old.other.id)
    assert answers(now.qwen)


def test_a_winner_is_launched_again_next_to_what_serves_and_nothing_is_left(here, winner, engine, image):
    """The study's own launcher here is a process of this host: the simulated engine."""
    old = services(here, engine)
    before = sorted(one.id for one in engine.containers.list(all=True))
    winner()
    done = tuner(here, "profile", "verify", "--study", "s", "--relaunch", "--json")
    assert done.returncode in (0, 3), done.stderr
    found = json.loads(done.stdout)
    assert (found["relaunched"], found["service"]) == (True, "qwen")
    assert [one["metric"] for one in found["measured"]] == ["output_tokens_per_s"]
    assert sorted(one.id for one in engine.containers.list(all=True)) == before
    assert answers(old.qwen)


def test_verify_names_what_changed(here, winner):
    winner(**BELOW)
    profile = read_profile(here / "studies" / "s" / "profile.yaml")
    image = ProfileImage(reference="vllm/vllm-openai:v0.14.0", id="sha256:1")
    version = profile.engine.model_copy(update={"version": "0.14.0"})
    machine = ProfileMachine(name="a", gpus=("NVIDIA GeForce RTX 4090, 24564 MiB, 550.54",), indices=(0,))
    study = profile.study.model_copy(update={"workload_digest": "0123456789ab"})
    env = {**profile.env, "OMP_NUM_THREADS": "8"}
    changed = {"image": image, "engine": version, "machine": machine, "study": study, "env": env}
    (here / "studies" / "s" / "profile.yaml").write_text(profile.model_copy(update=changed).to_yaml())
    done = tuner(here, "profile", "verify", "compose.yaml", "--json")
    assert done.returncode == 3, done.stderr
    found = {one["what"]: (one["proven"], one["now"]) for one in json.loads(done.stdout)["changed"]}
    assert found["--max-num-seqs"] == (64, 16)
    assert found["OMP_NUM_THREADS"] == ("8", "4")
    assert found["engine version"] == ("0.14.0", "0.15.0")
    assert {"image", "GPU", "driver", "workload"} <= set(found)
    refused = apply(here)
    assert (refused.returncode, "the proof is of 0123456789ab" in refused.stderr) == (2, True)
