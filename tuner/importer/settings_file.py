"""vLLM's own ``config.yml`` with ``env.sh`` next to it, as vLLM's recipes are written."""

from collections.abc import Iterator, Mapping
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


def doubts(path: Path) -> tuple[str, ...]:
    """What the file asks for and may not get.

    ``vllm serve --config`` up to 0.32 passes over a false value (``FlexibleArgumentParser.load_config_file``: only its
    api_server's own parser turns it into ``--no-…``).

    Raises:
        ConfigError: It cannot be read.
    """
    tree = documents.yaml_of(path)
    return tuple(_passed_over(tree)) if isinstance(tree, Mapping) else ()


def _passed_over(tree: Mapping[str, Any]) -> Iterator[str]:
    for name in (name for name, value in tree.items() if value is False):
        yield (
            f"{name}: false may be passed over by `vllm serve --config`, which leaves the default;"
            f" tuner's launches do turn it off (write no-{name}: true to be sure)"
        )


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
        unread=(*script.noted, *doubts(path)),
    )


def env_sh(path: Path) -> Path | None:
    """The file of variables next to a file of settings, if there is one."""
    return next((file for name in _BESIDE if (file := path.parent / name).is_file()), None)
