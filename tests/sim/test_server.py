"""The simulated server over HTTP, as a real process."""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.sim.conftest import SITE_FLAGS, Launch, SimServer, free_port, launcher
from tuner.host.processes import alive

SERVICE = (
    f"{SITE_FLAGS} --served-model-name glm-4.7-flash launch-7 --reasoning-parser glm45 --tool-call-parser glm47 "
    "--enable-auto-tool-choice --enable-prompt-tokens-details"
)
QUICK = "--sim-clock-startup 500 --sim-clock-serving 60 --sim-noise-launch 0"
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}


def question(text: str = "What is the weather?", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 20, "ignore_eos": True, **more}


def engine_pid(server: SimServer) -> int:
    found = next(re.search(r"\(EngineCore_DP0 pid=(\d+)\)", line) for line in server.log() if "EngineCore" in line)
    assert found is not None
    return int(found.group(1))


def wait_until(what: Any, timeout_s: float = 5.0) -> bool:
    deadline_s = time.perf_counter() + timeout_s
    while not what() and time.perf_counter() < deadline_s:
        time.sleep(0.02)
    return bool(what())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    """One server for all tests that leave it as it was."""
    with launcher(tmp_path_factory.mktemp("sim")) as launch:
        env = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY_UNUSED": "secret"}
        yield launch(SERVICE, sim=f"{QUICK} --sim-clock-serving 20", env=env).wait_ready()


def test_all_served_names_answer_and_are_listed(server: SimServer) -> None:
    cards = server.request("/v1/models").body["data"]
    assert [(card["id"], card["max_model_len"]) for card in cards] == [("glm-4.7-flash", 131072), ("launch-7", 131072)]
    for name in ("glm-4.7-flash", "launch-7"):
        assert server.request("/v1/chat/completions", question(model=name)).body["model"] == name


def test_a_stream_says_role_reasoning_content_reason_and_usage(server: SimServer) -> None:
    streamed = server.stream(question())
    assert streamed.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(streamed.deltas("reasoning")) == 8
    assert streamed.deltas("reasoning_content") == streamed.deltas("reasoning")
    assert len(streamed.deltas("content")) == 12
    reasons = [choice["finish_reason"] for chunk in streamed.chunks for choice in chunk["choices"]]
    assert reasons == [None] * 20 + ["length"]
    assert streamed.usage["completion_tokens"] == 20
    assert streamed.usage["total_tokens"] == streamed.usage["prompt_tokens"] + 20
    assert streamed.done


def test_streamed_and_whole_answers_say_the_same(server: SimServer) -> None:
    streamed = server.stream(question())
    message = server.request("/v1/chat/completions", question()).body["choices"][0]["message"]
    assert message["content"] == "".join(streamed.deltas("content"))
    assert message["reasoning"] == "".join(streamed.deltas("reasoning"))


def test_a_tool_call_comes_in_deltas(server: SimServer) -> None:
    streamed = server.stream({**question(tools=[WEATHER]), "max_tokens": 200, "ignore_eos": False})
    calls = [call for delta in streamed.deltas("tool_calls") for call in delta]
    assert (calls[0]["function"]["name"], calls[0]["id"].startswith("chatcmpl-tool-")) == ("get_weather", True)
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Paris"}'
    assert streamed.chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert streamed.usage["completion_tokens"] == 44


def test_a_repeated_prompt_is_cached_and_sooner_answered(server: SimServer) -> None:
    """28,000 tokens of prompt: computed the first time, found the second."""
    text = "a word. " * 14000
    server.stream(question("warm " + text))
    began_s = time.perf_counter()
    fresh = server.stream(question(text))
    between_s = time.perf_counter()
    again = server.stream(question(text))
    assert fresh.usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert again.usage["prompt_tokens_details"]["cached_tokens"] > 27_900
    assert again.times_s[0] - between_s < 0.5 * (fresh.times_s[0] - began_s)


