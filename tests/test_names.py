"""No family's name below configs/ and interop/: a paper is a config (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

import bert_jax

ROOT = Path(bert_jax.__file__).parent
FAMILIES = ("bert", "roberta", "albert", "electra", "xlm")
# The package goes by its own name, a convention of FLOPs by its paper's, and two parts of the
# package tokenizers by what they are called there.
KNOWN = {"bert_jax", "_electra", "BertNormalizer", "BertPreTokenizer"}
FILES = sorted(p for p in ROOT.rglob("*.py") if "interop" not in p.parts)


def names(tree: ast.AST):
    for node in ast.walk(tree):
        for field in ("id", "name", "attr", "arg"):
            if isinstance(found := getattr(node, field, None), str):
                yield found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_identifier_is_of_a_family(path):
    found = {
        name
        for name in names(ast.parse(path.read_text()))
        for part in name.split(".")
        if part not in KNOWN and any(family in part.lower() for family in FAMILIES)
    }
    assert not found
