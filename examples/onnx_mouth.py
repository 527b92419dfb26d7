"""The mouth's poses of a sound, for an avatar of your own: ONNX Runtime and NumPy, no PyTorch.

    stillspeak export --onnx default model
    python examples/onnx_mouth.py model/hear.onnx speech.wav poses.npy

Takes 16-bit mono WAV at 16 kHz and writes (T, 41, 2), 25 poses a second: offsets x, y of the points
of the lips and the chin from lips that meet, in distances between the eyes.
"""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime


def main(arguments: list[str]) -> int:
    """Write the poses and return the exit code."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    graph, speech, output = arguments
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more are hardly faster
    session = onnxruntime.InferenceSession(graph, options)
    about = session.get_modelmeta().custom_metadata_map
    with wave.open(speech) as file:
        if file.getparams()[:3] != (1, 2, int(about["sample_rate"])):
            print(f"{speech}: not 16-bit mono at {about['sample_rate']} Hz", file=sys.stderr)
            return 1
        samples = np.frombuffer(file.readframes(-1), "<i2").astype(np.float32) / 32768
    made = np.array(list(poses(session, about, samples)))
    np.save(output, made)

    points = json.loads(about["pose_points"])  # of MediaPipe's face mesh
    gap = made[:, points.index(14), 1] - made[:, points.index(13), 1]  # the inner lips' middles
    widest = int(gap.argmax())
    seconds, percent = widest / int(about["fps"]), 100 * gap[widest]
    print(
        f"{output}: {len(made)} poses; the mouth opens widest at {seconds:.2f} s, "
        f"to {percent:.0f} % of the distance between the eyes"
    )
    return 0


def poses(session: Any, about: dict[str, str], samples: Any) -> Iterator[Any]:
    """(41, 2) for each frame of the sound. A live program gives windows as their sound comes."""
    hop, window, before, warm_up = (int(about[k]) for k in ("hop", "window", "before", "warm_up"))
    feed = {port.name: np.zeros(port.shape, np.float32) for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]
    # Silence before the first frame, and after the last.
    heard = np.pad(samples, (before + warm_up * hop, window - before - hop))
    for frame in range(-warm_up, len(samples) // hop):
        begin = (frame + warm_up) * hop
        feed["window"] = heard[None, begin : begin + window]
        made = dict(zip(names, session.run(names, feed), strict=True))
        feed.update({name: made[f"next_{name}"] for name in feed if name != "window"})
        if frame >= 0:
            yield made["pose"][0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
