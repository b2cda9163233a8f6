"""What of a running service is not as it was proven: flags and variables, wherever they are set."""

from pathlib import Path

import pytest

from tests.present import present
from tests.simulated import simulated_study
from tuner.export.profile import profile_of
from tuner.importer import inspected
from tuner.importer.understood import understand
from tuner.launchers.docker.composed import Composed
from tuner.rollout.comparing import settings
from tuner.rollout.service import LiveService

SCRIPT = "export OMP_NUM_THREADS=8  # half\nexec vllm serve org/moe \\\n  --max-num-seqs 64 --host 0.0.0.0\n"


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    found = present(profile_of(simulated_study(tmp_path_factory.mktemp("studies"), 12, "study.name=s")))
    own = {"model": "org/moe", "args": {"max_num_seqs": 64}, "env": {"OMP_NUM_THREADS": "8", "VLLM_USE_V1": "1"}}
    return found.model_copy(update=own)


def running(*env):
    """A container whose script sets a variable in front of the engine."""
    config = {"Image": "i", "Entrypoint": ["sh", "-ec"], "Cmd": [SCRIPT], "Env": list(env)}
    attrs = {"Name": "/d-llm-1", "Config": config, "HostConfig": {}, "NetworkSettings": {"Ports": {}}, "Mounts": []}
    deployment = present(understand(inspected.container(attrs, []), lambda word: "d-llm-1"))
    here = Path("/nowhere")
    return LiveService(Composed("1", "d-llm-1", "llm", "d", here, (), (), "i", "sha256:1", attrs, {}), deployment)


def test_what_a_script_sets_in_front_of_the_engine_counts(profile):
    assert not list(settings(profile, running("VLLM_USE_V1=1")))
    assert not list(settings(profile, running("VLLM_USE_V1=1", "OMP_NUM_THREADS=4")))
    assert [str(each) for each in settings(profile, running("VLLM_USE_V1=0"))] == ["VLLM_USE_V1: 1 in the proof, 0 now"]
