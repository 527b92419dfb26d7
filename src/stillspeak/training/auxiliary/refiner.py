"""What the refiner learns: to make drawn mouths look like the real ones of the same people.

Stills of prepared clips are given the real mouth poses of other frames and drawn; the frames say
what was to come out. So are pairs of pictures, neutral and smiling, of one person: how a smile
lets go, and what it does to cheeks and chin. Examples are drawn once; then steps are cheap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from stillspeak.errors import DataError
from stillspeak.face.mouth import CHIN, POSE_POINTS, mouth_shapes, opening_of, rest_shape
from stillspeak.models.refiner import (
    COLUMNS,
    PIXELS,
    REFINER_FORMAT,
    ROWS,
    TOP,
    MouthRefiner,
    RefinerConfig,
    golden_refiner,
)
from stillspeak.models.regions import LOWER_BOX
from stillspeak.rendering.mesh import AROUND, face_frame, rest_pose
from stillspeak.rendering.mouth import MouthLayers
from stillspeak.system.configuration import Share, configuration
from stillspeak.weights import save_network

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

_PAIR_UNIT = 130.0  # pixels between the eyes at which a pair's pictures are drawn
_STEADY = (33, 133, 362, 263, 6, 168, 4, 1, 2, 98, 327, 129, 358, 117, 346, 127, 356)
"""Points that no mouth moves: by them the pictures of a pair are laid over one another."""
_LUMA = (0.299, 0.587, 0.114)
_MOUTH = (slice(10, 52), slice(18, 78))
"""Rows and columns of lips and what is around them, over which pictures are compared."""


@configuration("refiner_data")
class RefinerDataConfig:
    """How the refiner's examples are drawn, and what its loss weighs."""

    pairs: str = ""
    """A folder of ``PERSON_neutral.jpg`` and ``PERSON_smiling.jpg``; none: prepared clips only."""
    held_out: PositiveInt = 6
    """Every so many persons of the pairs are kept for validation."""
    clips: PositiveInt = 70
    """Of one speaker at most."""
    stills: PositiveInt = 6
    """Of a clip of a speaker with few, the first frame among them; at least 2 of any other."""
    frames: PositiveInt = 14
    """Drawn from each still."""
    batch: PositiveInt = 32
    common: NonNegativeFloat = 0.35
    """Weight of the examples of speakers with more than ten clips."""
    pair: NonNegativeFloat = 10.0
    """Weight of a pair's examples."""
    hole: NonNegativeFloat = 2.0
    """Additional weight of what shows the inside of the mouth."""
    mouth: NonNegativeFloat = 1.0
    """Additional weight of the lips and what is around them."""
    small: NonNegativeFloat = 0.02
    """Weight of the correction's own size."""
    adversarial: NonNegativeFloat = 0.0
    """Weight of the discriminator's term; 0: there is none."""
    grey: Share = 0.15
    """Share of examples without colours."""
    shift: Annotated[int, Field(ge=0, le=20)] = 4
    """Pixels by which an example is shifted at most."""


class Drawn(NamedTuple):
    """One example.

    Attributes:
        still, drawn, real: (ROWS, COLUMNS, 3) uint8.
        hole: (ROWS, COLUMNS) uint8.
        white: (3,) float32, levels of 255.
        share: of a correction that is made, 0 to 1.
        inside: weight of what the hole shows. What a smile shows no speech does.
    """

    still: Picture
    drawn: Picture
    real: Picture
    hole: Picture
    white: npt.NDArray[np.float32]
    share: float
    inside: float = 1.0


class Scene:
    """A still whose mouth is drawn uncorrected, as the refiner sees it."""

    def __init__(self, picture: Picture, points: Points) -> None:
        self._layers = MouthLayers(picture, points, refiner=None)
        self._still = self._layers.view.of(picture)
        self.rest = rest_pose(face_frame(points).points)

    def example(self, displacement: npt.NDArray[np.floating], real: Picture) -> Drawn:
        """Draw a mouth (41, 2), in eye distances from this person's rest pose, beside what it looks
        like in truth: (H, W, 3) in the still's pixels."""
        layers = self._layers
        frame = layers.draw(displacement / self.rest.scale)
        last = layers.last
        assert last is not None
        seen = np.rint(255 * layers.view.hole(last.share, last.corner)).astype(np.uint8)
        return Drawn(
            self._still,
            layers.view.of(frame),
            layers.view.of(real),
            seen,
            np.asarray(layers.light.teeth, np.float32),
            last.moved,
        )


