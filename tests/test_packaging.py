"""What is installed works outside of the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_configuration_and_dockerfiles(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "dockerfiles"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                assert f"tuner/{path.relative_to(ROOT)}" in names
    assert "tuner/py.typed" in names


def test_the_wheel_composes_the_demo_without_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "from tuner.catalog import conf_dir; from tuner.composing import load; "
        "print(conf_dir(), load(['experiment=demo']).study.name)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(tmp_path / "site" / "tuner" / "conf"), "demo"]


@pytest.fixture
def installed(wheel, tmp_path):
    """The wheel in an environment of its own; what it depends on is lent to it by this one, unless pip may fetch it."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    target = sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)})
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    if not os.environ.get("TUNER_TEST_INSTALL"):
        lent = sysconfig.get_path("purelib")
        (Path(target) / "lent.pth").write_text(f"{lent}\n")  # its own .pth files, an editable tuner's too, are not read
        install += ["--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return environment


@pytest.mark.timeout(900)
def test_what_is_installed_from_the_wheel_runs_the_demo(installed, tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quick = ["engine.clock_scale=20", "engine.launch_args.sim_clock_startup=400", "budget.trials=2", "study.confirm=0"]
    run = subprocess.run(
        [installed / "bin" / "tuner", "study", "start", "experiment=demo", "workload=tiny", *quick],
        cwd=tmp_path,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "studies" / "demo" / "report.html").exists()
    shown = subprocess.run(
        [installed / "bin" / "python", "-c", "import tuner; print(tuner.__file__)"],
        cwd=tmp_path,
        env=own,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed) in shown.stdout


def test_lock_files_name_no_host():
    for path in ROOT.glob("*.lock"):
        assert "://" not in path.read_text()
