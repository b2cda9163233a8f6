"""A type's name says which type is meant: no two classes of the package have the same."""

import ast
from pathlib import Path

import tuner

PACKAGE = Path(tuner.__file__).parent
APART = PACKAGE / "sim"
"""The simulated engine is a program of its own, with words of its own."""
COUNTERPARTS = {
    # the same part of two engines' packages, neither of which imports the other
    "Demand": {"engines/llamacpp/memory/demand.py", "engines/vllm/memory/demand.py"},
    "Sizes": {"engines/llamacpp/memory/sizes.py", "engines/vllm/memory/sizes.py"},
}


def test_a_name_names_one_class():
    assert {name: places for name, places in _places().items() if len(places) > 1} == COUNTERPARTS


def _places():
    """Where classes are defined, by their name."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if not path.is_relative_to(APART):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).add(str(path.relative_to(PACKAGE)))
    return found
