"""What a run writes to look at."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from stillspeak.training.runlog import RunLog


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_json_lines_and_tensorboard_events(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    log = RunLog(folder)
    log.metrics(1, "train", {"loss": 0.5})
    # Readable while the run goes on.
    assert lines(folder) == [{"step": 1, "kind": "train", "loss": 0.5}]
    log.metrics(2, "validation", {"psnr": 30.0, "note": "text"})
    log.close()
    assert lines(folder)[1] == {"step": 2, "kind": "validation", "psnr": 30.0, "note": "text"}
    (events,) = (folder / "tensorboard").iterdir()
    assert b"validation/psnr" in events.read_bytes()
    assert b"note" not in events.read_bytes()


def test_lines_after_the_last_checkpoint_are_dropped(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3, 4):
        log.metrics(step, "train", {"loss": step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "kind": "tr')  # a crash in the middle of a line
    log = RunLog(tmp_path, step=2)
    log.metrics(3, "train", {"loss": 33})
    log.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 33)]


def test_pictures(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8)
    path = log.picture(12, "validation", picture)
    log.close()
    assert path == tmp_path / "samples" / "validation-0000012.png"
    assert np.array_equal(np.asarray(Image.open(path)), picture)