def test_completions_stream_text(server: SimServer) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 5, "ignore_eos": True}
    streamed = server.stream(body, "/v1/completions")
    text = "".join(choice["text"] for chunk in streamed.chunks for choice in chunk["choices"])
    assert streamed.usage == {
        "prompt_tokens": 4,
        "total_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert server.request("/v1/completions", body).body["choices"][0]["text"] == text


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("/v1/chat/completions", question(model="nope"), 404, "NotFoundError", "The model `nope` does not exist."),
        ("/v1/chat/completions", {}, 400, "BadRequestError", "Field required"),
        ("/v1/chat/completions", question(max_completion_tokens=200000), 400, "BadRequestError", "maximum context"),
    ],
)
def test_refused_requests_get_vllms_error_body(
    server: SimServer, path: str, body: dict[str, Any], status: int, kind: str, message: str
) -> None:
    reply = server.request(path, body)
    error = reply.body["error"]
    assert (reply.status, error["type"], error["code"]) == (status, kind, status)
    assert message in error["message"]


def test_tokenize_counts_what_usage_counts(server: SimServer) -> None:
    messages = [{"role": "user", "content": "How many tokens are these?"}]
    counted = server.request("/tokenize", {"messages": messages}).body
    used = server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 1}).body["usage"]
    assert counted["count"] == len(counted["tokens"]) == used["prompt_tokens"]


def test_metrics_have_vllms_names_and_count(server: SimServer) -> None:
    def value(name: str) -> float:
        page = server.request("/metrics").body
        found = re.search(rf'^vllm:{name}{{engine="0",model_name="glm-4.7-flash"}} (\S+)$', page, re.MULTILINE)
        assert found is not None, name
        return float(found.group(1))

    before = value("generation_tokens_total")
    ttft = value("time_to_first_token_seconds_count")
    server.stream(question())
    assert value("generation_tokens_total") == before + 20
    assert value("time_to_first_token_seconds_count") == ttft + 1
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total"):
        assert value(name) == 0
    assert value("prefix_cache_queries_total") >= value("prefix_cache_hits_total")
    assert 'block_size="16"' in server.request("/metrics").body.partition("vllm:cache_config_info{")[2]


def test_server_info_tells_the_effective_configuration_and_no_key(server: SimServer) -> None:
    body = server.request("/server_info?config_format=json").body
    assert body["vllm_config"]["scheduler_config"]["max_num_seqs"] == 64
    assert body["vllm_config"]["cache_config"]["gpu_memory_utilization"] == 0.92
    assert body["vllm_config"]["model_config"]["served_model_name"] == ["glm-4.7-flash", "launch-7"]
    assert body["vllm_env"]["VLLM_SERVER_DEV_MODE"] == "1"
    assert "secret" not in str(body)


def test_version_and_access_log_are_vllms(server: SimServer) -> None:
    assert server.request("/version").body == {"version": "0.15.0"}
    pattern = r'^\(APIServer pid=\d+\) INFO:     127\.0\.0\.1:\d+ - "GET /version HTTP/1\.1" 200 OK$'
    assert any(re.match(pattern, line) for line in server.log())


def test_a_client_that_hangs_up_frees_its_place(server: SimServer) -> None:
    body = b'{"messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":60000,"ignore_eos":true}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(head + body)
        assert b"text/event-stream" in client.recv(4096)
        assert wait_until(lambda: 'num_requests_running{engine="0",model_name="glm-4.7-flash"} 1.0' in metrics(server))
    assert wait_until(lambda: 'num_requests_running{engine="0",model_name="glm-4.7-flash"} 0.0' in metrics(server))


def metrics(server: SimServer) -> str:
    body = server.request("/metrics").body
    assert isinstance(body, str)
    return body


