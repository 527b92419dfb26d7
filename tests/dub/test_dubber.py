"""Frames in, frames with a new mouth out."""

from collections.abc import Iterator

import numpy as np
import pytest

from stillspeak.dub.cover import FADE, LASTS, MouthCover, shares
from stillspeak.dub.dubber import (
    COVERED_MOUTH,
    MOST,
    NO_FACE,
    Dubber,
    DubFrame,
    DubStats,
    _Tracked,
    _with_shapes,
)
from stillspeak.errors import ConfigError, NoFaceError
from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.face.mouth import OUTER_LIPS
from stillspeak.face.tracker import TrackedFace
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from support.portrait import detector, portrait, portrait_face

__all__ = ["detector", "portrait", "portrait_face"]

Picture = np.ndarray


@pytest.fixture(scope="module")
def dubber(detector: MediaPipeDetector) -> Dubber:
    return Dubber(detector=detector)


def speech(seconds: float) -> np.ndarray:
    """Bursts of a buzz, as loud as speech."""
    t = np.arange(round(seconds * 16_000)) / 16_000
    buzz = np.sign(np.sin(2 * np.pi * 120 * t)) * (np.sin(2 * np.pi * 3 * t) > 0)
    return (0.2 * buzz).astype(np.float32)


def swaying(portrait: Picture, count: int) -> list[Picture]:
    """The portrait moved a few pixels to and fro."""
    return [np.roll(portrait, round(4 * np.sin(k / 4)), axis=1) for k in range(count)]


def covered(picture: Picture, face: Face, shift: int = 0) -> Picture:
    """Something blue before the mouth."""
    lips = face.points[list(OUTER_LIPS)]
    x0, y0 = (lips.min(axis=0) - 25).astype(int)
    x1, y1 = (lips.max(axis=0) + 25).astype(int)
    out = picture.copy()
    out[y0:y1, x0 + shift : x1 + shift] = (40, 60, 150)
    return out


def dubbed(
    dubber: Dubber, frames: list[Picture], sound: np.ndarray, rate: float = 25.0
) -> tuple[list[Picture | None], DubStats]:
    stats = DubStats()
    given = (DubFrame(picture, k * 25 / rate, k) for k, picture in enumerate(frames))
    appearance = dubber.appearance([frames[:5]])
    out = []
    for k, (frame, picture, box) in enumerate(dubber.draw(given, [sound], appearance, stats=stats)):
        assert frame.token == k
        if picture is not None:
            x0, y0, x1, y1 = box
            outside = (picture != frame.picture).any(axis=2)
            outside[y0:y1, x0:x1] = False
            assert not outside.any()
        out.append(picture)
    return out, stats


def test_every_frame_gets_the_mouth_that_is_heard(dubber: Dubber, portrait: Picture) -> None:
    frames = swaying(portrait, 30)
    out, stats = dubbed(dubber, frames, speech(1.2))
    assert stats.drawn == 30 and not stats.reasons
    silent, _ = dubbed(dubber, frames, np.zeros(16_000, np.float32))
    apart = [np.abs(a.astype(int) - b).max() for a, b in zip(out, silent, strict=True)]
    assert np.median(apart) > 15


def test_a_faster_film_hears_the_same_moments(dubber: Dubber, portrait: Picture) -> None:
    still = [portrait] * 40
    (slow, _), (fast, _) = (dubbed(dubber, still, speech(0.8), rate) for rate in (25.0, 50.0))

    def apart(later: int) -> float:
        pairs = ((slow[k], fast[2 * k + later]) for k in range(5, 15))
        return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))

    assert apart(0) < 0.5 * apart(-6) and apart(0) < 0.5 * apart(6)


def test_frames_without_a_face_stay(dubber: Dubber, portrait: Picture) -> None:
    frames = swaying(portrait, 30)
    frames[10:22] = [np.zeros_like(portrait)] * 12
    out, stats = dubbed(dubber, frames, speech(1.2))
    assert all(picture is None for picture in out[10:22])
    assert stats.reasons == {NO_FACE: 12} and stats.drawn == 18


