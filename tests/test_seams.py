"""What keeps the house in its parts: who imports whom."""

import ast
from pathlib import Path

import tuner

ROOT = Path(tuner.__file__).parent
ENGINES = ("tuner.engines.vllm", "tuner.engines.llamacpp", "tuner.engines.sglang")
REGISTRY = "engines/registry.py"


def imported(tree):
    """The full name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_an_engines_package_is_imported_by_the_registry_alone():
    importers = {}
    for path in ROOT.rglob("*.py"):
        names = [f"{name}." for name in imported(ast.parse(path.read_text()))]
        for engine in ENGINES:
            at_home = path.is_relative_to(ROOT.parent / engine.replace(".", "/"))
            if not at_home and any(name.startswith(f"{engine}.") for name in names):
                importers.setdefault(engine, set()).add(str(path.relative_to(ROOT)))
    assert importers == {engine: {REGISTRY} for engine in ENGINES}
