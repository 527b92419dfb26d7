"""Studies for tests: of real little videos, or of none where only plans and answers matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stillspeak.media.video_writer import write_video
from stillspeak.study.config import Question, StudyConfig, Trials, as_toml
from stillspeak.study.kinds import Study, check_config, find_kind
from stillspeak.study.materials import Materials, Role, Video, save_materials

GRID_NAMES = ("bbaf2n", "lgwz5s", "prbc9n", "swiu2s", "pwbo8a", "lbav3n", "brin6p", "sgat1a")
GRID_CHOICES = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)


def write_clip(
    path: Path,
    *,
    seed: int = 0,
    frames: int = 10,
    size: tuple[int, int] = (48, 64),
    sound: bool = True,
    title: str = "",
) -> Path:
    """A moving gradient with a tone, 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    y, x = np.mgrid[:height, :width]
    pictures = [
        np.stack(
            [(x * 3 + 20 * seed) % 256, (y * 4 + 9 * k) % 256, (x + y + 40 * seed) % 256], -1
        ).astype(np.uint8)
        for k in range(frames)
    ]
    time = np.arange(frames * 640) / 16_000
    tone = (0.1 * np.sin(2 * np.pi * (300 + 40 * seed) * time)).astype(np.float32)
    write_video(
        path,
        pictures,
        audio=tone if sound else None,
        metadata={"title": title} if title else None,
    )
    return path


def paper_study(
    folder: Path,
    kind: str,
    *,
    items: int = 30,
    systems: Sequence[str] = ("ours", "theirs"),
    training: int = 0,
    catches: int = 4,
    questions: Sequence[Question] = (),
    words: Sequence[Sequence[str]] | None = None,
    choices: tuple[tuple[str, ...], ...] = (),
    **trials: object,
) -> Study:
    """A study on disk whose videos are empty files: enough for plans, answers and reports."""
    systems = find_kind(kind).sides or systems
    videos: list[Video] = []

    def add(system: str, item: str, role: Role, spoken: Sequence[str] = ()) -> None:
        name = hashlib.sha256(f"{system} {item} {role}".encode()).hexdigest()[:16]
        videos.append(
            Video(
                name, f"videos/{name}.mp4", system, item, role, "video/mp4", 0.4, 25.0, 64, 48,
                True, tuple(spoken), f"{system}/{item}.mp4", name * 4,
            )
        )  # fmt: skip

    for number in range(items + training):
        for system in systems:
            spoken = words[number % len(words)] if words else ()
            add(system, f"clip{number:02}", "main" if number < items else "training", spoken)
    if find_kind(kind).bad_videos:
        for number in range(catches):
            add("catch", f"clip{number:02}", "catch")
    materials = Materials(kind, tuple(systems), tuple(videos), choices)
    config = check_config(
        StudyConfig(
            kind=kind,
            trials=replace(Trials(training=training), **trials),  # type: ignore[arg-type]
            questions=tuple(questions),
        )
    )
    (folder / "videos").mkdir(parents=True)
    for video in videos:
        (folder / video.file).touch()
    save_materials(folder, materials)
    (folder / "study.toml").write_text(as_toml(config), "utf-8")
    return Study(folder, config, materials)
