"""How a start that fails looks in the log: the root cause in its process, then the wrappers around it."""

from collections.abc import Iterator, Sequence

from tuner.sim.events import Event, Exit, Log, Raw, Who
from tuner.sim.memory import StartupFailure
from tuner.sim.settings import Rejected, Settings
from tuner.sim.wording import source

_Frame = tuple[str, int, str, str]
_ROOT = "/opt/site/vllm"

_API_FRAMES: Sequence[_Frame] = (
    ("entrypoints/cli/main.py", 95, "main", "args.dispatch_function(args)"),
    ("entrypoints/cli/serve.py", 148, "cmd", "uvloop.run(run_server(args))"),
    ("entrypoints/openai/api_server.py", 759, "run_server", "await run_server_worker(listen_address, sock, args)"),
    ("entrypoints/openai/api_server.py", 773, "run_server_worker", "async with build_async_engine_client("),
)
_CONFIG_FRAMES: Sequence[_Frame] = (
    *_API_FRAMES,
    ("engine/arg_utils.py", 1880, "create_engine_config", "model_config = self.create_model_config()"),
)
_CLIENT_FRAMES: Sequence[_Frame] = (
    *_API_FRAMES,
    ("v1/engine/async_llm.py", 217, "from_vllm_config", "return cls("),
    ("v1/engine/core_client.py", 963, "__init__", "super().__init__("),
    ("v1/engine/core_client.py", 573, "__init__", "with launch_core_engines("),
    ("v1/engine/utils.py", 1272, "wait_for_engine_startup", "raise RuntimeError("),
)
_CORE_FRAMES: Sequence[_Frame] = (
    ("v1/engine/core.py", 1299, "run_engine_core", "engine_core = EngineCoreProc(*args, engine_index=dp_rank)"),
    ("v1/engine/core.py", 1065, "__init__", "super().__init__("),
)
_INIT_KV: _Frame = ("v1/engine/core.py", 136, "__init__", "kv_cache_config = self._initialize_kv_caches(vllm_config)")
_STAGE_FRAMES: dict[str, Sequence[_Frame]] = {
    "free": (
        ("v1/worker/gpu_worker.py", 240, "init_device", "self.requested_memory = request_memory(init_snapshot)"),
        ("v1/worker/utils.py", 261, "request_memory", "raise ValueError("),
    ),
    "backend": (
        (
            "v1/attention/selector.py",
            101,
            "_cached_get_attn_backend",
            "attention_cls = current_platform.get_attn_backend_cls(",
        ),
        ("platforms/cuda.py", 339, "get_attn_backend_cls", "raise ValueError("),
    ),
    "dispatch": (
        (
            "v1/worker/gpu_worker.py",
            420,
            "initialize_from_config",
            "self.model_runner.initialize_kv_cache(kv_cache_config)",
        ),
        ("v1/cudagraph_dispatcher.py", 98, "initialize_cudagraph_keys", "raise ValueError("),
    ),
    "weights": (
        ("v1/worker/gpu_worker.py", 289, "load_model", "self.model_runner.load_model(eep_scale_up=eep_scale_up)"),
        ("v1/worker/gpu_model_runner.py", 4052, "load_model", "self.model = model_loader.load_model("),
    ),
    "profile": (
        ("v1/worker/gpu_worker.py", 323, "determine_available_memory", "self.model_runner.profile_run()"),
        ("v1/worker/gpu_model_runner.py", 4912, "profile_run", "hidden_states, last = self._dummy_run("),
    ),
    "kv": (
        ("v1/engine/core.py", 297, "_initialize_kv_caches", "kv_cache_configs = get_kv_cache_configs("),
        ("v1/core/kv_cache_utils.py", 758, "_check_enough_kv_cache_memory", "raise ValueError("),
    ),
    "graphs": (
        ("v1/worker/gpu_worker.py", 455, "compile_or_warm_up_model", "self.model_runner.capture_model()"),
        ("v1/worker/gpu_model_runner.py", 5031, "capture_model", "self._capture_cudagraphs("),
    ),
    "sampler": (
        ("v1/worker/gpu_worker.py", 502, "compile_or_warm_up_model", "self.model_runner._dummy_sampler_run("),
        ("v1/worker/gpu_model_runner.py", 4806, "_dummy_sampler_run", "raise RuntimeError("),
    ),
}
_STAGE_FRAMES["context"] = _STAGE_FRAMES["kv"]
_WORKER_INIT = ("free", "backend", "weights")
_IN_ENGINE = ("kv", "context")


def of_configuration(rejected: Rejected) -> Iterator[Event]:
    """A refused configuration: the API server's own traceback."""
    yield Raw("api", _traceback(_CONFIG_FRAMES, rejected.lines))
    yield Exit(1)


def of_start(settings: Settings, failed: StartupFailure) -> Iterator[Event]:
    """A start that fails in a worker or in the engine's core."""
    frames = _STAGE_FRAMES[failed.stage]
    if settings.v0:
        yield from _v0(frames, failed.lines)
    elif settings.world_size > 1 and failed.stage not in _IN_ENGINE:
        yield from _in_workers(settings, failed, frames)
    else:
        core = _CORE_FRAMES if failed.stage in _WORKER_INIT else (*_CORE_FRAMES, _INIT_KV)
        yield from _core_failed(settings, _traceback((*core, *frames), failed.lines))
    yield Exit(1)


