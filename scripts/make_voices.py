"""Has Kokoro's voices speak GRID's sentences in the time in which the clips' people did.

    python scripts/make_voices.py CACHE OUT --kokoro kokoro.onnx --tokens config.json
        --voices VOICES --teacher model.bin [--count N]

CACHE is a prepared GRID cache; its training clips with word times are spoken. OUT becomes a folder
SPEAKER/STEM__VOICE.wav for pose_data.voices, with index.jsonl: one line for each attempt, whose
sound was kept if it is close to the clip's. Run again, it goes on where it stopped.

Kokoro's durations are set so that words begin and end as in the clip; what is left is evened out
along a path through the features of Whisper's third layer and cepstra. Nothing is downloaded:

    --kokoro    Kokoro 82M as ONNX, with the inputs tokens, style and speed
    --tokens    its JSON file with "vocab", the number of each phone
    --voices    its folder of voices, NAME.bin
    --teacher   whisper-base's weights in CTranslate2's format
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.constants import SAMPLE_RATE
from stillspeak.data.augment import time_warp
from stillspeak.data.cache import CachedClip, load_manifest, open_clip
from stillspeak.data.channel import level, noise
from stillspeak.data.layouts.grid import PAUSES, Word
from stillspeak.errors import DataError, MissingDependencyError, StillspeakError
from stillspeak.export.onnx import open_onnx
from stillspeak.media.audio import load_audio
from stillspeak.models.whisper import WhisperEncoder, read_ctranslate2
from stillspeak.system.atomic import claim, whole_file

Sound = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

_SPELLED = """
    bin=bˈɪn lay=lˈA place=plˈAs set=sˈɛt blue=blˈuː green=ɡɹˈiːn red=ɹˈɛd white=wˈIt at=æt by=bI
    in=ɪn with=wɪð a=ˈA b=bˈiː c=sˈiː d=dˈiː e=ˈiː f=ˈɛf g=ʤˈiː h=ˈAʧ i=ˈI j=ʤˈA k=kˈA l=ˈɛl m=ˈɛm
    n=ˈɛn o=ˈQ p=pˈiː q=kjˈuː r=ˈɑː s=ˈɛs t=tˈiː u=jˈuː v=vˈiː x=ˈɛks y=wˈI z=zˈɛd zero=zˈɪəɹQ
    one=wˈʌn two=tˈuː three=θɹˈiː four=fˈɔː five=fˈIv six=sˈɪks seven=sˈɛvən eight=ˈAt nine=nˈIn
    again=əɡˈɛn now=nˈW please=plˈiːz soon=sˈuːn
"""
SPELLED = dict(entry.split("=") for entry in _SPELLED.split())
"""GRID's words in Kokoro's British phones: A is eɪ, I aɪ, Q əʊ, W aʊ."""

AMERICAN = {"ɑː": "ɑɹ", "ɔː": "ɔɹ", "ɪəɹ": "ɪɹ", "Q": "O", "ː": ""}

LENGTHS, DURATIONS = "/encoder/Div_output_0", "/encoder/Clip_output_0"
"""Of Kokoro's graph: what it guesses a token lasts, and that in whole frames."""

RATE = 24_000
"""Kokoro's."""
FRAME = 40
"""Kokoro's frames in a second."""
EARLY = 0.075
"""Seconds that a phone sounds before its token's frames."""
STEPS = 100
"""Features in a second."""
BAND = 14
"""Steps that the path may stray."""
SMOOTH = 2.0
"""Deviation in steps by which the path is smoothed."""

MOST_COST, LEAST_ENVELOPE = 1.05, 0.6
"""What is kept: distance of features to the clip's, correlation of loudness with it."""


class Job(NamedTuple):
    """A clip, and the voice or two, joined by +, to speak it."""

    clip: CachedClip
    voice: str


