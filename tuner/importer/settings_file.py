"""vLLM's own ``config.yml`` with ``env.sh`` next to it, as vLLM's recipes are written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner import documents
from tuner.engines.registry import ENGINES
from tuner.importer import gpus, shell
from tuner.importer.container import Container

_BESIDE = ("env.sh", ".env.sh", "vllm.env")


def words(path: Path, engine: str) -> tuple[str, ...]:
    """The flags that a ``--config`` file stands for.

    Raises:
        ConfigError: It cannot be read.
    """
    tree = documents.yaml_of(path)
    return ENGINES[engine].conventions.from_file(tree) if isinstance(tree, Mapping) else ()


def container(path: Path, tree: Mapping[str, Any], engine: str) -> Container | None:
    """The server that the file describes; ``None`` if its keys are no flags of an engine."""
    flags = ENGINES[engine].conventions.from_file(tree)
    if not flags:
        return None
    beside = env_sh(path)
    script = shell.read(documents.text_of(beside) + "\n:\n", {}) if beside else shell.Script()
    env: dict[str, str | None] = dict(script.commands[-1].env) if script.commands else {}
    return Container(
        service=None,
        command=("vllm", "serve", *flags),
        env=env,
        gpus=gpus.visible(None, env),
        container=False,
        unread=tuple(script.noted),
    )


def env_sh(path: Path) -> Path | None:
    """The file of variables next to a file of settings, if there is one."""
    return next((file for name in _BESIDE if (file := path.parent / name).is_file()), None)
