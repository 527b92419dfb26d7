"""Training examples: pure functions of (seed, step, number), with sound and picture in step."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillspeak.data.cache import CachedClip, load_manifest, open_clip
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import (
    AudioBatch,
    Batch,
    TrainingData,
    read_frames,
    whole_clip,
)
from stillspeak.data.device_dataset import DeviceDataset
from stillspeak.data.loader import open_loader
from stillspeak.errors import ConfigError, DataError
from stillspeak.face.mouth import MIRRORED_PAIRS, mouth_distances
from stillspeak.media.audio import frame_windows
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.pixels import from_model

HOP = 640
GENERATOR = GeneratorConfig()
NOTHING = AugmentConfig(**{field.name: 0.0 for field in fields(AugmentConfig)})
SMALL = DataConfig(
    batch=3, window_frames=10, decoded_frames=3, lead_frames=2, audio_batch=4, audio_window_frames=9
)
Write = Callable[..., CachedClip]


@pytest.fixture(scope="module")
def clips(speaking_cache: Path) -> list[CachedClip]:
    return [clip for clip in load_manifest(speaking_cache) if clip.split == "train"]


def data(
    clips: list[CachedClip],
    augment: AugmentConfig = NOTHING,
    config: DataConfig = SMALL,
    seed: int = 5,
) -> TrainingData:
    return TrainingData(clips, config, augment, GENERATOR, seed=seed)


def same(first: Batch | AudioBatch, second: Batch | AudioBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def tensors(clip: CachedClip) -> dict[str, np.ndarray]:
    with open_clip(clip) as opened:
        return {name: opened.get_tensor(name) for name in ("frames", "audio", "landmarks")}


def find_start(windows: np.ndarray, clips: list[CachedClip]) -> tuple[CachedClip, int]:
    """The clip and the frame at which an unchanged stretch (T, N) of windows begins."""
    for clip in clips:
        whole = frame_windows(tensors(clip)["audio"], GENERATOR.window, HOP)
        for first in range(len(whole) - len(windows) + 1):
            if np.allclose(whole[first : first + len(windows)], windows, atol=1e-6):
                return clip, first
    raise AssertionError("these windows are of no clip")


# ------------------------------------------------------------------- batches


def test_shapes_types_and_ranges(clips: list[CachedClip]) -> None:
    batch = data(clips, AugmentConfig()).batch(0)
    assert {name: (tuple(t.shape), t.dtype) for name, t in batch._asdict().items()} == {
        "windows": ((3, 10, 2560), torch.float32),
        "mouth": ((3, 10, 7), torch.float32),
        "still": ((3, 3, 128, 96), torch.float32),
        "frames": ((3, 3, 3, 128, 96), torch.float32),
        "positions": ((3, 3), torch.int64),
    }
    for name in ("windows", "still", "frames"):
        values = getattr(batch, name)
        assert values.abs().max() <= 1
        assert values.std() > 0.01
    assert (batch.positions >= 2).all()
    assert (batch.positions < 10).all()
    assert (batch.positions.diff(dim=1) > 0).all()
    sound = data(clips, AugmentConfig()).audio_batch(0)
    assert sound.windows.shape == (4, 9, 2560)
    assert sound.mouth.shape == (4, 9, 7)
    assert sound.windows.dtype == sound.mouth.dtype == torch.float32


@pytest.mark.parametrize("kind", ["batch", "audio_batch"])
def test_a_batch_is_a_pure_function_of_seed_step_and_part(
    clips: list[CachedClip], kind: str
) -> None:
    def make(source: TrainingData, *args: int) -> Batch | AudioBatch:
        return getattr(source, kind)(*args)

    first, again = data(clips, AugmentConfig()), data(clips, AugmentConfig())
    expected = make(first, 3)
    for step in (0, 7):  # whatever was drawn before
        make(again, step)
    assert same(make(again, 3), expected)
    assert same(make(again, 3, 0), expected)
    assert not same(make(again, 4), expected)
    assert not same(make(again, 3, 1), expected)
    assert not same(make(data(clips, AugmentConfig(), seed=6), 3), expected)


@pytest.mark.parametrize("kind", ["batch", "audio_batch"])
def test_parts_of_a_step_are_one_large_batch_cut_up(clips: list[CachedClip], kind: str) -> None:
    small = data(clips, AugmentConfig(), config=replace(SMALL, batch=2, audio_batch=2))
    large = data(clips, AugmentConfig(), config=replace(SMALL, batch=6, audio_batch=6))
    parts = [getattr(small, kind)(5, part) for part in range(3)]
    whole = getattr(large, kind)(5)
    assert same(type(whole)(*map(torch.cat, zip(*parts, strict=True))), whole)


def test_decoded_frames_in_a_row(clips: list[CachedClip]) -> None:
    row = replace(SMALL, consecutive=True, window_frames=9, decoded_frames=4, lead_frames=3)
    source = data(clips, AugmentConfig(), config=row)
    positions = torch.cat([source.batch(step).positions for step in range(8)])
    assert torch.all(positions.diff(dim=1) == 1)
    assert set(positions[:, 0].tolist()) == {3, 4, 5}


def test_windows_are_centred_on_their_frames(clips: list[CachedClip]) -> None:
    source = data(clips, config=SMALL)
    starts = set()
    for step in range(4):
        batch = source.batch(step)
        for b in range(3):
            clip, first = find_start(batch.windows[b].numpy(), clips)
            starts.add(first)
            content = tensors(clip)
            at = first + batch.positions[b].numpy()
            shown = from_model(batch.frames[b])
            assert np.abs(shown.astype(int) - content["frames"][at]).max() <= 1
            mouth = mouth_distances(content["landmarks"])
            normal = (mouth - mouth.mean(0)) / np.maximum(mouth.std(0), 0.25)
            np.testing.assert_allclose(
                batch.mouth[b], normal[first : first + 10], atol=1e-4, rtol=0
            )
    assert len(starts) > 2


def test_mouth_and_frames_follow_a_change_of_speed(tmp_path: Path, write_clip: Write) -> None:
    # Sound and opening both rise evenly with time, so that each tells the time.
    frames = 60
    ramp = np.arange(frames * HOP) / (frames * HOP)
    pictures = np.empty((frames, 128, 96, 3), np.uint8)
    pictures[:] = (np.arange(frames) * 4)[:, None, None, None]
    clip = write_clip(
        tmp_path,
        frames=frames,
        audio=ramp,
        opening=2 + np.arange(frames) / 8,
        pictures=pictures,
    )
    opening = mouth_distances(tensors(clip)["landmarks"])[:, 0]
    source = data([clip], AugmentConfig(**{**as_dict(NOTHING), "speed": 0.25}))
    speeds = []
    for step in range(20):
        batch = source.batch(step)
        for b in range(3):
            from_mouth = batch.mouth[b, :, 0].numpy() * opening.std() + opening.mean()
            times = (from_mouth - 2) * 8
            speed = np.diff(times).mean()
            speeds.append(speed)
            np.testing.assert_allclose(np.diff(times), speed, atol=1e-3)
            # The sample at which each window's own frame begins.
            margin = (2560 - HOP) // 2
            from_sound = batch.windows[b, :, margin].numpy() * frames
            np.testing.assert_allclose(from_sound, times, atol=2e-3)
            shown = (batch.frames[b, :, 0, 0, 0].numpy() + 1) * 127.5 / 4
            assert np.abs(shown - times[batch.positions[b]]).max() <= 0.51
    assert 0.79 < min(speeds) < 0.9
    assert 1.1 < max(speeds) < 1.26
    assert any(speed == pytest.approx(1, abs=1e-4) for speed in speeds)


def as_dict(config: AugmentConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def test_a_mirrored_example_is_mirrored_throughout(tmp_path: Path, write_clip: Write) -> None:
    random = np.random.default_rng(0)
    landmarks = random.uniform(5, 90, (24, 478, 2))
    pictures = random.integers(0, 255, (24, 128, 96, 3), np.uint8)
    clip = write_clip(tmp_path, landmarks=landmarks, pictures=pictures)
    plain = data([clip]).batch(0)
    mirrored = data([clip], AugmentConfig(**{**as_dict(NOTHING), "mirror": 1.0})).batch(0)
    assert torch.equal(plain.positions, mirrored.positions)
    for name in ("still", "frames"):
        torch.testing.assert_close(
            getattr(mirrored, name), getattr(plain, name).flip(-1), atol=1e-3, rtol=0
        )
    assert torch.equal(mirrored.mouth, plain.mouth[..., list(MIRRORED_PAIRS)])
    assert torch.equal(mirrored.windows, plain.windows)
    assert not torch.equal(mirrored.mouth, plain.mouth)


# ------------------------------------------------------- who and which still


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory, write_clip: Write) -> list[CachedClip]:
    """Clips whose sound and red channel tell the speaker, green the clip, blue the frame."""
    folder = tmp_path_factory.mktemp("coded")
    clips = []
    for code, (speaker, count) in enumerate([("a", 6), ("b", 2), ("c", 1)]):
        for number in range(count):
            pictures = np.empty((20, 128, 96, 3), np.uint8)
            pictures[..., 0] = 10 + 40 * code
            pictures[..., 1] = 10 + 20 * number
            pictures[..., 2] = (np.arange(20) * 10)[:, None, None]
            clips.append(
                write_clip(
                    folder,
                    speaker,
                    f"clip{number}",
                    frames=20,
                    audio=np.full(20 * HOP, 0.1 * (code + 1)),
                    pictures=pictures,
                )
            )
    return clips


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (0.0, [6 / 9, 2 / 9, 1 / 9]),
        (1.0, [1 / 3, 1 / 3, 1 / 3]),
        (0.5, [0.504, 0.291, 0.206]),  # square roots: 2.449, 1.414 and 1 of 4.863
    ],
)
def test_speaker_balance(coded: list[CachedClip], balance: float, expected: list[float]) -> None:
    config = DataConfig(**small(audio_batch=300, audio_window_frames=2, speaker_balance=balance))
    source = data(coded, config=config, seed=1)
    codes = torch.cat([source.audio_batch(s).windows[:, 0, 1280] for s in range(4)])
    drawn = np.bincount((codes * 10).round().int().numpy() - 1, minlength=3) / len(codes)
    np.testing.assert_allclose(drawn, expected, atol=0.045)  # three deviations of 1,200 draws
    assert source.speakers == {"a": 6, "b": 2, "c": 1}
    assert len(source) == 9


def stills(source: TrainingData, batches: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The colours (R, G, B) of each example's still and of its first frame."""
    for step in range(batches):
        batch = source.batch(step)
        still, frames = from_model(batch.still), from_model(batch.frames[:, 0])
        for b in range(len(still)):
            yield still[b, 0, 0].astype(int), frames[b, 0, 0].astype(int)