class Kokoro:
    """Kokoro with the durations of its tokens laid open.

    Args:
        model: the whole graph, ONNX.
        tokens: JSON with the numbers of phones.
        voices: the folder.

    Raises:
        DataError: one of them is missing or another thing.
    """

    def __init__(self, model: Path, tokens: Path, voices: Path) -> None:
        try:
            self.numbers: dict[str, int] = json.loads(tokens.read_text("utf-8"))["vocab"]
            unknown = set(" ".join(SPELLED.values())) - set(self.numbers)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f'{tokens}: not Kokoro\'s JSON with a "vocab" ({error})') from error
        if unknown:
            raise DataError(f"{tokens}: has no phone {', '.join(sorted(unknown))}")
        self.voices = {path.stem: path for path in sorted(voices.glob("*.bin"))}
        if not self.voices:
            raise DataError(f"{voices}: holds no voices NAME.bin; give Kokoro's folder of them")
        with TemporaryDirectory() as folder:
            self._guess, self._speak = (open_onnx(part) for part in _halves(model, Path(folder)))

    def voice(self, name: str, tokens: int) -> Sound:
        """(1, 256): a voice's style for a sentence of so many tokens, or the mean of several."""
        styles = []
        for path in (self.voices[one] for one in name.split("+")):
            try:
                styles.append(np.fromfile(path, np.float32).reshape(510, 256)[tokens - 2])
            except ValueError as error:
                raise DataError(f"{path}: not one of Kokoro's voices") from error
        return np.mean(styles, 0, dtype=np.float32)[None]

    def lengths(self, tokens: Sequence[int], style: Sound) -> Array:
        """Frames that it would give each token, not rounded."""
        inputs = {"tokens": np.array([tokens]), "style": style, "speed": np.ones(1, np.float32)}
        found: Array = self._guess.run(None, inputs)[0][0].astype(np.float64)
        return found

    def speak(self, tokens: Sequence[int], style: Sound, frames: Array) -> Sound:
        """Sound at :data:`RATE` in which tokens last so many frames."""
        durations = frames.astype(np.float32)[None]
        inputs = {"tokens": np.array([tokens]), "style": style, DURATIONS: durations}
        sound: Sound = self._speak.run(None, inputs)[0].ravel()
        return sound


def _halves(model: Path, folder: Path) -> Iterator[Path]:
    """Kokoro's graph up to the durations, and the whole with them as an input."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "onnx is not installed; get it with: pip install 'stillspeak[onnx]'"
        ) from error
    try:
        whole = onnx.load(model)
        for name in (LENGTHS, DURATIONS):
            shape = [1, "tokens"]
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            whole.graph.value_info.append(info)
        parts = onnx.utils.Extractor(whole)
        for inputs, outputs in (
            (["tokens", "style", "speed"], [LENGTHS]),
            (["tokens", "style", DURATIONS], ["audio"]),
        ):
            onnx.save(parts.extract_model(inputs, outputs), folder / "part.onnx")
            yield folder / "part.onnx"
    except Exception as error:  # onnx raises what it likes
        raise DataError(f"{model}: not a Kokoro 82M that is known here ({error})") from error


def spelled(word: str, voice: str) -> str:
    """A word's phones as a voice says them, by the language in its name."""
    phones = SPELLED[word]
    if voice.startswith("a"):
        for british, american in AMERICAN.items():
            phones = phones.replace(british, american)
    return phones


def plan(clips: Sequence[CachedClip], voices: Sequence[str]) -> list[Job]:
    """Who says what: two clips of the speaker with most, then one of the others, and so on until
    the former have come twice. Voices take turns, English ones twice as often; some are mixed
    with another of the same sex."""
    random = np.random.default_rng(7)
    deepest, _ = Counter(clip.speaker for clip in clips).most_common(1)[0]
    rare = [clip for clip in clips if clip.speaker != deepest]
    deep = [clip for clip in clips if clip.speaker == deepest]
    rare = [rare[i] for _ in range(8) for i in random.permutation(len(rare))]
    deep = [deep[i] for _ in range(2) for i in random.permutation(len(deep))]
    order = []
    while deep:
        order += rare[:1] + deep[:2]
        rare, deep = rare[1:], deep[2:]
    often = [v for v in voices if v[0] in "ab"] * 2 + [v for v in voices if v[0] not in "ab"]
    jobs, turn = [], []
    for clip in order:
        turn = turn or [often[i] for i in random.permutation(len(often))]
        voice = turn.pop()
        alike = [other for other in voices if other != voice and other[1] == voice[1]]
        if random.random() < 0.15 and alike:
            voice += "+" + alike[random.integers(len(alike))]
        jobs.append(Job(clip, voice))
    return jobs


