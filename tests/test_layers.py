"""Each package imports only from rows below its own, and what is outside comes in by few doors."""

import ast
import functools
from pathlib import Path

import pytest

import hawsweep

# A package imports only from rows below its own, never from its own row; see docs/architecture.md.
ROWS = (
    "errors files layout markdown text units",
    "machine spec",
    "study models",
    "data",
    "training scoring search",
    "results planning",
    "trial notes export prepare",
    "running",
    "views",
    "cli",
)
RANK = {name: row for row, names in enumerate(ROWS) for name in names.split()}
ROOT = Path(hawsweep.__file__).parent
# Of a package from elsewhere, the files and folders that may import it, also for its types.
DOORS = {
    "click": ["cli/"],
    "rich": ["views/terminal/"],
    "plotly": ["views/"],
    "mlx": ["machine/backend.py"],
    "sqlalchemy": ["study/"],
    "torch": [],
    "sentence_transformers": ["models/load.py"],
}
OPTUNAS_PRIVATE_NAMES = {"_storage", "_study_id", "_trial_id", "_suggest"}


@functools.cache
def trees():
    """Each module's path below the package, and its syntax."""
    return [
        (path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(ROOT.rglob("*.py"))
    ]


def imported(tree):
    """The line and the full name of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_imports_go_down():
    wrong = []
    for path, tree in trees():
        here = path.partition("/")[0].removesuffix(".py")
        if here == "__init__":  # the public names, which nobody inside imports
            continue
        for line, name in imported(tree):
            package, _, inside = name.partition(".")
            there = inside.partition(".")[0]
            if package == "hawsweep" and there != here and RANK.get(there, 99) >= RANK[here] > 0:
                wrong.append(f"{path}:{line} imports {there}")
    assert wrong == []


@pytest.mark.parametrize("package", DOORS)
def test_packages_from_elsewhere_come_in_by_their_doors(package):
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in trees()
        if not path.startswith(tuple(DOORS[package]))
        for line, name in imported(tree)
        if name.partition(".")[0] == package
    ]
    assert wrong == []


def test_optuna_is_private_in_one_file_only():
    wrong = []
    for path, tree in trees():
        if path == "study/optuna_door.py":
            continue
        names = [(line, name) for line, name in imported(tree) if name.startswith("optuna.")]
        wrong += [f"{path}:{line} imports {name}" for line, name in names if "._" in name]
        wrong += [
            f"{path}:{node.lineno} uses {node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in OPTUNAS_PRIVATE_NAMES
        ]
    assert wrong == []
