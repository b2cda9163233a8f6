"""What is installed works outside of the checkout."""

import subprocess
import sys
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
        "from tuner.catalog import conf_dir; from tuner.config import load; "
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


def test_lock_files_name_no_host():
    for path in ROOT.glob("*.lock"):
        assert "://" not in path.read_text()
