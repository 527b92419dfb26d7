"""Fits resources/covered_mouth.safetensors: whether lips can be seen where a face should have them.

    python scripts/fit_covered_mouth.py PORTRAITS GRID OUT

PORTRAITS holds NNN_neutral.jpg and NNN_smiling.jpg (Face Research Lab London Set, CC BY 4.0), GRID
the corpus's speakers. Masks, hands, microphones and other things are drawn over their mouths, and
the face is looked for again. Prints cross-validated scores, then fits with all; people whose GRID
clips are for tests are kept out.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from skimage import data
from torch import Tensor
from torch.nn import functional

from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.face.mouth import OUTER_LIPS
from stillspeak.media.image import load_image
from stillspeak.rendering.check import COVERED, covered_logits, mouth_patch, relative_colours

Array = npt.NDArray[np.float64]
Rng = np.random.Generator

DATA = (
    "Face Research Lab London Set (DeBruine, Jones 2017), 82 people, CC BY 4.0; "
    "GRID (Cooke, Barker, Cunningham, Shao 2006), 19 speakers, CC BY 4.0; textures of scikit-image"
)
TEST = ("s2", "s4", "s15")
TEXTURES = ("coffee", "chelsea", "rocket", "brick", "gravel", "camera", "coins", "moon", "text")
EYES = 80.0
"""Pixels between the eyes of the pictures that things are drawn into."""
FOLDS, EPOCHS, BATCH, RATE = 4, 16, 96, 4e-3
LUMA = torch.tensor([0.299, 0.587, 0.114])
VIEWS = ("as it is", "grey", "dim", "warm", "blurred")


# --- things before a mouth --------------------------------------------------------------------


class Place:
    """A face to draw on: lengths in distances between the eyes, from the middle of the lips."""

    def __init__(self, picture: npt.NDArray[np.uint8], points: Array, rng: Rng) -> None:
        self.picture, self.points, self.rng = picture.astype(np.float32), points, rng
        left, right = points[[33, 133]].mean(axis=0), points[[362, 263]].mean(axis=0)
        self.unit = float(np.linalg.norm(right - left))
        self.right = (right - left) / self.unit
        self.down = np.array([-self.right[1], self.right[0]])
        self.mouth = (points[13] + points[14]) / 2
        rows, columns = picture.shape[:2]
        at = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
        self.at = at.astype(np.float32)
        self.u, self.v = (
            (self.at - self.mouth) @ axis / self.unit for axis in (self.right, self.down)
        )
        spots = np.rint(points[[117, 346, 50, 280, 151]]).astype(int)
        spots = np.clip(spots, 0, (columns - 1, rows - 1))
        self.skin = np.median(self.picture[spots[:, 1], spots[:, 0]], axis=0)

    def filled(self, ring: list[Array]) -> Array:
        inside = np.zeros(self.u.shape, np.float32)
        fixed = np.rint(np.array(ring) * 16).astype(np.int32)
        cv2.fillPoly(inside, [fixed], 1, cv2.LINE_AA, 4)
        return inside.astype(float)

    def plain(self, colour: npt.ArrayLike, grain: float = 8.0) -> Array:
        """A surface of one colour in uneven light."""
        rng, (rows, columns) = self.rng, self.u.shape
        tilt = rng.uniform(-0.25, 0.25, 2)
        light = np.clip(1 + tilt[0] * self.u + tilt[1] * self.v - 0.12 * self.u**2, 0.2, 1.8)
        step = max(int(0.15 * self.unit), 1)
        spots = rng.standard_normal((rows // step + 2, columns // step + 2))
        spots = cv2.resize(spots, (columns, rows), interpolation=cv2.INTER_CUBIC)
        noise = rng.uniform(0, 3) * rng.standard_normal((rows, columns))
        return (
            np.asarray(colour) * light[..., None]
            + (rng.uniform(0, grain) * spots + noise)[..., None]
        )

    def texture(self) -> Array:
        """A piece of some other picture."""
        rng, (rows, columns) = self.rng, self.u.shape
        whole = np.asarray(getattr(data, TEXTURES[rng.integers(len(TEXTURES))])())
        whole = np.repeat(whole[..., None], 3, axis=2) if whole.ndim == 2 else whole[..., :3]
        side = int(rng.uniform(40, min(whole.shape[:2])))
        y, x = (int(rng.integers(n - side + 1)) for n in whole.shape[:2])
        piece = np.ascontiguousarray(whole[y : y + side, x : x + side])
        return np.asarray(cv2.resize(piece, (columns, rows), interpolation=cv2.INTER_AREA), float)

    def capsule(self, a: Array, b: Array, radius: float) -> Array:
        """Distance from the line a to b over a radius."""
        way = b - a
        along = np.clip((self.at - a) @ way / (way @ way), 0, 1)
        return np.linalg.norm(self.at - a - along[..., None] * way, axis=-1) / radius


Drawn = tuple[Array, Array]


def mask(at: Place, colour: Array | None) -> Drawn:
    rng, p = at.rng, at.points
    right = (454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
    left = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148)
    first = int(rng.integers(3))
    top = p[rng.choice([6, 197, 195])] + rng.uniform(-0.05, 0.25) * at.unit * at.down
    side = 0.3 * at.unit * at.right + 0.02 * at.unit * at.down
    chin = p[152] + rng.uniform(0, 0.12) * at.unit * at.down
    ring = [*p[list(right[first:])][::-1], top + side, top, top + side * (-1, 1)]
    shape = at.filled([*ring, *p[list(left[first:])], chin])
    cloth = at.texture() if colour is None else at.plain(colour * rng.uniform(0.75, 1.1))
    if rng.random() < 0.7:
        fold = (at.v / rng.uniform(0.18, 0.3) + rng.uniform()) % 1
        cloth *= (1 - rng.uniform(0.05, 0.3) * np.exp(-((fold / 0.12) ** 2)))[..., None]
    return cloth * np.clip(at.skin.mean() / 150, 0.25, 1.3), shape


def hand(at: Place, *, part: bool = False) -> Drawn:
    rng, unit = at.rng, at.unit
    skin = at.skin * rng.uniform(0.7, 1.15) * (1, rng.uniform(0.93, 1.03), rng.uniform(0.9, 1.05))
    colour, shape = at.plain(skin), np.zeros(at.u.shape)
    angle = rng.uniform(-0.6, 0.6) if rng.random() < 0.6 else rng.uniform(-3.1, 3.1)
    out = at.right * np.cos(angle) + at.down * np.sin(angle)
    side = np.array([-out[1], out[0]])
    aside = rng.uniform(0.15, 0.35) * rng.choice([-1, 1]) if part else rng.uniform(-0.1, 0.1)
    middle = at.mouth + unit * (aside * side + rng.uniform(-0.6 if part else -0.1, 0.1) * out)
    thick = unit * rng.uniform(0.1, 0.15)
    for finger in (-1.5, -0.5, 0.5, 1.5):
        root = middle + 1.85 * finger * thick * side - 1.2 * unit * out
        tip = root + (1.2 + rng.uniform(0.35, 0.8) - 0.08 * abs(finger)) * unit * out
        distance = at.capsule(tip, root, thick * rng.uniform(0.92, 1.05))
        inside = np.clip((1.02 - distance) * thick / 1.5, 0, 1)
        round_ = 1 - 0.28 * np.clip(distance, 0, 1)[..., None] ** 3 * inside[..., None]
        colour, shape = colour * round_, np.maximum(shape, inside)
    if rng.random() < 0.7:
        palm = at.capsule(middle - 0.6 * unit * out, middle - 1.2 * unit * out, 0.5 * unit)
        shape = np.maximum(shape, np.clip((1 - palm) * unit * 0.3, 0, 1))
    return colour, shape


def microphone(at: Place, *, large: bool = False) -> Drawn:
    rng, unit = at.rng, at.unit
    radius = unit * (rng.uniform(0.45, 0.7) if large else rng.uniform(0.28, 0.55))
    low, high = (-0.12, 0.12) if large else (-0.05, 0.35)
    place = rng.uniform(-0.2, 0.2) * at.right + rng.uniform(low, high) * at.down
    middle = at.mouth + unit * place
    stick = at.down + rng.uniform(-1, 1) * at.right
    grey = rng.choice([25, 60, 90, 150])
    colour = at.plain(np.full(3, grey) if rng.random() < 0.8 else rng.uniform(20, 170, 3), 14)
    distance = np.linalg.norm(at.at - middle, axis=-1) / radius
    if rng.random() < 0.5:
        mesh = np.sin(at.at * (np.pi / max(0.09 * radius, 2))).prod(axis=-1) > 0
        colour *= 1 - 0.35 * mesh[..., None]
    gleam = np.linalg.norm(at.at - middle + radius * np.array([0.35, 0.4]), axis=-1) / radius
    colour *= (1 - 0.5 * np.clip(distance, 0, 1) ** 2)[..., None]
    colour += rng.uniform(15, 90) * np.exp(-((gleam / 0.45) ** 2))[..., None]
    handle = at.capsule(middle, middle + 4 * unit * stick, 0.42 * radius)
    shape = np.maximum(1 - distance, (1 - handle) * 0.5) * radius / 1.5
    return colour, np.clip(shape, 0, 1)


def thing(at: Place, colour: Array) -> Drawn:
    """A rectangle or an oval, roughly over the mouth."""
    rng, unit = at.rng, at.unit
    middle, turn = at.mouth + rng.uniform(-0.25, 0.25, 2) * unit, rng.uniform(-0.5, 0.5)
    x = unit * rng.uniform(0.4, 1.1) * (np.cos(turn) * at.right + np.sin(turn) * at.down)
    y = unit * rng.uniform(0.3, 0.9) * (np.cos(turn) * at.down - np.sin(turn) * at.right)
    steps = np.linspace(0, 2 * np.pi, 40)
    if rng.random() < 0.5:
        steps = np.arange(4) * np.pi / 2 + np.pi / 4
        x, y = x * np.sqrt(2), y * np.sqrt(2)
    return colour, at.filled([middle + np.cos(s) * x + np.sin(s) * y for s in steps])


def own_skin(at: Place) -> Drawn:
    """A piece of the same face's cheek, chin or forehead: skin and nothing else."""
    rng = at.rng
    source, size = at.points[rng.choice([50, 280, 151, 9, 205, 425])], rng.uniform(0.25, 0.5)
    move = np.column_stack([np.eye(2) * size, source - size * at.mouth])
    skin = cv2.warpAffine(
        at.picture,
        move,
        at.u.shape[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    colour, shape = thing(at, np.asarray(skin, float))
    return colour, cv2.GaussianBlur(shape, (0, 0), at.unit * rng.uniform(0.01, 0.06))


COVERS: dict[str, Callable[[Place], Drawn]] = {
    "mask, blue": lambda at: mask(at, np.array([150.0, 190.0, 215.0])),
    "mask, white": lambda at: mask(at, np.array([228.0, 228.0, 226.0])),
    "mask, black": lambda at: mask(at, np.array([28.0, 28.0, 30.0])),
    "mask, skin's colour": lambda at: mask(at, at.skin),
    "mask, patterned": lambda at: mask(at, None),
    "hand": hand,
    "hand, a part": lambda at: hand(at, part=True),
    "microphone": microphone,
    "microphone, large": lambda at: microphone(at, large=True),
    "thing, patterned": lambda at: thing(at, at.texture()),
    "thing, plain": lambda at: thing(at, at.plain(at.rng.uniform(10, 245, 3))),
    "bare skin": own_skin,
}


def covered(
    picture: npt.NDArray[np.uint8], points: Array, kind: str, rng: Rng
) -> tuple[npt.NDArray[np.uint8], float]:
    """A picture with a covered mouth, and the share of the lips that is."""
    at = Place(picture, points, rng)
    colour, shape = COVERS[kind](at)
    shape = cv2.GaussianBlur(shape, (0, 0), max(0.006 * at.unit, 0.5))
    mixed = at.picture * (1 - shape[..., None]) + np.clip(colour, 0, 255) * shape[..., None]
    lips = at.filled(list(points[list(OUTER_LIPS)]))
    share = float((lips * shape).sum() / max(lips.sum(), 1))
    return np.clip(mixed, 0, 255).astype(np.uint8), share


# --- examples ---------------------------------------------------------------------------------


def stills(portraits: Path, grid: Path, rng: Rng) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Names of people and their pictures."""
    for path in sorted(portraits.glob("*.jpg")):
        yield path.stem[:3], load_image(path)
    for folder in sorted(grid.glob("s[0-9]*")):
        clips = sorted([*folder.glob("*.mpg"), *folder.glob("*.mp4")])
        for path in rng.choice(np.array(clips, object), min(len(clips), 8), replace=False):
            with av.open(str(path)) as file:
                frames = list(file.decode(video=0))
            for index in rng.choice(len(frames), max(8 // len(clips), 1), replace=False):
                yield folder.name, frames[index].to_ndarray(format="rgb24")


Example = tuple[str, str, float, npt.NDArray[np.uint8], Array]


def examples(portraits: Path, grid: Path) -> Iterator[Example]:
    """Person, cover, share of the lips under it, what the network sees."""
    rng = np.random.default_rng(3)
    with MediaPipeDetector() as detector:
        for person, whole in stills(portraits, grid, rng):
            found = detector.detect(whole)
            if not found:
                continue
            factor = min(EYES / found[0].eye_distance, 1.0)
            picture = cv2.resize(whole, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            picture = np.ascontiguousarray(picture, np.uint8)
            for face in detector.detect(picture)[:1]:
                points = face.points.astype(float)
                for _ in range(3):
                    yield (person, "", 0.0, *mouth_patch(picture, points))
                for kind in COVERS:
                    drawn, share = covered(picture, points, kind, rng)
                    for again in detector.detect(drawn)[:1]:
                        yield (person, kind, share, *mouth_patch(drawn, again.points))


# --- fitting ----------------------------------------------------------------------------------


def blurred(patches: Tensor, sigma: float) -> Tensor:
    line = torch.exp(-0.5 * (torch.arange(-6, 7) / sigma) ** 2)
    line = (line / line.sum()).repeat(patches.shape[1], 1, 1, 1)
    padded = functional.pad(patches, (6, 6, 6, 6), mode="replicate")
    across = functional.conv2d(padded, line, groups=patches.shape[1])
    return functional.conv2d(across, line.transpose(2, 3), groups=patches.shape[1])


def greyed(patches: Tensor, skin: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    grey = (patches * LUMA[:, None, None]).sum(1, keepdim=True)
    own = (skin * LUMA).sum(1, keepdim=True)
    return torch.lerp(patches, grey, share[..., None, None]), torch.lerp(skin, own, share)


def varied(patches: Tensor, skin: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Other light, other films, other cameras, and landmarks that err a little."""
    n = len(patches)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    if uniform(0, 1, 1) < 0.5:
        patches = patches.flip(3)
    if uniform(0, 1, 1) < 0.5:
        patches = blurred(patches, float(uniform(0.4, 2.8, 1)))
    patches, skin = greyed(patches, skin, (uniform(0, 1, n, 1) < 0.35).float())
    gain = torch.exp(0.12 * torch.randn(n, 3, generator=random) + uniform(-1.3, 0.35, n, 1))
    gamma = torch.exp(0.15 * torch.randn(n, 1, generator=random))
    patches = 255 * (patches / 255).clamp(1e-4, 1) ** gamma[..., None, None] * gain[..., None, None]
    skin = (255 * (skin / 255).clamp(1e-4, 1) ** gamma * gain).clamp(0, 255)
    grain = uniform(0, 6, n, 1, 1, 1) * (uniform(0, 1, n, 1, 1, 1) < 0.5)
    patches = (patches + grain * torch.randn(patches.shape, generator=random)).clamp(0, 255).round()
    y, x = (int(v) for v in uniform(0, 6, 2))
    rows, columns = patches.shape[2:]
    padded = functional.pad(patches, (3, 3, 3, 3), mode="replicate")
    return padded[:, :, y : y + rows, x : x + columns], skin


def fit(patches: Tensor, skin: Tensor, share: Tensor) -> dict[str, Tensor]:
    """Weights for :func:`covered_logits`; a mouth half covered counts as covered."""
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    convolutions = {"a": (12, 3, 3, 3), "b": (24, 12, 3, 3), "c": (32, 24, 3, 3)}
    shapes = {**convolutions, "d": (12, 32, 1, 1), "e": (1, 12 * 56)}
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        bound = float(np.prod(shape[1:])) ** -0.5
        weights[f"{name}.weight"] = torch.empty(shape).uniform_(-bound, bound)
        weights[f"{name}.bias"] = torch.empty(shape[0]).uniform_(-bound, bound)
    for one in weights.values():
        one.requires_grad_()
    steps = EPOCHS * (len(patches) // BATCH)
    optimizer = torch.optim.AdamW(weights.values(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        per_epoch = len(patches) // BATCH
        if step % per_epoch == 0:
            order = torch.randperm(len(patches), generator=random)
        rows = order[step % per_epoch * BATCH :][:BATCH]
        wanted = ((share[rows] - 0.1) / 0.4).clamp(0, 1) * 0.98 + 0.01
        seen = relative_colours(*varied(patches[rows], skin[rows], random))
        loss = functional.binary_cross_entropy_with_logits(
            covered_logits(weights, seen), wanted, weight=torch.where(share[rows] < 0.1, 2.0, 1.0)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {name: one.detach() for name, one in weights.items()}


def viewed(view: str, patches: Tensor, skin: Tensor) -> tuple[Tensor, Tensor]:
    if view == "grey":
        return greyed(patches, skin, torch.ones(len(patches), 1))
    if view == "dim":
        return (0.3 * patches).round(), 0.3 * skin
    if view == "warm":
        film = torch.tensor([1.25, 1.0, 0.65])
        return (patches * film[:, None, None]).clamp(0, 255), (skin * film).clamp(0, 255)
    return (blurred(patches, 2.0) if view == "blurred" else patches), skin


def main(arguments: list[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("portraits", "grid", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # of small convolutions
    people, kinds, shares, patches_, skins = zip(
        *examples(options.portraits, options.grid), strict=True
    )
    patches = torch.tensor(np.array(patches_)).permute(0, 3, 1, 2).float()
    skin, share = torch.tensor(np.array(skins)).float(), torch.tensor(shares)
    fold = torch.tensor([-1 if p in TEST else zlib.crc32(p.encode()) % FOLDS for p in people])
    scores = {view: torch.zeros(len(patches)) for view in VIEWS}
    for held in range(-1, FOLDS):
        learned = (fold >= 0) & (fold != held)
        weights = fit(patches[learned], skin[learned], share[learned])
        if held < 0:
            released = weights
        rows = fold == held
        for view in VIEWS:
            seen = relative_colours(*viewed(view, patches[rows], skin[rows]))
            scores[view][rows] = covered_logits(weights, seen)
    named = np.array(kinds)
    warned: dict[str, dict[str, float]] = {}
    for kind in ("", *COVERS):
        rows = torch.from_numpy(named == kind) & ((share > 0.6) | (kind == ""))
        rates = {
            view: round((scores[view][rows] > COVERED).float().mean().item(), 3) for view in VIEWS
        }
        warned[kind or "nothing"] = {"pictures": int(rows.sum()), **rates}
        print(f"{kind or 'nothing':20} {warned[kind or 'nothing']}")
    info = {
        "command": "python scripts/fit_covered_mouth.py PORTRAITS GRID OUT",
        "data": DATA,
        "epochs": EPOCHS,
        "batch": BATCH,
        "log_odds": COVERED,
        "warned_of": warned,
    }
    save_file(released, options.out, {"info": json.dumps(info)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
