"""The examples of docs/clusters.md on clusters of this machine; apart from tests that hold a cluster open."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Port 8787 is already in use")
@pytest.mark.parametrize(
    ("title", "module"), [("Dask", "distributed"), ("Ray", "ray"), ("Any executor", "distributed")]
)
def test_the_examples_of_the_page_run(title: str, module: str, tmp_path: Path) -> None:
    """The blocks of docs/clusters.md that need a cluster are marked py, and run here, section by section."""
    pytest.importorskip(module)
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("_readme", root / "tests" / "test_readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    sys.modules["_readme"] = readme
    spec.loader.exec_module(readme)
    section = (root / "docs" / "clusters.md").read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    page = tmp_path / "page.md"
    page.write_text(section.replace("```python\n", "```\n").replace("```py\n", "```python\n"), "utf-8")
    assert readme.run(page) == {"Dask": 2, "Ray": 2, "Any executor": 1}[title]
