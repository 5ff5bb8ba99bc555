"""Every Python block of README.md and docs/*.md runs, in order, in one namespace per file.

A ```text block right after a Python block is what it prints: compared line by line, where ``...`` stands for anything.
Examples in docstrings run too.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import esopt

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MODULES = [m.name for m in pkgutil.walk_packages(esopt.__path__, "esopt.") if not m.name.startswith("esopt._")]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A Python block: the line above its code, the code, and what it should print, if the page says."""

    line: int
    code: str
    output: str | None


def blocks(text: str) -> list[Block]:
    fences = list(FENCE.finditer(text))
    found = []
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        if fence[1] == "python":
            follows = after is not None and after[1] == "text" and not text[fence.end() : after.start()].strip()
            found.append(Block(text[: fence.start(2)].count("\n"), fence[2], after[2] if follows else None))
    return found


def run(page: Path) -> int:
    """Run the blocks of a page and return how many there were."""
    namespace = {"__name__": "__main__"}
    found = blocks(page.read_text("utf-8"))
    for block in found:
        # Empty lines in front make tracebacks show the page's own lines.
        code = compile("\n" * block.line + block.code, str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block.output is not None:
            same = doctest.OutputChecker().check_output(block.output, printed.getvalue(), OPTIONS)
            assert same, f"{page.name}:{block.line} says\n{block.output}\nbut prints\n{printed.getvalue()}"
    return len(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert page.is_file(), f"{page.name} is missing"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    count = run(page)
    assert count > 0 or page.name != "README.md", "README.md has no Python block"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_scripts_that_exist(page: Path):
    names = set(re.findall(r"\bscripts/\w+(?:\.py)?", page.read_text("utf-8")))
    assert {name for name in names if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert failed == 0


PAGE = """\
# Page

```python
x = 1
print("x is", x)
```

```text
x is 1
```

```bash
exit 1
```

```python
print("time:", x / 3, "s")
```
```text
time: ... s
```
Words between a block and a text block keep them apart.
```python
x += 1
```
This is something else:
```text
nothing printed
```
"""


def test_blocks_are_found_with_their_output():
    first, second, third = blocks(PAGE)
    assert first == (3, 'x = 1\nprint("x is", x)\n', "x is 1\n")
    assert second.output == "time: ... s\n"
    assert third == (PAGE.splitlines().index("x += 1"), "x += 1\n", None)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("x is 1\n", "x is 2\n", AssertionError),
        ("time: ... s\n", "time: ... m\n", AssertionError),
        ("x += 1", "y += 1", NameError),
    ],
)
def test_a_wrong_page_fails(tmp_path: Path, old: str, new: str, error: type[Exception]):
    page = tmp_path / "page.md"
    page.write_text(PAGE, "utf-8")
    assert run(page) == 3
    page.write_text(PAGE.replace(old, new), "utf-8")
    with pytest.raises(error):
        run(page)
