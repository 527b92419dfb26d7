"""What the motion generator learns: to move head, brows and lids as people do while they speak.

Prepared clips say how real heads move with their sound. Sound does not decide it, so nothing is
compared frame by frame: the paper's sequence discriminator judges, and what can be counted must be
as real: spectra, how much movement differs from clip to clip, and how it goes with prosody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from stillspeak.data.cache import CachedClip, open_clip
from stillspeak.data.sampling import SpeakerSampler
from stillspeak.errors import DataError
from stillspeak.face.eyes import EYE_CORNERS, brow_heights
from stillspeak.media.audio import frame_windows
from stillspeak.models.motion import (
    CHANNELS,
    MOTION_FORMAT,
    MotionConfig,
    MotionDiscriminator,
    MotionGenerator,
    blink_inputs,
    golden_motion,
)
from stillspeak.motion.prosody import (
    ACCENT,
    HOP,
    LOUDNESS,
    PAUSE,
    PHRASE,
    PITCH,
    ProsodyTracker,
)
from stillspeak.system.configuration import Share, configuration
from stillspeak.weights import save_network

Floats = npt.NDArray[np.float32]

HEAD = slice(0, 3)
TURN, NOD, TILT, BROWS, LIDS = range(5)

_BLINK_EDGE, _BLINK_PEAK = 0.1, 0.3  # as in evaluation.measures.expression
_TREMBLE = 0.05  # deviations
_SMOOTH = 1.2  # frames: the tracker's jitter is white, heads are slow
_BANDS = ((1, 2), (2, 3), (3, 5), (5, 9), (9, 17), (17, 38))  # of 75 frames, in thirds of a hertz
_LAGS = tuple(range(-6, 22, 3))
_COUPLED = (LOUDNESS, PITCH, ACCENT, PAUSE, PHRASE)

SHARES = (0.0, 0.15, 0.0, 0.1, 0.25)
"""Of the variance of each channel what sound decides: what a linear reading of the prosody around
explains in GRID's clips that it was not fitted on (nod .06 to .19, brows .01 to .19, lids .10 to
.33). Left and right are equal, so that of turn and tilt it decides nothing."""

QUIET = (0.65, 0.65, 0.65, 0.9, 0.8)
"""Speed of each channel, root mean square, in silence over that in speech, in GRID's clips."""


@configuration("motion_data")
class MotionDataConfig:
    """How the motion generator's examples are drawn, and what its loss weighs."""

    frames: Annotated[int, Field(strict=True, ge=75, le=75)] = 75
    """Of a clip that are judged."""
    lead: Annotated[int, Field(strict=True, ge=1, le=500)] = 25
    """Frames of another clip's sound before, at most: movement has begun already."""
    batch: PositiveInt = 48
    speaker_balance: Share = 0.5
    """0 draws every clip alike, 1 every speaker alike."""
    adversarial: NonNegativeFloat = 0.2
    """Weight of the discriminator's term."""
    spectrum: NonNegativeFloat = 1.0
    spread: NonNegativeFloat = 1.0
    """Weight of how much clips move, from the stillest to the liveliest."""
    coupling: NonNegativeFloat = 30.0
    """Weight of the covariance with prosody, of positions and of speeds."""
    chance: NonNegativeFloat = 5.0
    """Weight of how much is left to chance, see :data:`SHARES`."""
    quiet: NonNegativeFloat = 0.3
    """Weight of how fast all moves while nobody speaks, see :data:`QUIET`."""
    still: NonNegativeFloat = 0.3
    """Weight of where sequences stand as a whole, squared: nothing may drift."""


class Moves(NamedTuple):
    """A clip's prosody (T, HEARD) and movement (T, 5) float32, the frames in which blinks begin,
    and how far jaw and eyes are opened (T,)."""

    clip: CachedClip
    heard: Floats
    moves: Floats
    blinks: tuple[int, ...]
    jaw: Floats


