"""A type's name says which type is meant: none of the words that were ambiguous names two classes."""

import ast
from pathlib import Path

import pytest

import tuner

PACKAGE = Path(tuner.__file__).parent
APART = PACKAGE / "sim"
"""The simulated engine is a program of its own, with words of its own."""
WORDS = (
    "Evidence",
    "Prediction",
    "Finding",
    "State",
    "Calibration",
    "Failure",
    "Outcome",
    "Settings",
    "Proposal",
    "Expectation",
    "Answer",
    "Change",
    "Place",
    "Project",
    "Service",
    "Traffic",
    "ProbeResult",
    "Slo",
    "ProofFigures",
    "ChunkText",
    "EndpointForm",
)


@pytest.fixture(scope="module")
def places():
    """Where each class is defined, by its name."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not path.is_relative_to(APART):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    return found


@pytest.mark.parametrize("word", WORDS)
def test_it_names_one_class(places, word):
    assert len(places[word]) == 1, places[word]