def test_what_is_before_the_mouth_stays_in_front(
    dubber: Dubber, portrait: Picture, portrait_face: Face
) -> None:
    frames = [portrait] * 30
    frames[12:20] = [covered(portrait, portrait_face)] * 8
    out, stats = dubbed(dubber, frames, speech(1.2))
    assert all(picture is None for picture in out[12:20])
    assert stats.reasons == {COVERED_MOUTH: 8}
    # It does not come back at once.
    bare = dubbed(dubber, [portrait] * 30, speech(1.2))[0]
    before = [np.abs(a.astype(int) - portrait).sum() for a in (out[11], bare[11])]
    assert before[0] < 0.5 * before[1]


def test_a_flash_before_the_mouth_is_an_error_of_the_eye() -> None:
    hidden = [False] * 10 + [True] * (LASTS - 1) + [False] * 10
    assert [share for _, share in shares(enumerate(hidden))] == [1.0] * len(hidden)


def test_a_drawing_gives_way_smoothly() -> None:
    hidden = [False] * 10 + [True] * 5 + [False] * 10
    frames, found = zip(*shares(enumerate(hidden)), strict=True)
    assert frames == tuple(range(25))
    assert found[10:15] == (0.0,) * 5
    assert found[: 10 - FADE] == (1.0,) * (10 - FADE)
    assert np.all(np.diff(found[10 - FADE - 1 : 11]) < 0)


def test_shares_hold_back_no_more_than_they_say() -> None:
    asked = 0

    def frames() -> Iterator[tuple[int, bool]]:
        nonlocal asked
        for asked in range(100):
            yield asked, False

    first = next(shares(frames()))
    assert first == (0, 1.0) and asked == LASTS + FADE


def test_pursed_lips_are_not_covered(portrait: Picture, portrait_face: Face) -> None:
    cover = MouthCover()
    for _ in range(3):
        cover.add(portrait, portrait_face.points)
    assert not cover.before(portrait, portrait_face.points)
    assert cover.before(covered(portrait, portrait_face), portrait_face.points)


def test_what_is_before_the_mouth_is_not_taken_for_lips(
    dubber: Dubber, portrait: Picture, portrait_face: Face
) -> None:
    bare = [np.roll(portrait, k, axis=0) for k in range(6)]
    hidden = [covered(portrait, portrait_face)] * 3
    alone, mixed = (dubber.appearance([bare + more]).mouth for more in ([], hidden))
    assert np.abs(alone.rest - mixed.rest).max() < 1e-6
    assert len(mixed.closed) == len(alone.closed)
    assert np.array_equal(mixed.cheeks, alone.cheeks)


def test_nobody_in_a_film(dubber: Dubber, portrait: Picture) -> None:
    with pytest.raises(NoFaceError, match=r"a\.mp4"):
        dubber.appearance([[np.zeros_like(portrait)]], name="a.mp4")


def test_a_model_that_paints_whole_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="use 'default'"):
        Dubber(Generator(GeneratorConfig(decoder="unet")))


def moments(count: int, rate: float, cut: int | None = None) -> list[tuple[_Tracked, float]]:
    """Frames of a mouth that moves evenly, and differently from a cut on."""
    found = []
    for k in range(count):
        place = k * 25 / rate
        shape = np.full((41, 2), place if cut is None or k < cut else 100.0)
        face = TrackedFace(np.zeros((478, 2), np.float32), 0, k == cut, 1.0)
        found.append((_Tracked(DubFrame(np.zeros((2, 2, 3), np.uint8), place), face, shape), 1.0))
    return found


@pytest.mark.parametrize("rate", [12.5, 25.0, 30.0, 60.0])
def test_shapes_are_averaged_without_lag(rate: float) -> None:
    frames = moments(40, rate)
    out = list(_with_shapes(frames))
    assert [one for one, _, _ in out] == [one for one, _ in frames]
    even = [shape[0, 0] - one.frame.place for one, _, shape in out[10:-10]]
    assert np.abs(even).max() < 1e-9


def test_shapes_are_not_averaged_over_a_cut() -> None:
    out = [shape[0, 0] for _, _, shape in _with_shapes(moments(20, 25.0, cut=10))]
    assert max(out[:10]) <= 9 and out[10:] == [100.0] * 10


def test_few_frames_are_held_back_however_many_there_are_a_second() -> None:
    asked = 0

    def frames() -> Iterator[tuple[_Tracked, float]]:
        nonlocal asked
        for one in moments(60, 240.0):
            asked += 1
            yield one

    next(_with_shapes(frames()))
    assert asked == MOST + 1
