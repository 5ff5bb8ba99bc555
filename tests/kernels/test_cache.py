"""Compiled code in the cache is used again, and never after any file of the kernels has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import esopt._kernels

SCRIPT = """
from numpy import uint64
from kernels import seeds
print(seeds.words(1, 2, 3, 4, uint64(5)).tolist(), sum(seeds.words.stats.cache_hits.values()))
"""


def run(folder: Path) -> tuple[str, int]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    words, hits = done.stdout.rsplit(maxsplit=1)
    return words, int(hits)


def test_a_change_in_an_inlined_file_is_noticed(tmp_path: Path):
    kernels = tmp_path / "kernels"
    shutil.copytree(Path(esopt._kernels.__file__).parent, kernels, ignore=shutil.ignore_patterns("__pycache__"))
    philox = kernels / "philox.py"

    first, again = run(tmp_path), run(tmp_path)
    philox.write_text(philox.read_text().replace("_ROUNDS = 10", "_ROUNDS = 9"))
    changed = run(tmp_path)

    assert (first[1], again[1], changed[1]) == (0, 1, 0)
    assert first[0] == again[0] != changed[0]