def load_moves(clip: CachedClip) -> Moves:
    """Sound and movement of a prepared clip.

    Raises:
        DataError: the clip was prepared without expression coefficients.
    """
    with open_clip(clip) as tensors:
        audio, points = tensors.get_tensor("audio"), tensors.get_tensor("landmarks")
        pose = tensors.get_tensor("head_pose")
        shapes = tensors.get_tensor("blendshapes").astype(np.float32)
        names = tensors.metadata.get("blendshapes") or []
    if "eyeBlinkLeft" not in names:
        raise DataError(f"{clip.file}: names no blendshapes; run stillspeak prepare again")
    closure = shapes[:, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]].mean(1)
    open_eyes = closure < np.median(closure) + _BLINK_EDGE
    blinks = _blinks(closure - np.median(closure))
    unit = np.linalg.norm(points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]], axis=1) / 1.45
    brows = brow_heights(points).mean(1) / unit
    # Around blinks neither brows nor lids are what they seem.
    steady = np.convolve(~open_eyes, np.ones(5), "same") == 0
    if steady.sum() < 2:
        steady[:] = True
    frames = np.arange(len(pose))
    rows = [np.interp(frames, frames[steady], x[steady]) for x in (brows, closure)]
    moves = _smooth(np.column_stack([pose, *rows]).astype(np.float32))
    heard = ProsodyTracker().hear(frame_windows(audio, 3 * HOP, HOP))
    return Moves(clip, heard, moves, blinks, _smooth(shapes[:, [names.index("jawOpen")]])[:, 0])


def _blinks(above: Floats) -> tuple[int, ...]:
    starts, begin = [], None
    for index, value in enumerate([*above.tolist(), 0.0]):
        if value > _BLINK_EDGE:
            begin = index if begin is None else begin
        elif begin is not None:
            if above[begin:index].max() >= _BLINK_PEAK:
                starts.append(begin)
            begin = None
    return tuple(starts)


def _smooth(x: Floats) -> Floats:
    """(T, C) along time, borders repeated."""
    reach = 5
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTH) ** 2)
    padded = np.pad(x, ((reach, reach), (0, 0)), "edge")
    out = [np.convolve(column, taps / taps.sum(), "valid") for column in padded.T]
    return np.stack(out, 1).astype(np.float32)


def _fast(x: Floats) -> Floats:
    """(T, C) without what is slower than a second."""
    wide = np.ones(25) / 25
    edge = np.pad(x, ((12, 12), (0, 0)), "edge")
    return np.asarray(x - np.stack([np.convolve(c, wide, "valid") for c in edge.T], 1), np.float32)


def alike(clips: Sequence[Moves]) -> tuple[list[Moves], Floats]:
    """Clips whose movement is in deviations, all speakers alike, and (5,) what a deviation is.

    Two things are the speaker's and no sound's. The tracker takes an open jaw for some turn of the
    head, by another amount in every face: what goes with the jaw is taken out. And most people nod
    down on accents, a few up: the others are mirrored.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(clips):
        groups[one.clip.speaker].append(index)
    cleaned: list[Floats] = [one.moves for one in clips]
    deviations = {}
    for speaker, group in groups.items():
        jaw = np.concatenate([_fast(clips[i].jaw[:, None]) for i in group])[:, 0]
        fast = np.concatenate([_fast(clips[i].moves[:, HEAD]) for i in group])
        slope = jaw @ fast / max(float(jaw @ jaw), 1e-6)
        for i in group:
            moves = clips[i].moves.copy()
            moves[:, HEAD] -= clips[i].jaw[:, None] * slope
            cleaned[i] = moves - moves.mean(0)
        accents = sum(
            float(clips[i].heard[: len(cleaned[i]) - lag, ACCENT] @ cleaned[i][lag:, NOD])
            - float(clips[i].heard[:, ACCENT].mean() * cleaned[i][lag:, NOD].sum())
            for i in group
            for lag in range(0, 9, 2)
        )
        for i in group if accents < 0 else ():
            cleaned[i][:, NOD] *= -1
        deviations[speaker] = np.mean([cleaned[i].var(0) for i in group], 0), len(group)
    usual = np.mean([variance for variance, _ in deviations.values()], 0)
    out = []
    for one, moves in zip(clips, cleaned, strict=True):
        variance, count = deviations[one.clip.speaker]
        # Of few clips little is known.
        size = np.sqrt((count * variance + 2 * usual) / (count + 2)).clip(1e-4)
        out.append(one._replace(moves=(moves / size).astype(np.float32)))
    medians = np.median([variance for variance, _ in deviations.values()], 0)
    return out, np.sqrt(medians).clip(1e-6).astype(np.float32)


def _posture(clips: Sequence[Moves]) -> Floats:
    """(3,) how far the head stands elsewhere in another clip, the mean of speakers with three
    clips or more; GRID's camera did not move."""
    means: dict[str, list[Floats]] = defaultdict(list)
    for one in clips:
        means[one.clip.speaker].append(one.moves[:, HEAD].mean(0))
    spread = [np.std(rows, 0) for rows in means.values() if len(rows) >= 3]
    return np.mean(spread, 0).astype(np.float32) if spread else np.ones(3, np.float32)