def _in_workers(settings: Settings, failed: StartupFailure, frames: Sequence[_Frame]) -> Iterator[Event]:
    starting = failed.stage in _WORKER_INIT
    key = "worker_failed" if starting else "worker_error"
    head = "WorkerProc failed to start." if starting else "WorkerProc hit an exception."
    for rank in range(settings.world_size):
        text = f"{head}\n{_traceback(frames, failed.lines)}"
        yield Log("worker", source(settings.site.version, key), text, "ERROR", rank)
    core = _CORE_FRAMES if starting else (*_CORE_FRAMES, _INIT_KV)
    cause = failed.lines[-1].partition(": ")[2]
    wrapper = _WORKER_INIT_FAILED if starting else _WORKER_FAILED.format(cause)
    yield from _core_failed(settings, _traceback(core, (wrapper,)))


_WORKER_INIT_FAILED = (
    "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root "
    "cause."
)
_WORKER_FAILED = "RuntimeError: Worker failed with error '{}', please check the stack trace above for the root cause"


def _core_failed(settings: Settings, traceback: str) -> Iterator[Event]:
    key = source(settings.site.version, "core_failed")
    yield Log("engine", key, f"EngineCore failed to start.\n{traceback}", "ERROR")
    yield Raw("engine", f"Process EngineCore:\n{traceback}")
    yield from engine_gone("{}")


def engine_gone(processes: str) -> Iterator[Event]:
    """The API server's last words when its engine did not come up.

    Args:
        processes: Which of them failed, with their exit codes, as Python prints a dict.
    """
    text = f"RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {processes}"
    yield Raw("api", _traceback(_CLIENT_FRAMES, (text,)))


def _v0(frames: Sequence[_Frame], lines: Sequence[str]) -> Iterator[Event]:
    yield Log("engine", "engine.py:468", _traceback(frames, lines), "ERROR")
    text = "RuntimeError: Engine process failed to start. See stack trace for the root cause."
    yield Raw("api", _traceback(_API_FRAMES, (text,)))


def port_in_use() -> str:
    """The traceback of a port that somebody holds."""
    frames = (
        *_API_FRAMES[:2],
        ("entrypoints/openai/api_server.py", 741, "run_server", "listen_address, sock = setup_server(args)"),
        ("entrypoints/openai/api_server.py", 689, "setup_server", "sock = create_server_socket(sock_addr)"),
        ("entrypoints/openai/api_server.py", 655, "create_server_socket", "sock.bind(addr)"),
    )
    return _traceback(frames, ("OSError: [Errno 98] Address already in use",))


def segfault() -> Iterator[Event]:
    """The engine's process ends with a signal."""
    yield Raw(
        "engine",
        "!!!!!!! Segfault encountered !!!!!!!\n"
        '  File "<unknown>", line 0, in cuMemcpyDtoHAsync_v2\n'
        '  File "<unknown>", line 0, in c10::cuda::impl::ExecutionEngine()',
    )
    yield from engine_gone("{'EngineCore_DP0': -11}")
    yield Exit(1)


def died_starting() -> Iterator[Event]:
    """The engine's process is gone and has not said why."""
    text = "Engine core proc EngineCore_DP0 died unexpectedly, shutting down client."
    yield Log("api", "core_client.py:605", text, "ERROR")
    yield from engine_gone("{}")


def dead_engine(who: Who) -> str:
    """The traceback that a dead engine leaves in the API server, wherever it is noticed."""
    frames = (
        ("v1/engine/async_llm.py", 660, "output_handler", "outputs = await engine_core.get_output_async()"),
        ("v1/engine/core_client.py", 1061, "get_output_async", "raise self._format_exception(outputs) from None"),
    )
    text = (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
        "root cause."
    )
    return _traceback(frames if who == "api" else frames[:1], (text,))


def fatal(lines: Sequence[str]) -> str:
    """The traceback of an engine that dies while serving."""
    frames = (
        ("v1/engine/core.py", 1325, "run_engine_core", "engine_core.run_busy_loop()"),
        ("v1/engine/core.py", 1390, "_process_engine_step", "outputs, model_executed = self.step_fn()"),
        ("v1/worker/gpu_model_runner.py", 3550, "execute_model", "model_output = self._model_forward("),
    )
    return _traceback(frames, lines)


def _traceback(frames: Sequence[_Frame], lines: Sequence[str]) -> str:
    """A traceback; where ``lines`` name two exceptions, the first one was the second one's cause."""
    if len(lines) == 2 and lines[0].startswith("torch."):
        cause = _traceback((_SORT,), lines[:1])
        return f"{cause}\n{_CAUSED}\n{_traceback(frames, lines[1:])}"
    text = ["Traceback (most recent call last):"]
    for path, number, function, code in frames:
        text += [f'  File "{_ROOT}/{path}", line {number}, in {function}', f"    {code}"]
    return "\n".join([*text, *lines])


_SORT: _Frame = (
    "v1/sample/ops/topk_topp_sampler.py",
    262,
    "apply_top_k_top_p",
    "logits_sort, logits_idx = logits.sort(dim=-1, descending=False)",
)
_CAUSED = "\nThe above exception was the direct cause of the following exception:\n"