def spread(lengths: Array, total: int, phones: str) -> npt.NDArray[np.int64]:
    """Whole frames in proportion to lengths, ``total`` in all, and no sound without a frame."""
    cuts = np.rint(np.append(0, np.cumsum(lengths)) / lengths.sum() * total).astype(np.int64)
    frames = np.diff(cuts)
    for index, phone in enumerate(phones):
        if not frames[index] and phone not in "ˈː " and frames.max() > 1:
            frames[np.argmax(frames)] -= 1
            frames[index] = 1
    return frames


def in_time(words: Sequence[Word], phones: Sequence[str], lengths: Array) -> tuple[Array, int]:
    """Frames of each token, so that words begin and end when they should.

    Args:
        words: with their times.
        phones: of each word. Tokens are these with a space between words and a pause around.
        lengths: what Kokoro would give each token.

    Returns:
        Frames of each token, and the frame of the clip at which the first begins.
    """
    starts = [round(word.start * FRAME) for word in words]
    ends = [round(word.end * FRAME) for word in words]
    lead = min(starts[0], 6)
    frames = [lead]
    for k, (start, end, sounds) in enumerate(zip(starts, ends, phones, strict=True)):
        last = k == len(words) - 1
        pause = 0 if last else starts[k + 1] - end
        # The space is silent where there is time for it, else the end of the word.
        joined = "" if last or pause >= 2 else " "
        own = np.maximum(lengths[len(frames) :][: len(sounds + joined)], 0.3)
        if last:
            own[-1] = min(own[-1], 6)
        frames += spread(own, end - start + (pause if joined else 0), sounds + joined).tolist()
        if not last and not joined:
            frames.append(pause)
    return np.array([*frames, 5], float), starts[0] - lead


class Features:
    """What sounds are compared by.

    Args:
        teacher: Whisper's weights.
        usual: sounds whose mean and deviation are taken out.
    """

    def __init__(self, teacher: Path, usual: Sequence[Sound]) -> None:
        self._whisper = WhisperEncoder(read_ctranslate2(teacher), 3)
        self._cosines = np.cos(np.pi / 40 * np.outer(np.arange(40) + 0.5, np.arange(1, 14)))
        heard = np.concatenate([self._heard(level(sound, 0.05)) for sound in usual])
        self._mean, self._deviation = heard.mean(0), heard.std(0) + 1e-3

    @torch.inference_mode()
    def _heard(self, sound: Sound) -> Sound:
        """(n, 512) at :data:`STEPS`: of the sound and of it half a token later, in turns."""
        step = SAMPLE_RATE // STEPS
        late = np.pad(sound[step:], (0, step))
        both = self._whisper(torch.from_numpy(np.stack((sound, late))))[-1]
        return both.transpose(0, 1).flatten(0, 1).numpy()

    @torch.inference_mode()
    def __call__(self, sound: Sound, speech: slice) -> Array:
        """(n, 538): a dot product of two rows is their likeness, 1.35 at most.

        Args:
            sound: (S,).
            speech: the steps in which somebody speaks.
        """
        sound = level(sound, 0.05)
        heard = (self._heard(sound) - self._mean) / self._deviation
        heard = heard - heard[speech].mean(0) * 0.7
        heard /= np.linalg.norm(heard, axis=1, keepdims=True) + 1e-6
        bands = self._whisper.log_mel(torch.from_numpy(sound)[None])[0].T.numpy()
        cepstra = bands.reshape(len(bands), 40, 2).mean(2) @ self._cosines
        cepstra = (cepstra - cepstra[speech].mean(0)) / (cepstra[speech].std(0) + 1e-3)
        cepstra = np.hstack((cepstra, np.gradient(cepstra, axis=0) * 2))
        cepstra /= np.linalg.norm(cepstra, axis=1, keepdims=True) + 1
        return np.hstack((heard, cepstra[: len(heard)] * np.sqrt(0.35)))