def clip_examples(
    clip: CachedClip, stills: int, frames: int, random: np.random.Generator
) -> Iterator[Drawn]:
    """Examples from a prepared clip whose lower face was kept at double scale.

    Raises:
        DataError: it was not.
    """
    with open_clip(clip) as tensors:
        if not tensors.has("mouth"):
            raise DataError(
                f"{clip.file}: holds no mouth at double scale; prepare with --mouth-scale 2"
            )
        pictures, mouths = tensors.get_tensor("frames"), tensors.get_tensor("mouth")
        points = tensors.get_tensor("landmarks")
    shapes = mouth_shapes(points)
    poses = shapes - rest_shape(shapes)
    opening = np.maximum(opening_of(poses), 0)
    likely = 0.3 + opening / max(float(opening.max()), 1e-3)
    likely /= likely.sum()
    for index in (0, *random.choice(len(pictures), stills - 1, replace=False)):
        scene = Scene(_doubled(pictures[index], mouths[index]), _doubled_points(points[index]))
        count = min(frames, len(pictures))
        for frame in random.choice(len(pictures), count, replace=False, p=likely):
            yield scene.example(poses[frame], _doubled(pictures[frame], mouths[frame]))


def _doubled(crop: Picture, mouth: Picture) -> Picture:
    import cv2

    out = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    top, bottom, left, right = (2 * edge for edge in LOWER_BOX)
    out[top:bottom, left:right] = mouth
    return np.asarray(out)


def _doubled_points(points: npt.NDArray[np.floating]) -> Points:
    return np.asarray(2 * (np.asarray(points, np.float64) + 0.5) - 0.5)


def pair_examples(pictures: Sequence[Picture], points: Sequence[Points]) -> tuple[Drawn, Drawn]:
    """Each of two pictures (H, W, 3) of one person drawn with the other's mouth; landmarks are
    (478, 2) in pixels."""
    import cv2

    scaled = []
    for picture, own in zip(pictures, points, strict=True):
        factor = _PAIR_UNIT / face_frame(own).scale
        small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        scaled.append((np.asarray(small, np.uint8), (own + 0.5) * factor - 0.5))
    return _onto(scaled[0], scaled[1]), _onto(scaled[1], scaled[0])


