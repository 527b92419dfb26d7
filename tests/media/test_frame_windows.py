"""Audio windows, one for each video frame."""

import numpy as np
import pytest

from stillspeak.media.audio import frame_windows


@pytest.mark.parametrize(("window", "hop"), [(2560, 640), (640, 640), (12, 4), (7, 3)])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_windows_are_centred_on_their_frame(window, hop, extra):
    audio = np.arange(1, 5 * hop + extra + 1, dtype=np.float32)
    windows = frame_windows(audio, window, hop)
    assert windows.shape == (5, window)
    assert windows.dtype == np.float32
    side = (window - hop) // 2
    for t in range(5):
        for n in (0, side, side + hop - 1, window - 1):
            s = t * hop - side + n
            assert windows[t, n] == (audio[s] if 0 <= s < audio.size else 0.0)


def test_windows_share_one_buffer():
    windows = frame_windows(np.ones(640 * 100, np.float32), 2560, 640)
    assert windows.strides == (640 * 4, 4)
    assert np.shares_memory(windows[0], windows[1])
    assert not windows.flags.writeable
    assert not windows.flags.owndata
    first, last = np.lib.array_utils.byte_bounds(windows)
    assert last - first == (99 * 640 + 2560) * 4


def test_windows_of_too_little_sound():
    assert frame_windows(np.ones(639, np.float32), 2560, 640).shape == (0, 2560)
    assert frame_windows(np.ones(0, np.float32), 2560, 640).shape == (0, 2560)
    assert frame_windows(np.ones(640, np.float32), 2560, 640).sum() == 640


@pytest.mark.parametrize(("window", "hop"), [(639, 640), (640, 0), (640, -2), (641, 640)])
def test_windows_that_do_not_fit(window, hop):
    with pytest.raises(ValueError, match="window"):
        frame_windows(np.ones(2000, np.float32), window, hop)


def test_windows_of_stereo_are_refused():
    with pytest.raises(ValueError, match="shape"):
        frame_windows(np.ones((2000, 2), np.float32), 640, 640)
