"""What the pose predictor learns: to move the lips as real speakers do, for any voice.

Lips come from prepared clips, speaker by speaker; voices are theirs, the same with another pitch
and other formants, or others that speak the same sentence in the same time. Clips and moments
without speech, in which the mouth is at rest, follow on one another in sequences of some seconds,
which pass a channel and the speech encoder once; then steps are cheap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.augment import draw_factor, other_voice
from stillspeak.data.cache import CachedClip, open_clip
from stillspeak.data.channel import ChannelConfig, level, music, noise, through_channel
from stillspeak.data.sampling import SpeakerSampler
from stillspeak.errors import ConfigError, DataError
from stillspeak.face.mouth import (
    mirrored_points,
    mouth_shapes,
    opening_of,
    rest_shape,
    width_of,
)
from stillspeak.media.audio import load_audio
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.encoders import SpeechContextEncoder
from stillspeak.models.generator import Generator
from stillspeak.models.pose import POSE_NUMBERS, PoseConfig, PosePredictor
from stillspeak.models.speech import REACH, TOKEN
from stillspeak.system.configuration import Share, configuration
from stillspeak.weights import load_speech_encoder, save_model

HOP = SAMPLE_RATE // VIDEO_FPS

_INNER = slice(20, 40)


@configuration("pose_data")
class PoseDataConfig:
    """How the pose predictor's examples are drawn, and what its loss weighs."""

    speech: str = ""
    """The speech encoder's weights file."""
    voices: str = ""
    """A folder ``SPEAKER/STEM__VOICE.wav`` of other voices that speak the clips' sentences in the
    clips' time; none: only the clips' own."""
    rest: str = ""
    """A folder of sounds during which the mouth is at rest, beside noise and music made here."""
    sequences: PositiveInt = 1000
    """Sequences that are made before training."""
    seconds: Annotated[float, Field(le=60)] = 4.6
    """Length of each."""
    batch: PositiveInt = 32
    frames: PositiveInt = 100
    """Length of what is drawn from a sequence for a step."""
    speaker_balance: Share = 0.2
    """0 draws every clip alike, 1 every speaker alike."""
    other_voice: Share = 0.3
    """Share of clips heard with another pitch and other formants."""
    made_voice: Share = 0.3
    """Share of clips heard with a voice from ``voices``, where one is there."""
    pitch: float = 0.35
    inner: NonNegativeFloat = 2.0
    """Weight of the inner lips' points."""
    opening: NonNegativeFloat = 1.0
    width: NonNegativeFloat = 1.0
    velocity: NonNegativeFloat = 2.0
    closed: NonNegativeFloat = 3.0
    """Additional weight of frames in which the lips meet amid speech."""
    rounded: NonNegativeFloat = 1.0
    """Additional weight of frames in which the mouth is narrow."""
    adversarial: NonNegativeFloat = 0.0
    """Weight of the sequence discriminator's term; 0: there is none."""
    ridge: float = 5e3
    """Of the linear reading."""
    gain: float = 0.75
    """How much of the size that guessing costs is given back: 1 makes the poses of the validation
    speakers, along each direction of the basis, vary as much as the real ones; 0 leaves them."""
    feature_noise: float = 0.1
    """Deviation of noise on the features, in theirs."""

    def __post_init__(self) -> None:
        if self.frames / VIDEO_FPS > self.seconds:
            raise ConfigError("pose_data.seconds must hold pose_data.frames")


class Lips(NamedTuple):
    """A clip's sound (640 T,) float32, and its poses (T, 41, 2) relative to its rest pose."""

    clip: CachedClip
    audio: npt.NDArray[np.float32]
    poses: npt.NDArray[np.float32]


class Heard(NamedTuple):
    """Features (2 T, width) float16, poses (T, 82) float32, weight of frames (T,) float32, and
    where a frame follows on the one before (T,) bool."""

    features: Tensor
    poses: Tensor
    weight: Tensor
    joined: Tensor


def load_lips(clip: CachedClip) -> Lips:
    """Sound and poses of a prepared clip."""
    with open_clip(clip) as tensors:
        points, audio = tensors.get_tensor("landmarks"), tensors.get_tensor("audio")
    shapes = mouth_shapes(points)
    return Lips(clip, audio, shapes - rest_shape(shapes))