def test_a_still_is_of_the_frames_speaker(coded: list[CachedClip]) -> None:
    source = data(coded, config=DataConfig(**small(other_clip=1.0, first_frame=0.0)))
    other_clips, moments = 0, set()
    for still, frame in stills(source, 30):
        assert abs(still[0] - frame[0]) <= 1  # the speaker
        other_clips += abs(still[1] - frame[1]) > 5
        moments.add(still[2])
    assert 20 < other_clips < 88  # of 90: the draw may give the clip itself
    assert len(moments) > 10


def small(**changes: Any) -> dict[str, Any]:
    return {field.name: getattr(SMALL, field.name) for field in fields(SMALL)} | changes


def test_a_still_of_the_clip_itself(coded: list[CachedClip]) -> None:
    source = data(coded, config=DataConfig(**small(other_clip=0.0, first_frame=0.0)))
    moments = set()
    for still, frame in stills(source, 20):
        assert np.abs(still[:2] - frame[:2]).max() <= 1
        moments.add(still[2])
    assert len(moments) > 10


def test_the_first_frame_as_the_still(coded: list[CachedClip]) -> None:
    source = data(coded, config=DataConfig(**small(first_frame=1.0)))
    assert all(still[2] <= 1 for still, _ in stills(source, 5))
    mixed = data(coded, config=DataConfig(**small(first_frame=0.5)))
    first = np.mean([still[2] <= 1 for still, _ in stills(mixed, 40)])
    assert 0.35 < first < 0.7


