"""From what a visitor hands in to what can be animated: pictures with their faces, sounds.

Everything here takes its time and is called in a worker thread. Messages of errors are fit to be
shown: they call a file by the name that the visitor knows, never by its place on this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE
from stillspeak.errors import AudioError, InputError, MissingDependencyError
from stillspeak.web.studio.storage import Item

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stillspeak.face.landmarks import LandmarkDetector
    from stillspeak.rendering.check import StillWarning

SOURCE = "source"
"""Name of an item's file as it was handed in."""

PREVIEW = "preview.jpg"
WAVE = "sound.wav"

PREVIEW_SIDE = 1280
"""Longer side of the preview in pixels."""

CROP_SCALE = 2
"""Size of a face's crop as it is shown, in crops of the model."""

PEAKS = 240
"""Columns of a sound's outline."""

SPEAK_SECONDS = 30.0
"""Time that speaking a text may take."""

SLOWEST, FASTEST = 80, 300
"""Words a minute that can be asked for."""

_VOICE = re.compile(r"[a-z]{2,4}(-[a-z0-9-]{1,20})?")


@dataclass(frozen=True)
class FoundFace:
    """A face in a picture; places are shares of the picture's width and height."""

    index: int
    box: tuple[float, float, float, float]
    """Left, top, width, height."""
    crop: tuple[tuple[float, float], ...]
    """Corners of what the model sees, clockwise from its top left."""
    eye_distance: float
    """Pixels between the eyes."""
    yaw: float
    """Degrees; positive: the nose points to the picture's right."""
    problem: str | None
    """Why it cannot be animated, if so."""
    warnings: tuple[StillWarning, ...] = ()
    """What makes its video worse."""


@dataclass(eq=False)
class PictureItem(Item):
    """An uploaded picture."""

    name: str = ""
    width: int = 0
    """Pixels, upright, as it is animated."""
    height: int = 0
    faces: tuple[FoundFace, ...] = field(default=())

    @property
    def source(self) -> Path:
        return self.folder / SOURCE

    @property
    def preview(self) -> Path:
        return self.folder / PREVIEW

    def crop(self, index: int) -> Path:
        return self.folder / f"crop-{index}.jpg"


@dataclass(eq=False)
class SoundItem(Item):
    """An uploaded, recorded or spoken sound."""

    name: str = ""
    seconds: float = 0.0
    peaks: tuple[float, ...] = field(default=())
    """Loudest sample of each of :data:`PEAKS` parts, the loudest of all being 1."""
    spoken: Spoken | None = None
    """Which text it speaks, if it was made here."""

    @property
    def source(self) -> Path:
        return self.folder / SOURCE

    @property
    def wave(self) -> Path:
        return self.folder / WAVE


@dataclass(frozen=True)
class Spoken:
    """How a sound was made from text."""

    text: str
    voice: str
    speed: int


@dataclass(frozen=True)
class Voice:
    """A voice that eSpeak NG has."""

    id: str
    name: str