def _onto(still: tuple[Picture, Points], other: tuple[Picture, Points]) -> Drawn:
    import cv2

    (picture, points), (real, real_points) = still, other
    source, target = (p[list(_STEADY)].astype(np.float32) for p in (real_points, points))
    matrix, _ = cv2.estimateAffinePartial2D(source, target, method=cv2.LMEDS)
    size = (picture.shape[1], picture.shape[0])
    real = np.asarray(
        cv2.warpAffine(real, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )
    moved = real_points @ matrix[:, :2].T + matrix[:, 2] - points
    frame, chosen = face_frame(points), list(POSE_POINTS)
    to_face = np.linalg.inv(frame.jacobians[chosen])
    pose = np.einsum("kij,kj->ki", to_face, moved[chosen])
    scene = Scene(picture, points)
    pose[:-1] -= scene.rest.lips
    pose[-1] -= scene.rest.around[AROUND.index(CHIN)]
    return scene.example(pose, real)._replace(inside=0.0)


class RefinerNetworks(nn.Module):
    """The refiner, and the discriminator that training may set against it."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.refiner = MouthRefiner(config)
        self.critic = nn.Sequential(
            nn.Conv2d(6, 32, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(32, 64, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(64, 64, 3, 1, 1)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 3, 1, 1),
        )

    def judge(self, still: Tensor, frame: Tensor) -> Tensor:
        """(B, 1, h, w), high where a frame (B, 3, H, W) of this still's person looks real."""
        verdict: Tensor = self.critic(torch.cat((still, frame), 1) - 0.5)
        return verdict


class RefinerObjective:
    """See :class:`~stillspeak.training.auxiliary.task.AuxiliaryObjective`.

    Raises:
        DataError: clips without a mouth at double scale, or no pairs where a folder is named.
    """

    name = "mouth refiner"
    score = "gain"
    higher_is_better = True

    def __init__(
        self,
        config: RefinerConfig,
        data: RefinerDataConfig,
        training: Sequence[CachedClip],
        validation: Sequence[CachedClip],
        *,
        seed: int,
    ) -> None:
        self._config, self._data, self._seed = config, data, seed
        by_speaker: dict[str, list[CachedClip]] = defaultdict(list)
        for clip in training:
            by_speaker[clip.speaker].append(clip)
        self.speakers: dict[str, int] = {}
        examples: list[Drawn] = []
        weights: list[float] = []
        for speaker in sorted(by_speaker):
            random = np.random.default_rng((seed, 21, len(self.speakers)))
            clips = by_speaker[speaker]
            chosen = random.permutation(len(clips))[: data.clips]
            self.speakers[speaker] = len(chosen)
            common = len(clips) > 10
            for index in chosen:
                stills = min(data.stills, 2) if common else data.stills
                made = list(clip_examples(clips[index], stills, data.frames, random))
                examples += made
                weights += [data.common if common else 1.0] * len(made)
        self._held: list[Drawn] = []
        for number, clip in enumerate(validation):
            random = np.random.default_rng((seed, 22, number))
            self._held += clip_examples(clip, min(data.stills, 2), data.frames, random)
        self._held_pairs: list[Drawn] = []
        for number, pair in enumerate(_pairs(Path(data.pairs)) if data.pairs else ()):
            if number % data.held_out:
                examples += pair
                weights += [data.pair] * len(pair)
            else:
                self._held_pairs += pair
        self._examples = examples
        self._weights = np.array(weights) / sum(weights)
        torch.manual_seed(seed)
        self.network: nn.Module = RefinerNetworks(config)
        rows = TOP + (torch.arange(ROWS)[:, None] + 0.5) / PIXELS
        columns = (torch.arange(COLUMNS) + 0.5 - COLUMNS / 2) / PIXELS
        self._near = torch.exp(-((columns / 0.5) ** 4) - ((rows - 0.05) / 0.35) ** 4)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Still, drawn, real (B, 3, ROWS, COLUMNS), 1 being white, hole (B, 1, ...), and of
        each the share and the weight of its inside (B,)."""
        random = np.random.default_rng((self._seed, 23, step))
        chosen = random.choice(len(self._examples), self._data.batch, p=self._weights)
        still, drawn, real, hole, share, inside = _columns([self._examples[i] for i in chosen])
        count = len(chosen)
        mirror = torch.from_numpy(random.random(count) < 0.5)[:, None, None, None]
        gain = random.normal(0, 0.12, (count, 1, 1, 1)) + random.normal(0, 0.05, (count, 3, 1, 1))
        gains = torch.from_numpy(np.exp(gain)).float()
        grey = torch.from_numpy(random.random((count, 1, 1, 1)) < self._data.grey).float()
        luma = torch.tensor(_LUMA)[:, None, None]
        pictures = []
        for picture in (still, drawn, real):
            light = torch.where(mirror, picture.flip(3), picture) * gains
            pictures.append(torch.lerp(light, (light * luma).sum(1, keepdim=True), grey))
        pictures.append(torch.where(mirror, hole.flip(3), hole))
        # What comes in at the other side lies where nothing is corrected.
        by = random.integers(-self._data.shift, self._data.shift + 1, (count, 2))
        for picture in pictures:
            for index, (down, across) in enumerate(by.tolist()):
                picture[index] = picture[index].roll((down, across), (1, 2))
        return (*pictures, share, inside)

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        """Smooth distance of the corrected frame from the real one at the correction's own
        resolution, in hundredths of white."""
        assert isinstance(network, RefinerNetworks)
        still, drawn, real, hole, share, inside = batch
        with torch.autocast(still.device.type, enabled=False):
            given = network.refiner(still, drawn, hole) * share[:, None, None, None]
            coarse = F.avg_pool2d(drawn, 2) * (1 + given)
            wanted = F.avg_pool2d(real, 2)
            weight = 0.3 + self._data.mouth * self._near.to(hole) + self._data.hole * hole
            weight = weight * (1 - hole * (1 - inside)[:, None, None, None])
            off = ((coarse - wanted).square() + 1e-4).sqrt() * F.avg_pool2d(weight, 2)
            terms = {"pixels": 100 * off.mean(), "size": 100 * given.abs().mean()}
            total = terms["pixels"] + self._data.small * terms["size"]
            if self._data.adversarial:
                total = total + self._adversarial_terms(
                    network, still, drawn * (1 + _finer(given)), real, terms
                )
        return {"loss": total, **terms}

    def _adversarial_terms(
        self,
        network: RefinerNetworks,
        still: Tensor,
        made: Tensor,
        real: Tensor,
        terms: dict[str, Tensor],
    ) -> Tensor:
        """Least squares: the critic tells real frames from corrected ones."""
        judged, fake = network.judge(still, real), network.judge(still, made.detach())
        critic = ((judged - 1).square().mean() + fake.square().mean()) / 2
        network.critic.requires_grad_(False)
        fooled = (network.judge(still, made) - 1).square().mean()
        network.critic.requires_grad_(True)
        terms["critic"], terms["fooled"] = critic, fooled
        return critic + self._data.adversarial * fooled

    @torch.no_grad()
    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """On other people: PSNR of the mouth as drawn and corrected, dB; ``gain`` is the
        difference, on clips and on pairs."""
        assert isinstance(network, RefinerNetworks)
        device = next(network.parameters()).device
        scores: dict[str, float] = {}
        gain = 0.0
        for name, examples in (("clips", self._held), ("pairs", self._held_pairs)):
            before, after = [], []
            for first in range(0, len(examples), 64):
                part = [t.to(device) for t in _columns(examples[first : first + 64])]
                still, drawn, real, hole, share, _ = part
                given = network.refiner(still, drawn, hole) * share[:, None, None, None]
                before.append(_psnr(drawn, real))
                after.append(_psnr(drawn * (1 + _finer(given)), real))
            if before:
                scores[f"{name}_drawn"] = float(torch.cat(before).mean())
                scores[f"{name}_corrected"] = float(torch.cat(after).mean())
                gain += scores[f"{name}_corrected"] - scores[f"{name}_drawn"]
        return {**scores, "gain": gain} if scores else scores

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        assert isinstance(network, RefinerNetworks)
        save_network(
            network.refiner,
            path,
            {**info, "speakers": self.speakers, "pairs_held_out": len(self._held_pairs) // 2},
            format_name=REFINER_FORMAT,
            config=asdict(self._config),
            rounded=MouthRefiner(self._config),
            golden=golden_refiner,
        )


def _finer(given: Tensor) -> Tensor:
    return F.interpolate(given, scale_factor=2.0, mode="bilinear", align_corners=False)


def _psnr(made: Tensor, real: Tensor) -> Tensor:
    """(B,) of lips and what is around them, dB, 1 being white."""
    off = (made.clamp(0, 1.3) - real)[(..., *_MOUTH)]
    return -10 * off.square().mean((1, 2, 3)).clamp_min(1e-6).log10()


def _columns(examples: Sequence[Drawn]) -> tuple[Tensor, ...]:
    white = torch.from_numpy(np.stack([e.white for e in examples]))[:, :, None, None]

    def pictures(name: str) -> Tensor:
        stacked = torch.from_numpy(np.stack([getattr(e, name) for e in examples]))
        return stacked.permute(0, 3, 1, 2).float() / white

    hole = torch.from_numpy(np.stack([e.hole for e in examples])).float()[:, None] / 255
    share = torch.tensor([e.share for e in examples])
    inside = torch.tensor([e.inside for e in examples])
    return pictures("still"), pictures("drawn"), pictures("real"), hole, share, inside


def _pairs(root: Path) -> Iterator[tuple[Drawn, Drawn]]:
    """The pairs of a folder in the order of their names, whose faces are found."""
    from stillspeak.face.landmarks import MediaPipeDetector
    from stillspeak.media.image import load_image

    found = [
        (neutral, other)
        for neutral in sorted(root.glob("*_neutral.jpg"))
        if (other := neutral.with_name(neutral.name.replace("_neutral", "_smiling"))).is_file()
    ]
    if not found:
        raise DataError(f"{root}: holds no PERSON_neutral.jpg beside a PERSON_smiling.jpg")
    with MediaPipeDetector() as detector:
        for files in found:
            pictures = [load_image(path) for path in files]
            faces = [detector.detect(picture) for picture in pictures]
            if all(faces):
                points = [np.asarray(face[0].points, np.float64) for face in faces]
                yield pair_examples(pictures, points)
