"""A study's videos: copies in ``videos/`` under names that reveal nothing, and in
``materials.json`` the truth of which video is whose.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stillspeak.errors import ConfigError, StudyError
from stillspeak.system.configuration import build, configuration, read_json

TRUTH = "materials.json"
VIDEOS = "videos"
VERSION = 1

Role = Literal["main", "training", "catch"]


@configuration("videos")
class Video:
    """One video of a study, as decoded.

    Attributes:
        system: whose it is; ``real`` or ``fake`` in a Turing test.
        item: what it shows, the same for all systems: the source's name without suffix.
        role: ``main``, ``training`` or ``catch`` (obviously bad).
        type: MIME type.
        words: spoken, for lip reading.
        source: the file it came from, for the researcher.
    """

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    file: str
    system: str
    item: str
    role: Role
    type: str
    seconds: Annotated[float, Field(ge=0)]
    fps: float
    width: int
    height: int
    sound: bool
    words: tuple[str, ...]
    source: str
    sha256: str


@configuration("materials")
class Materials:
    """All videos of a study. ``choices``: lip reading, the words to pick from at each place."""

    kind: str
    systems: Annotated[tuple[str, ...], Field(min_length=1)]
    videos: tuple[Video, ...]
    choices: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = ()

    def of(self, role: Role) -> dict[str, dict[str, Video]]:
        """Videos of a role: item -> system -> video, items in order of name."""
        table: dict[str, dict[str, Video]] = {}
        for video in sorted(self.videos, key=lambda v: (v.item, v.system)):
            if video.role == role:
                table.setdefault(video.item, {})[video.system] = video
        return table

    def fingerprint(self) -> str:
        """Changes with the videos and what they are; a database of answers belongs to one."""
        rows = sorted((v.id, v.system, v.item, v.role, v.sha256) for v in self.videos)
        return hashlib.sha256(json.dumps([self.kind, rows]).encode()).hexdigest()[:32]

    def consistent(self) -> bool:
        """Whether every video is a different one, and of a system of the study."""
        cells = {(video.role, video.item, video.system) for video in self.videos}
        return (
            len({video.id for video in self.videos}) == len(cells) == len(self.videos)
            and len(set(self.systems)) == len(self.systems)
            and all(
                v.system in (("catch",) if v.role == "catch" else self.systems) for v in self.videos
            )
        )


def load_materials(folder: str | Path) -> Materials:
    """Read what ``study init`` wrote, and check that the videos are there.

    Raises:
        StudyError: no study, a damaged file, or a missing video.
    """
    folder = Path(folder)
    path = folder / TRUTH
    try:
        table = read_json(path.read_bytes())
    except OSError as error:
        raise StudyError(
            f"{folder}: holds no {TRUTH} ({(error.strerror or str(error)).lower()}); "
            "make a study with: stillspeak study init"
        ) from error
    except ValueError as error:
        raise StudyError(f"{path}: is damaged ({error}); make the study again") from error
    version = table.pop("version", None) if isinstance(table, dict) else None
    if version is not None and version != VERSION:
        raise StudyError(f"{path}: is of version {version}, this program's {VERSION}")
    try:
        materials = build(Materials, table, name=str(path))
    except ConfigError as error:
        raise StudyError(f"{error}; the file is damaged, make the study again") from error
    if version is None or not materials.consistent():
        raise contradiction(folder)
    for video in materials.videos:
        if not re.fullmatch(r"videos/[0-9a-f]{16}\.(mp4|webm)", video.file):
            raise StudyError(f"{path}: names a file outside the study: {video.file}")
        if not (folder / video.file).is_file():
            raise StudyError(f"{folder / video.file}: is missing; make the study again")
    return materials


def contradiction(folder: str | Path) -> StudyError:
    """The error of materials that cannot be those of one study."""
    return StudyError(
        f"{Path(folder) / TRUTH}: is damaged (its videos, names and words contradict each "
        "other); make the study again"
    )


def save_materials(folder: Path, materials: Materials) -> None:
    """Write the file that :func:`load_materials` reads."""
    table = {"version": VERSION} | asdict(materials)
    (folder / TRUTH).write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")
