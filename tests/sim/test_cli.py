"""Starts that do not come to serve: exit codes and last lines of the real process."""

import os
import subprocess
import sys
import time

import pytest

from tests.sim.conftest import SITE_FLAGS, Launch

START = "--sim-clock-startup 500"


def test_the_first_line_costs_less_than_half_a_second_of_cpu() -> None:
    """Nothing heavy is imported before vLLM's banner stands in the log."""
    command = [sys.executable, "-m", "tuner.sim", "serve", "tiny", "--port", "0", "--sim-fault", "crash-at=config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert b"APIServer pid=" in process.stdout.readline()
        process.stdout.read()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 1
    assert usage.ru_utime + usage.ru_stime < 0.5


@pytest.mark.parametrize(
    ("arguments", "code", "last"),
    [
        ("--not-a-flag 3", 2, "vllm serve: error: unrecognized arguments: --not-a-flag 3"),
        ("--max-num-seqs lots", 2, "vllm serve: error: argument --max-num-seqs: invalid int value: 'lots'"),
        ("--max-num-seqs 0", 1, "/greater_than_equal"),
        ("--gpu-memory-utilization 0.95 -tp 2", 1, "Engine core initialization failed."),
    ],
)
def test_refusals_exit_as_vllm_does(launch: Launch, arguments: str, code: int, last: str) -> None:
    server = launch(arguments, sim=START)
    assert server.wait_exit() == code
    assert last in server.log()[-1]


def test_memory_that_others_hold_is_missing(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=f"{START} --sim-free-gib 12.5")
    assert server.wait_exit() == 1
    assert any(
        "Free memory on device cuda:0 (12.50/23.99 GiB) on startup is less than" in line for line in server.log()
    )


def test_help_is_printed_and_exits_zero(launch: Launch) -> None:
    server = launch("--help=all", sim="--sim-version 0.26")
    assert server.wait_exit() == 0
    assert any(line.strip().startswith("--max-num-seqs") for line in server.log())


def test_a_removed_flag_is_refused_by_the_version_that_removed_it(launch: Launch) -> None:
    server = launch("--disable-log-requests", sim="--sim-version 0.26")
    assert server.wait_exit() == 2
    assert server.log()[-1] == "vllm: error: unrecognized arguments: --disable-log-requests"


def test_hidden_gpus_do_not_count(launch: Launch) -> None:
    server = launch("-tp 2", sim=START, env={"CUDA_VISIBLE_DEVICES": "1"})
    assert server.wait_exit() == 1
    text = "World size (2) is larger than the number of available GPUs (1) in this node."
    assert any(text in line for line in server.log())


@pytest.mark.parametrize(
    ("fault", "code", "shown"),
    [
        ("oom-profile", 1, "torch.OutOfMemoryError: CUDA out of memory."),
        ("oom-kv", 1, "No available memory for the cache blocks."),
        ("segfault", 1, "Failed core proc(s): {'EngineCore_DP0': -11}"),
        ("exit-zero", 0, "Engine core initialization failed."),
        ("port-in-use", 1, "Address already in use"),
    ],
)
def test_faults_end_a_start_as_they_say(launch: Launch, fault: str, code: int, shown: str) -> None:
    server = launch(SITE_FLAGS, sim=f"{START} --sim-fault {fault}")
    assert server.wait_exit() == code
    assert any(shown in line for line in server.log())


def test_an_unexplained_crash_says_nothing(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=f"{START} --sim-fault crash-at=compile")
    assert server.wait_exit() == 1
    assert "Model loading took" in server.log()[-1]
    assert not any("rror" in line for line in server.log())


def test_a_hang_stays_silent_until_it_is_ended(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim="--sim-clock-startup 100 --sim-fault hang=weights")
    while not any("assigned as DP rank" in line for line in server.log()):
        time.sleep(0.02)
    time.sleep(0.3)
    assert server.process.poll() is None
    server.process.terminate()
    assert server.wait_exit() != 0


def test_an_unknown_fault_lists_those_there_are(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim="--sim-fault nonsense")
    assert server.wait_exit() == 2
    assert "no fault 'nonsense'; there are corrupt-tools, crash-at," in server.log()[-1]
