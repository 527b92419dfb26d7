"""How well the lips follow the sound on GRID speakers that the model never saw.

    python benchmarks/unseen_speakers.py --data CACHE [--model NAME] [--sheets docs/images]

For each clip the model gets the first frame and the sound. Lip openings are read by MediaPipe
from generated and from real frames alike, at crop size. Prints one line a clip, then medians;
with --sheets writes a contact sheet: still, real frames above generated frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stillspeak.data.dataset import ClipExample, whole_clip
from stillspeak.data.prepare import CachedClip, load_manifest, open_clip
from stillspeak.evaluation.measures.image_quality import psnr as grey_psnr
from stillspeak.evaluation.measures.image_quality import sharpness, ssim
from stillspeak.evaluation.measures.lips import lip_agreement, silent_frames, track_lips
from stillspeak.evaluation.measures.stability import lip_jitter, pixel_jitter
from stillspeak.evaluation.systems import CropAnimator
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import from_model
from stillspeak.training.losses import mouth_crop, psnr
from stillspeak.weights import load_model

BILABIAL = {"bin", "blue", "by", "place", "please", "b", "p", "m"}
"""Words of GRID that begin with closed lips."""


def main() -> None:
    """Parse arguments, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared cache")
    parser.add_argument("--model", default="default")
    parser.add_argument("--speakers", nargs="+", default=["s2", "s4"])
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()

    generator = load_model(arguments.model)
    clips = [c for c in load_manifest(arguments.data) if c.speaker in arguments.speakers]
    # Speakers in turn, so that a deep one does not crowd out a shallow one.
    clips.sort(key=lambda c: (arguments.speakers.index(c.speaker), c.name))
    clips = clips[: arguments.clips]
    rows = []
    with MediaPipeDetector(max_faces=1) as detector:
        for clip in clips:
            example = whole_clip(clip, generator.config)
            real = from_model(example.frames[0])
            if generator.config.decoder == "layers":
                with open_clip(clip) as tensors:
                    sound = tensors.get_tensor("audio")
                frames = CropAnimator(generator, detector).animate(real[0], sound)
            else:
                frames = generate(generator, example)
            row = score(clip, frames, real, detector)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if arguments.sheets:
                write_sheet(arguments.sheets, clip, frames, real)
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    medians = {key: round(float(np.nanmedian([row[key] for row in rows])), 3) for key in numbers}
    print(json.dumps({"median of": len(rows), **medians}))
    if arguments.output:
        arguments.output.write_text(json.dumps({"median": medians, "clips": rows}, indent=1))


@torch.inference_mode()
def generate(generator: Generator, example: ClipExample) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 from a clip's first frame and its sound."""
    noise = generator.draw_noise(1, example.windows.shape[1], torch.Generator().manual_seed(0))
    return from_model(generator(example.still, example.windows, noise)[0])


def score(
    clip: CachedClip, frames: np.ndarray, real: np.ndarray, detector: MediaPipeDetector
) -> dict[str, object]:
    """The numbers of one clip."""
    openings, truth = track_lips(frames, detector), track_lips(real, detector)
    agreement = lip_agreement(openings, truth)
    with open_clip(clip) as tensors:
        words = tensors.metadata.get("words") or []
    silent = silent_frames(words, len(real), 25) if words else np.zeros(len(real), bool)

    def decibel(a: np.ndarray) -> tuple[float, float]:
        x, y = (torch.from_numpy(v).permute(0, 3, 1, 2).float() / 127.5 - 1 for v in (a, real))
        return float(psnr(x, y)), float(psnr(mouth_crop(x), mouth_crop(y)))

    whole, mouth = decibel(frames)
    still_whole, still_mouth = decibel(np.repeat(real[:1], len(real), axis=0))
    values = {
        "correlation": agreement.correlation,
        "amplitude": agreement.amplitude,
        "found": agreement.found,
        "psnr": whole,
        "mouth_psnr": mouth,
        "still_psnr": still_whole,
        "still_mouth_psnr": still_mouth,
        "grey_psnr": grey_psnr(frames, real),
        "ssim": ssim(frames, real),
        "sharpness": sharpness(frames) / sharpness(real),
        "silence_jitter": pixel_jitter(frames, silent),
        "silence_jitter_real": pixel_jitter(real, silent),
        "silence_lip_jitter": lip_jitter(openings, silent),
        "silence_lip_jitter_real": lip_jitter(truth, silent),
        "lip_jitter": lip_jitter(openings),
        "lip_jitter_real": lip_jitter(truth),
        "silence_opening": mean(openings[silent]),
        "silence_opening_real": mean(truth[silent]),
        "stop_opening": mean(at_stops(openings, words)),
        "stop_opening_real": mean(at_stops(truth, words)),
        "speech_opening": mean(openings[~silent]),
        "speech_opening_real": mean(truth[~silent]),
    }
    rounded = {key: round(value, 3) for key, value in values.items()}
    return {"speaker": clip.speaker, "clip": clip.name, **rounded}


def at_stops(openings: np.ndarray, words: list[tuple[float, float, str]]) -> np.ndarray:
    """Smallest opening within two frames of the start of each word with a bilabial: b, p, m."""
    starts = [int(start * 25) for start, _, word in words if word in BILABIAL]
    near = [openings[max(frame - 2, 0) : frame + 3] for frame in starts]
    return np.array([np.nanmin(x) for x in near if np.isfinite(x).any()])


def mean(values: np.ndarray) -> float:
    """Mean of the finite values, NaN of none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def write_sheet(folder: Path, clip: CachedClip, frames: np.ndarray, real: np.ndarray) -> None:
    """The still and real frames above the same moments generated."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = np.linspace(8, len(real) - 10, 12).astype(int)
    blank = np.full_like(real[0], 255)
    sheet = contact_sheet(
        [[real[0], *(real[i] for i in moments)], [blank, *(frames[i] for i in moments)]]
    )
    Image.fromarray(sheet).save(folder / f"unseen-{clip.speaker}-{clip.name}.png")


if __name__ == "__main__":
    main()
