"""Who says what the GPUs are: the engine's log before the driver, the driver before the configuration."""

import pytest

from tests.present import present
from tuner import composing
from tuner.engines.base import StartupFacts
from tuner.engines.hardware import Hardware, found_hardware, hardware_of
from tuner.host import nvidia
from tuner.study.provenance import Machine

SMI = r"""#!/bin/sh
case "$1" in
  topo)
    printf '\t\033[4mGPU0\tGPU1\tGPU2\tCPU Affinity\033[0m\n'
    printf 'GPU0\t X \tNV4\tPHB\t0-15\nGPU1\tNV4\t X \tPHB\t0-15\n' ;;
  *pcie.link*) printf '0, 4, 16\n1, 4, 16\n2, 4, 8\n' ;;
  *compute_cap*) printf '0, 8.9\n1, 8.9\n2, 8.6\n' ;;
  *query-gpu*)
    echo '0, GPU-a, NVIDIA GeForce RTX 4090, 24564, 600'
    echo '1, GPU-b, NVIDIA GeForce RTX 4090, 24564, 2648'
    echo '2, GPU-c, NVIDIA GeForce RTX 3090, 24576, 0' ;;
esac
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A driver with two RTX 4090s and one RTX 3090, asked as the real one is."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")


def of(*overrides):
    return hardware_of(composing.load(["experiment=demo", *overrides]).hardware)


def test_simulated_hardware_is_as_configured_whatever_this_host_has(smi):
    found = of()
    assert (found.gpus, found.total_gib, found.capability, found.multiprocessors) == (2, 23.99, (8, 9), 128)
    assert found.source == "the configuration"


def test_real_hardware_is_asked_of_the_driver_and_the_smallest_gpu_counts(smi):
    found = of("engine=vllm", "engine.executable=[vllm,serve]", "hardware=rtx4090x2")
    assert (found.gpus, found.source, found.capability, found.multiprocessors) == (2, "nvidia-smi", (8, 9), 128)
    assert found.total_gib == pytest.approx(24564 / 1024)
    assert found.free_gib == pytest.approx((24564 - 2648) / 1024)


def test_what_the_driver_says_is_a_whole_machine(smi):
    pair = found_hardware([0, 1])
    assert (pair.name, pair.gpus) == ("2 x NVIDIA GeForce RTX 4090, NVLink", (0, 1))
    assert (pair.gpu.total_gib, pair.gpu.compute_capability, pair.gpu.multiprocessors) == (23.99, "8.9", 128)
    assert hardware_of(pair).linked is True
    every = found_hardware()
    assert every.name == "2 x NVIDIA GeForce RTX 4090 + 1 x NVIDIA GeForce RTX 3090, PCIe 4.0 x8"
    assert (every.gpus, every.gpu.compute_capability, hardware_of(every).linked) == ((0, 1, 2), "8.6", False)


def test_a_study_that_names_no_hardware_takes_what_is_there_and_parts_of_it_if_asked(smi):
    asked = ["model.id=public/none", "space=none"]
    assert composing.load(asked).hardware.gpus == (0, 1, 2)
    one = composing.load([*asked, "hardware.gpus=[2]", "hardware.gpu.free_gib=20"]).hardware
    assert (one.name, one.gpus, one.gpu.free_gib) == ("NVIDIA GeForce RTX 3090, PCIe 4.0 x8", (2,), 20)
    assert one.gpu.bandwidth_gb_s == 936


def test_only_the_gpus_that_the_study_may_use_are_looked_at(smi):
    found = of("engine=vllm", "engine.executable=[vllm,serve]", "hardware=rtx4090x2", "hardware.gpus=[2]")
    assert (found.gpus, found.capability) == (1, (8, 6))
    assert found.total_gib == pytest.approx(24.0)


def test_without_a_driver_the_configuration_counts(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = of("engine=vllm", "engine.executable=[vllm,serve]", "hardware=rtx4090x2")
    assert (found.gpus, found.total_gib, found.capability) == (2, None, (8, 9))


def test_what_a_log_says_counts_more_than_driver_and_configuration():
    driver = Hardware("RTX 4090", 2, 23.99, 23.5, (8, 9), 128, "nvidia-smi")
    known = driver.learned([StartupFacts(total_gib=23.52, free_gib=23.1)])
    assert (known.total_gib, known.free_gib, known.source) == (23.52, 23.1, "the engine's log")
    assert known.least_total_gib == 23.52
    assert present(driver.least_total_gib) < 23.52 < present(driver.total_gib)


def test_logs_that_say_nothing_of_memory_change_nothing():
    driver = Hardware("RTX 4090", 2, 23.99, 23.5, (8, 9), 128, "nvidia-smi")
    assert driver.learned([StartupFacts()]) == driver


def test_the_most_that_was_ever_free_is_kept_from_one_start_to_the_next():
    first = Hardware("x", 1).learned([StartupFacts(total_gib=24.0, free_gib=22.0)])
    assert first.learned([StartupFacts(total_gib=24.0, free_gib=15.0)]).free_gib == 22.0
    assert first.learned([StartupFacts(total_gib=24.0, free_gib=23.0)]).free_gib == 23.0


def test_a_run_names_the_gpus_where_only_wsl_has_the_driver(tmp_path, monkeypatch):
    (tmp_path / "wsl").mkdir()
    program = tmp_path / "wsl" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564, 581.29'\n")
    program.chmod(0o755)
    monkeypatch.setattr(nvidia, "_WSL_FOLDER", str(program.parent))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert Machine.this().gpus == ("NVIDIA GeForce RTX 4090, 24564 MiB, 581.29",)
