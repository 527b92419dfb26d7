"""The mouth at twice the crops' scale: prepared from the source, and in training's batches."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.augment import augment_frames
from stillspeak.data.clips import Clip
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import (
    Batch,
    TrainingData,
    enlarge_region,
    read_frames,
    read_mouths,
    whole_clip,
)
from stillspeak.data.pack import pack, unpack
from stillspeak.data.prepare import CachedClip, Summary, load_manifest, open_clip, prepare
from stillspeak.errors import DataError
from stillspeak.face import Face
from stillspeak.face.align import canonical_face
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.pixels import from_model, to_model
from stillspeak.models.regions import LOWER_BOX, MOUTH_BOX, crop_region

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


# ------------------------------------------------------------------- enlarged


def fine(examples: int, count: int, grain: int = 8) -> np.ndarray:
    """Pictures (examples, count, 256, 192, 3) uint8 whose smallest spots are ``grain`` wide."""
    random = np.random.default_rng(2)
    shape = (256 // grain + 1, 192 // grain + 1, 3)
    made = [
        cv2.resize(random.uniform(0, 255, shape), (192, 256), interpolation=cv2.INTER_CUBIC)
        for _ in range(examples * count)
    ]
    return np.clip(made, 0, 255).astype(np.uint8).reshape(examples, count, 256, 192, 3)


def halves(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of pictures (N, 256, 192, 3): crops (N, 128, 96, 3) and mouths (N, 144, 144, 3) uint8."""
    crops = np.rint(averaged(pictures)).astype(np.uint8)
    return crops, pictures[:, 2 * TOP : 2 * BOTTOM, 2 * LEFT : 2 * RIGHT]


def test_an_enlarged_region_has_its_pixels_in_place() -> None:
    crops, mouths = halves(fine(3, 1, grain=12)[:, 0])
    large = enlarge_region(crops)
    assert (large.dtype, large.shape) == (np.uint8, (3, 144, 144, 3))
    region = cut(crops).astype(float)
    error = np.abs(averaged(large) - region).mean()
    assert error < 1.5
    assert np.abs(large.astype(float) - mouths).mean() < 4
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        assert np.abs(averaged(np.roll(large, shift, axis=(1, 2))) - region).mean() > 2 * error
    # What lies around the box counts: its rim is drawn as well as its middle.
    rim = np.abs(averaged(large) - region)[:, :, [0, -1]].mean()
    assert rim < 1.5 * error
    assert enlarge_region(crops[:0]).shape == (0, 144, 144, 3)


def test_a_mirrored_crop_has_a_mirrored_region() -> None:
    crops, _ = halves(fine(1, 1)[:, 0])
    mirrored = enlarge_region(np.ascontiguousarray(crops[:, :, ::-1]))
    assert np.abs(mirrored[:, :, ::-1].astype(int) - enlarge_region(crops)).max() <= 1


# ------------------------------------------------------------------- augmented


def in_mouth_box(region: torch.Tensor) -> torch.Tensor:
    """Mouths (..., 144, 144), averaged 2 x 2, inside ``MOUTH_BOX``: (..., 40, 52)."""
    small = torch.nn.functional.avg_pool2d(region.flatten(0, -4), 2).unflatten(0, region.shape[:-3])
    top, bottom, left, right = MOUTH_BOX
    return small[..., top - TOP : bottom - TOP, left - LEFT : right - LEFT]


@pytest.mark.parametrize(
    "changes",
    [
        {"rotate": 6.0},
        {"scale": 0.1},
        {"shift": 3.0},
        {"warp": 2.0},
        {"gain": 0.4, "gamma": 0.5, "colour": 0.3},
        {"rotate": 4.0, "scale": 0.06, "shift": 3.0, "warp": 2.0, "gain": 0.2, "colour": 0.1},
    ],
)
def test_a_mouth_changes_as_its_frame_does(changes: dict[str, float]) -> None:
    nothing = dict.fromkeys(("rotate", "scale", "shift", "warp", "gain", "gamma", "colour"), 0.0)
    config = AugmentConfig(**(nothing | changes))
    # Smooth, so that the blur of the crop's coarser grid does not count as a difference.
    pictures = fine(4, 2, grain=24)
    crops, mouths = halves(pictures.reshape(8, 256, 192, 3))
    frames = to_model(crops).unflatten(0, (4, 2))
    large = to_model(mouths).unflatten(0, (4, 2))
    points = torch.full((4, 2, 478, 2), 50.0)
    changed, moved, mouth = augment_frames(frames, points, config, np.random.default_rng(3), large)
    assert mouth.shape == large.shape
    assert mouth.abs().max() <= 1
    expected = crop_region(changed, "mouth")
    error = (in_mouth_box(mouth) - expected).abs().mean()
    before = (in_mouth_box(large) - expected).abs().mean()
    assert error < 0.012  # one and a half of 255 levels
    assert before > 6 * error  # without the change it would be far off
    # No draw depends on the mouths.
    again, points_again, none = augment_frames(frames, points, config, np.random.default_rng(3))
    assert torch.equal(changed, again)
    assert torch.equal(moved, points_again)
    assert none.shape == (4, 2, 0, 0, 0)


