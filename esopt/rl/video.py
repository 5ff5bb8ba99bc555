"""Episodes of a policy as a video or a GIF, without a display."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..noise import child
from .environments import FINAL, EnvSource, env_name, episode_seeds, make_env, prepare_rendering
from .gym_engine import plain_episode
from .policy import Policy

SUFFIXES = (".mp4", ".gif")

_GIF_LEAST, _GIF_UNIT, _GIF_ERROR = 20, 10, 0.101
"""Milliseconds: viewers slow GIFs down that want less per frame, and files count in units; what is off at most."""

_EXTRA = 'Install the extra "render": pip install "pyesopt[render]"'


def render(
    policy: Policy,
    env: EnvSource,
    path: str | os.PathLike[str],
    *,
    episodes: int = 1,
    seed: int = 0,
    max_steps: int | None = None,
) -> tuple[Path, NDArray[np.float64]]:
    """Play held-out episodes, write what they look like to ``path``, and return it with their returns (episodes,).

    Parameters
    ----------
    path : a file .mp4 (needs moviepy) or .gif (needs Pillow or imageio).
    episodes : episodes, one after the other.
    seed : of the episodes, which are the first ones of ``evaluate(policy, env, seed=seed)``.
    max_steps : cut of an episode, besides the environment's own.

    Raises
    ------
    ModuleNotFoundError  if the library that writes such files is not there.
    RuntimeError  if the environment cannot render.
    ValueError  for another kind of file.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"render() got {target.name}. Pass a name that ends in {' or '.join(SUFFIXES)}.")
    needed = ("moviepy",) if target.suffix == ".mp4" else ("PIL", "imageio")
    if all(find_spec(name) is None for name in needed):
        raise ModuleNotFoundError(f"a {target.suffix} file needs {' or '.join(needed)}. {_EXTRA}.")
    prepare_rendering()
    made = _open(env)
    frames: list[NDArray[np.uint8]] = []
    returns = []
    try:
        for start in episode_seeds([child(seed, 0)], episodes, FINAL)[0].tolist():
            returns.append(plain_episode(made, policy, start, max_steps, lambda: frames.append(_frame(made))))
        rate = float(made.metadata.get("render_fps", 30))
    finally:
        made.close()
    target.parent.mkdir(parents=True, exist_ok=True)
    (_write_video if target.suffix == ".mp4" else _write_gif)(frames, target, rate)
    return target, np.array(returns)


def check_rendering(env: EnvSource) -> None:
    """Draw the start of an episode, to find out before an hour of training whether :func:`render` can.

    Raises
    ------
    ModuleNotFoundError, RuntimeError  if not; it says what to install.
    """
    prepare_rendering()
    made = _open(env)
    try:
        made.reset(seed=0)
        _frame(made)
    finally:
        made.close()


def _open(env: EnvSource) -> Any:
    options = {} if callable(env) and not hasattr(env, "id") else {"render_mode": "rgb_array"}
    try:
        made = make_env(env, **options)
    except ModuleNotFoundError:
        raise
    except (AttributeError, ImportError, RuntimeError) as error:  # MuJoCo loads what draws when it is imported
        raise _refusal(error) from error
    if made.render_mode != "rgb_array":
        made.close()
        raise RuntimeError(
            f"{env_name(env)} was made with render_mode={made.render_mode!r}. Expected pictures as arrays. "
            'Make it with render_mode="rgb_array".'
        )
    return made


def _frame(env: Any) -> NDArray[np.uint8]:
    try:
        picture = env.render()
    except Exception as error:  # whatever the libraries of graphics raise
        raise _refusal(error) from error
    return np.asarray(picture, np.uint8)


def _refusal(error: Exception) -> RuntimeError:
    return RuntimeError(
        f"the environment cannot render: {type(error).__name__}: {error}. MuJoCo needs EGL or OSMesa without a "
        "display: install libegl1 (or libosmesa6) and set MUJOCO_GL=egl (or osmesa); classic control and Box2D "
        f"need pygame. {_EXTRA}."
    )


def _write_video(frames: list[NDArray[np.uint8]], path: Path, rate: float) -> None:
    from moviepy.video.io.ImageSequenceClip import ImageSequenceClip

    clip = ImageSequenceClip(frames, fps=rate)
    try:
        clip.write_videofile(str(path), logger=None, audio=False)
    finally:
        clip.close()


def _write_gif(frames: list[NDArray[np.uint8]], path: Path, rate: float) -> None:
    """Write every k-th frame, the least k at whose rate viewers show about the right speed."""
    every, duration = 1, 0
    while duration < _GIF_LEAST or abs(duration * rate / (1000.0 * every) - 1.0) > _GIF_ERROR:
        every, duration = every + (duration > 0), 0
        duration = max(_GIF_UNIT, _GIF_UNIT * round(1000.0 * every / rate / _GIF_UNIT))
    kept = frames[::every]
    if find_spec("PIL") is not None:
        from PIL import Image

        first, *rest = [Image.fromarray(frame).quantize(128) for frame in kept]
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0, optimize=True)
        return
    import imageio.v3

    imageio.v3.imwrite(path, np.stack(kept), duration=duration, loop=0)