def pose_basis(
    poses: Sequence[npt.NDArray[np.float32]], weights: Sequence[float], count: int
) -> Tensor:
    """Directions of greatest variance among symmetric poses: (count, 82), each of one deviation.

    Of each clip its poses (T, 41, 2) and the weight of its frames.
    """
    scatter = np.zeros((POSE_NUMBERS, POSE_NUMBERS))
    total = 0.0
    for pose, weight in zip(poses, weights, strict=True):
        flat = _symmetric(pose).reshape(len(pose), -1).astype(np.float64)
        scatter += weight * flat.T @ flat
        total += weight * len(flat)
    values, vectors = np.linalg.eigh(scatter / total)
    order = np.argsort(values)[::-1][:count]
    basis = vectors[:, order] * np.sqrt(values[order])
    return torch.from_numpy(basis.T.astype(np.float32).copy())


def _symmetric(poses: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Poses (T, 41, 2) without what differs between left and right, which is the person's."""
    flipped = poses[:, mirrored_points()] * np.array([-1, 1], np.float32)
    return np.asarray((poses + flipped) / 2)


_MOST_GAIN = 1.8

_REST_WEIGHT = 0.3
"""Of frames without speech in the linear reading, which cannot tell noise from speech."""

_RIDGE = 3000.0
"""Of the linear reading that clips are made consistent by, for standardised features."""


def consistent(lips: Sequence[Lips], features: Sequence[Tensor]) -> list[Lips]:
    """Clips whose poses differ by what is said, and not by who says it or how rest was found.

    Where a person's lips rest, and how far they move, no sound tells: left in, it is noise to
    learn from. A linear reading of the features (2 T, width), learned from poses without their
    clips' means, says what a clip's mean and a speaker's size should be.
    """
    heard = [torch.unflatten(f.float(), 0, (-1, 2)).mean(1) for f in features]
    joined = torch.cat(heard)
    mean, deviation = joined.mean(0), joined.std(0).clamp_min(1e-3)
    inputs = (joined - mean) / deviation
    poses = [torch.from_numpy(one.poses).flatten(1) for one in lips]
    usual = torch.cat(poses).mean(0)
    centred = torch.cat([pose - pose.mean(0) for pose in poses])
    scatter = inputs.T @ inputs + _RIDGE * torch.eye(inputs.shape[1])
    reading = torch.linalg.solve(scatter, inputs.T @ centred)
    read = [((h - mean) / deviation) @ reading for h in heard]
    size: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one, pose, said in zip(lips, poses, read, strict=True):
        moved, wanted = said - said.mean(0), pose - pose.mean(0)
        size[one.clip.speaker][0] += float((moved * wanted).sum())
        size[one.clip.speaker][1] += float(moved.square().sum())
    sizes = {s: min(max(a / max(b, 1e-9), 0.6), 1.6) for s, (a, b) in size.items()}
    middle = float(np.mean(list(sizes.values())))
    out = []
    for one, pose, said in zip(lips, poses, read, strict=True):
        scale = middle / sizes[one.clip.speaker]
        changed = (pose - pose.mean(0)) * scale + usual + said.mean(0)
        out.append(one._replace(poses=changed.reshape(-1, 41, 2).numpy()))
    return out


class PoseNetworks(nn.Module):
    """The predictor, and the discriminator that training needs beside it."""

    def __init__(self, config: PoseConfig, width: int) -> None:
        super().__init__()
        self.pose = PosePredictor(config, width)
        self.critic = nn.Sequential(
            nn.Conv1d(2 * config.basis + 32, 64, 5, 2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(64, 64, 5, 2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(64, 1, 3),
        )
        self.hearing = nn.Linear(2 * width, 32)

    def judge(self, coefficients: Tensor, features: Tensor) -> Tensor:
        """Coefficients (B, T, K) and features (B, 2 T, width) -> (B, n), high for real ones."""
        change = F.pad(coefficients[:, 1:] - coefficients[:, :-1], (0, 0, 1, 0)) * 3
        heard = torch.tanh(self.hearing(torch.unflatten(features, 1, (-1, 2)).flatten(2)))
        joined = torch.cat((coefficients, change, heard), 2).transpose(1, 2)
        verdict: Tensor = self.critic(joined)[:, 0]
        return verdict


class PoseObjective:
    """See :class:`~stillspeak.training.auxiliary.task.AuxiliaryObjective`.

    Raises:
        ConfigError: no speech encoder is named.
        DataError: no clips.
    """

    name = "pose predictor"
    score = "score"
    higher_is_better = True

    def __init__(
        self,
        config: PoseConfig,
        data: PoseDataConfig,
        channel: ChannelConfig,
        training: Sequence[CachedClip],
        validation: Sequence[CachedClip],
        *,
        seed: int,
    ) -> None:
        if not data.speech:
            raise ConfigError("pose_data.speech names no file; give the speech encoder's weights")
        self._config, self._data, self._channel, self._seed = config, data, channel, seed
        self._encoder, self._speech_info = load_speech_encoder(Path(data.speech))
        self._lips = [load_lips(clip) for clip in training]
        self._validation = [load_lips(clip) for clip in validation]
        speakers = ((index, lips.clip.speaker) for index, lips in enumerate(self._lips))
        self._sampler = SpeakerSampler(speakers, data.speaker_balance)
        self.speakers = self._sampler.speakers
        self._voices = _voices(Path(data.voices)) if data.voices else {}
        self._rest = sorted(Path(data.rest).rglob("*.wav")) if data.rest else []
        self._lips = consistent(self._lips, [self._features(one.audio) for one in self._lips])
        torch.manual_seed(seed)
        self.network: nn.Module = PoseNetworks(config, self._encoder.config.width)
        clip_weight = np.zeros(len(self._lips))
        groups = self._sampler.groups.values()
        for weight, group in zip(self._sampler.weights, groups, strict=True):
            clip_weight[group] = weight / len(group)
        basis = pose_basis([lips.poses for lips in self._lips], list(clip_weight), config.basis)
        self._sequences = [self._make(index) for index in range(data.sequences)]
        self._heard = [
            (lips, self._features(lips.audio)[: 2 * len(lips.poses)]) for lips in self._validation
        ]
        pose = self.network.pose
        features = torch.cat([s.features[::7].float() for s in self._sequences])
        pose.mean.copy_(features.mean(0))
        pose.deviation.copy_(features.std(0).clamp_min(1e-3))
        pose.basis.copy_(basis)
        # Least squares onto the basis; its rows are orthogonal, of different lengths.
        self._onto = (basis / basis.square().sum(1, keepdim=True)).T
        self._read_directly(pose)

    @torch.no_grad()
    def _read_directly(self, pose: PosePredictor) -> None:
        """The linear reading, by ridge regression on all sequences; it learns no further."""
        scatter: Tensor | float = 0.0
        products: Tensor | float = 0.0
        for sequence in self._sequences:
            paired = pose.paired(sequence.features[None].float())[0]
            inputs = F.pad(torch.unflatten(paired, 1, (2, -1)).mean(1), (0, 1), value=1.0)
            moves = sequence.poses.abs().amax(1, keepdim=True) > 0
            weighted = inputs * torch.where(moves, 1.0, _REST_WEIGHT)
            scatter = scatter + weighted.T @ inputs
            products = products + weighted.T @ (sequence.poses @ self._onto)
        assert isinstance(scatter, Tensor)
        ridge = self._data.ridge * torch.eye(len(scatter))
        reading = torch.linalg.solve(scatter + ridge, products)
        pose.direct.weight.copy_(reading[:-1].T)
        pose.direct.bias.copy_(reading[-1])
        rests = torch.cat(
            [s.features[::2][s.poses.abs().amax(1) == 0].float() for s in self._sequences]
        )
        if len(rests):
            # Where nobody speaks, the mouth must rest.
            offset = pose.direct((rests - pose.mean) / pose.deviation).mean(0)
            pose.direct.bias.copy_(reading[-1] - offset)
        pose.direct.requires_grad_(False)

    # --- examples -----------------------------------------------------------------------

    @torch.no_grad()
    def _features(self, sound: npt.NDArray[np.float32]) -> Tensor:
        """(640 T,) -> (2 T, width) as :class:`SpeechContextEncoder` hears it from a fresh start."""
        encoder, delay = self._encoder, self._encoder.config.delay
        after = TOKEN * (1 + delay) + REACH - HOP
        padded = F.pad(torch.from_numpy(sound)[None], (after, after))
        features: Tensor = encoder(padded, encoder.initial_state())[0]
        return features[0, -2 * (len(sound) // HOP) :].half()

    def _make(self, index: int) -> Heard:
        """A sequence of clips and rests, heard."""
        random = np.random.default_rng((self._seed, 11, index))
        wanted = round(self._data.seconds * VIDEO_FPS)
        sounds, poses, joins = [], [], []
        group = self._sampler.draw_speaker(random)
        made: str | None = None
        if self._voices and random.random() < self._data.made_voice:
            made = str(random.choice(sorted({v for one in self._voices.values() for v in one})))
        factor = 1.0
        if random.random() < self._data.other_voice:
            factor = draw_factor(self._data.pitch, random)
        frames = 0
        while frames < wanted:
            if random.random() < 0.3:
                sound = self._resting(random)
                pose = np.zeros((len(sound) // HOP, 41, 2), np.float32)
            else:
                lips = self._lips[int(random.choice(group))]
                sound, pose = self._voiced(lips, made, factor, random), lips.poses
                cut = slice(*sorted(random.integers(0, len(pose) + 1, 2)))
                if random.random() < 0.2 and cut.stop - cut.start > 20:
                    sound, pose = sound[cut.start * HOP : cut.stop * HOP], pose[cut]
            sounds.append(sound)
            poses.append(pose)
            joins.append(np.arange(len(pose)) > 0)
            frames += len(pose)
        sound = np.concatenate(sounds)[: wanted * HOP]
        pose, joined = np.concatenate(poses)[:wanted], np.concatenate(joins)[:wanted]
        features = self._features(through_channel(sound, self._channel, random))
        gap, span = opening_of(pose), width_of(pose)
        weight = 1 + self._data.rounded * np.clip(-span / 0.06, 0, 1.5)
        active = np.convolve(gap > 0.04, np.ones(11), "same") > 0
        weight = weight + self._data.closed * (np.exp(-np.square(gap / 0.02)) * active)
        return Heard(
            features,
            torch.from_numpy(_symmetric(pose).reshape(wanted, -1)),
            torch.from_numpy(weight.astype(np.float32)),
            torch.from_numpy(joined),
        )

    def _voiced(
        self, lips: Lips, made: str | None, factor: float, random: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        sentence = self._voices.get(f"{lips.clip.speaker}/{lips.clip.name}", {})
        sound = lips.audio
        if made is not None and sentence:
            path = sentence.get(made) or sentence[str(random.choice(sorted(sentence)))]
            heard = load_audio(path, sample_rate=SAMPLE_RATE)[: len(sound)]
            sound = np.pad(heard, (0, len(sound) - len(heard)))
        elif factor != 1.0:
            sound = other_voice(sound, factor)
        return level(sound, 0.05)

    def _resting(self, random: np.random.Generator) -> npt.NDArray[np.float32]:
        """Half a second to three of silence, noise, music, or a sound of the folder."""
        length = HOP * int(random.integers(12, 76))
        loud = 0.05 * 10 ** (random.uniform(-60, 6) / 20)
        kind = random.random()
        if kind < 0.25:
            return np.zeros(length, np.float32)
        if kind < 0.5 and self._rest:
            path = self._rest[random.integers(len(self._rest))]
            sound = load_audio(path, sample_rate=SAMPLE_RATE)
            first = random.integers(max(len(sound) - length, 0) + 1)
            return level(np.resize(sound[first : first + length], length), loud)
        make = music if kind > 0.85 else noise
        return level(make(length, random), loud)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Features (B, 2 F, width), poses (B, F, 82), weights (B, F), and joins (B, F)."""
        random = np.random.default_rng((self._seed, 12, step))
        parts = []
        for _ in range(self._data.batch):
            sequence = self._sequences[random.integers(len(self._sequences))]
            first = random.integers(len(sequence.poses) - self._data.frames + 1)
            last = first + self._data.frames
            features = sequence.features[2 * first : 2 * last].float()
            parts.append((features, *(part[first:last] for part in sequence[1:])))
        return tuple(torch.stack(column) for column in zip(*parts, strict=True))

    # --- learning -----------------------------------------------------------------------

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        """Distances of points, their velocities, opening and width; in hundredths of the
        distance between the eyes."""
        assert isinstance(network, PoseNetworks)
        data, pose = self._data, network.pose
        features, wanted, weight, joined = batch
        noisy = features + data.feature_noise * pose.deviation * torch.randn_like(features)
        with torch.autocast(features.device.type, enabled=False):
            given, _ = pose.recurrent(pose.paired(noisy), pose.initial_state(len(features)))
            shape, real = pose.shapes(given) * 100, torch.unflatten(wanted, 2, (-1, 2)) * 100
            points = shape.new_ones(41)
            points[_INNER] = data.inner
            distance = ((shape - real).abs().sum(3) * points).sum(2) / points.sum()
            # The first frames know too little of what was before.
            known = torch.arange(weight.shape[1], device=weight.device) / 10
            weight = weight * known.clamp_max(1)
            terms = {"points": (distance * weight).sum() / weight.sum()}
            opening = opening_of(shape) - opening_of(real)
            width = width_of(shape) - width_of(real)
            terms["opening"] = (opening.abs() * weight).sum() / weight.sum()
            terms["width"] = (width.abs() * weight).sum() / weight.sum()
            speed = (shape[:, 1:] - shape[:, :-1]) - (real[:, 1:] - real[:, :-1])
            steady = joined[:, 1:].float() * weight[:, 1:]
            moved = (speed.abs().sum(3) * points).sum(2) / points.sum()
            terms["velocity"] = (moved * steady).sum() / steady.sum()
            total = terms["points"] + data.opening * terms["opening"]
            total = total + data.width * terms["width"] + data.velocity * terms["velocity"]
            if data.adversarial:
                total = total + self._adversarial_terms(network, given, wanted, features, terms)
        return {"loss": total, **terms}

    def _adversarial_terms(
        self,
        network: PoseNetworks,
        given: Tensor,
        wanted: Tensor,
        features: Tensor,
        terms: dict[str, Tensor],
    ) -> Tensor:
        """Least squares: the critic tells real poses from generated and from another sound's."""
        pose = network.pose
        normal = (features - pose.mean) / pose.deviation
        real = wanted @ self._onto.to(wanted)
        judged = network.judge(real, normal)
        fake = network.judge(given.detach(), normal)
        wrong = network.judge(real.roll(1, 0), normal)
        critic = (judged - 1).square().mean() + (fake.square() + wrong.square()).mean() / 2
        critics = nn.ModuleList((network.critic, network.hearing))
        critics.requires_grad_(False)
        fooled = (network.judge(given, normal) - 1).square().mean()
        critics.requires_grad_(True)
        terms["critic"], terms["fooled"] = critic, fooled
        return critic + self._data.adversarial * fooled

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """On other speakers' clips, medians: correlation of opening and width with the real
        ones, deviation relative to theirs, and their mean as ``score``."""
        assert isinstance(network, PoseNetworks)
        rows = []
        device = network.pose.mean.device
        for lips, features in self._heard:
            pose = network.pose
            given, _ = pose(features[None].float().to(device), pose.initial_state())
            shape = pose.shapes(given)[0].cpu().numpy()
            made, real = opening_of(shape), opening_of(lips.poses)
            made_width, real_width = width_of(shape), width_of(lips.poses)
            size = float(made.std() / max(real.std(), 1e-6))
            width = float(made_width.std() / max(real_width.std(), 1e-6))
            correlations = _correlation(made, real), _correlation(made_width, real_width)
            rows.append((*correlations, size, width))
        if not rows:
            return {}
        names = ("opening_r", "width_r", "opening_amplitude", "width_amplitude")
        scores = dict(zip(names, (float(v) for v in np.median(np.array(rows), 0)), strict=True))
        return {**scores, "score": scores["opening_r"] + scores["width_r"]}

    @torch.no_grad()
    def _gains(self, pose: PosePredictor) -> Tensor:
        """(K,) what makes up for the size that guessing costs, 1 to :data:`_MOST_GAIN`."""
        made, real = [], []
        for lips, features in self._heard:
            given, _ = pose(features[None].float(), pose.initial_state())
            wanted = torch.from_numpy(lips.poses).flatten(1) @ self._onto
            made.append(given[0] - given[0].mean(0))
            real.append(wanted - wanted.mean(0))
        if not made:
            return torch.ones(len(pose.basis))
        ratio = torch.cat(real).std(0) / torch.cat(made).std(0).clamp_min(1e-6)
        return (ratio**self._data.gain).clamp(1, _MOST_GAIN)

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        """Write a whole generator: speech encoder and pose predictor, drawn in layers."""
        assert isinstance(network, PoseNetworks)
        config = GeneratorConfig(
            decoder="layers",
            audio_input="speech",
            noise_dim=0,
            speech=self._encoder.config,
            pose=self._config,
        )
        generator = Generator(config)
        encoder = generator.context_encoder
        assert isinstance(encoder, SpeechContextEncoder)
        encoder.speech.load_state_dict(self._encoder.state_dict())
        encoder.pose.load_state_dict(network.pose.state_dict())
        encoder.pose.basis *= self._gains(network.pose)[:, None]
        about = {**info, "speakers": self.speakers, "speech": self._speech_info["info"]}
        save_model(generator, path, about)


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0


def _voices(root: Path) -> dict[str, dict[str, Path]]:
    """Files of ``SPEAKER/STEM__VOICE.wav`` by clip, then by voice."""
    voices: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(p for p in root.rglob("*__*") if p.suffix in (".wav", ".flac", ".ogg")):
        stem, voice = path.stem.split("__", 1)
        voices[f"{path.parent.name}/{stem}"][voice] = path
    if not voices:
        raise DataError(f"{root}: holds no SPEAKER/STEM__VOICE.wav; leave pose_data.voices out")
    return dict(voices)
