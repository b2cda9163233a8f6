"""A load beside a kernel that is being compiled measures the compilation as well."""

import pytest

from tuner.engines.vllm.flags import known_flags
from tuner.engines.vllm.log.jit import disturbs, monitoring


@pytest.mark.parametrize("file", ["A_cold", "B_warm", "C_seqs8", "E_full_cold"])
def test_a_real_log_tells_of_the_one_kernel_that_was_compiled_under_load(file, log):
    (line,) = filter(disturbs, log(f"vllm-0.26.0-h100-{file}.log"))
    assert "fused_moe_kernel" in line


def test_that_the_monitor_is_on_spoils_nothing():
    assert not disturbs("Kernel JIT monitor activated; monitored JIT compilations during inference will use mode=warn.")


@pytest.mark.parametrize(("version", "flags"), [("0.26.0", {"jit_monitor_verbose": True}), ("0.15.0", {})])
def test_a_vllm_that_can_is_told_to_tell_of_every_kernel(version, flags):
    assert monitoring(known_flags(version)) == flags