def look_at_picture(
    folder: Path, *, name: str, max_pixels: int, detector: LandmarkDetector
) -> tuple[int, int, tuple[FoundFace, ...]]:
    """Find the faces of the picture in an item's folder; write its preview and its crops.

    Returns:
        Width and height in pixels, and the faces, the largest first, at least one of them usable.

    Raises:
        ImageError: it cannot be read, or has too many pixels.
        FaceError: no usable face.
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
    found = detector.detect(picture)
    choose_face(found, name=name)
    size = np.array([width, height], float)
    outer = np.array(
        [(0, 0), (FRAME_WIDTH, 0), (FRAME_WIDTH, FRAME_HEIGHT), (0, FRAME_HEIGHT)], float
    )
    faces: list[FoundFace] = []
    problems: list[FaceError] = []
    for index, face in enumerate(found):
        problem: str | None = None
        warnings: tuple[StillWarning, ...] = ()
        try:
            warnings = check_still(picture, face, name=name)
        except FaceError as error:
            problems.append(error)
            problem = str(error).removeprefix(f"{name}: ")
        corners = transform_points(outer - 0.5, invert_transform(face_transform(face.points)))
        x0, y0, x1, y1 = face.box
        faces.append(
            FoundFace(
                index=index,
                box=(x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height),
                crop=tuple((float(x), float(y)) for x, y in (corners + 0.5) / size),
                eye_distance=face.eye_distance,
                yaw=face.yaw,
                problem=problem,
                warnings=warnings,
            )
        )
        crop = crop_face(
            picture,
            face_transform(face.points, scale=CROP_SCALE),
            CROP_SCALE * FRAME_HEIGHT,
            CROP_SCALE * FRAME_WIDTH,
        )
        PIL.Image.fromarray(crop).save(folder / f"crop-{index}.jpg", "JPEG", quality=90)
    if len(problems) == len(faces):
        raise problems[0]
    shown = PIL.Image.fromarray(picture)
    shown.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), PIL.Image.Resampling.LANCZOS)
    # Made of pixels alone: nothing of the photo's metadata is in it.
    shown.save(folder / PREVIEW, "JPEG", quality=90)
    return width, height, tuple(faces)


def listen_to_sound(
    folder: Path, *, name: str, max_seconds: float
) -> tuple[float, tuple[float, ...]]:
    """Decode the sound in an item's folder and write what browsers play of it.

    Returns:
        Seconds, and :data:`PEAKS` numbers in [0, 1] to draw it with.

    Raises:
        AudioError: it cannot be read, or is too long, too short or silent.
    """
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
    return len(sound) / SAMPLE_RATE, _peaks(sound)


def _peaks(sound: npt.NDArray[np.float32]) -> tuple[float, ...]:
    import numpy as np

    starts = np.linspace(0, len(sound), PEAKS, endpoint=False).astype(int)
    peaks = np.maximum.reduceat(np.abs(sound), starts)
    return tuple(round(float(p), 3) for p in peaks / peaks.max())


# --- text ---------------------------------------------------------------------------------------


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


def speak(folder: Path, spoken: Spoken) -> None:
    """Speak a text into an item's folder.

    Raises:
        MissingDependencyError: eSpeak NG is not installed.
        InputError: no such voice, or nothing to speak.
    """
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
    try:
        # The text goes in through standard input, so that nothing in it is an option.
        subprocess.run(  # noqa: S603 - no shell
            [
                *(program, "-v", spoken.voice, "-s", str(spoken.speed), "-b", "1"),
                *("--stdin", "-w", os.fspath(target)),
            ],
            input=spoken.text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SPEAK_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError("the text takes too long to speak; shorten it") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError("espeak-ng could not speak this text; try another") from error
    if not target.is_file() or target.stat().st_size == 0:
        raise InputError("espeak-ng made no sound of this text; try another")


# --- samples ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A bundled picture or sound to try at once."""

    id: str
    kind: str
    """picture or sound."""
    title: str
    credit: str
    file_name: str


SAMPLES: dict[str, Sample] = {
    sample.id: sample
    for sample in (
        Sample(
            "collins",
            "picture",
            "Eileen Collins",
            "NASA, public domain",
            "collins.png",
        ),
        Sample(
            "collins-close",
            "picture",
            "The same, closer",
            "NASA, public domain",
            "collins-close.png",
        ),
        Sample(
            "sentence",
            "sound",
            "Seven seconds of English",
            "spoken by eSpeak NG",
            "speech.flac",
        ),
    )
}


def write_sample(folder: Path, sample: Sample) -> None:
    """Put a sample's file into an item's folder.

    Raises:
        OSError: it cannot be written.
    """
    if sample.kind == "sound":
        from importlib.resources import files

        speech = Path(str(files("stillspeak"))) / "resources" / "speech.flac"
        (folder / SOURCE).write_bytes(speech.read_bytes())
        return
    import numpy as np
    import PIL.Image
    from skimage.data import astronaut

    picture = astronaut()  # type: ignore[no-untyped-call]
    if sample.id == "collins-close":
        picture = np.ascontiguousarray(picture[:300, 84:324])
    PIL.Image.fromarray(picture).save(folder / SOURCE, "PNG")
