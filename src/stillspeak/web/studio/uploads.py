"""Uploads: pictures with their faces, sounds, spoken texts and bundled samples.

Everything here is slow and runs in a worker thread. Error messages may be shown: they call a file
by the name that the visitor knows, never by its path on this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE
from stillspeak.errors import AudioError, InputError, MissingDependencyError
from stillspeak.web.studio.schemas import FaceOut, SpeechIn, warnings_out
from stillspeak.web.studio.storage import Item

if TYPE_CHECKING:
    from stillspeak.face.landmarks import LandmarkDetector
    from stillspeak.rendering.check import StillWarning

SOURCE = "source"
"""Name of an item's file as it was uploaded."""

PREVIEW = "preview.jpg"
WAVE = "sound.wav"

MAX_NAME = 100
"""Characters of a name that are kept."""

PREVIEW_SIDE = 1280
"""Longer side of the preview in pixels."""

CROP_SCALE = 2
"""Size of a face's crop as it is shown, in crops of the model."""

PEAKS = 240
"""Columns of a sound's outline."""

SPEAK_SECONDS = 30.0

_VOICE = re.compile(r"[a-z]{2,4}(-[a-z0-9-]{1,20})?")


@dataclass(eq=False, kw_only=True)
class Upload(Item):
    """A file that a visitor uploaded, recorded or had made."""

    name: str
    """What it is called; never a path."""

    @property
    def source(self) -> Path:
        return self.folder / SOURCE

    @property
    def url(self) -> str:
        return f"/api/{self.what}s/{self.id}"

    @property
    def original_url(self) -> str:
        return f"{self.url}/original"


@dataclass(eq=False, kw_only=True)
class PictureItem(Upload):
    """A picture."""

    what = "picture"
    width: int
    """Pixels, upright, as it is animated."""
    height: int
    faces: list[FaceOut]

    @property
    def preview_url(self) -> str:
        return f"{self.url}/preview"

    def crop(self, index: int) -> Path:
        return self.folder / f"crop-{index}.jpg"


@dataclass(eq=False, kw_only=True)
class SoundItem(Upload):
    """A sound."""

    what = "sound"
    seconds: float
    peaks: list[float]
    """Loudest sample of each of :data:`PEAKS` parts, the loudest of all being 1."""
    spoken: SpeechIn | None = None
    """Which text it speaks, if it was made here."""

    @property
    def audio_url(self) -> str:
        return f"{self.url}/audio"

    @property
    def text(self) -> str | None:
        return None if self.spoken is None else self.spoken.text


@dataclass(frozen=True)
class Voice:
    """A voice that eSpeak NG has."""

    id: str
    name: str


def read_picture(
    id: str, folder: Path, *, name: str, max_pixels: int, detector: LandmarkDetector
) -> PictureItem:
    """Find the faces of the picture in an item's folder; write its preview and its crops.

    Faces are the largest first. FaceError if none of them can be animated.
    """
    import numpy as np
    import PIL.Image

    from stillspeak.errors import FaceError
    from stillspeak.face.align import (
        crop_face,
        face_transform,
        invert_transform,
        transform_points,
    )
    from stillspeak.face.landmarks import choose_face
    from stillspeak.media.image import load_image
    from stillspeak.rendering.check import check_still
    from stillspeak.rendering.portrait import fit_picture

    # As the animator does it, so that faces have the same numbers.
    picture = fit_picture(load_image(folder / SOURCE, max_pixels=max_pixels, name=name), None)
    height, width = picture.shape[:2]
    item = PictureItem(id, folder, name=name, width=width, height=height, faces=[])
    found = detector.detect(picture)
    choose_face(found, name=name)
    right, bottom = FRAME_WIDTH - 0.5, FRAME_HEIGHT - 0.5
    outer = np.array([(-0.5, -0.5), (right, -0.5), (right, bottom), (-0.5, bottom)])
    problems: list[FaceError] = []
    for index, face in enumerate(found):
        problem: str | None = None
        warnings: tuple[StillWarning, ...] = ()
        try:
            warnings = check_still(picture, face, name=name)
        except FaceError as error:
            problems.append(error)
            problem = str(error).removeprefix(f"{name}: ")
        corners = transform_points(outer, invert_transform(face_transform(face.points)))
        x0, y0, x1, y1 = face.box
        item.faces.append(
            FaceOut(
                index=index,
                box=(x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height),
                crop=((corners + 0.5) / (width, height)).tolist(),
                eye_distance=face.eye_distance,
                yaw=face.yaw,
                problem=problem,
                warnings=warnings_out(warnings),
                crop_url=f"{item.url}/faces/{index}",
            )
        )
        larger = face_transform(face.points, scale=CROP_SCALE)
        size = CROP_SCALE * FRAME_HEIGHT, CROP_SCALE * FRAME_WIDTH
        crop = crop_face(picture, larger, *size)
        PIL.Image.fromarray(crop).save(item.crop(index), "JPEG", quality=90)
    if len(problems) == len(found):
        raise problems[0]
    shown = PIL.Image.fromarray(picture)
    shown.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), PIL.Image.Resampling.LANCZOS)
    # Made of pixels alone: nothing of the photo's metadata is in it.
    shown.save(folder / PREVIEW, "JPEG", quality=90)
    return item