class Statistics(NamedTuple):
    """What can be counted of sequences: power by band (bands, 5), log, the mean's and the usual
    one; how much clips move (count, 5), log and in order; covariances of positions, and of squared
    speeds, with prosody (lags, features, 5)."""

    power: Tensor
    usual: Tensor
    spread: Tensor
    position: Tensor
    speed: Tensor


def statistics(moves: Tensor, heard: Tensor, count: int = 16) -> Statistics:
    """Of positions (B, 75, 5) in deviations and what is heard (B, 75, HEARD), normalised."""
    centred = moves - moves.mean(1, keepdim=True)
    window = torch.hann_window(moves.shape[1], periodic=False)[None, :, None]
    spectrum = torch.fft.rfft(centred * window, dim=1).abs().square()
    bands = torch.stack([spectrum[:, a:b].mean(1) for a, b in _BANDS], 1)
    power, usual = bands.mean(0).clamp_min(1e-9).log(), (bands + 1e-3).log().mean(0)
    sizes = centred.square().mean(1).clamp_min(1e-6).log().div(2)
    quantiles = torch.quantile(sizes, (torch.arange(count) + 0.5) / count, dim=0)
    speed = (moves[:, 2:] - moves[:, :-2]).square()
    speed = F.pad(speed, (0, 0, 1, 1))
    # Log: a clip that moves much would decide alone.
    speed = (speed / speed.mean((0, 1)).detach().clamp_min(1e-6) + 0.1).log()
    speed = speed - speed.mean(1, keepdim=True)
    features = heard[..., list(_COUPLED)]
    features = features - features.mean(1, keepdim=True)
    return Statistics(power, usual, quantiles, _covary(centred, features), _covary(speed, features))


def _covary(moves: Tensor, features: Tensor) -> Tensor:
    rows = []
    for lag in _LAGS:
        a = moves[:, lag:] if lag >= 0 else moves[:, :lag]
        b = features[:, : features.shape[1] - lag] if lag >= 0 else features[:, -lag:]
        rows.append(torch.einsum("btf,btk->fk", b, a) / (len(moves) * a.shape[1]))
    return torch.stack(rows)


def likeliest(inputs: Tensor, events: Tensor, weight: Tensor) -> Tensor:
    """(n + 1,) weights and bias of the logistic regression of events (T,), 0 or 1, on inputs
    (T, n), by Newton's method; 1 / 4 of the weights' squares keeps them small."""
    given = F.pad(inputs, (0, 1), value=1.0)
    keep = torch.full((given.shape[1],), 0.5, dtype=given.dtype)
    keep[-1] = 0
    row = torch.zeros_like(keep)
    for _ in range(30):
        likely = torch.sigmoid(given @ row)
        slope = given.T @ (weight * (events - likely)) - keep * row
        curve = (given * (weight * likely * (1 - likely))[:, None]).T @ given + keep.diag()
        step = torch.linalg.solve(curve + 1e-6 * torch.eye(len(keep), dtype=keep.dtype), slope)
        row = row + step.clamp(-2, 2)
    return row


def _in_common(made: Tensor) -> Tensor:
    """(5,) share of the variance that two halves of a batch (B, T, 5) have in common."""
    first, second = (made - made.mean(1, keepdim=True)).chunk(2)
    sizes = first.square().mean((0, 1)) + second.square().mean((0, 1))
    shared: Tensor = 2 * (first * second).mean((0, 1)) / sizes.clamp_min(1e-6)
    return shared


def _speed(made: Tensor) -> Tensor:
    """(5,) root mean square of the speeds of (B, T, 5)."""
    return (made[:, 1:] - made[:, :-1]).square().mean((0, 1)).clamp_min(1e-8).sqrt()


