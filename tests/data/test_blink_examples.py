"""Examples that show a blink, and how often each speaker is heard."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stillspeak.data import dataset
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import TrainingData
from stillspeak.data.prepare import load_manifest
from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig

BLINK = 11
DATA = DataConfig(batch=6, window_frames=8, decoded_frames=2, lead_frames=2, blinks=1.0)


@pytest.fixture
def made(speaking_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes training data of which each clip is shut-eyed in frame BLINK alone."""

    def closed(tensors, landmarks):
        expression = np.zeros((len(landmarks), 2), np.float32)
        expression[BLINK, 0] = 0.5
        return expression

    def make(**changes) -> TrainingData:
        monkeypatch.setattr(dataset, "clip_expression", closed)
        clips = [c for c in load_manifest(speaking_cache) if c.split == "train"]
        config = replace(DATA, **changes)
        return TrainingData(clips, config, AugmentConfig(), GeneratorConfig(), seed=0)

    return make


@pytest.mark.parametrize("consecutive", [False, True])
def test_every_example_asked_for_holds_a_blink(made, consecutive: bool) -> None:
    data = made(consecutive=consecutive, first_frame=1.0, other_clip=0.0)
    for step in range(4):
        batch = data.batch(step)
        # The stills are first frames with open eyes. A change of pace may read past one frame.
        shown = batch.expression[..., 0].amax(1)
        assert (shown > 0.4).float().mean() > 0.8
        positions = batch.positions
        assert (positions >= DATA.lead_frames).all() and (positions < DATA.window_frames).all()
        steps = positions.diff(dim=1)
        assert (steps == 1).all() if consecutive else (steps > 0).all()


def test_at_its_own_pace_a_blink_is_never_missed(made, speaking_cache: Path) -> None:
    clips = [c for c in load_manifest(speaking_cache) if c.split == "train"]
    made()  # closes the eyes
    config = replace(DATA, first_frame=1.0, other_clip=0.0, consecutive=True)
    data = TrainingData(clips, config, AugmentConfig(speed=0.0), GeneratorConfig(), seed=0)
    for step in range(4):
        assert (data.batch(step).expression[..., 0].amax(1) > 0.4).all()


def test_without_blinks_in_the_clips_examples_are_as_ever(
    made, speaking_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made()
    for track in data._tracks:
        object.__setattr__(track, "blinks", np.zeros(0, np.int64))
    data._blinking = {speaker: [] for speaker in data._blinking}
    batch = data.batch(0)
    assert len(batch.frames) == DATA.batch


def test_a_share_of_the_examples_is_asked_for(made) -> None:
    half = made(blinks=0.5, first_frame=1.0, other_clip=0.0)
    shown = [
        float((half.batch(s).expression[..., 0].amax(1) > 0.4).float().mean()) for s in range(12)
    ]
    assert 0.3 < np.mean(shown) < 0.8


def test_balance_of_the_warm_start_is_its_own(made) -> None:
    counts = np.array([900.0, 1.0, 1.0])
    alike = dataset.balanced(counts, 1.0)
    by_clip = dataset.balanced(counts, 0.0)
    assert alike == pytest.approx([1 / 3] * 3) and by_clip[0] == pytest.approx(900 / 902)
    data = made(audio_speaker_balance=0.2, blinks=0.0)
    same = made(blinks=0.0)
    # Pictures are drawn as before.
    assert np.array_equal(data.batch(3).frames.numpy(), same.batch(3).frames.numpy())


@pytest.mark.parametrize("name", ["blinks", "audio_speaker_balance"])
def test_shares_lie_between_none_and_all(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        DataConfig(**{name: 1.5})
