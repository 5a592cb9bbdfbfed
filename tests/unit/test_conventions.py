"""The house style that a machine can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(
    path
    for package in ("edge_agent", "remote", "dashboard")
    for path in (ROOT / package).rglob("*.py")
    if ".web" not in path.parts
)
LINES_MAX = 560
MAY_CATCH_ALL = {("supervisor.py", "supervise"), ("errors.py", "contained")}


def relative(path: Path) -> str:
    """A file's name within the project."""
    return str(path.relative_to(ROOT))


def test_broad_excepts_raise_again() -> None:
    """Only the one supervisor ends an error that nobody classed."""
    swallowed = []
    for path in PRODUCT:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (path.name, function.name) in MAY_CATCH_ALL:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler):
                    kind = ast.unparse(node.type) if node.type else ""
                    raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                    if kind in ("", "Exception", "BaseException") and not raises:
                        swallowed.append(f"{relative(path)}:{node.lineno}")
    assert not swallowed


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_a_module_is_finished_and_fits_a_head(path: Path) -> None:
    """No marks of unfinished work, a docstring, and a bounded length."""
    text = path.read_text()
    assert not re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b", text)
    assert "NotImplementedError" not in text
    assert ast.get_docstring(ast.parse(text)), "a module says what it is"
    assert text.count("\n") <= LINES_MAX


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    """The contract of every public function and class stands with it."""
    bare = [
        f"{item.name}:{item.lineno}"
        for node in ast.parse(path.read_text()).body
        for item in (node, *(node.body if isinstance(node, ast.ClassDef) else ()))
        if isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not item.name.startswith("_")
        and not ast.get_docstring(item)
        and not _speaks_for_another(node)
    ]
    assert not bare


def _speaks_for_another(node: ast.stmt) -> bool:
    """Whether a class is private, or implements an interface that is documented elsewhere."""
    return isinstance(node, ast.ClassDef) and (node.name.startswith("_") or bool(node.bases))


def test_the_lock_file_names_no_host_and_hashes_everything() -> None:
    """What is installed is what was locked, from wherever it comes."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    packages = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(packages) > 30
    assert all("--hash=sha256:" in package for package in packages if "==" in package)
