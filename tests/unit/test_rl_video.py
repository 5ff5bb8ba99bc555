"""Videos of episodes: their frames, their speed, and what is missing, in words."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from esopt.noise import child
from esopt.rl import Policy, evaluate, render
from esopt.rl.environments import FINAL, episode_seeds
from esopt.rl.video import check_rendering
from tests.reference.environments import Walk


class Drawn(Walk):
    """A walk whose pictures show the time: one bright column per step, of 8."""

    metadata = {"render_fps": 20, "render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's way
    render_mode: str | None = "rgb_array"

    def render(self):
        picture = np.zeros((16, 32, 3), np.uint8)
        picture[:, 4 * self.time : 4 * self.time + 4] = 255
        return picture


POLICY = Policy.linear(Drawn()).with_parameters([0, 0, 0, 0, 0, 1.0])


def test_a_gif_has_a_frame_per_observation_at_the_environments_rate(tmp_path):
    path, returns = render(POLICY, Drawn, tmp_path / "deep" / "walk.gif", episodes=2, seed=3)
    lengths = 3 + episode_seeds([child(3, 0)], 2, FINAL)[0] % 4

    with Image.open(path) as gif:
        frames = []
        for at in range(gif.n_frames):
            gif.seek(at)
            frames.append(np.asarray(gif.convert("L"))[0])
            assert gif.info["duration"] == 50
    assert len(frames) == (lengths + 1).sum()
    times = [int(np.flatnonzero(frame > 128)[0]) // 4 for frame in frames]
    assert times == [time for length in lengths for time in range(length + 1)]
    np.testing.assert_array_equal(returns, evaluate(POLICY, Walk, 2, seed=3)[0])


@pytest.mark.parametrize(("rate", "frames", "duration"), [(100, 2, 20), (50, 4, 20), (30, 4, 30), (67, 2, 30)])
def test_a_fast_environment_loses_frames_and_no_speed(tmp_path, rate: int, frames: int, duration: int):
    class Fast(Drawn):
        metadata = {"render_fps": rate, "render_modes": ["rgb_array"]}  # noqa: RUF012

    path, _ = render(POLICY, Fast, tmp_path / "walk.gif", max_steps=3)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["duration"]) == (frames, duration)  # of 4; GIFs count in 10 ms


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    class Blind(Drawn):
        render_mode = None

    class Broken(Drawn):
        def render(self):
            raise OSError("no display")

    with pytest.raises(RuntimeError, match=r"Blind was made with render_mode=None.*render_mode=\"rgb_array\""):
        render(POLICY, Blind, tmp_path / "a.gif")
    with pytest.raises(RuntimeError, match=r"cannot render: OSError: no display. .*MUJOCO_GL=egl"):
        render(POLICY, Broken, tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"Pass a name that ends in .mp4 or .gif"):
        render(POLICY, Drawn, tmp_path / "a.png")
    check_rendering(Drawn)
    with pytest.raises(RuntimeError, match=r"Blind was made with render_mode=None"):
        check_rendering(Blind)
    with pytest.raises(RuntimeError, match=r"cannot render: OSError: no display. .*install libegl1"):
        check_rendering(Broken)
    monkeypatch.setattr("esopt.rl.video.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"a .mp4 file needs moviepy. Install the extra \"render\""):
        render(POLICY, Drawn, tmp_path / "a.mp4")