def distance(one: Array, other: Array) -> Array:
    """(n, m) from features (n, k) and (m, k)."""
    return 1.35 - one @ other.T


def best_path(cost: Array, band: int = BAND, penalty: float = 0.03) -> Array:
    """The cheapest way from corner to corner, of slopes from 1/2 to 2: a column for each row."""
    size = len(cost)
    came = np.zeros((size, size), int)
    total = np.full((size + 1, size + 1), np.inf)  # one row and column ahead of cost
    total[1, 1] = cost[0, 0]
    for i in range(1, size):
        for j in range(max(1, i - band), min(size, i + band + 1)):
            here = cost[i, j]
            ways = (
                total[i, j] + here,
                total[i, j - 1] + (here + cost[i, j - 1]) / 2 + penalty,
                total[i - 1, j] + here + cost[i - 1, j] + penalty,
            )
            came[i, j] = int(np.argmin(ways))
            total[i + 1, j + 1] = ways[came[i, j]]
    i = j = size - 1
    path = [(i, j)]
    while i and j:
        down, right = ((1, 1), (1, 2), (2, 1))[came[i, j]]
        i, j = i - down, j - right
        path.append((i, j))
    rows, columns = np.array(path[::-1], float).T
    return np.interp(np.arange(size), rows, columns)


def smoothed(path: Array, deviation: float = SMOOTH) -> Array:
    """A path whose distance from the diagonal is smooth."""
    reach = int(4 * deviation)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    diagonal = np.arange(len(path))
    padded = np.pad(path - diagonal, reach, mode="edge")
    return diagonal + np.convolve(padded, window / window.sum(), "valid")


