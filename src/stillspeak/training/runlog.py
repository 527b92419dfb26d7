"""What a run leaves to look at: metrics as JSON lines and TensorBoard, contact sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import MissingDependencyError
from stillspeak.system.atomic import sweep, whole_file


class RunLog:
    """Writes ``metrics.jsonl``, TensorBoard events and pictures into a run's folder, made if
    missing. Lines beyond the step that the run goes on from (by a run that died after its last
    checkpoint) are dropped, so that no step is logged twice."""

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "training needs the 'train' extra: pip install 'stillspeak[train]'"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        sweep(folder / "samples")
        path = folder / "metrics.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        # In one step: a kill in between must not take the lines of the steps before along.
        with whole_file(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def metrics(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Log numbers of one step; ``kind`` is ``train`` or ``validation``."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, step: int, name: str, picture: npt.NDArray[np.uint8]) -> Path:
        """Save a picture (H, W, 3) of one step under ``samples/``."""
        from PIL import Image

        path = self._folder / "samples" / f"{name}-{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
        return path

    def video(
        self,
        step: int,
        name: str,
        frames: Sequence[npt.NDArray[np.uint8]],
        sound: npt.NDArray[np.float32],
    ) -> Path:
        """Save frames (H, W, 3) and their sound (S,) of one step under ``samples/``."""
        from stillspeak.media.video_writer import write_video

        path = self._folder / "samples" / f"{name}-{step:07d}.mp4"
        path.parent.mkdir(exist_ok=True)
        # Working material beside real clips, without marks.
        write_video(path, frames, audio=sound, overwrite=True)
        return path

    def close(self) -> None:
        self._file.close()
        self._writer.close()


def _lines(path: Path) -> list[str]:
    """Whole lines of a JSONL file; a line cut off by a crash is left out."""
    if not path.exists():
        return []
    text = path.read_text("utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
