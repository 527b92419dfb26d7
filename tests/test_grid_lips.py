"""The released weights on real clips of a speaker that they never saw."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.data.corpora import find_grid, grid_root
from stillspeak.data.dataset import whole_clip
from stillspeak.data.prepare import prepare
from stillspeak.evaluation.measures.lips import lip_agreement, silent_frames, track_lips
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.models.pixels import from_model

animator_class = import_module("stillspeak.animate").Animator

CLIPS = {"lrbe6s", "prbc9n"}


@pytest.mark.grid
@pytest.mark.e2e
def test_lips_follow_the_sound_of_an_unseen_speaker(tmp_path: Path) -> None:
    root = grid_root()
    if root is None:
        pytest.skip("no GRID clips: set STILLSPEAK_GRID")
    chosen = [c for c in find_grid(root) if c.speaker == "s2" and c.stem in CLIPS]
    assert len(chosen) == len(CLIPS)
    assert {c.split for c in chosen} == {"test"}
    prepare(chosen, tmp_path, workers=1)
    agreements, quiet, loud = [], [], []
    with MediaPipeDetector(max_faces=1) as detector, animator_class(detector=detector) as animator:
        generator = animator.generator
        for clip in load_manifest(tmp_path):
            example = whole_clip(clip, generator.config)
            real = from_model(example.frames[0])
            with open_clip(clip) as tensors:
                sound = tensors.get_tensor("audio")
                words = tensors.metadata["words"]
            photo = np.pad(real[0], ((32, 32), (32, 32), (0, 0)), mode="edge")
            animation = animator.animate(photo, (sound, 16_000), crop=True)
            generated = track_lips(animation, detector)
            agreements.append(lip_agreement(generated, track_lips(real, detector)))
            silent = silent_frames(words, len(real), 25)
            quiet.append(np.nanmean(generated[silent]))
            loud.append(np.nanmean(generated[~silent]))
    assert np.median([a.correlation for a in agreements]) > 0.5
    assert np.median([a.amplitude for a in agreements]) > 0.4
    assert np.mean(quiet) < np.mean(loud)  # the mouth rests where nothing is said
