"""The mouth at twice the crops' scale: prepared from the source, and packed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.data.clips import Clip
from stillspeak.data.prepare import Summary, prepare
from stillspeak.errors import DataError
from stillspeak.face.align import canonical_face
from stillspeak.face.landmarks import Face
from stillspeak.models.regions import LOWER_BOX, MOUTH_BOX

T = 6
TOP, BOTTOM, LEFT, RIGHT = LOWER_BOX


def averaged(pictures: np.ndarray) -> np.ndarray:
    """Blocks of 2 x 2 pixels: (N, 2 H, 2 W, 3) -> (N, H, W, 3) float64."""
    N, H, W, C = pictures.shape
    return pictures.reshape(N, H // 2, 2, W // 2, 2, C).mean(axis=(2, 4))


def cut(pictures: np.ndarray) -> np.ndarray:
    """The region of crops (N, 128, 96, 3)."""
    return pictures[:, TOP:BOTTOM, LEFT:RIGHT]


def test_the_region_holds_the_mouth_and_lies_in_the_middle() -> None:
    top, bottom, left, right = MOUTH_BOX
    assert TOP < top < bottom < BOTTOM
    assert LEFT < left < right < RIGHT
    assert LEFT == 96 - RIGHT  # a mirrored crop has it in the same place
    assert (2 * (BOTTOM - TOP), 2 * (RIGHT - LEFT)) == (144, 144)


# ------------------------------------------------------------------- prepared


class Drifting:
    """A detector that needs no face: a tilted one of 3.4 times the crop's size that drifts."""

    version = "drifting"

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Face]:
        t, self.seen = self.seen % T, self.seen + 1
        canon, angle = canonical_face(), 0.15
        turn = 3.4 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = np.full((478, 2), 200, np.float32)
        points[list(canon.indices)] = canon.points @ turn.T + (95 + 1.7 * t, 10 + 2.3 * t)
        return [Face(points, {"jawOpen": 0.5}, 0.0, 0.0, 0.0)]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two videos of 512 x 512 pixels with detail finer than the crop's pixels."""
    root = tmp_path_factory.mktemp("corpus")
    coarse = np.random.default_rng(1).uniform(0, 255, (86, 86, 3)).astype(np.float32)
    picture = np.clip(cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC), 0, 255)
    made = []
    for speaker, split in (("s1", "train"), ("s2", "validation")):
        path = root / f"{speaker}.mp4"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=VIDEO_FPS, options={"crf": "8"})
            video.width, video.height, video.pix_fmt = 512, 512, "yuv444p"
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            for _ in range(T):
                frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            silence = np.zeros((1, T * SAMPLE_RATE // VIDEO_FPS), np.float32)
            sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = SAMPLE_RATE, 0
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
        made.append(Clip(speaker=speaker, stem=speaker, path=path, split=split, text=None))
    return made


run: Callable[..., Summary] = partial(prepare, detector_factory=Drifting, workers=0)


def test_the_prepared_mouth_is_the_crops_region_at_twice_the_scale(
    clips: list[Clip], tmp_path: Path
) -> None:
    run(clips[:1], tmp_path, mouth_scale=2)
    (cached,) = load_manifest(tmp_path)
    with open_clip(cached) as clip:
        mouth, frames = clip.get_tensor("mouth"), clip.get_tensor("frames")
        assert clip.metadata["mouth_scale"] == 2
    assert (mouth.dtype, mouth.shape) == (np.uint8, (T, 144, 144, 3))
    region = cut(frames).astype(float)
    error = np.abs(averaged(mouth) - region).mean()
    assert error < 1
    # Half a pixel of the mouth's grid anywhere else, and it would not match.
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        moved = np.roll(mouth, shift, axis=(1, 2))
        assert np.abs(averaged(moved) - region).mean() > 4 * error
    # It shows what the crop does not hold.
    enlarged = np.stack([cv2.resize(f, (144, 144), interpolation=cv2.INTER_CUBIC) for f in region])
    assert np.abs(enlarged - mouth).mean() > 4 * error


def test_without_it_keys_and_tensors_are_what_they_were(clips: list[Clip], tmp_path: Path) -> None:
    run(clips[:1], tmp_path / "plain")
    run(clips[:1], tmp_path / "zero", mouth_scale=0)
    run(clips[:1], tmp_path / "mouth", mouth_scale=2)
    plain, zero, mouth = (load_manifest(tmp_path / n)[0] for n in ("plain", "zero", "mouth"))
    assert plain.key == zero.key != mouth.key
    with open_clip(plain) as one, open_clip(mouth) as other:
        assert "mouth_scale" not in one.metadata
        with pytest.raises(Exception, match="mouth"):
            one.get_tensor("mouth")
        for name in ("frames", "audio", "landmarks", "blendshapes", "head_pose"):
            np.testing.assert_array_equal(one.get_tensor(name), other.get_tensor(name))


def test_a_key_is_the_hash_of_the_inputs_that_were_there_before(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches made before there was the setting stay good."""
    hashed: list[dict[str, object]] = []
    dumps = json.dumps

    def watched(value: object, **options: bool) -> str:
        if options.get("sort_keys"):
            assert isinstance(value, dict)
            hashed.append(value)
        return dumps(value, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(json, "dumps", watched)
    run(clips[:1], tmp_path)
    run(clips[:1], tmp_path, mouth_scale=2)
    before, after = hashed
    assert set(before) == {
        *("format", "source_sha256", "source", "speaker", "stem", "name", "split", "text"),
        *("words", "height", "width", "fps", "sample_rate", "smoothing", "canonical"),
        *("max_gap", "max_missed", "detector"),
    }
    assert set(after) - set(before) == {"mouth_scale", "mouth_box"}
    assert {name: after[name] for name in before} == before


def test_one_split_is_prepared_again_and_the_other_stays(clips: list[Clip], tmp_path: Path) -> None:
    run(clips, tmp_path)
    before = load_manifest(tmp_path)
    kept = before[1].file.read_bytes()
    seen = []
    again = partial(run, mouth_scale=2, splits=("train",))
    summary = again(clips, tmp_path, progress=lambda p: seen.append((p.done, p.total, p.clip)))
    assert (summary.prepared, summary.skipped, summary.frames) == (1, 0, T)
    assert seen == [(1, 1, clips[0])]
    after = load_manifest(tmp_path)
    assert [c.speaker for c in after] == ["s1", "s2"]
    assert after[0].key != before[0].key
    assert after[1] == before[1]
    assert after[1].file.read_bytes() == kept
    assert again(clips, tmp_path).skipped == 1  # the right key: never made again
    with pytest.raises(DataError, match="no clips of the split test"):
        run(clips, tmp_path, splits=("test",))


def test_other_scales_are_refused(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mouth_scale"):
        run(clips, tmp_path, mouth_scale=3)