class MotionNetworks(nn.Module):
    """The generator, and the discriminator that its training needs."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.motion = MotionGenerator(config)
        self.critic = MotionDiscriminator()


class MotionObjective:
    """See :class:`~stillspeak.training.auxiliary.task.AuxiliaryObjective`.

    Raises:
        DataError: no clip is long enough, or one has no blendshapes.
    """

    name = "motion generator"
    score = "distance"
    higher_is_better = False

    def __init__(
        self,
        config: MotionConfig,
        data: MotionDataConfig,
        training: Sequence[CachedClip],
        validation: Sequence[CachedClip],
        *,
        seed: int,
    ) -> None:
        self._config, self._data, self._seed = config, data, seed
        clips = [load_moves(clip) for clip in training if clip.frames >= data.frames]
        if not clips:
            raise DataError(
                f"the prepared data holds no training clip of {data.frames} frames or more"
            )
        self._clips, scale = alike(clips)
        held = [load_moves(clip) for clip in validation if clip.frames >= data.frames]
        self._held = alike(held)[0] if held else []
        speakers = ((index, one.clip.speaker) for index, one in enumerate(self._clips))
        self._sampler = SpeakerSampler(speakers, data.speaker_balance)
        self.speakers = self._sampler.speakers
        torch.manual_seed(seed)
        self.network: nn.Module = MotionNetworks(config)
        motion = self.network.motion
        motion.scale.copy_(torch.from_numpy(scale))
        heard = torch.from_numpy(np.concatenate([one.heard for one in self._clips]))
        motion.mean.copy_(heard.mean(0))
        motion.deviation.copy_(heard.std(0).clamp_min(1e-3))
        motion.posture.copy_(torch.from_numpy(_posture(clips)))
        self._real = self._count(4096)
        inputs, events, weight = self._blinking()
        row = likeliest(inputs, events, weight)
        motion.blink.requires_grad_(False)
        motion.blink.weight.copy_(row[None, :-1])
        motion.blink.bias.copy_(row[-1:])
        motion.blink_mean.copy_((events * weight).sum() / weight.sum())

    def _count(self, examples: int) -> Statistics:
        """What the training clips' movement is like, drawn as in training."""
        random = np.random.default_rng((self._seed, 7))
        moves, heard, _ = self._draw(examples, random)
        return statistics(moves, self._normal(self.network, heard[:, -self._data.frames :]))

    def _blinking(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the training clips' frames in which somebody speaks what tells when to blink, whether
        a blink begins, and a weight, by which clips count less the more there are of a speaker.

        GRID's silences say nothing: its speakers wait for the next sentence to be shown.
        """
        inputs, events, weights = [], [], []
        counts = self.speakers
        for one in self._clips:
            frames = len(one.moves)
            since = np.full(frames, 3.0)
            for start in one.blinks:
                since[start + 1 :] = np.arange(1, frames - start) / 25
            heard = one.heard[:frames].astype(np.float64)
            given = torch.from_numpy(blink_inputs(heard[:, PHRASE], heard[:, LOUDNESS], since))
            event = torch.zeros(frames, dtype=torch.float64)
            event[list(one.blinks)] = 1
            free = torch.from_numpy((since >= 0.9) & (heard[:, PAUSE] == 0))
            inputs.append(given[free])
            events.append(event[free])
            weights.append(torch.full((int(free.sum()),), counts[one.clip.speaker] ** -0.5))
        weight = torch.cat(weights)
        return torch.cat(inputs), torch.cat(events), weight / weight.mean()

    # --- examples -----------------------------------------------------------------------

    def _draw(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (B, frames, 5), and prosody and noise of these frames with what leads up."""
        data, frames = self._data, self._data.frames
        moves, sounds = [], []
        for _ in range(count):
            one = self._clips[self._sampler.draw(random)]
            before = self._clips[self._sampler.draw(random)].heard
            lead = int(random.integers(1, data.lead + 1))
            quiet = np.zeros((data.lead - lead, before.shape[1]), np.float32)
            quiet[:, PAUSE] = 1
            first = int(random.integers(len(one.moves) - frames + 1))
            sound = np.concatenate([quiet, before[-lead:], one.heard[first : first + frames]])
            sounds.append(sound[-data.lead - frames :])
            move = one.moves[first : first + frames].copy()
            if random.random() < 0.5:
                move[:, [TURN, TILT]] *= -1
            moves.append(move)
        drawn = random.standard_normal((count, data.lead + frames, self._config.drawn))
        return (
            torch.from_numpy(np.stack(moves)),
            torch.from_numpy(np.stack(sounds)),
            torch.from_numpy(drawn.astype(np.float32)),
        )

    def batch(self, step: int) -> tuple[Tensor, ...]:
        return self._draw(self._data.batch, np.random.default_rng((self._seed, step)))

    @staticmethod
    def _normal(network: nn.Module, heard: Tensor) -> Tensor:
        assert isinstance(network, MotionNetworks)
        normal: Tensor = (heard - network.motion.mean) / network.motion.deviation
        return normal

    # --- loss ---------------------------------------------------------------------------

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        assert isinstance(network, MotionNetworks)
        data = self._data
        real, heard, drawn = batch
        with torch.autocast(real.device.type, enabled=False):
            # Each sound twice, with other noise; and silence.
            half = len(heard) // 2
            silence = torch.zeros_like(heard[: half // 2])
            silence[..., PAUSE] = 1
            twice = torch.cat((heard[:half], heard[:half], silence))
            noise = torch.cat((drawn, drawn[: half // 2].flip(1)))
            made, quiet = network.motion(twice, noise)[:, -data.frames :].split(
                (2 * half, half // 2)
            )
            normal = self._normal(network, twice[: 2 * half, -data.frames :])
            terms = self._distances(made, normal)
            terms["chance"] = (_in_common(made) - made.new_tensor(SHARES)).square().mean()
            slower = _speed(quiet) / _speed(made).detach()
            terms["quiet"] = (slower / made.new_tensor(QUIET)).log().square().mean()
            total = data.spectrum * terms["spectrum"] + data.spread * terms["spread"]
            total = total + data.coupling * terms["coupling"]
            total = total + data.chance * terms["chance"] + data.quiet * terms["quiet"]
            terms["still"] = made.mean(1).square().mean()
            total = total + data.still * terms["still"]
            if data.adversarial:
                own = self._normal(network, heard[: 2 * half, -data.frames :])
                judged = (real[: 2 * half], own)
                total = total + self._adversarial_terms(network, (made, normal), judged, terms)
        return {"loss": total, **terms}

    def _distances(self, made: Tensor, normal: Tensor) -> dict[str, Tensor]:
        given = statistics(made, normal)
        real = Statistics(*(part.to(made) for part in self._real))
        return {
            "spectrum": (given.power - real.power).square().mean()
            + (given.usual - real.usual).square().mean(),
            "spread": (given.spread - real.spread).square().mean(),
            "coupling": (given.position - real.position).square().mean()
            + (given.speed - real.speed).square().mean(),
        }

    def _adversarial_terms(
        self,
        network: MotionNetworks,
        made: tuple[Tensor, Tensor],
        real: tuple[Tensor, Tensor],
        terms: dict[str, Tensor],
    ) -> Tensor:
        """Least squares: the critic tells real movement from generated and from another sound's.

        Of each movement and sound. All of it trembles a little, or the critic would look at
        nothing but what the tracker's smoothing left.
        """

        def verdict(moves: Tensor, sound: Tensor) -> Tensor:
            given: Tensor = network.critic(moves + _TREMBLE * torch.randn_like(moves), sound)
            return given

        judged, fake = verdict(*real), verdict(made[0].detach(), made[1])
        wrong = verdict(real[0].roll(1, 0), real[1])
        critic = (judged - 1).square().mean() + (fake.square() + wrong.square()).mean() / 2
        network.critic.requires_grad_(False)
        fooled = (verdict(*made) - 1).square().mean()
        network.critic.requires_grad_(True)
        terms["critic"], terms["fooled"] = critic, fooled
        total: Tensor = critic + self._data.adversarial * fooled
        return total

    @torch.no_grad()
    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """How far the counted differs from real, on training clips drawn anew; ``distance`` is
        their sum."""
        assert isinstance(network, MotionNetworks)
        random = np.random.default_rng((self._seed, 9))
        _, heard, drawn = self._draw(512, random)
        device = network.motion.scale.device
        made = network.motion(heard.to(device), drawn.to(device))[:, -self._data.frames :]
        normal = self._normal(network, heard[:, -self._data.frames :].to(device))
        terms = {name: float(value) for name, value in self._distances(made, normal).items()}
        data = self._data
        distance = data.spectrum * terms["spectrum"] + data.spread * terms["spread"]
        return {**terms, "distance": distance + data.coupling * terms["coupling"]}

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        assert isinstance(network, MotionNetworks)
        save_network(
            network.motion,
            path,
            {**info, "speakers": self.speakers, "channels": CHANNELS},
            format_name=MOTION_FORMAT,
            config=asdict(self._config),
            rounded=MotionGenerator(self._config),
            golden=golden_motion,
        )
