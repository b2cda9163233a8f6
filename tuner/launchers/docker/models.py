"""The model's files: in the host's Hugging Face cache before trial 0, so that no trial waits for a download."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from tuner.engines.causes import Cause
from tuner.errors import InfrastructureError
from tuner.launchers.docker.images import Progress
from tuner.launchers.docker.launcher import DockerLauncher

_REPOSITORY = re.compile(r"^[\w-][\w.-]*/[\w.-]+$")
_EXCEPTION = re.compile(r"^[\w.]+(?:Error|Exception)\b")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")

OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1"}
"""What the server gets once its model is in the cache: nothing is fetched, or changes, between two trials."""

_DOWNLOAD = """
import sys
from huggingface_hub import list_repo_files, snapshot_download
model, revision = sys.argv[1], sys.argv[2] or None
files = list_repo_files(model, revision=revision)
other = ["*.pt", "*.pth", "original/*", "consolidated*"]
twice = [*other, "*.bin"] if any(file.endswith(".safetensors") for file in files) else other
snapshot_download(model, revision=revision, ignore_patterns=twice)
"""


class ModelMissing(InfrastructureError):
    """The model is not in the cache and cannot be downloaded."""


def is_repository(model: str) -> bool:
    """Whether a model is named by its repository, and not by a folder."""
    return _REPOSITORY.match(model) is not None


def is_cached(hub: Path, model: str, revision: str | None = None) -> bool:
    """Whether all of a model's files are there; a download that was broken off left some.

    Args:
        hub: The cache's ``hub`` folder.
        model: The repository.
        revision: A branch, tag or commit; ``main`` if none.
    """
    folder = hub / f"models--{model.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / str(commit)
    if not (snapshot / "config.json").exists():
        return False
    index = snapshot / "model.safetensors.index.json"
    if index.exists():
        shards = set(json.loads(index.read_text())["weight_map"].values())
        return all((snapshot / shard).exists() for shard in shards)
    return any(path.exists() for pattern in _WEIGHTS for path in snapshot.glob(pattern))


def download(
    launcher: DockerLauncher, model: str, revision: str | None, env: Mapping[str, str], progress: Progress
) -> None:
    """Fetch a model into the cache, with the image's own huggingface_hub.

    Args:
        launcher: Whose containers see the cache.
        model: The repository.
        revision: A branch, tag or commit.
        env: The token that the Hub may want, and where the Hub is.
        progress: Told what the download says.

    Raises:
        ModelMissing: It cannot be had; the message is the download's own.
    """
    argv = ("python3", "-c", _DOWNLOAD, model, revision or "")
    progress(f"downloading {model}")
    ended = launcher.run("download", argv, {**env, "HF_HUB_OFFLINE": "0"}, lambda line: progress(f"{model}: {line}"))
    if ended.exit_code != 0:
        said = _reason(ended.lines) or f"exit status {ended.exit_code}"
        fix = "check the name and the network; a gated model needs its licence accepted and a token in .env"
        raise ModelMissing(
            f"{model} cannot be downloaded: {said}", cause=Cause.MODEL_NOT_FOUND.value, line=said, fix=fix
        )


def _reason(lines: tuple[str, ...]) -> str:
    """The exception that it ended in, which may go on to give advice for lines; else its last line."""
    raised = (line for line in reversed(lines) if _EXCEPTION.match(line))
    return next(raised, lines[-1] if lines else "").strip()