def test_nothing_changes_a_mouth_where_nothing_changes_the_frame() -> None:
    config = AugmentConfig(rotate=0, scale=0, shift=0, warp=0, gain=0, gamma=0, colour=0)
    crops, mouths = halves(fine(2, 1, grain=4)[:, 0])
    large = to_model(mouths)[:, None]
    points = torch.zeros(2, 1, 478, 2)
    _, _, mouth = augment_frames(
        to_model(crops)[:, None], points, config, np.random.default_rng(0), large
    )
    torch.testing.assert_close(mouth, large, atol=1e-3, rtol=0)


# ------------------------------------------------------------------- batches

DATA = DataConfig(batch=3, window_frames=10, decoded_frames=3, lead_frames=2)
MOUTHS = replace(DATA, mouth_pixels=True)


@pytest.fixture
def cache(tmp_path: Path, write_clip: Callable[..., CachedClip]) -> list[CachedClip]:
    """Two clips: ``one`` has mouths whose pixels are finer than its frames', ``two`` has none."""
    made = []
    for name in ("one", "two"):
        crops, mouths = halves(fine(24, 1, grain=16)[:, 0])
        clip = write_clip(tmp_path, name=name, pictures=crops)
        if name == "one":
            with open_clip(clip) as opened:
                header = {key: json.dumps(value) for key, value in opened.metadata.items()}
            save_file(
                load_file(clip.file) | {"mouth": np.ascontiguousarray(mouths)},
                clip.file,
                metadata=header,
            )
        made.append(clip)
    return made


def batch(clips: list[CachedClip], config: DataConfig, step: int = 0) -> Batch:
    return TrainingData(clips, config, AugmentConfig(), GeneratorConfig(), seed=4).batch(step)


@pytest.mark.parametrize("step", range(3))
def test_all_else_in_a_batch_stays_the_same(cache: list[CachedClip], step: int) -> None:
    without, given = batch(cache, DATA, step), batch(cache, MOUTHS, step)
    old = without._fields[:-2]
    assert old[-1] == "expression"
    for name in old:
        assert torch.equal(getattr(without, name), getattr(given, name)), name
    assert without.still_mouth.shape == (3, 0, 0, 0)
    assert without.frame_mouths.shape == (3, 3, 0, 0, 0)


@pytest.mark.parametrize("which", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_mouths_of_a_batch_are_its_frames(cache: list[CachedClip], which: slice) -> None:
    """Mirrored or not, of clips that were prepared with mouths, without, and of both."""
    for step in range(4):
        made = batch(cache[which], MOUTHS, step)
        assert made.still_mouth.shape == (3, 3, 144, 144)
        assert made.frame_mouths.shape == (3, 3, 3, 144, 144)
        assert made.still_mouth.dtype == made.frame_mouths.dtype == torch.float32
        for mouths, frames in (
            (made.still_mouth, made.still),
            (made.frame_mouths, made.frames),
        ):
            assert mouths.abs().max() <= 1
            assert (in_mouth_box(mouths) - crop_region(frames, "mouth")).abs().mean() < 0.025


def test_mouths_are_read_where_they_are_kept(cache: list[CachedClip]) -> None:
    wanted = np.array([7, 0, 7])
    with open_clip(cache[0]) as clip:
        np.testing.assert_array_equal(
            read_mouths(cache[0], wanted), clip.get_tensor("mouth")[wanted]
        )
    frames, _ = read_frames(cache[1], wanted)
    np.testing.assert_array_equal(read_mouths(cache[1], wanted), enlarge_region(frames))


def test_a_whole_clip_has_its_stills_mouth(cache: list[CachedClip]) -> None:
    for clip in cache:
        example = whole_clip(clip, GeneratorConfig(), every=5)
        assert example._fields[-1] == "still_mouth"
        assert example.still_mouth.shape == (1, 3, 144, 144)
        np.testing.assert_array_equal(
            from_model(example.still_mouth), read_mouths(clip, np.array([0]))
        )


def test_mouths_are_packed_as_video(cache: list[CachedClip], tmp_path: Path) -> None:
    packed = pack(cache[0].file.parents[1], tmp_path / "parts")
    unpack(tmp_path / "parts", tmp_path / "there")
    assert packed.bytes < sum(clip.file.stat().st_size for clip in cache) / 4
    wanted = np.arange(24)
    for old, new in zip(cache, load_manifest(tmp_path / "there"), strict=True):
        error = read_mouths(old, wanted).astype(float) - read_mouths(new, wanted)
        assert np.abs(error).mean() < 3
    with open_clip(load_manifest(tmp_path / "there")[0]) as clip:
        assert clip.get_tensor("mouth").shape == (24, 144, 144, 3)
