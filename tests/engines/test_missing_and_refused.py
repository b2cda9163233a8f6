"""What an image lacks, and what CUDA refuses by what it is asked, ends every start alike; a sick GPU does not."""

import pytest

from tuner.engines.causes import Action, Cause, consequence_of
from tuner.engines.explain import explain

VERSION = "(APIServer pid=1) INFO 10-01 10:00:00 [api_server.py:1] vLLM API server version 0.20.0"
WORKER = "(Worker_TP0 pid=110) ERROR 10-01 10:00:10 [multiproc_executor.py:700] "
WRAPPED = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
)
READY = "INFO:     Application startup complete."


def _ended(line, *, worker=WORKER):
    return explain((VERSION, f"{worker}WorkerProc failed to start.", f"{worker}{line}", WRAPPED), exit_code=1)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("ModuleNotFoundError: No module named 'bitsandbytes'", "bitsandbytes"),
        ("ModuleNotFoundError: No module named 'flash_attn.layers.rotary'", "flash_attn"),
        (
            "importlib.metadata.PackageNotFoundError: No package metadata was found for compressed-tensors",
            "compressed-",
        ),
        ("ImportError: libGL.so.1: cannot open shared object file: No such file or directory", "libGL.so.1"),
    ],
)
def test_a_package_that_the_image_lacks_is_named_and_not_waited_for(line, missing):
    found = _ended(line)
    assert (found.cause, found.line) == (Cause.UNSUPPORTED, WORKER + line)
    assert found.advice.startswith(f"Install {missing}")
    assert consequence_of(found).action is Action.TEACH


def test_an_interpreter_without_the_engine_says_what_to_install():
    found = explain(("/usr/bin/python3: No module named vllm",), exit_code=1)
    assert (found.cause, found.advice[:12]) == (Cause.UNSUPPORTED, "Install vllm")


def test_a_package_that_was_missed_and_done_without_is_no_failure():
    lines = (VERSION, "ModuleNotFoundError: No module named 'deep_ep'", READY)
    assert explain(lines).cause is Cause.HEALTHY
    for end in range(len(lines) + 1):
        assert explain(lines[:end], running=True).cause in (Cause.UNKNOWN, Cause.HEALTHY)


@pytest.mark.parametrize("line", ["Failed to find C compiler. Please specify via CC", "No module named 'vllm._C'"])
def test_what_else_an_image_lacks_is_not_tried_again(line):
    assert consequence_of(_ended(f"RuntimeError: {line}")).action is Action.TEACH


def test_the_code_of_a_model_that_another_process_has_not_written_yet_is_tried_again():
    found = _ended("ModuleNotFoundError: No module named 'transformers_modules.org.model-v2'")
    assert consequence_of(found).action is Action.RETRY


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: CUDA error: invalid argument",
        "torch.AcceleratorError: CUDA error: invalid configuration argument",
        "RuntimeError: CUDA error: too many resources requested for launch",
        "RuntimeError: CUDA error: operation not permitted when stream is capturing",
        "RuntimeError: CUDA driver error: invalid argument",
        "RuntimeError: HIP error: invalid argument",
        "RuntimeError: Triton Error [CUDA]: invalid argument",
        "torch.AcceleratorError: CUDA error: device kernel image is invalid",
    ],
)
def test_what_cuda_refuses_by_what_it_is_asked_is_the_configurations_fault(line):
    found = _ended(line)
    assert (found.cause, found.line) == (Cause.UNSUPPORTED, WORKER + line)
    assert consequence_of(found).action is Action.TEACH


def test_the_same_words_under_load_are_about_one_request():
    lines = (VERSION, READY, f"{WORKER}RuntimeError: CUDA error: invalid argument", "EngineDeadError")
    assert explain(lines).cause is Cause.ENGINE_DIED


@pytest.mark.parametrize(
    "line",
    [
        "an illegal memory access was encountered",
        "unspecified launch failure",
        "device-side assert triggered",
        "misaligned address",
    ],
)
def test_what_either_may_bring_about_is_tried_again(line):
    found = _ended(f"torch.AcceleratorError: CUDA error: {line}")
    assert (found.cause, consequence_of(found).action) == (Cause.ENGINE_DIED, Action.RETRY)


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution",
        "NVRM: Xid (PCI:0000:41:00): 79, pid=1234, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:41:00): 119, pid=1234, Timeout after 6s of waiting for RPC response from GPU0 GSP!",
    ],
)
def test_a_faulty_gpu_stops_the_study_and_is_never_taught(line):
    found = _ended(line, worker="")
    assert (found.cause, consequence_of(found).action) == (Cause.DRIVER, Action.STOP)
    assert "The GPU itself is faulty" in found.advice


def test_a_fault_that_a_program_makes_is_not_the_gpus():
    assert _ended("NVRM: Xid (PCI:0000:41:00): 31, pid=9, MMU Fault", worker="").cause is Cause.ENGINE_DIED


def test_llama_cpp_does_not_take_cudas_argument_for_a_flag():
    head = ("build: 6900 (abc) with gcc", "llama_model_loader: loaded meta data")
    assert explain((*head, "CUDA error: invalid argument")).cause is Cause.UNSUPPORTED
    assert explain((*head, "error: invalid argument: --max-num-seqs")).cause is Cause.BAD_FLAG
