"""A study on real llama.cpp in real containers, in an image whose entrypoint is the server."""

import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from tests.present import present
from tests.test_real_llamacpp import HERE, QUICK
from tuner import composing
from tuner.records.record import State
from tuner.study.loop import run_study
from tuner.terminal.live import PlainLines, Standing

pytestmark = [
    pytest.mark.docker,
    pytest.mark.llamacpp,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not HERE, reason="needs llama.cpp and an image: TUNER_TEST_DOCKER=… TUNER_TEST_LLAMACPP=DIR make test"
    ),
]

TAG = "tuner-test/llamacpp:1"
DOCKERFILE = """
FROM {base}
COPY llama-server /app/llama-server
COPY lib /app/lib
ENV LD_LIBRARY_PATH=/app/lib
ENTRYPOINT ["/app/llama-server"]
"""


@pytest.fixture
def image(engine, base_image, tmp_path):
    """The server that was built here, with the libraries that it was built with."""
    server, context = Path(str(HERE)) / "bin/llama-server", tmp_path / "image"
    (context / "lib").mkdir(parents=True)
    shutil.copy(server, context)
    for line in subprocess.run(["ldd", server], capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, where = line.strip().partition(" => ")
        if where and not name.startswith(("libc.so", "libm.so")):  # the C library is the image's own
            shutil.copy(where.split(" ")[0], context / "lib" / name)
    (context / "Dockerfile").write_text(DOCKERFILE.format(base=base_image))
    engine.images.build(path=str(context), tag=TAG, rm=True)
    yield TAG
    engine.images.remove(TAG, force=True)


def test_a_study_in_containers_measures_the_slots_and_launches_nothing_that_cannot_run(image, engine, tmp_path):
    before = sorted(one.name for one in engine.containers.list(all=True))
    asked = composing.load(
        [
            "experiment=llamacpp-cpu",
            "launcher=docker-llamacpp",
            f"launcher.image={image}",
            "launcher.pull=never",
            "launcher.caches.llamacpp=null",
            "engine.executable=[/app/llama-server]",
            f"launcher.mounts=[{HERE}:/models:ro]",
            "model.id=/models/tiny.gguf",
            f"study.folder={tmp_path / 'studies'}",
            *QUICK,
            "study.confirm=0",
            "budget.trials=2",
            "model.known_good=[{cache_type_v: q8_0, flash_attn: false}, {parallel: 1, ctx_size: 4096}]",
        ]
    )
    outcome = run_study(asked, PlainLines(Standing(asked), Console()).hear)
    baseline, one = outcome.launched
    assert [record.state for record in outcome.launched] == [State.COMPLETE] * 2
    assert [present(record.failure).cause for record in outcome.ruled_out] == ["unsupported"]
    became = {each.name: (each.requested, each.effective) for each in one.effective}
    assert became["parallel"] == (1, 1)
    assert present(baseline.forecast).weights_gib == pytest.approx(present(baseline.facts).weights_gib, rel=0.01)
    counters = present(present(baseline.measurement).engine)
    assert present(counters.stage_generation_tokens) > 0
    assert sorted(one.name for one in engine.containers.list(all=True)) == before
