"""Makes docs/gallery: contact sheets of what a model generates, and the page that shows them.

    python scripts/gallery.py [--model NAME_OR_FILE] [--data cache/grid] [--seed 0]
        [--pictures DIR --private OUT_DIR]

The same model, data and seed give the same pictures. Sheets of --pictures, whose rights nobody
has looked at, go to --private and never into the gallery. What stands on the page outside its two
markers stays; sheets that it showed and that are not made any more are removed.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.data import astronaut

from stillspeak.animate import Animator
from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import CachedClip, load_manifest, open_clip
from stillspeak.errors import DataError, StillspeakError
from stillspeak.evaluation.clip import EvaluationClip
from stillspeak.evaluation.measures.image_quality import Frames
from stillspeak.evaluation.measures.lips import track_lips
from stillspeak.evaluation.report import sheets as report_sheets
from stillspeak.evaluation.report.sheets import Movement, SystemFrames
from stillspeak.evaluation.systems import CropAnimator, Loaded, System, open_system
from stillspeak.evaluation.tools import Tools
from stillspeak.evaluation.traces import spoken, trace
from stillspeak.face.align import crop_face, face_transform, invert_transform, transform_points
from stillspeak.face.landmarks import LandmarkDetector, MediaPipeDetector, choose_face
from stillspeak.face.mouth import POSE_POINTS, lip_opening
from stillspeak.media.contact_sheet import Picture, contact_sheet
from stillspeak.media.image import load_image
from stillspeak.models.regions import EYES_BOX, MOUTH_BOX
from stillspeak.motion.frames import UNITS, FaceMotion
from stillspeak.motion.mood_track import looks
from stillspeak.motion.moods import MOODS
from stillspeak.rendering.portrait import fit_picture
from stillspeak.weights import DEFAULT_MODEL, catalogue, load_model

ROOT = Path(__file__).resolve().parents[1]
SPEECH = Path(str(files("stillspeak"))) / "resources" / "speech.flac"

MARGIN = 6
"""White pixels around a sheet and above its labels."""

BEGIN, END = "<!-- gallery: begin -->", "<!-- gallery: end -->"

CREDIT = """\
Rows marked as generated are synthetic: the model's frames for a still and a sound. Real frames and
stills of s2, s4 and other speakers are from the [GRID audiovisual sentence
corpus](https://zenodo.org/records/3625687) (M. Cooke, J. Barker, S. Cunningham, X. Shao, 2006), [CC
BY 4.0](https://creativecommons.org/licenses/by/4.0/), cut to aligned faces and enlarged; generated
frames of these speakers are adapted from it. The astronaut is Eileen Collins, photographed by NASA,
public domain, by way of scikit-image."""

PORTRAIT = "the astronaut"
HEAD = ("turn", "nod", "tilt")
MOMENTS = 8
"""Columns beside the still at most."""
CONSECUTIVE = 11
"""Frames of a blink or a movement of the brows at most."""
WIDTH = 2 * FRAME_WIDTH
"""Width of a column: crops at twice their size."""
MOUTH_WIDTH = 4 * (MOUTH_BOX[3] - MOUTH_BOX[2])
QUALITY = 85
"""Of the JPEGs."""
ROOM_NOISE = 10 ** (-60 / 20)
"""Level of what the gallery calls silence: -60 dB of full scale."""


@dataclass(frozen=True)
class Page:
    """A sheet and its place on the page. ``rows`` are empty where there is nothing to show."""

    name: str
    title: str
    caption: str
    columns: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[Picture]]] = ()


def main() -> None:
    """Parse arguments, make sheets, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or weights file")
    parser.add_argument("--data", type=Path, default=Path("cache/grid"), help="prepared cache")
    parser.add_argument("--speakers", nargs="+", default=["s2", "s4", "s15"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--searched", type=int, default=12, help="clips searched for blinks")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "gallery")
    parser.add_argument("--pictures", type=Path, help="folder of further portraits")
    parser.add_argument("--private", type=Path, help="where their sheets go")
    arguments = parser.parse_args()
    if (arguments.pictures is None) != (arguments.private is None):
        parser.error("--pictures and --private belong together")
    gallery, private = arguments.output.resolve(), (arguments.private or Path("/")).resolve()
    if private == gallery or gallery in private.parents:
        parser.error("--private lies in the gallery; give a folder elsewhere")
    try:
        make(arguments)
    except StillspeakError as error:
        raise SystemExit(f"gallery: {error}") from error


def make(arguments: argparse.Namespace) -> None:
    """Make the gallery, and the private sheets if there are to be any."""
    system = open_system(arguments.model)
    name = catalogue()[DEFAULT_MODEL].name if system.label == DEFAULT_MODEL else system.label
    name = name if name in catalogue() else "/".join(Path(name).with_suffix("").parts[-2:])
    clips = of_speakers(load_manifest(arguments.data), arguments.speakers)
    portrait = astronaut()
    command = f"python scripts/gallery.py --model {shlex.quote(arguments.model)}"
    command += f" --data {shlex.quote(str(arguments.data))} --seed {arguments.seed}"
    made = (
        f"Made by `{command}`: model `{name}` (SHA-256 {system.sha256[:12]}), seed "
        f"{arguments.seed}, speakers {', '.join(arguments.speakers)}"
    )
    with MediaPipeDetector(max_faces=1) as detector:
        faces = Faces(system, arguments.data, arguments.seed)
        animator = Animator(faces.generator, device="cpu", detector=detector)
        faces.stills[PORTRAIT] = aligned(portrait, detector)
        firsts = [best_clip(clips[speaker]) for speaker in arguments.speakers]

        def pages() -> Iterator[Page]:
            for clip in firsts:
                yield from speaker_pages(faces, clip, name)
            caption = "The demo: NASA's portrait and the bundled sentence."
            yield portrait_page(animator, portrait, "demo", PORTRAIT, caption, arguments.seed)
            yield from motion_pages(animator, portrait)
            named = [named_clip(clip) for clip in firsts]
            yield same_sound_page(faces, [*named, PORTRAIT], name)
            turns = sorted((i, s, c) for s in clips for i, c in enumerate(clips[s]))
            searched = [named_clip(clip) for _, _, clip in turns[: arguments.searched]]
            yield from expression_pages(faces, searched, name, detector)
            yield silence_page(faces, [*named, PORTRAIT], detector)
            yield open_still_page(faces, firsts, name)

        write(arguments.output, pages(), f"{made}.\n\n{CREDIT}")
        if arguments.pictures is not None:
            write(
                arguments.private,
                private_pages(animator, arguments.pictures, arguments.seed),
                f"{made}.\n\nNot to be published: nobody has looked at the pictures' rights.",
            )


class Faces(SystemFrames):
    """Frames of one model with a seed of one's own; stills need not be of the cache.

    Attributes:
        generator: the model.
        seed: of what the sound does not say.
        stills: aligned crops (H, W, 3) uint8 by what they are called.
    """

    def __init__(self, system: System, data: Path, seed: int) -> None:
        super().__init__(system, data, Path(), {})
        self.generator = load_model(system.weights)
        self._animator = CropAnimator(self.generator)
        self.stills: dict[str, Picture] = {}
        self.seed = seed

    def real(self, clip: str) -> Loaded:
        """The real video of a clip; of another still, that one frame."""
        if clip in self.stills:
            return Loaded(self.stills[clip][None], np.zeros(0, np.float32), [])
        return super().real(clip)

    def speaking(self, face: str, sound: str) -> Frames:
        """(T, H, W, 3) uint8: a still, driven by a clip's sound."""
        if (face, sound) not in self._made:
            self._made[face, sound] = self.speak(self.real(face).frames[0], self.real(sound).audio)
        return self._made[face, sound]

    def speak(self, still: Picture, audio: np.ndarray) -> Frames:
        """(T, H, W, 3) uint8: an aligned crop, driven by a sound (S,)."""
        return self._animator.animate(still, audio, self.seed)


def of_speakers(clips: Sequence[CachedClip], speakers: Sequence[str]) -> dict[str, list[Any]]:
    """The speakers' clips, sorted by name.

    Raises:
        DataError: a speaker has none.
    """
    found = {s: sorted((c for c in clips if c.speaker == s), key=named_clip) for s in speakers}
    for speaker, own in found.items():
        if not own:
            raise DataError(f"the prepared cache holds no clip of {speaker}; give --speakers")
    return found


def named_clip(clip: CachedClip) -> str:
    """What a clip is called."""
    return f"{clip.speaker}/{clip.name}"


def best_clip(clips: Sequence[CachedClip]) -> CachedClip:
    """The clip with the most words that begin with closed lips."""
    return max(clips, key=lambda clip: sum(w[0] in "bpm" for w in (clip.text or "").split()))


def openings(clip: CachedClip) -> np.ndarray:
    """(T,) the real lips' opening in pixels."""
    with open_clip(clip) as tensors:
        return lip_opening(tensors.get_tensor("landmarks"))


def moments(
    words: Sequence[tuple[float, float, str]], opening: np.ndarray
) -> list[tuple[str, int]]:
    """Frames worth a look, with headings: the silence before the sentence, lips closed for b, p
    and m, and the words that open them widest. Equal distances where there are no word timings.

    Args:
        words: (start s, end s, word).
        opening: (T,) the real lips', in pixels.
    """
    last = len(opening) - 1
    said = [
        (word, min(int(start * VIDEO_FPS), last), min(int(end * VIDEO_FPS), last))
        for start, end, word in spoken(words)
    ]
    if not said:
        places = np.linspace(0, last, MOMENTS + 1)[1:].round().astype(int)
        return [(f"\n{t / VIDEO_FPS:.2f} s", int(t)) for t in places]
    begin = said[0][1]
    pause = range(begin // 4, max(3 * begin // 4, begin // 4 + 1))  # neither still nor first word
    found = {min(pause, key=lambda t: opening[t]): "silence"}
    for word, start, _ in said:
        if word[0] in "bpm":
            near = range(max(start - 3, 0), min(start + 3, last) + 1)
            found[min(near, key=lambda t: opening[t])] = f"closed: {word}"
    peaks = [
        (max(range(start, end + 1), key=lambda t: opening[t]), word) for word, start, end in said
    ]
    for peak, word in sorted(peaks, key=lambda p: -opening[p[0]]):
        if len(found) < MOMENTS:
            found.setdefault(peak, f"widest: {word}")
    return [(f"{what}\n{t / VIDEO_FPS:.2f} s", t) for t, what in sorted(found.items())[:MOMENTS]]


def speaker_pages(faces: Faces, clip: CachedClip, name: str) -> Iterator[Page]:
    """Whole faces and mouths of one clip, real above generated."""
    called = named_clip(clip)
    truth, made = faces.real(called), faces.generated(called)
    chosen = moments(truth.words, openings(clip))
    still, at = truth.frames[0], [t for _, t in chosen]
    rows = [
        ("real video", [still, *truth.frames[at]]),
        (f"generated by {name}", [np.full_like(still, 255), *made[at]]),
    ]
    said = f"“{truth.text}”" if truth.text else "a sentence"
    caption = (
        f"GRID speaker {clip.speaker}, clip {clip.name}, {said}. The still is the real video's "
        "first frame. Times are chosen by the real lips: silence, closures, widest openings."
    )
    columns = ["the still", *(what for what, _ in chosen)]
    title = f"{clip.speaker}, not seen in training" if clip.split == "test" else clip.speaker
    yield Page(f"grid-{clip.speaker}", title, caption, columns, scaled(rows, WIDTH))
    mouths = [(label, [cut(p, MOUTH_BOX) for p in pictures]) for label, pictures in rows]
    yield Page(
        f"grid-{clip.speaker}-mouths",
        f"{clip.speaker}, mouths",
        "The same moments, the mouth enlarged four times.",
        columns,
        scaled(mouths, MOUTH_WIDTH),
    )


def cut(picture: Picture, box: tuple[int, int, int, int]) -> Picture:
    """The part of a picture in a box: first and last row and column."""
    top, bottom, left, right = box
    return picture[top:bottom, left:right]


def scaled(
    rows: Sequence[tuple[str, Sequence[Picture]]], width: int
) -> list[tuple[str, list[Picture]]]:
    """Rows with their pictures at a common width."""
    return [(label, [scale_to_width(p, width) for p in pictures]) for label, pictures in rows]


def aligned(picture: Picture, detector: LandmarkDetector) -> Picture:
    """The aligned crop of a picture's face."""
    transform = face_transform(choose_face(detector.detect(picture)).points)
    return crop_face(picture, transform, FRAME_HEIGHT, FRAME_WIDTH)


def loud_and_quiet(audio: np.ndarray) -> list[tuple[str, int]]:
    """The loudest and the quietest frames of a sound, 0.2 s apart, with headings, in time order."""
    hop = SAMPLE_RATE // VIDEO_FPS
    level = np.square(audio[: len(audio) // hop * hop].reshape(-1, hop)).mean(axis=1)
    found: dict[int, str] = {}
    for what, order, wanted in (
        ("loud", np.argsort(-level, kind="stable"), MOMENTS // 2 + 1),
        ("quiet", np.argsort(level, kind="stable"), MOMENTS),
    ):
        for t in order:
            if len(found) < wanted and all(abs(t - other) >= 5 for other in found):
                found[int(t)] = what
    return [(f"{what}\n{t / VIDEO_FPS:.2f} s", t) for t, what in sorted(found.items())]


def portrait_page(
    animator: Animator, picture: Picture, name: str, title: str, caption: str, seed: int
) -> Page:
    """A portrait with the bundled sentence: the head and the mouth as pasted into the picture."""
    picture = fit_picture(picture, None)
    points = choose_face(animator.detector.detect(picture), name=title).points
    animation = animator.animate(picture, SPEECH, seed=seed, image_name=title)
    chosen = loud_and_quiet(animation.audio)
    wanted = {t for _, t in chosen}
    shown = [picture, *(frame for t, frame in enumerate(animation) if t in wanted)]
    head = box_in_picture(points, (-10, FRAME_HEIGHT + 6, -8, FRAME_WIDTH + 8), picture)
    mouth = box_in_picture(points, MOUTH_BOX, picture)
    rows = [
        ("the head in the whole picture", [cut(frame, head) for frame in shown]),
        ("its mouth", [cut(frame, mouth) for frame in shown]),
    ]
    return Page(
        name,
        title[0].upper() + title[1:],
        f"{caption} Frames at the picture's own {picture.shape[1]} x {picture.shape[0]} pixels, of "
        f"which the head takes {head[3] - head[2]} x {head[1] - head[0]}; times are the sound's "
        "loudest and quietest.",
        ["the still", *(what for what, _ in chosen)],
        scaled(rows, WIDTH),
    )


def motion_pages(animator: Animator, picture: Picture) -> Iterator[Page]:
    """A portrait's head at its extremes, and every mood at three strengths."""
    renderer = animator.synthesizer(picture, image_name=PORTRAIT).renderer
    points = renderer.portrait.points
    assert points is not None

    def drawn(head: Sequence[float], units: np.ndarray, box: tuple[int, int, int, int]) -> Picture:
        motion = FaceMotion.rest(1)
        motion.head[:], motion.units[:] = head, units
        frame = renderer.draw(np.zeros((len(POSE_POINTS), 2)))
        return cut(renderer.move(motion, frame, renderer.drawn), box)

    ways = {f"{way}\n{sign}8°": (row, sign) for row, way in enumerate(HEAD) for sign in "+-"}
    whole = box_in_picture(points, (-50, FRAME_HEIGHT + 50, -35, FRAME_WIDTH + 35), picture)
    none = np.zeros(len(UNITS))
    heads = [drawn(float(f"{sign}8") * np.eye(3)[row], none, whole) for row, sign in ways.values()]
    yield Page(
        "head",
        "The head at its extremes",
        "Turned, nodding and tilted by 8°, as far as it goes in lively talk, with closed lips.",
        list(ways),
        scaled([("the portrait's own pixels, moved in depth", heads)], WIDTH),
    )
    face = box_in_picture(points, (-10, FRAME_HEIGHT + 6, -8, FRAME_WIDTH + 8), picture)
    rows = [
        (
            f"strength {strength:g}",
            [drawn((0, 0, 0), strength * look, face) for look in looks()],
        )
        for strength in (0.5, 1.0, 2.0)
    ]
    text = "Each mood with closed lips, at rest; speech rides on it."
    yield Page("moods", "Moods", text, list(MOODS), scaled(rows, WIDTH))


def box_in_picture(
    points: np.ndarray, box: tuple[int, int, int, int], picture: Picture
) -> tuple[int, int, int, int]:
    """Where a box of the aligned crop lies in the picture, upright, cut off at its edges."""
    top, bottom, left, right = box
    corners = np.array([(x, y) for x in (left, right) for y in (top, bottom)], float)
    xs, ys = transform_points(corners, invert_transform(face_transform(points))).T
    rows, columns = picture.shape[:2]
    return (
        max(round(ys.min()), 0),
        min(round(ys.max()), rows),
        max(round(xs.min()), 0),
        min(round(xs.max()), columns),
    )


def private_pages(animator: Animator, folder: Path, seed: int) -> Iterator[Page]:
    """A sheet for each picture in a folder, or why there is none."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            try:
                picture, name = load_image(file), file.stem
                yield portrait_page(animator, picture, name, name, f"{file.name}.", seed)
            except StillspeakError as error:
                yield Page(file.stem, file.stem, f"Not animated: {error}.")


def same_sound_page(faces: Faces, stills: Sequence[str], name: str) -> Page:
    """The report's sheet of one sentence on several stills, enlarged."""
    sheet = report_sheets.same_sound(faces, stills, name)
    rows = []
    for strip in sheet.strips:
        board = np.asarray(Image.open(io.BytesIO(strip.png)).convert("RGB"))
        step = (board.shape[1] + report_sheets.GAP) // len(sheet.columns)
        lefts = range(0, board.shape[1], step)
        frames = [board[:, left : left + step - report_sheets.GAP] for left in lefts]
        rows.append((strip.label, frames))
    text = faces.real(stills[0]).text
    caption = (
        f"{f'“{text}”' if text else 'One sentence'}, the sound of {stills[0]}, on {len(stills)} "
        "stills, at the middle of each word, as in the paper's Figure 4. Top row: the real video "
        "that the sound is from."
    )
    return Page("same-sound", sheet.title, caption, sheet.columns, scaled(rows, WIDTH))


def expression_pages(
    faces: Faces, clips: Sequence[str], name: str, detector: LandmarkDetector
) -> Iterator[Page]:
    """The deepest blink and the largest movements of the brows in generated videos."""
    traces: dict[str, Mapping[str, Any]] = {}
    for clip in clips:
        truth = faces.real(clip)
        tools = Tools(landmarks=detector)
        found = EvaluationClip(
            faces.generated(clip), truth.frames, truth.audio, truth.words, tools=tools
        )
        traces[clip] = trace(clip, found)
    seconds = sum(t["seconds"] for t in traces.values())
    made, real = (report_sheets.blinks(traces, side) for side in ("generated", "real"))
    counted = f"{len(clips)} clips of together {seconds:.0f} s were searched"
    blinks = f"{counted}: {plural(made, 'blink')} generated, {plural(real, 'real one')}."
    if made:
        yield movement_page(faces, made[0], name, "blink", "A blink", f"The deepest. {blinks}")
    elif real:
        text = f"**No blink found** in generated videos. {blinks} This is the deepest real one."
        yield movement_page(faces, real[0], name, "blink", "No blink", text)
    else:
        yield Page("blink", "No blink", f"**No blink found.** {blinks}")
    moves = report_sheets.brow_movements(traces, "generated")
    for way, sign in (("raised", 1), ("lowered", -1)):
        largest = next((move for move in moves if sign * move.size > 0), None)
        if largest is None:
            text = (
                f"**No movement of {report_sheets.BROW_EXCURSION:g} pixel or more found** in "
                f"generated videos; {counted}."
            )
            yield Page(f"brows-{way}", f"Brows {way}", text)
            continue
        text = (
            f"The largest: {abs(largest.size):.1f} of the crop's 128 pixels from the clip's median "
            f"height; {counted}. A nodding head moves this height as well."
        )
        yield movement_page(faces, largest, name, f"brows-{way}", f"Brows {way}", text)


def plural(found: Sequence[Movement], word: str) -> str:
    """How many."""
    return f"{len(found)} {word}{'' if len(found) == 1 else 's'}"


def movement_page(
    faces: Faces, move: Movement, name: str, file: str, title: str, caption: str
) -> Page:
    """The frames around a movement, generated and real, and the eyes of both."""
    made, real = faces.generated(move.clip), faces.real(move.clip).frames
    first, last = max(move.start - 2, 0), min(move.stop + 1, len(real) - 1)
    count = min(CONSECUTIVE, last - first + 1)
    at = np.linspace(first, last, count).round().astype(int)
    at[np.argmin(np.abs(at - move.peak))] = move.peak
    how = "Consecutive frames" if count == last - first + 1 else "Frames"
    rows = []
    for side, frames in ((f"generated by {name}", made), ("real video, same moments", real)):
        rows += [
            (side, list(frames[at])),
            ("its eyes", [cut(frame, EYES_BOX) for frame in frames[at]]),
        ]
    columns = [f"{t / VIDEO_FPS:.2f} s" + (" (most)" if t == move.peak else "") for t in at]
    return Page(file, title, f"{how} of {move.clip}. {caption}", columns, scaled(rows, WIDTH))


def silence_page(faces: Faces, stills: Sequence[str], detector: LandmarkDetector) -> Page:
    """Two seconds of faint noise on several stills."""
    random = np.random.default_rng(faces.seed)
    noise = (ROOM_NOISE * random.standard_normal(2 * SAMPLE_RATE)).astype(np.float32)
    at = np.linspace(0, 2 * VIDEO_FPS - 1, MOMENTS).round().astype(int)
    rows = []
    for called in stills:
        still = faces.real(called).frames[0]
        made = faces.speak(still, noise)
        lips = track_lips([still, *made], detector)
        label = f"{called}: no lips found"
        if np.isfinite(lips[0]) and np.isfinite(lips[1:]).any():
            low, high = np.nanmin(lips[1:]), np.nanmax(lips[1:])
            label = (
                f"{called}: lips {lips[0]:.1f} px open in the still, {low:.1f} to {high:.1f} here"
            )
        rows.append((label, [still, *made[at]]))
    return Page(
        "silence",
        "Silence",
        "Two seconds of noise at -60 dB of full scale: mouths should rest. Openings are the "
        "distance of the inner lips in the crop of 128 x 96 pixels.",
        ["the still", *(f"{t / VIDEO_FPS:.2f} s" for t in at)],
        scaled(rows, WIDTH),
    )


def open_still_page(faces: Faces, clips: Sequence[CachedClip], name: str) -> Page:
    """Speech on stills whose mouth is open: the frames of a clip where it is widest."""
    clip = clips[0]
    truth = faces.real(named_clip(clip))
    chosen = moments(truth.words, openings(clip))
    at = [t for _, t in chosen]
    blank = np.full_like(truth.frames[0], 255)
    rows = [(f"real video, {named_clip(clip)}", [blank, *truth.frames[at]])]
    for own in clips:
        still = faces.real(named_clip(own)).frames[int(np.argmax(openings(own)))]
        made = faces.speak(still, truth.audio)
        rows.append((f"generated by {name}, still of {named_clip(own)}", [still, *made[at]]))
    return Page(
        "open-mouths",
        "Open-mouthed stills",
        "The stills are the frames in which each speaker's mouth is widest open; the sound is that "
        f"of {named_clip(clip)}. A good model closes these mouths in silence and for b, p and m.",
        ["the still", *(what for what, _ in chosen)],
        scaled(rows, WIDTH),
    )


def write(folder: Path, pages: Iterator[Page], introduction: str) -> None:
    """Write sheets and the page that shows them, and remove those that it showed before."""
    folder.mkdir(parents=True, exist_ok=True)
    readme = folder / "README.md"
    text = readme.read_text("utf-8") if readme.is_file() else f"# Gallery\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{readme}: lacks the markers {BEGIN} and {END}")
    parts, written = [introduction], set()
    for page in pages:
        parts.append(f"## {page.title}")
        if page.rows:
            file = folder / f"{page.name}.jpg"
            sheet = Image.fromarray(labelled_sheet(page.rows, page.columns))
            sheet.save(file, quality=QUALITY, optimize=True)
            written.add(file.name)
            parts.append(f"![{page.title}]({file.name})")
            print(f"{file}: {file.stat().st_size / 1000:.0f} kB", file=sys.stderr)
        parts.append(page.caption)
    for gone in set(re.findall(r"\]\(([\w.-]+\.jpg)\)", old)) - written:
        (folder / gone).unlink(missing_ok=True)
    generated = "\n\n".join(parts)
    readme.write_text(f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}", "utf-8")


def labelled_sheet(
    rows: Sequence[tuple[str, Sequence[Picture]]],
    columns: Sequence[str] = (),
    *,
    size: int = 20,
    gap: int = 4,
) -> Picture:
    """Rows of pictures under their labels and under common column headings.

    Args:
        rows: label and pictures (H, W, 3) uint8 of each. All pictures are equally wide; those of
            one row are equally high.
        columns: a heading for each column, of one line or several.
        size: of the letters in pixels.
        gap: pixels between neighbours.

    Returns:
        (H', W', 3) uint8.
    """
    width = rows[0][1][0].shape[1] + gap
    lefts = [column * width for column in range(len(columns))]
    full = width * max(len(pictures) for _, pictures in rows) - gap
    bands = [_text_band(columns, lefts, full, size)] if columns else []
    for label, pictures in rows:
        row = contact_sheet([pictures], gap=gap)
        bands += [
            _text_band([label], [0], full, size),
            np.pad(row, ((0, 0), (0, full - row.shape[1]), (0, 0)), constant_values=255),
        ]
    return np.pad(
        np.concatenate(bands), ((0, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255
    )


def scale_to_width(picture: Picture, width: int) -> Picture:
    """Resize a picture (H, W, 3) uint8 to ``width`` columns, its shape kept."""
    height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _text_band(texts: Sequence[str], lefts: Sequence[int], width: int, size: int) -> Picture:
    """A white stripe with texts at the given columns, as high as the one of most lines."""
    line = round(1.3 * size)
    height = MARGIN + line * max(text.count("\n") + 1 for text in texts)
    band = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(band), ImageFont.load_default(size)
    for text, left in zip(texts, lefts, strict=True):
        for number, words in enumerate(text.split("\n")):
            draw.text((left, MARGIN + number * line), words, "black", font)
    return np.asarray(band)


if __name__ == "__main__":
    main()
