"""A file that is no configuration ends in one sentence with its path and the fix, within seconds."""

import os
import time

import pytest

from tuner import composing, documents
from tuner.errors import ConfigError

LEVELS = "\n".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(10))
BROKEN = {
    "nul bytes": b"a: 1\0\n",
    "binary": bytes(range(128, 256)),
    "5000 levels": b"[" * 5000 + b"]" * 5000,
    "a bomb": ("a0: &a0 [x, x, x]\n" + LEVELS).encode(),
    "10 MB": b"a: 1\n" * 2_000_000,
    "not YAML": b"a: [1\n",
    "a date that is none": b"a: 2026-99-99\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_named_with_a_fix_within_5_s(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    begun = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        composing.read(path)
    assert time.monotonic() - begun < 5
    assert str(path) in refused.value.message
    assert refused.value.fix
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_among_the_users_groups_is_refused_before_it_is_composed(tmp_path, content):
    path = tmp_path / "model" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        composing.load(["experiment=demo", "model=mine"], tmp_path)


def test_what_has_no_end_is_not_waited_for(tmp_path):
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path, said in ((pipe, "not a regular file"), (device, "no end")):
        with pytest.raises(ConfigError, match=said):
            composing.read(path)


def test_an_empty_configuration_is_named(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"config\.yaml: is empty"):
        composing.read(tmp_path / "config.yaml")


def test_aliases_as_people_use_them_are_read():
    assert documents.parsed("a: &x [1, 2]\nb: *x\n", "here") == {"a": [1, 2], "b": [1, 2]}


def test_an_override_of_5000_levels_is_refused_without_a_traceback():
    with pytest.raises(ConfigError):
        composing.load(["experiment=demo", "model.args.x=" + "[" * 5000 + "]" * 5000])
