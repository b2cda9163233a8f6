"""``docker compose config``: how Compose itself reads a project, where it is installed."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner import documents
from tuner.secrets import redacted

_PATIENCE_S = 20.0


class Refused(Exception):
    """Compose is there, and does not take the files; its own words."""


def services(paths: Sequence[Path], environ: Mapping[str, str]) -> dict[str, Any]:
    """Each service as Compose reads it; empty where Compose is not installed.

    Raises:
        Refused: Compose says no.
    """
    if not _is_installed(environ):
        return {}
    with _drafts(paths) as options:
        done = _run(["docker", "compose", "--profile", "*", *options, "config", "--format", "json"], environ)
    if done is None or done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1] if done else "no answer in time"
        raise Refused(redacted(said))
    (tree,) = documents.texts(done.stdout, "docker compose config")
    found: dict[str, Any] = _unescaped(tree.get("services") or {})
    return {name: {key: value for key, value in one.items() if key != "env_file"} for name, one in found.items()}


@contextmanager
def _drafts(paths: Sequence[Path]) -> Iterator[list[str]]:
    """The options that name the files; of one that is to be changed, a draft next to it."""
    folder, drafts = paths[0].absolute().parent, list[Path]()
    env_file = [folder / ".env"] if documents.changed(folder / ".env") is not None else []
    try:
        named = [_draft(path, drafts) for path in (*paths, *env_file)]
        files = [word for path in named[: len(paths)] for word in ("-f", str(path))]
        env = [word for path in named[len(paths) :] for word in ("--env-file", str(path))]
        yield [*files, *env, *(["--project-directory", str(folder)] if drafts else [])]
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _draft(path: Path, drafts: list[Path]) -> Path:
    text = documents.changed(path)
    if text is None:
        return path
    draft = path.with_name(f".{path.name}.tuner.tmp")
    draft.touch(0o600)
    drafts.append(draft)
    draft.write_text(text, "utf-8")
    return draft


def _is_installed(environ: Mapping[str, str]) -> bool:
    if shutil.which("docker", path=environ.get("PATH")) is None:
        return False
    done = _run(["docker", "compose", "version", "--short"], environ)
    return done is not None and done.returncode == 0


def _run(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            words, env=dict(environ), capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (subprocess.TimeoutExpired, OSError):
        return None


def _unescaped(tree: Any) -> Any:
    """It writes each dollar sign twice, so that its output can be read by Compose again."""
    if isinstance(tree, Mapping):
        return {key: _unescaped(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_unescaped(one) for one in tree]
    return tree.replace("$$", "$") if isinstance(tree, str) else tree
