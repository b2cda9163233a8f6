"""Where the Hugging Face cache of this host keeps a model, and which commit that is."""

import re
from collections.abc import Mapping
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


def commit_of(model: str, revision: str | None, env: Mapping[str, str]) -> str | None:
    """The commit that a repository's revision stands for here; ``None`` where that is not known.

    Args:
        model: The repository.
        revision: A branch, tag or commit; ``main`` if none.
        env: The environment that says where the cache is.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    home = Path(env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    root = Path(env.get("HF_HUB_CACHE") or home / "hub") / f"models--{model.replace('/', '--')}"
    reference = root / "refs" / (revision or "main")
    return reference.read_text("utf-8").strip() if reference.is_file() else None
