"""A line's own words are found behind everything that containers, collectors and terminals add."""

import pytest

from tuner.engines.log.lines import Level, parse, parse_line

BARE = "RuntimeError: CUDA error: out of memory"
WORKER = f"(Worker_TP1 pid=215) ERROR 05-11 10:03:52 [multiproc_executor.py:949] {BARE}"


@pytest.mark.parametrize(
    "raw",
    [
        BARE,
        f"\x1b[1;31m{BARE}\x1b[0m",
        f"[0;31m{BARE}[0m",
        f"> {BARE}",
        f"> > {BARE}",
        f"vllm-1  | {BARE}",
        f"2025-03-10T15:07:20.123Z {BARE}",
        f"2025-03-10T15:07:20.123456789Z stderr F {BARE}",
        f"[pod/vllm-0/vllm] {BARE}",
        f"Mar 10 15:07:20 node-1 vllm[4711]: {BARE}",
        f"[rank0]: {BARE}",
        f"(EngineCore_DP0 pid=17374) {BARE}",
        f"(APIServer pid=1) (EngineCore pid=88) {BARE}",
        f"(RayWorkerWrapper pid=108, ip=10.0.0.7) {BARE}",
        f"2024-11-18T16:43:45,498 [INFO ] W-9000-model_1.0-stdout MODEL_LOG - {BARE}",
        f"0.02.118.410 E {BARE}",
        f"ERROR 11-18 18:07:28 engine.py:366] {BARE}",
        f"ERROR 09-28 15:47:24 [core.py:718] {BARE}",
        f"vllm-1  | \x1b[1;36m(EngineCore pid=88)\x1b[0;0m ERROR 09-28 15:47:24 [v1/engine/core.py:718] {BARE}",
    ],
)
def test_prefixes_are_peeled_off(raw):
    assert [line.text for line in parse_line(raw)] == [BARE]


def test_a_line_keeps_its_process_level_number_and_indentation():
    quoted, said = parse(["  raise ValueError(", WORKER])
    assert (quoted.text, quoted.level, quoted.process, quoted.number) == ("  raise ValueError(", Level.NONE, "", 1)
    assert (said.level, said.process, said.number, said.raw) == (Level.ERROR, "Worker_TP1 pid=215", 2, WORKER)


@pytest.mark.parametrize(
    ("raw", "level"),
    [
        ("INFO:     Application startup complete.", Level.INFO),
        ("DEBUG 05-15 10:52:42 [__init__.py:28] no plugins", Level.DEBUG),
        ("WARNING 05-15 10:52:42 [arg_utils.py:1642] slow", Level.WARNING),
        ("CRITICAL 03-14 launcher", Level.NONE),
        ("CRITICAL 03-14 11:11:34 launcher.py:101] dead", Level.ERROR),
        ("[W502 09:20:01.117 ProcessGroupNCCL.cpp:1496] left open", Level.NONE),
        ("[W1122 09:55:49.74 ProcessGroupNCCL.cpp:1496] left open", Level.WARNING),
        ("/usr/lib/python3/x.py:128: UserWarning: CUDA initialization", Level.WARNING),
        ("Traceback (most recent call last):", Level.NONE),
    ],
)
def test_the_level_is_the_one_that_the_program_named(raw, level):
    assert parse_line(raw)[-1].level is level


def test_one_physical_line_may_hold_the_steps_of_a_progress_bar():
    assert [line.text for line in parse_line("shards:  50%\rshards: 100%\r\n")] == ["shards:  50%", "shards: 100%"]


def test_one_physical_line_may_hold_a_pasted_log():
    pasted = "INFO 03-14 08:25:25 [a.py:1] one INFO 03-14 08:25:26 [a.py:2] two ERROR 03-14 08:25:27 [a.py:3] three"
    assert [line.text for line in parse_line(pasted)] == ["one", "two", "three"]
    assert {line.raw for line in parse_line(pasted)} == {pasted}
