"""The library is built in layers: what stands lower knows nothing of what stands higher."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stkvlm_lib.config import ROOT

LAYERS = (
    "cell_order",
    "config",
    "parameters",
    "device",
    "files",
    "typed",
    "number_text",
    "grouping",
    "markdown",
    "templates",
    "progress",
    "installation",
    "notebook_kernel",
    "run_lock",
    "model_files",
    "runs",
    "parallel",
    "data",
    "grammar",
    "game",
    "qa",
    "vlm",
    "pretraining",
    "evaluation",
    "figures",
    "exploration",
    "analysis",
    "cards",
    "explore",
    "reports",
    "preflight",
    "pipeline",
    "batch",
    "commands",
    "__main__",
)
"""Modules and packages of stkvlm_lib, each knowing only those before it."""


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module of the library imports of the library, anywhere in it, as `package.module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the library imports by whole names"
            whole = node.module in ("stkvlm_lib", *(f"stkvlm_lib.{layer}" for layer in LAYERS))
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
        else:
            continue
        yield from (name.removeprefix("stkvlm_lib.") for name in names if name.startswith("stkvlm_lib."))


def layer(name: str) -> int:
    """The height of a module, `scores.scoring` or `config`."""
    return LAYERS.index(name.partition(".")[0])


def upwards(module: str, source: str) -> set[str]:
    """Imports of a module that point upwards, as `module -> imported`."""
    found = {name for name in imports(ast.parse(source)) if name != "__version__"}
    return {f"{module} -> {name}" for name in found if layer(name) > layer(module)}


def modules(root: Path) -> dict[str, Path]:
    """All modules of the library by name, but for its own `__init__`."""
    files = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items() if name != "__init__"}


def test_every_module_has_its_layer():
    assert {name.partition(".")[0] for name in modules(ROOT / "stkvlm_lib")} == set(LAYERS)


def test_no_import_points_upwards():
    files = modules(ROOT / "stkvlm_lib")
    found = set().union(*(upwards(name, path.read_text(encoding="utf-8")) for name, path in files.items()))
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        "from stkvlm_lib.figures.display import progress",
        "from stkvlm_lib.figures import display",
        "from stkvlm_lib import figures",
        "import stkvlm_lib.figures.display",
        "def late():\n    from stkvlm_lib.figures.display import progress",
    ],
)
def test_an_import_upwards_is_seen_in_every_form(line):
    assert upwards("data.frames", line)
    assert not upwards("reports.report", line)