# ------------------------------------------------------------------ refusals


def test_no_clip_long_enough(clips: list[CachedClip]) -> None:
    for given in ([], clips):
        with pytest.raises(DataError, match="no training clip of 40 frames"):
            data(given, config=DataConfig(window_frames=40))


def test_short_clips_are_left_out(tmp_path: Path, write_clip: Write) -> None:
    short = write_clip(tmp_path, "a", "short", frames=9)
    exact = write_clip(tmp_path, "b", "exact", frames=10)
    source = data([short, exact], AugmentConfig(speed=0.2))
    assert source.speakers == {"b": 1}
    for step in range(5):  # a stretch of all its frames can be slowed but never sped up
        assert source.batch(step).windows.shape == (3, 10, 2560)


def test_a_cache_of_another_size_or_rate(tmp_path: Path, write_clip: Write) -> None:
    clip = write_clip(tmp_path)
    with pytest.raises(DataError, match=r"prepared as 128x96.*wants 64x96"):
        TrainingData([clip], SMALL, NOTHING, GeneratorConfig(height=64), seed=0)
    with pytest.raises(DataError, match=r"640 samples a frame.*wants 1920"):
        TrainingData([clip], SMALL, NOTHING, GeneratorConfig(sample_rate=48_000), seed=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 0}, r"data\.batch: must be greater than 0"),
        ({"audio_window_frames": 0}, r"data\.audio_window_frames: must be greater"),
        ({"lead_frames": -1}, r"data\.lead_frames: must be at least 0"),
        ({"window_frames": 5, "lead_frames": 3, "decoded_frames": 3}, "must hold lead_frames"),
        ({"speaker_balance": 1.1}, r"data\.speaker_balance: must be at most 1"),
        ({"other_clip": -0.1}, r"data\.other_clip"),
        ({"first_frame": float("nan")}, r"data\.first_frame"),
    ],
)
def test_configurations_that_make_no_sense(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DataConfig(**changes)


# --------------------------------------------------------------- whole clips


def test_whole_clip(clips: list[CachedClip]) -> None:
    clip = clips[0]
    content = tensors(clip)
    example = whole_clip(clip, GENERATOR, every=3)
    assert example.positions.tolist() == [list(range(0, 20, 3))]
    assert example.windows.shape == (1, 20, 2560)
    np.testing.assert_array_equal(
        example.windows[0], frame_windows(content["audio"], GENERATOR.window, HOP)
    )
    np.testing.assert_array_equal(from_model(example.frames[0]), content["frames"][::3])
    np.testing.assert_array_equal(from_model(example.still)[0], content["frames"][0])


def test_read_frames_in_any_order(clips: list[CachedClip]) -> None:
    content = tensors(clips[0])
    frames = read_frames(clips[0], np.array([7, 0, 7]))
    np.testing.assert_array_equal(frames, content["frames"][[7, 0, 7]])


# ---------------------------------------------------------------- prefetcher


class Numbers:
    """Stands for TrainingData: says which step was asked for."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.asked: list[tuple[str, int, int]] = []

    def batch(self, step: int, part: int) -> tuple[str, int, int]:
        if step == self.fail_at:
            raise DataError(f"step {step} is broken")
        self.asked.append(("frames", step, part))
        return self.asked[-1]

    def audio_batch(self, step: int, part: int) -> tuple[str, int, int]:
        self.asked.append(("audio", step, part))
        return self.asked[-1]


def prefetch(source: Numbers, steps: range, **options: Any) -> Generator[Any, None, None]:
    return open_loader(source, steps, **options)  # type: ignore[arg-type]


def ours() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("stillspeak-prefetch")]


def test_prefetcher_keeps_the_order_and_the_warm_start() -> None:
    loader = prefetch(Numbers(), range(3, 8), audio_steps=5, parts=(1, 3))
    got = list(loader)
    loader.close()
    kinds = {3: "audio", 4: "audio", 5: "frames", 6: "frames", 7: "frames"}
    assert got == [(kind, s, part) for s, kind in kinds.items() for part in (1, 3)]
    assert ours() == []


def test_prefetcher_hands_over_an_exception_at_its_step() -> None:
    loader = prefetch(Numbers(fail_at=2), range(9), audio_steps=0)
    got = []
    with pytest.raises(DataError, match="step 2 is broken"):
        for item in loader:
            got.append(item)
    loader.close()
    assert [step for _, step, _ in got] == [0, 1]
    assert ours() == []


def test_prefetcher_makes_no_more_than_its_depth_and_closes_at_once() -> None:
    source = Numbers()
    loader = prefetch(source, range(1000), audio_steps=0)
    assert next(loader)[1] == 0
    deadline = time.monotonic() + 5
    while len(source.asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(source.asked) == 4  # one taken, three ahead
    assert len(ours()) == 1
    loader.close()
    assert ours() == []
    assert len(source.asked) <= 5


def test_prefetcher_without_steps() -> None:
    loader = prefetch(Numbers(), range(5, 5), audio_steps=0)
    assert list(loader) == []
    loader.close()


# ------------------------------------------------------------------- on a device


def on_device(clips: list[CachedClip], augment: AugmentConfig = NOTHING) -> DeviceDataset:
    return DeviceDataset(clips, SMALL, augment, GENERATOR, seed=5, device=torch.device("cpu"))


def test_both_back_ends_follow_one_plan(clips: list[CachedClip]) -> None:
    """Without changes of sound, whose numbers differ, they hear the same stretches."""
    for step, part in ((0, 0), (3, 1)):
        ours, theirs = on_device(clips).batch(step, part), data(clips).batch(step, part)
        for name in Batch._fields:
            a, b = getattr(ours, name), getattr(theirs, name)
            assert (a.shape, a.dtype) == (b.shape, b.dtype), name
            assert name not in ("windows", "mouth") or torch.allclose(a, b, atol=1e-4), name
    heard = zip(on_device(clips).audio_batch(2), data(clips).audio_batch(2), strict=True)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in heard)


def test_a_device_s_batches_are_a_function_of_step_and_part(clips: list[CachedClip]) -> None:
    augment = AugmentConfig(audio_reverb=0.5, audio_mask=0.5, pitch=0.2)
    one, two = on_device(clips, augment), on_device(clips, augment)
    assert same(one.batch(4, 1), two.batch(4, 1))
    assert not same(one.batch(4, 1), two.batch(4, 0))
    assert same(one.audio_batch(4), two.audio_batch(4))
    assert (len(one), one.speakers) == (3, {"a": 2, "b": 1})
