"""An exception that a worker ends in: the configuration's fault, unless it is about what a machine can lack."""

import pytest

from tuner.engines.causes import Action, Cause, Evidence, consequence_of
from tuner.engines.explain import explain
from tuner.engines.vllm.engine import VllmEngine

diagnose = VllmEngine(("vllm", "serve"), "m").diagnose
PACKAGES = "/usr/local/lib/python3.12/dist-packages"
RUNNER, KERNELS = f"{PACKAGES}/vllm/v1/worker/gpu_model_runner.py", f"{PACKAGES}/flashinfer/prefill.py"
COMPILER, DISTRIBUTED = f"{PACKAGES}/torch/_inductor/graph.py", f"{PACKAGES}/vllm/distributed/utils.py"
DIED = (
    "(EngineCore_DP0 pid=9) ERROR 10-01 10:00:11 [multiproc_executor.py:230] Worker proc VllmWorker-0 died unexpectedly"
)
WORKERS = (
    "(Worker_TP0 pid=110) ERROR 10-01 10:00:10 [multiproc_executor.py:700] ",
    "(VllmWorker rank=1 pid=110) ERROR 10-01 10:00:10 [multiproc_executor.py:375] ",
    "\x1b[36m(RayWorkerWrapper pid=110, ip=10.0.0.2)\x1b[0m ERROR 10-01 10:00:10 [worker_base.py:620] ",
    "(EngineCore_DP0 pid=9) ERROR 10-01 10:00:10 [core.py:780] ",
    "",
)


def _raised(exception: str, file: str, worker: str = WORKERS[0]) -> tuple[str, ...]:
    place = f'  File "{file}", line 71, in load_model'
    return *(f"{worker}{text}" for text in ("WorkerProc failed to start.", place, *exception.split("\n"))), DIED


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize(
    ("file", "exception"),
    [
        (RUNNER, "RuntimeError: Sequence parallelism needs piecewise compilation"),
        (RUNNER, "TypeError: FlashInferMLAImpl.__init__() missing 1 required positional argument: 'indexer'"),
        (RUNNER, "AttributeError: 'NoneType' object has no attribute 'num_blocks'"),
        (RUNNER, "KeyError: 'FLASHINFER_TRTLLM'"),
        (RUNNER, "IndexError: list index out of range"),
        (RUNNER, "ZeroDivisionError: integer division or modulo by zero"),
        (RUNNER, "Exception: FlashMLA takes blocks of 64 alone"),
        (RUNNER, "ImportError: cannot import name 'flash_attn_varlen_func' from 'flash_attn'"),
        (KERNELS, "ValueError: head_dim: 80"),
        (KERNELS, "RuntimeError: Error in function 'PrefillPlan': rows must be a multiple of 8"),
        (COMPILER, "torch._inductor.exc.InductorError: LoweringException: cannot lower"),
        (COMPILER, "torch._dynamo.exc.BackendCompilerFailed: backend='vllm' raised:\nAssertionError: size 512==256"),
        (f"{PACKAGES}/torch/nn/functional.py", "RuntimeError: shape '[1, 2]' is invalid for input of size 3"),
        (f"{PACKAGES}/triton/compiler/compiler.py", "triton.compiler.errors.CompilationError: at 12:8:"),
    ],
)
def test_what_breaks_at_every_start_is_never_tried_again(file, exception, worker):
    found = diagnose(Evidence(_raised(exception, file, worker), exit_code=1))
    assert (found.cause, found.confidence, found.line_number) == (Cause.UNSUPPORTED, "likely", 3)
    assert consequence_of(found).action is Action.TEACH


@pytest.mark.parametrize(
    ("file", "exception"),
    [
        (RUNNER, "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)"),
        (RUNNER, "RuntimeError: Worker failed with error 'CUDA error: an illegal memory access was encountered'"),
        (RUNNER, "RuntimeError: can't start new thread"),
        (RUNNER, "OSError: [Errno 24] Too many open files"),
        (RUNNER, "EOFError: Ran out of input"),
        (RUNNER, "ValueError: Couldn't connect to the store of the other ranks"),
        (RUNNER, "ConnectionResetError: [Errno 104] Connection reset by peer"),
        (COMPILER, "RuntimeError: A child process terminated abruptly"),
        (DISTRIBUTED, "AssertionError: Timed out waiting for rank 1"),
        (DISTRIBUTED, "RuntimeError: 1 of 2 ranks are missing"),
        (f"{PACKAGES}/torch/serialization.py", "ValueError: embedded null byte"),
    ],
)
def test_what_a_machine_can_lack_is_tried_again(file, exception):
    assert consequence_of(diagnose(Evidence(_raised(exception, file), exit_code=1))).action is Action.RETRY


def test_what_others_raise_after_a_crash_follows_from_it():
    crash = "(Worker_TP1 pid=111) !!!!!!! Segfault encountered !!!!!!!"
    found = diagnose(Evidence((crash, *_raised("RuntimeError: no result of rank 1", RUNNER)), exit_code=1))
    assert (found.cause, found.line) == (Cause.ENGINE_DIED, crash)


def test_an_exception_of_the_api_server_is_no_workers():
    log = _raised("AttributeError: 'X' object has no attribute 'y'", RUNNER, "(APIServer pid=1) ")[:-1]
    assert diagnose(Evidence(log, exit_code=1)).cause is Cause.UNKNOWN


def test_an_exception_under_load_says_nothing_of_the_start():
    ready = "INFO:     Application startup complete."
    assert diagnose(Evidence((ready, *_raised("IndexError: x", RUNNER)), exit_code=1)).cause is Cause.ENGINE_DIED


def test_sglang_is_judged_alike():
    head = "[2026-01-01 10:00:00] server_args=ServerArgs(model_path='m')"
    place = f'  File "{PACKAGES}/sglang/srt/model_executor/model_runner.py", line 1, in load_model'
    for exception, cause in (("TypeError: no kv_b_proj", Cause.UNSUPPORTED), ("RuntimeError: timeout", Cause.UNKNOWN)):
        assert explain((head, "Scheduler hit an exception: Traceback", place, exception)).cause is cause
