"""The seams hold: what is an engine's or a launcher's own is known in its package, and nowhere else."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "tuner").rglob("*.py"))
LAYERS = (
    ("cli", "__main__", "takeover"),
    ("terminal", "rollout", "bench", "watch", "contest"),
    ("study", "export", "report", "dashboard"),
    ("trial", "foresight", "site", "analysis"),
    ("records",),
    ("config", "premises", "deriving", "composing", "importer"),
    ("search", "words"),
    ("launchers", "engines", "load", "proof", "objective", "deployment", "quality"),
    ("host",),
    ("space", "expression", "secrets", "catalog", "documents", "fetch", "lines", "reading", "schema", "errors"),
)
"""From top to bottom; a part imports from its own layer and from those below. ``sim`` and ``testing`` stand apart."""
LIFTED = {"tuner/launchers/docker/prepare.py": {"records"}}
"""Its image is kept in the study's folder."""
ENGINES = ("tuner.engines.vllm", "tuner.engines.llamacpp", "tuner.engines.sglang")
REGISTRY = "tuner/engines/registry.py"


def test_an_engines_package_is_imported_by_the_registry_alone():
    importers: dict[str, set[str]] = {}
    for path in MODULES:
        names = [f"{name}." for name in _imported(ast.parse(path.read_text()))]
        for engine in ENGINES:
            at_home = path.is_relative_to(ROOT / engine.replace(".", "/"))
            if not at_home and any(name.startswith(f"{engine}.") for name in names):
                importers.setdefault(engine, set()).add(str(path.relative_to(ROOT)))
    assert importers == {engine: {REGISTRY} for engine in ENGINES}


def _imported(tree):
    """The full name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_down():
    ranks = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
    upward = {}
    for path in MODULES:
        own = path.relative_to(ROOT / "tuner").parts[0].removesuffix(".py")
        if own in ("sim", "testing", "__init__"):
            continue
        parts = {name.split(".")[1] for name in _imported(_running(path)) if name.startswith("tuner.")}
        above = {part for part in parts - {"sim", "__version__"} if ranks[part] < ranks[own]}
        if above:
            upward[str(path.relative_to(ROOT))] = above
    assert upward == LIFTED


def _running(path):
    """The module without what only a type checker reads."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def test_nobody_asks_for_the_kind_of_a_launcher_an_engine_or_a_search():
    """No ``isinstance`` on their classes, and no comparison of their ``kind``."""
    own = {"tuner/launchers/docker/prepare.py"}  # its own launcher among all
    asking = {str(path.relative_to(ROOT)) for path in MODULES if list(_asked(path))}
    assert asking == own


def _asked(path):
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node)
        if (isinstance(node, ast.Call) and re.match(r"isinstance\(.*\w(Launcher|Engine|Search)(Config)?\b", text)) or (
            isinstance(node, ast.Compare) and re.search(r"(launcher|engine)\.kind\b", text)
        ):
            yield text
