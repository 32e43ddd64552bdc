"""The notebooks of examples/ run from the first cell to the last."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    return [
        cell
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells_of(notebook)):
        run_cell("".join(cell["source"]), f"{notebook.name}, code cell {number}", session)


def run_cell(source: str, name: str, session: dict[str, Any]) -> None:
    """Runs a cell as Jupyter does, which shows the value of an expression at its end."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), session)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), session)
        shown = value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)
        assert shown, f"{name} shows nothing"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_stored_without_outputs(notebook: Path) -> None:
    assert not [cell for cell in cells_of(notebook) if cell["outputs"] or cell["execution_count"]]
