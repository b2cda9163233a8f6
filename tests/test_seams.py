"""The seams hold: what is an engine's or a launcher's own is known in its package, and nowhere else."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "tuner").rglob("*.py"))
FAST = [
    "experiment=demo",
    "engine.clock_scale=40",
    "engine.launch_args.sim_clock_startup=400",
    "workload=tiny",
    "objective.limits=null",
    "budget.trials=3",
    "study.confirm=0",
]


def test_a_toy_launcher_of_one_module_and_one_line_runs_a_whole_study(tmp_path):
    command = [sys.executable, "-m", "tests.toys", "study", "start", *FAST, f"study.folder={tmp_path}"]
    done = subprocess.run(
        [*command, "study.name=toy", "launcher.kind=toy", "--yes"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("toy/trials/*/record.json"))]
    assert len(records) == 3
    assert [record["state"] for record in records] == ["complete"] * 3


def test_a_kind_that_is_not_in_the_registry_is_refused_with_those_that_are(tmp_path):
    command = [sys.executable, "-m", "tuner", "study", "start", *FAST, "launcher.kind=toy", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'process', 'docker', 'attach'" in done.stderr


def test_nobody_asks_for_the_kind_of_a_launcher_or_an_engine():
    """No ``isinstance`` on their classes, and no comparison of their ``kind``."""
    own = {"tuner/launchers/docker/prepare.py"}  # its own launcher among all
    asking = {str(path.relative_to(ROOT)) for path in MODULES if list(_asked(path))}
    assert asking == own


def _asked(path):
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node)
        if (isinstance(node, ast.Call) and re.match(r"isinstance\(.*\w(Launcher|Engine)(Config)?\b", text)) or (
            isinstance(node, ast.Compare) and re.search(r"(launcher|engine)\.kind\b", text)
        ):
            yield text
