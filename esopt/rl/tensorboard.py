"""The progress of a run as TensorBoard shows it; needs the package ``tensorboardX``, which writes event files."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .progress import Progress

TAGS = {
    "mean_return": "return/candidates",
    "best_return": "return/best",
    "centre_return": "return/centre",
    "snr": "search/snr",
    "generation": "search/generation",
    "evaluations": "search/evaluations",
}
"""The curve of each field of :class:`Progress`; environment steps, those of checks included, are the axis."""

_FLUSH_SECONDS = 10


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """A callback of :func:`esopt.rl.train` that writes event files for ``tensorboard --logdir``.

    Curves are against environment steps, those of checks included. Numbers that are not finite are left out: the centre
    has a point per check. Where a run that is resumed repeats generations, or another run writes to the same folder,
    TensorBoard drops what it repeats.

    Parameters
    ----------
    folder : of the event files; made with the first generation.

    Raises
    ------
    ModuleNotFoundError  without tensorboardX; it says how to install it.

    Examples
    --------
    ::

        with TensorBoard("runs/cartpole/events") as board:
            run = train("CartPole-v1", callback=board)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if find_spec("tensorboardX") is None:
            raise ModuleNotFoundError(
                "writing for TensorBoard needs the package tensorboardX. "
                'Install it with: pip install "pyesopt[tensorboard]"',
                name="tensorboardX",
            )
        self.folder = Path(folder)
        self._writer: Any = None

    def __call__(self, progress: Progress) -> None:
        """Write a generation."""
        steps = progress.steps + progress.check_steps
        if self._writer is None:
            from tensorboardX import SummaryWriter

            suffix = f".{time.time_ns()}"  # names count in seconds, and TensorBoard reads files in their order
            self._writer = SummaryWriter(
                str(self.folder), purge_step=steps, flush_secs=_FLUSH_SECONDS, filename_suffix=suffix
            )
        rate = steps / progress.seconds if progress.seconds > 0.0 else np.nan
        values = {tag: float(getattr(progress, name)) for name, tag in TAGS.items()} | {"search/steps_per_second": rate}
        for tag, value in values.items():
            if np.isfinite(value):
                self._writer.add_scalar(tag, value, steps)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and close the file; another generation opens a new one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
