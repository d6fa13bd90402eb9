"""Every public name has a docstring; that of a cell has equations and a source, and a guide lists them all."""

import ast
import builtins
import inspect
from doctest import DocTestParser
from pathlib import Path

import pytest

import numba_pack as nbp
from numba_pack import cells, data, losses, optim, serving
from numba_pack.cells import Cell

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "examples/guides/cells.md").read_text(encoding="utf-8")
MODULES = sorted((ROOT / "numba_pack").rglob("*.py"))
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (nbp, cells, data, losses, optim, serving)
    for name in module.__all__
    if name != "backend"  # a string
}
PUBLISHED = {name: value for name, value in vars(cells).items() if isinstance(value, Cell)}
#: the functions that formulas are written with
FUNCTIONS = [
    name for name in cells.__all__ if inspect.isfunction(getattr(cells, name)) and name not in ("cell", "check")
]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name):
    first = (PUBLIC[name].__doc__ or "").partition("\n")[0]
    assert first.endswith("."), f"{name}: {first!r}"


def test_every_cell_is_exported_under_its_own_name():
    assert PUBLISHED
    assert {name: value.name for name, value in PUBLISHED.items()} == {name: name for name in PUBLISHED}
    assert PUBLISHED.keys() <= set(cells.__all__)


def unknown_names(code):
    """The names that code reads and nothing in it gives."""
    nodes = list(ast.walk(ast.parse(code)))
    given = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    given |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    given |= {node.asname or node.name.partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    given |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in nodes if isinstance(node, ast.Name)} - given - set(dir(builtins))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_runs_where_it_is_copied_to(module):
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            examples = DocTestParser().get_examples(ast.get_docstring(node) or "")
            unknown = unknown_names("".join(example.source for example in examples))
            assert not unknown, f"{getattr(node, 'name', 'the module')}: {unknown}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_cell_says_its_equations_its_source_and_how_it_is_used(name):
    text = inspect.cleandoc(PUBLISHED[name].__doc__)
    assert "\n::\n" in text
    assert "    h' = " in text
    assert "\nReferences\n-----" in text
    assert "\nExamples\n-----" in text
    assert f"{name}(" in text.partition("\nExamples\n")[2]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_cell_prints_its_formula_its_gradient_and_what_the_tape_keeps(name):
    told = repr(PUBLISHED[name]).splitlines()
    assert told[0].startswith(f"{name}: ")
    assert told[1] == "formula"
    assert told[-1].startswith("tape: ")


def test_a_guide_lists_every_cell_and_every_function_of_formulas():
    rows = [line for line in GUIDE.splitlines() if line.startswith("| `")]
    assert PUBLISHED.keys() == {name for name in PUBLISHED if any(f"`{name}`" in row.split("|")[1] for row in rows)}
    assert FUNCTIONS == [name for name in FUNCTIONS if f"`{name}`" in GUIDE or f"`{name}(" in GUIDE]