def test_decode_over_http_is_within_ten_percent_of_the_first_users_figure(launch: Launch) -> None:
    """55 tokens/s for one user, at twice the real speed; the median, since a busy machine wakes up late."""
    server = launch(
        f"{SITE_FLAGS} -cc.compile_sizes=[1,2,4,8]", sim=f"{QUICK} --sim-clock-serving 2", env=SITE
    ).wait_ready()
    server.stream(question())
    streamed = server.stream({**question(), "max_tokens": 100})
    tokens = [at for at, chunk in zip(streamed.times_s, streamed.chunks, strict=True) if chunk["choices"]]
    per_token_s = median(later - earlier for earlier, later in pairwise(tokens[1:])) * 2
    assert 1 / per_token_s == pytest.approx(55, rel=0.10)


SITE = {"VLLM_MARLIN_USE_ATOMIC_ADD": "1", "OMP_NUM_THREADS": "4"}


def test_a_bearer_token_guards_the_api_and_not_health(launch: Launch) -> None:
    server = launch("--model tiny --api-key hush", model="tiny", sim=f"{QUICK} --sim-gpus 1").wait_ready()
    assert server.request("/v1/models").status == 401
    assert server.request("/v1/models", headers={"Authorization": "Bearer hush"}).status == 200
    assert server.request("/health").status == 200


def test_the_log_goes_through_the_phases_and_the_engine_is_a_process_of_its_own(launch: Launch) -> None:
    server = launch(SITE_FLAGS).wait_ready()
    order = ["non-default args", "Resolved architecture", "Initializing a V1", "Starting to load", "Model loading took",
             "torch.compile takes", "GPU KV cache size", "Capturing CUDA graphs (decode, FULL): 100%",
             "Graph capturing finished", "Starting vLLM API server", "Application startup complete."]  # fmt: skip
    log = server.log()
    places = [next(index for index, line in enumerate(log) if text in line) for text in order]
    assert places == sorted(places)
    assert alive(engine_pid(server))


def test_compiling_is_done_once_for_each_configuration(launch: Launch, tmp_path: Path) -> None:
    sim = f"--sim-clock-startup 500 --sim-compile-cache {tmp_path / 'cache'}"
    hits = []
    for _ in range(2):
        server = launch(SITE_FLAGS, sim=sim).wait_ready()
        hits.append(any("Directly load the compiled graph(s)" in line for line in server.log()))
        server.kill()
    assert hits == [False, True]


def test_sigterm_ends_an_idle_server_cleanly_with_its_engine(launch: Launch) -> None:
    server = launch(SITE_FLAGS).wait_ready()
    engine = engine_pid(server)
    server.process.terminate()
    assert server.wait_exit() == 0
    assert not alive(engine)
    assert "Application shutdown complete." in server.log()[-1]


def test_sigterm_hangs_while_a_stream_is_open_until_the_client_goes(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=QUICK).wait_ready()
    body = b'{"messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":60000,"ignore_eos":true}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(head + body)
        assert client.recv(4096)
        server.process.terminate()
        time.sleep(0.5)
        assert server.process.poll() is None
    assert server.wait_exit() == 0


def test_sigkill_of_the_server_takes_the_engine_along(launch: Launch) -> None:
    server = launch(SITE_FLAGS).wait_ready()
    engine = engine_pid(server)
    server.process.kill()
    server.wait_exit()
    assert wait_until(lambda: not alive(engine))


def test_an_orphan_outlives_its_server_and_ends_only_with_the_group(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim="--sim-clock-startup 500 --sim-fault orphan-worker").wait_ready()
    engine = engine_pid(server)
    server.process.terminate()
    assert server.wait_exit() == 0
    os.kill(engine, signal.SIGTERM)
    time.sleep(0.2)
    assert alive(engine)
    server.kill()
    assert wait_until(lambda: not alive(engine))