def loudness(sound: Sound) -> Array:
    """Logarithm of the power around each step."""
    power = np.convolve(np.square(sound, dtype=np.float64), np.ones(480) / 480, "same")
    return np.log10(power[:: SAMPLE_RATE // STEPS] + 1e-7)


def rms(sound: Sound) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) + 1e-6


def fitted(spoken: Sound, real: Sound, speech: slice, hear: Features) -> tuple[Sound, float, float]:
    """What Kokoro said, in the clip's time to some milliseconds.

    Args:
        spoken: at :data:`RATE`, from the clip's beginning on.
        real: the clip's, at 16 kHz.
        speech: the steps in which somebody speaks.
        hear: what they are compared by.

    Returns:
        (S,) at 16 kHz, at 0.07 RMS while somebody speaks; mean distance of its features to the
        clip's, and correlation of its loudness.
    """
    samples = slice(speech.start * SAMPLE_RATE // STEPS, speech.stop * SAMPLE_RATE // STEPS)

    def at_clip_rate(sound: Sound) -> Sound:
        sound = load_audio((sound, RATE))[: len(real)]
        sound = np.pad(sound, (0, len(real) - len(sound)))
        return sound * np.float32(0.07 / rms(sound[samples]))

    real = real * np.float32(0.07 / rms(real[samples]))
    # A clip is never quite silent: neither is what is compared with it.
    quiet = np.sort(np.convolve(real**2, np.ones(800) / 800, "same")[::400])
    hush = level(noise(len(real), np.random.default_rng(1)), rms(quiet[: len(quiet) // 10] ** 0.5))
    wanted = hear(real, speech)
    path = smoothed(best_path(distance(wanted, hear(at_clip_rate(spoken) + hush, speech))))
    step, steps = RATE // STEPS, np.arange(len(path))
    warped = time_warp(
        spoken,
        lambda at: float(np.interp(at / step, steps, path)) * step,
        len(spoken),
        RATE,
    )
    out = at_clip_rate(warped)
    apart = 1.35 - (wanted * hear(out + hush, speech)).sum(1)
    envelope = np.corrcoef(loudness(out), loudness(real))[0, 1]
    return out, float(apart[speech].mean()), float(envelope)


def word_times(clip: CachedClip) -> tuple[Sound, list[Word]]:
    """A clip's sound, and its words with their times: none where they are not known."""
    with open_clip(clip) as tensors:
        sound: Sound = tensors.get_tensor("audio")
        known = [Word(*word) for word in tensors.metadata.get("words") or ()]
    end = len(sound) / SAMPLE_RATE
    words = [Word(w.start, min(w.end, end), w.word) for w in known if w.word not in PAUSES]
    return sound, words if all(word.word in SPELLED for word in words) else []


def say(job: Job, kokoro: Kokoro, hear: Features) -> tuple[Sound, dict[str, Any]] | None:
    """A clip's sentence in another voice and what the index says of it; None without times."""
    real, words = word_times(job.clip)
    if not words:
        return None
    phones = [spelled(word.word, job.voice) for word in words]
    tokens = [0, *(kokoro.numbers[phone] for phone in " ".join(phones)), 0]
    style = kokoro.voice(job.voice, len(tokens))
    frames, first = in_time(words, phones, kokoro.lengths(tokens, style))
    sound = kokoro.speak(tokens, style, frames)
    sound[: RATE // 100] *= np.linspace(0, 1, RATE // 100, dtype=np.float32)
    spoken = np.zeros(len(real) * RATE // SAMPLE_RATE, np.float32)
    start = round((first / FRAME + EARLY) * RATE)
    sound = sound[: len(spoken) - start]
    spoken[start : start + len(sound)] = sound
    last = min(int(words[-1].end * STEPS) + 4, len(real) * STEPS // SAMPLE_RATE)
    speech = slice(max(int(words[0].start * STEPS) - 4, 0), last)
    out, cost, envelope = fitted(spoken, real, speech, hear)
    about = {
        "speaker": job.clip.speaker,
        "stem": job.clip.name,
        "voice": job.voice,
        "phones": " ".join(phones),
        "cost": round(cost, 4),
        "envelope": round(envelope, 3),
        "kept": cost <= MOST_COST and envelope >= LEAST_ENVELOPE,
    }
    return out, about


def write_sound(path: Path, sound: Sound) -> None:
    """16 bit at 16 kHz, there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.rint(sound.clip(-1, 1) * 32767).astype("<i2").tobytes())


def make(options: argparse.Namespace) -> None:
    """Fill the folder.

    Raises:
        StillspeakError: something that is needed is missing or another thing.
    """
    out: Path = options.out
    clips = [clip for clip in load_manifest(options.cache) if clip.split == "train"]
    if not clips:
        raise DataError(f"{options.cache}: holds no training clips")
    kokoro = Kokoro(options.kokoro, options.tokens, options.voices)
    jobs = plan(clips, list(kokoro.voices))
    hear = Features(options.teacher, [word_times(job.clip)[0] for job in jobs[:24]])
    out.mkdir(parents=True, exist_ok=True)
    index = out / "index.jsonl"
    with claim(out, DataError(f"{out}: another process writes there")):
        lines = index.read_text("utf-8").splitlines() if index.exists() else []
        done = {(row["speaker"], row["stem"], row["voice"]) for row in map(json.loads, lines)}
        for number, job in enumerate(jobs[: options.count]):
            if (job.clip.speaker, job.clip.name, job.voice) in done:
                continue
            said = say(job, kokoro, hear)
            if said is None:
                continue
            sound, about = said
            if about["kept"]:
                # Rooms are never quite silent.
                random = np.random.default_rng((number, 11))
                hush = 0.07 * 10 ** (-random.uniform(32, 60) / 20)
                sound = sound + level(noise(len(sound), random), hush)
                write_sound(out / job.clip.speaker / f"{job.clip.name}__{job.voice}.wav", sound)
            lines.append(json.dumps(about, ensure_ascii=False))
            with whole_file(index) as partial:
                partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            print(lines[-1], flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    for name in ("--kokoro", "--tokens", "--voices", "--teacher"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--count", type=int, help="how many of the plan's sentences; else all")
    try:
        make(parser.parse_args(arguments))
    except (StillspeakError, OSError) as error:
        print(f"make_voices: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
