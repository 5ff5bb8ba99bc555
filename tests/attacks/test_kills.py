"""SIGKILL of a whole run at random instants, in the middle of writes too: the resumed run ends in the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_every_run_that_was_killed_ends_in_the_same_bits(kills: int):
    names = ["GradientES", "CMAES", "Portfolio"]
    command = [sys.executable, "-W", "ignore", "scripts/attack_kills.py", "--kills", str(kills), "--cases", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(done.stdout)["cases"]

    assert list(cases) == names
    for found in cases.values():
        assert found["kills"] == found["same bits"] == kills
        assert found["lost"] == []
        assert found["warnings"] == 0  # no file was ever damaged: a kill leaves the old one or the new one
        assert kills < 100 or found["in the middle of a write"] > 20