def test_an_engine_that_is_killed_ends_the_server_with_exit_code_zero(launch: Launch) -> None:
    server = launch(SITE_FLAGS).wait_ready()
    os.kill(engine_pid(server), signal.SIGKILL)
    assert server.wait_exit() == 0
    log = "\n".join(server.log())
    assert "engine core exited unexpectedly; starting cleanup" in log
    assert "EngineDeadError: EngineCore encountered an issue." in log


def test_an_engine_that_dies_under_load_breaks_the_open_stream_inside_http_200(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=f"{QUICK} --sim-fault die-after=1@max_num_seqs=64").wait_ready()
    assert server.stream(question()).usage["completion_tokens"] == 20
    broken = server.stream(question())
    assert broken.chunks[-1]["error"]["code"] == 500
    assert broken.done
    with contextlib.suppress(OSError):
        assert server.request("/health").status == 503
    assert server.wait_exit() == 0
    assert any("EngineCore encountered a fatal error." in line for line in server.log())


def test_memory_can_run_out_under_load(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=f"{QUICK} --sim-fault oom-serving=0").wait_ready()
    assert "error" in server.stream(question()).chunks[-1]
    assert server.wait_exit() == 0
    assert any("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate" in line for line in server.log())


def test_one_stream_can_break_while_the_engine_lives_on(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=f"{QUICK} --sim-fault sse-error=2").wait_ready()
    outcomes = [server.stream(question()) for _ in range(3)]
    assert ["error" in streamed.chunks[-1] for streamed in outcomes] == [False, True, False]
    assert server.request("/health").status == 200


def test_a_silent_change_shows_in_the_effective_configuration_only(launch: Launch) -> None:
    sim = f"{QUICK} --sim-fault silent-change=max-num-batched-tokens:2048"
    server = launch(SITE_FLAGS, sim=sim, env={"VLLM_SERVER_DEV_MODE": "1"}).wait_ready()
    info = server.request("/server_info?config_format=json").body["vllm_config"]
    assert info["scheduler_config"]["max_num_batched_tokens"] == 2048
    assert any("'max_num_batched_tokens': 32768" in line for line in server.log() if "non-default args" in line)
    assert any("Chunked prefill is enabled with max_num_batched_tokens=2048." in line for line in server.log())


def test_many_streams_get_their_tokens_together(launch: Launch) -> None:
    """Eight streams at twenty times the real speed: each token counted, none lost."""
    server = launch(SITE_FLAGS, sim=QUICK).wait_ready()
    counts: list[int] = []

    def one(index: int) -> None:
        counts.append(server.stream({**question(f"stream {index}"), "max_tokens": 100}).usage["completion_tokens"])

    threads = [threading.Thread(target=one, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [100] * 8


def test_the_newest_version_names_reasoning_once_and_warns_of_compilation_under_load(launch: Launch) -> None:
    arguments = f"{SITE_FLAGS} --reasoning-parser glm45 --stream-interval 4"
    server = launch(arguments, sim=f"{QUICK} --sim-version 0.26").wait_ready()
    streamed = server.stream(question())
    assert "".join(streamed.deltas("reasoning")) != ""
    assert streamed.deltas("reasoning_content") == []
    texts = [len(text) // 4 for text in [*streamed.deltas("reasoning"), *streamed.deltas("content")]]
    assert (sum(texts), texts[0], max(texts)) == (20, 1, 4)
    assert any("Triton kernel JIT compilation during inference" in line for line in server.log())


def test_a_garbled_engine_answers_nonsense(launch: Launch) -> None:
    server = launch(SITE_FLAGS, sim=f"{QUICK} --sim-fault garbled").wait_ready()
    assert server.request("/v1/chat/completions", question()).body["choices"][0]["message"]["content"] == "!" * 80


def test_a_port_in_use_ends_the_start_at_once(launch: Launch) -> None:
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        server = launch(SITE_FLAGS, port=port)
        assert server.wait_exit() == 1
    assert "OSError: [Errno 98] Address already in use" in server.log()[-1]