def read_sound(
    id: str, folder: Path, *, name: str, max_seconds: float, spoken: SpeechIn | None = None
) -> SoundItem:
    """Decode the sound in an item's folder and write what browsers play of it."""
    import wave

    import numpy as np

    from stillspeak.animate import check_speech
    from stillspeak.media.audio import load_audio

    try:
        sound = load_audio(folder / SOURCE, max_seconds=max_seconds, name=name)
    except AudioError as error:
        # Visitors have no such option.
        raise AudioError(str(error).replace(", or raise the limit (max_seconds)", "")) from error
    check_speech(sound, SAMPLE_RATE, name)
    with wave.open(str(folder / WAVE), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())
    starts = np.linspace(0, len(sound), PEAKS, endpoint=False).astype(int)
    loudest = np.maximum.reduceat(np.abs(sound), starts)
    peaks = [round(float(p), 3) for p in loudest / loudest.max()]
    seconds = len(sound) / SAMPLE_RATE
    return SoundItem(id, folder, name=name, seconds=seconds, peaks=peaks, spoken=spoken)


def speaker() -> str | None:
    """The program that speaks text, or None where it is not installed."""
    return which("espeak-ng")


@cache
def voices(program: str) -> tuple[Voice, ...]:
    """The voices of eSpeak NG, English first; empty if it does not answer."""
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command, without a shell
            [program, "--voices"], capture_output=True, timeout=10, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    found: dict[str, Voice] = {}
    for line in answer.stdout.splitlines()[1:]:
        parts = line.split()
        if len(parts) >= 5 and _VOICE.fullmatch(parts[1]):
            found.setdefault(parts[1], Voice(parts[1], parts[3].replace("_", " ")))

    def english_first(voice: Voice) -> tuple[int, str]:
        order = {"en-gb": 0, "en-us": 1}
        return order.get(voice.id, 2 if voice.id.startswith("en") else 3), voice.name

    return tuple(sorted(found.values(), key=english_first))


def speak(folder: Path, spoken: SpeechIn) -> None:
    """Speak a text into an item's folder."""
    program = speaker()
    if program is None:
        raise MissingDependencyError(
            "text cannot be spoken: espeak-ng is not installed on this server; upload a sound"
        )
    if spoken.voice not in {voice.id for voice in voices(program)}:
        raise InputError(f"there is no voice {spoken.voice!r}; choose another")
    if not any(c.isalnum() for c in spoken.text):
        raise InputError("the text holds nothing to speak; type some words")
    target = folder / SOURCE
    # The text goes in through standard input, so that nothing in it is an option.
    command = [program, "-v", spoken.voice, "-s", str(spoken.speed), "-b", "1", "--stdin", "-w"]
    try:
        subprocess.run(  # noqa: S603 - no shell
            [*command, os.fspath(target)],
            input=spoken.text.encode(),
            capture_output=True,
            timeout=SPEAK_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError("the text takes too long to speak; shorten it") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("espeak-ng could not speak this text; try another") from error
    if not target.is_file() or target.stat().st_size == 0:
        raise InputError("espeak-ng made no sound of this text; try another")


@dataclass(frozen=True)
class Sample:
    """A bundled picture or sound to try at once."""

    id: str
    kind: str
    """picture or sound."""
    title: str
    credit: str
    file_name: str


_NASA, _ESPEAK = "NASA, public domain", "spoken by eSpeak NG"
SAMPLES = {
    sample.id: sample
    for sample in (
        Sample("collins", "picture", "Eileen Collins", _NASA, "collins.png"),
        Sample("collins-close", "picture", "The same, closer", _NASA, "collins-close.png"),
        Sample("sentence", "sound", "Seven seconds of English", _ESPEAK, "speech.flac"),
    )
}


def write_sample(folder: Path, sample: Sample) -> None:
    """Put the file of a sample into an item's folder."""
    if sample.kind == "sound":
        speech = files("stillspeak").joinpath("resources", sample.file_name)
        (folder / SOURCE).write_bytes(speech.read_bytes())
        return
    import PIL.Image
    from skimage.data import astronaut

    picture = PIL.Image.fromarray(astronaut())  # type: ignore[no-untyped-call]
    if sample.id == "collins-close":
        picture = picture.crop((84, 0, 324, 300))
    picture.save(folder / SOURCE, "PNG")


def shown_name(name: str | None, default: str) -> str:
    """What messages call a file: its last part, one line, without what cannot be seen."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    # Controls could break lines, and marks of direction could turn a name around.
    clean = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    clean = " ".join(clean.split())
    if len(clean) > MAX_NAME:
        stem, dot, suffix = clean.rpartition(".")
        end = dot + suffix if stem and len(suffix) <= 8 else ""
        clean = clean[: MAX_NAME - len(end) - 1] + "…" + end
    return clean if clean.strip(".") else default
