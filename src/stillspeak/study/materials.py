"""A study's videos: matched by name, checked, and kept under names that tell nothing.

The folder of a study::

    study.toml      settings, for the researcher to edit
    videos/         copies under random names
    materials.json  the truth: which video is whose
    answers.db      the answers, once it was served (or wherever --database says)
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stillspeak.errors import (
    AudioError,
    ConfigError,
    InputError,
    OutputError,
    OutputExistsError,
    StudyError,
    VideoError,
)
from stillspeak.study.config import FILE, Kind, as_toml, default_config
from stillspeak.system.atomic import partial_folder
from stillspeak.system.configuration import FORBID_UNKNOWN, build, read_json

TRUTH = "materials.json"
VIDEOS = "videos"
VERSION = 1

REAL, FAKE = "real", "fake"
CATCHES = 4
"""Catch videos that are made where none are given."""

SUFFIXES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
OTHER_VIDEOS = {".mpg", ".mpeg", ".mov", ".mkv", ".avi", ".ogv", ".wmv", ".flv", ".3gp", ".ts"}
_CODECS = {
    "video/mp4": ({"h264", "av1", "vp9"}, {"aac", "mp3", "mp3float", "opus", "flac"}),
    "video/webm": ({"vp8", "vp9", "av1"}, {"opus", "vorbis"}),
}
_PIXELS = {"yuv420p", "yuvj420p"}

Role = Literal["main", "training", "catch"]
Progress = Callable[[int, int], None]
"""Called with how many files are done, and of how many."""


@dataclass(frozen=True)
class Video:
    """One video of a study.

    Attributes:
        id: sixteen random hexadecimal digits.
        file: its place in the study's folder.
        system: whose it is; ``real`` or ``fake`` in a Turing test.
        item: what it shows, the same for all systems: the source's name without suffix.
        role: ``main``, ``training`` or ``catch`` (obviously bad).
        type: MIME type.
        seconds, fps, width, height: as decoded.
        sound: whether it has any.
        words: spoken, for lip reading.
        source: the file it came from, for the researcher.
        sha256: of the file in the study's folder.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    id: str
    file: str
    system: str
    item: str
    role: Role
    type: str
    seconds: float
    fps: float
    width: int
    height: int
    sound: bool
    words: tuple[str, ...]
    source: str
    sha256: str


@dataclass(frozen=True)
class Materials:
    """All videos of a study. ``choices``: lip reading, the words to pick from at each place."""

    __pydantic_config__ = FORBID_UNKNOWN
    kind: Kind
    systems: tuple[str, ...]
    videos: tuple[Video, ...]
    choices: tuple[tuple[str, ...], ...] = ()

    def of(self, role: Role) -> dict[str, dict[str, Video]]:
        """Videos of a role: item -> system -> video, items in order of name."""
        table: dict[str, dict[str, Video]] = defaultdict(dict)
        for video in sorted(self.videos, key=lambda v: (v.item, v.system)):
            if video.role == role:
                table[video.item][video.system] = video
        return dict(table)

    def by_id(self) -> dict[str, Video]:
        return {video.id: video for video in self.videos}

    def fingerprint(self) -> str:
        """Changes with the videos and what they are; a database of answers belongs to one."""
        rows = sorted((v.id, v.system, v.item, v.role, v.sha256) for v in self.videos)
        return hashlib.sha256(json.dumps([self.kind, rows]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Made:
    """What :func:`init_study` made; ``notes`` say what visitors could tell systems apart by."""

    folder: Path
    kind: Kind
    systems: tuple[str, ...]
    items: int
    videos: int
    trials: int
    notes: tuple[str, ...]


# ------------------------------------------------------------------ making


def init_study(
    folder: str | Path,
    kind: Kind,
    sources: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    words: str | Path | None = None,
    catch: str | Path | None = None,
    questions: Sequence[str] = (),
    seed: int = 0,
    link: bool = False,
    convert: bool = False,
    skip_unpaired: bool = False,
    length_tolerance: float = 0.5,
    progress: Progress | None = None,
) -> Made:
    """Make a study's folder from folders of videos.

    Videos are decoded whole, and copied without their metadata (which may name the system). The
    folder appears complete or not at all.

    Args:
        folder: to be made; it may exist if it is empty.
        kind: of the study.
        sources: pairs: two systems or more; Turing test: the real videos, then the fake ones;
            ratings and lip reading: one system or more.
        names: of the systems, in place of the folders' names.
        words: lip reading: a CSV file with the columns ``file`` and ``words``; without it the
            words are those that GRID's file names spell.
        catch: a folder of obviously bad (fake) videos, named as those of ``sources``; without it
            a few are made by freezing and coarsening some of them.
        questions: ids of ready-made questions; the first one without.
        seed: of order and sides, and of which videos are kept for training.
        link: hard links in place of copies, metadata and all.
        convert: make an MP4 of files that browsers do not play.
        skip_unpaired: leave out names that not every system has.
        length_tolerance: seconds by which videos of one name may differ.
        progress: told of every video.

    Raises:
        InputError: a folder or a file in it cannot be used; says which and why.
        OutputExistsError: the folder is there and not empty.
        OutputError: the disk refuses.
        ConfigError: unknown questions.
    """
    target = Path(folder)
    systems = _check_sources(kind, sources, names)
    found = {
        system: _find(Path(source), convert)
        for system, source in zip(systems, sources, strict=True)
    }
    _check_partners(kind, found, skip_unpaired)
    texts = _words(kind, found, words)
    if link and convert:
        raise InputError("--link and --convert: a converted video is a new file; choose one")
    with _made_whole(target) as place:
        (place / VIDEOS).mkdir()
        work = _Work(
            place, link, convert, silent=kind == "intelligibility", progress=progress,
            total=sum(len(files) for files in found.values()),
        )  # fmt: skip
        videos: list[Video] = []
        for system, files in found.items():
            for item, path in files.items():
                video = work.take(path, system, item, "main")
                videos.append(replace(video, words=texts.get(item, ())))
        if kind == "preference":
            _check_lengths(videos, length_tolerance)
        notes = list(_differences(videos, kind))
        notes += work.notes
        caught = _catches(kind, videos, found, catch, work, convert)
        choices, grid = _choices(kind, videos)
        if kind == "intelligibility" and not choices:
            notes.append("words differ in number, so visitors type them (trials.entry)")
        items = sorted({v.item for v in videos})
        config = default_config(
            kind,
            items=len(items),
            systems=len(systems),
            catches=len(caught),
            questions=questions,
            seed=seed,
            grid=grid,
            pick=bool(choices),
        )
        kept = _kept_for_training(kind, videos, config.trials.training, seed)
        videos = [replace(v, role="training") if v.item in kept else v for v in videos]
        materials = Materials(kind, systems, tuple(videos + caught), choices)
        _write_truth(place, materials)
        (place / FILE).write_text(as_toml(config), "utf-8")
    return Made(
        target, kind, systems, len(items), len(materials.videos), config.trials.count, tuple(notes)
    )


def load_materials(folder: str | Path) -> Materials:
    """Read what ``study init`` wrote, and see that the videos are there.

    Raises:
        StudyError: no study, a damaged file, or a missing video.
    """
    path = Path(folder) / TRUTH
    try:
        table = read_json(path.read_bytes())
    except OSError as error:
        raise StudyError(
            f"{folder}: holds no {TRUTH} ({(error.strerror or str(error)).lower()}); "
            "make a study with: stillspeak study init"
        ) from error
    except ValueError as error:
        raise StudyError(f"{path}: is damaged ({error}); make the study again") from error
    version = table.pop("version", None) if isinstance(table, dict) else None
    if version is not None and version != VERSION:
        raise StudyError(f"{path}: is of version {version}, this program's {VERSION}")
    try:
        materials = build(Materials, table, name=str(path))
    except ConfigError as error:
        raise StudyError(f"{error}; the file is damaged, make the study again") from error
    if version is None or not _consistent(materials):
        raise StudyError(
            f"{path}: is damaged (its videos, names and words contradict each other); "
            "make the study again"
        )
    for video in materials.videos:
        if not re.fullmatch(r"videos/[0-9a-f]{16}\.(mp4|webm)", video.file):
            raise StudyError(f"{path}: names a file outside the study: {video.file}")
        if not (Path(folder) / video.file).is_file():
            raise StudyError(f"{Path(folder) / video.file}: is missing; make the study again")
    return materials


def _consistent(materials: Materials) -> bool:
    """Whether every video is one of its own, of a system of the study and once an item and role,
    and has the partners that its kind of study sets beside it."""
    videos, systems = materials.videos, materials.systems
    cells = {(video.role, video.item, video.system) for video in videos}
    shown = Counter((video.role, video.item) for video in videos if video.role != "catch")
    if materials.kind == "turing" and systems != (REAL, FAKE):
        return False
    if materials.kind == "preference":
        items = {item for _, item in shown}
        bad = {video.item for video in videos if video.role == "catch"}
        if not bad <= items or any(count < 2 for count in shown.values()):
            return False
    return (
        len({video.id for video in videos}) == len(cells) == len(videos)
        and len(set(systems)) == len(systems) > 0
        and all(
            video.system in (("catch",) if video.role == "catch" else systems) for video in videos
        )
        and all(math.isfinite(video.seconds) and video.seconds >= 0 for video in videos)
        and all(re.fullmatch(r"[0-9a-f]{16}", video.id) for video in videos)
        and all(materials.choices)
    )


def _write_truth(place: Path, materials: Materials) -> None:
    table = {
        "version": VERSION,
        "kind": materials.kind,
        "systems": list(materials.systems),
        "choices": [list(place) for place in materials.choices],
        "videos": [asdict(video) for video in materials.videos],
    }
    (place / TRUTH).write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """A folder beside the target that is renamed to it at the end, and removed on failure."""
    if target.exists() or target.is_symlink():
        if not target.is_dir():
            raise OutputExistsError(f"{target}: is a file; give a new folder's name")
        if any(target.iterdir()):
            raise OutputExistsError(
                f"{target}: is not empty; give a new folder first, then those of the videos"
            )
    place = target.absolute()
    try:
        with partial_folder(place) as beside:
            partial = beside / "study"
            partial.mkdir()
            yield partial
            if place.exists():
                place.rmdir()
            partial.rename(place)
    except OSError as error:
        raise OutputError(f"{target}: cannot be made ({error.strerror or error})") from error


# ------------------------------------------------------------------ finding and matching


def _check_sources(
    kind: Kind, sources: Sequence[str | Path], names: Sequence[str] | None
) -> tuple[str, ...]:
    least, most, what = {
        "preference": (2, 12, "two folders of videos or more"),
        "turing": (2, 2, "two folders: the real videos, then the fake ones"),
        "mos": (1, 50, "a folder of videos or more"),
        "intelligibility": (1, 50, "a folder of videos or more"),
    }[kind]
    if not least <= len(sources) <= most:
        raise InputError(f"{len(sources)} folders given; this kind of study takes {what}")
    for source in sources:
        if not Path(source).is_dir():
            raise InputError(f"{source}: no such folder; give {what}")
    whole = [Path(source).resolve() for source in sources]
    for number, source in enumerate(whole):
        if source in whole[:number]:
            raise InputError(f"{sources[number]}: is given twice")
    if kind == "turing":
        if names:
            raise InputError("--names: a Turing test's two sides are real and fake")
        return REAL, FAKE
    if names is not None:
        if len(names) != len(sources):
            raise InputError(f"--names: {len(names)} given for {len(sources)} folders")
        labels = list(names)
    else:
        labels = [source.name for source in whole]
        if len(set(labels)) < len(labels):
            labels = [f"{source.parent.name}/{source.name}" for source in whole]
    if len(set(labels)) < len(labels):
        raise InputError("two folders have the same name; tell them apart with --names A,B")
    for label in labels:
        if not label.strip() or not label.isprintable() or len(label) > 80:
            raise InputError(f"--names: {label!r} is not a name of 1 to 80 printable characters")
    return tuple(labels)


def _find(source: Path, convert: bool) -> dict[str, Path]:
    """The videos below a folder by their name without suffix, with the folders between."""
    found: dict[str, Path] = {}
    other: list[Path] = []
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if hidden or not path.is_file():
            continue
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            if suffix not in OTHER_VIDEOS:
                continue
            if not convert:
                other.append(path)
                continue
        item = path.relative_to(source).with_suffix("").as_posix()
        if item in found:
            raise InputError(f"{path}: {found[item].name} has the same name; keep one of them")
        found[item] = path
    if other:
        raise InputError(
            f"{other[0]}: browsers do not play {other[0].suffix} files ({len(other)} such files); "
            "give mp4 or webm, or --convert"
        )
    if not found:
        raise InputError(f"{source}: holds no mp4 or webm videos")
    return found


def _check_partners(kind: Kind, found: dict[str, dict[str, Path]], skip: bool) -> None:
    if kind != "preference":
        return
    everywhere = set.intersection(*(set(files) for files in found.values()))
    for files in found.values():
        for item in sorted(set(files) - everywhere):
            if not skip:
                lacking = next(s for s, there in found.items() if item not in there)
                missing = len(set().union(*found.values()) - everywhere)
                raise InputError(
                    f"{files[item]}: {lacking} has no video of that name ({missing} such names); "
                    "add it, or leave such names out with --skip-unpaired"
                )
            del files[item]
    if not everywhere:
        raise InputError("no name of a video is in all folders; partners are matched by name")


def _check_lengths(videos: Sequence[Video], tolerance: float) -> None:
    first: dict[str, Video] = {}
    for video in videos:
        other = first.setdefault(video.item, video)
        if abs(video.seconds - other.seconds) > tolerance:
            raise InputError(
                f"{video.source}: lasts {video.seconds:.2f} s, {other.source} "
                f"{other.seconds:.2f} s; cut them alike, or raise --length-tolerance"
            )


def _differences(videos: Sequence[Video], kind: Kind) -> Iterator[str]:
    """What tells the systems apart without a look at faces."""
    by_system: dict[str, list[Video]] = defaultdict(list)
    for video in videos:
        by_system[video.system].append(video)
    if len(by_system) < 2:
        return

    def values(key: Callable[[Video], Any]) -> dict[str, set[Any]]:
        return {system: {key(v) for v in group} for system, group in by_system.items()}

    for what, key in (
        ("size", lambda v: f"{v.width} x {v.height}"),
        ("frames a second", lambda v: f"{v.fps:g}"),
        ("kind of file", lambda v: v.type.removeprefix("video/")),
        ("sound", lambda v: "some" if v.sound else "none"),
    ):
        if what == "sound" and kind == "intelligibility":
            continue
        told = values(key)
        if len({frozenset(v) for v in told.values()}) > 1:
            listing = "; ".join(
                f"{s}: {', '.join(sorted(v)[:3])}{' ...' if len(v) > 3 else ''}"
                for s, v in told.items()
            )
            yield f"visitors can tell the systems apart by {what} ({listing})"


def _kept_for_training(kind: Kind, videos: Sequence[Video], count: int, seed: int) -> set[str]:
    """The items that nobody is asked about; a fair choice, by the seed."""
    import random

    items = sorted({video.item for video in videos})
    random.Random(f"training {seed}").shuffle(items)
    if kind == "turing":  # one of each side in turn, as far as they go
        sides = [[i for i in items if any(v.item == i and v.system == s for v in videos)]
                 for s in (REAL, FAKE)]  # fmt: skip
        items = list(dict.fromkeys(i for pair in zip(*sides, strict=False) for i in pair))
    return set(items[:count])


# ------------------------------------------------------------------ words


def _words(
    kind: Kind, found: Mapping[str, Mapping[str, Path]], table: str | Path | None
) -> dict[str, tuple[str, ...]]:
    """The words of every item."""
    if kind != "intelligibility":
        if table is not None:
            raise InputError("--words: goes with --intelligibility")
        return {}
    from stillspeak.data.layouts.grid import grid_text

    spoken: dict[str, tuple[str, ...]] = {}
    given = _read_words(Path(table)) if table is not None else {}
    for files in found.values():
        for item, path in files.items():
            if table is None:
                text = grid_text(Path(item).name)
                if text is None:
                    raise InputError(
                        f"{path}: its name spells no GRID sentence; give --words FILE.csv with "
                        "the columns file and words"
                    )
            else:
                entry = given.get(item) or given.get(path.name) or given.get(Path(item).name)
                if entry is None:
                    raise InputError(f"{table}: has no words for {path.name}")
                text = entry
            spoken[item] = tuple(normalise(text))
    return spoken


def _read_words(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "file" not in columns or "words" not in columns:
                raise InputError(f"{path}: needs a first line with the columns file and words")
            rows = {}
            for row in reader:
                name, text = (row["file"] or "").strip(), (row["words"] or "").strip()
                if not name or not normalise(text):
                    raise InputError(f"{path}, line {reader.line_num}: no file or no words")
                rows[name] = rows[Path(name).with_suffix("").as_posix()] = text
            return rows
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({(error.strerror or str(error)).lower()})"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8 ({error})") from error


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = {str(digit): word for digit, word in enumerate(_NUMBERS)}


def normalise(text: str) -> list[str]:
    """Words of a sentence in lower case, without punctuation, single digits spelt out."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
    return [_DIGITS.get(word, word.replace("’", "'")) for word in words]


def _choices(kind: Kind, videos: Sequence[Video]) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """The words to pick from at each place, and whether they are GRID's."""
    if kind != "intelligibility":
        return (), False
    from stillspeak.data.layouts.grid import GRID_WORDS

    grid = tuple(tuple(table.values()) for table in GRID_WORDS)
    sentences = [video.words for video in videos]
    if all(
        len(s) == len(grid) and all(w in place for w, place in zip(s, grid, strict=True))
        for s in sentences
    ):
        return grid, True
    if len({len(s) for s in sentences}) > 1:
        return (), False
    places = tuple(tuple(sorted(set(place))) for place in zip(*sentences, strict=True))
    return (places if all(len(place) > 1 for place in places) else ()), False


# ------------------------------------------------------------------ catch videos


def _catches(
    kind: Kind,
    videos: Sequence[Video],
    found: Mapping[str, Mapping[str, Path]],
    folder: str | Path | None,
    work: _Work,
    convert: bool,
) -> list[Video]:
    if kind == "intelligibility":
        if folder is not None:
            raise InputError("--catch: lip reading asks for given words in place of bad videos")
        return []
    if folder is not None:
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder; --catch takes one of bad videos")
        bad = _find(Path(folder), convert)
        items = {video.item for video in videos}
        for item, path in bad.items():
            if kind == "preference" and item not in items:
                raise InputError(f"{path}: no video of that name to set beside it")
        return [work.take(path, "catch", item, "catch") for item, path in bad.items()]
    system = FAKE if kind == "turing" else next(iter(found))
    files = found[system]
    step = max(1, len(files) // CATCHES)
    return [work.spoil(files[item], item) for item in sorted(files)[::step][:CATCHES]]


# ------------------------------------------------------------------ single files


@dataclass
class _Work:
    """Takes videos into a study's folder, one at a time."""

    place: Path
    link: bool
    convert: bool
    silent: bool
    progress: Progress | None
    total: int
    done: int = 0

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    def take(self, path: Path, system: str, item: str, role: Role) -> Video:
        """Check a video and copy it.

        Raises:
            InputError: it cannot be decoded, or browsers do not play it.
        """
        try:
            kind = check_playable(path)
        except InputError:
            if not self.convert:
                raise
            kind = "video/mp4"
            made = self._new(kind)
            _convert(path, made, silent=self.silent)
        else:
            made = self._new(kind)
            if self.link:
                if self.silent and _has_sound(path):
                    raise InputError(f"{path}: has sound, which a link keeps; leave out --link")
                try:
                    os.link(path, made)
                except OSError as error:
                    raise InputError(
                        f"{path}: cannot be linked ({error.strerror}); leave out --link"
                    ) from error
            else:
                _copy_streams(path, made, silent=self.silent)
        video = _measured(made, path, system, item, role, kind, self.place)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
        return video

    def spoil(self, path: Path, item: str) -> Video:
        """A copy of a video that is obviously wrong: its first picture, coarse, all along."""
        made = self._new("video/mp4")
        _convert(path, made, silent=self.silent, spoil=True)
        return _measured(made, path, "catch", item, "catch", "video/mp4", self.place)

    def _new(self, kind: str) -> Path:
        suffix = kind.removeprefix("video/")
        return self.place / VIDEOS / f"{secrets.token_hex(8)}.{suffix}"


def check_playable(path: Path) -> str:
    """The MIME type of a video that browsers play.

    Raises:
        VideoError: it cannot be decoded to its end, or browsers do not play it.
    """
    import av

    from stillspeak.media.video import _open_video, probe_video

    probe_video(path)  # says clearly what is missing, empty, text, or no video at all
    kind = SUFFIXES.get(path.suffix.lower())
    hint = "re-encode it as H.264 with yuv420p in mp4, or give --convert"
    if kind is None:
        raise VideoError(f"{path}: browsers do not play {path.suffix} files; {hint}")
    pictures, sounds = _CODECS[kind]
    with _open_video(path) as (container, stream):
        formats = set(container.format.name.split(","))
        if not formats & ({"mp4"} if kind == "video/mp4" else {"webm"}):
            raise VideoError(
                f"{path}: is not what its suffix says ({container.format.name}); {hint}"
            )
        codec, names = _codec(stream)
        if not names & pictures:
            raise VideoError(f"{path}: browsers do not play {codec} in {path.suffix}; {hint}")
        if stream.codec_context.pix_fmt not in _PIXELS:
            raise VideoError(
                f"{path}: browsers do not play {stream.codec_context.pix_fmt} pictures; {hint}"
            )
        for sound in container.streams.audio:
            codec, names = _codec(sound)
            if not names & sounds:
                raise VideoError(
                    f"{path}: browsers do not play {codec} sound in {path.suffix}; {hint}"
                )
        try:
            frames = sum(1 for _ in container.decode(stream))
        except av.FFmpegError as error:
            raise VideoError(
                f"{path}: the video is damaged ({error.strerror}); export it again"
            ) from error
        if stream.frames and frames < stream.frames - 1:
            raise VideoError(
                f"{path}: ends after {frames} of {stream.frames} frames; export it again"
            )
    return kind


def _codec(stream: Any) -> tuple[str, set[str]]:
    """What messages call a track's codec, and the names that it goes by."""
    if stream.codec_context is None:  # of a kind that FFmpeg does not know
        return "unknown", set()
    return stream.codec_context.name, {stream.codec_context.name, stream.codec.canonical_name}


def _has_sound(path: Path) -> bool:
    from stillspeak.media.video import probe_video

    return probe_video(path).has_audio


def _copy_streams(path: Path, made: Path, *, silent: bool) -> None:
    """The same pictures and sound, bit for bit, in a file without metadata."""
    import av

    from stillspeak.media.video import _open_video

    try:
        with _open_video(path) as (container, stream), av.open(str(made), "w") as output:
            if made.suffix == ".mp4":
                output.container_options.update({"movflags": "+faststart"})
            chosen = [stream, *([] if silent else container.streams.audio[:1])]
            twins = {s.index: output.add_stream_from_template(s) for s in chosen}
            for twin in twins.values():
                twin.metadata.clear()
            for packet in container.demux(chosen):
                if packet.dts is None:
                    continue
                packet.stream = twins[packet.stream.index]
                output.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: cannot be copied ({error}); try --link or --convert") from error


def _convert(path: Path, made: Path, *, silent: bool, spoil: bool = False) -> None:
    """H.264 and AAC in MP4; with ``spoil`` the first picture, coarse, all along."""
    import numpy as np

    from stillspeak.media.audio import load_audio
    from stillspeak.media.video import Frame, iter_frames, probe_video, write_video

    info = probe_video(path)
    fps = max(1, round(info.fps))
    sound = None
    rate = 48_000
    if info.has_audio and not silent:
        try:
            sound = load_audio(path, sample_rate=rate)
        except AudioError:
            sound = None

    def frames() -> Iterator[Frame]:
        still: Frame | None = None
        for frame in iter_frames(path, fps=fps):
            if not spoil:
                yield frame
                continue
            if still is None:
                size = max(4, min(frame.shape[:2]) // 8)
                rows = np.arange(frame.shape[0]) // size * size
                columns = np.arange(frame.shape[1]) // size * size
                still = np.ascontiguousarray(frame[rows][:, columns])
            yield still

    write_video(made, frames(), fps=fps, audio=sound, sample_rate=rate, crf=18)


def _measured(
    made: Path, source: Path, system: str, item: str, role: Role, kind: str, place: Path
) -> Video:
    from stillspeak.media.video import probe_video

    info = probe_video(made)
    return Video(
        id=made.stem,
        file=made.relative_to(place).as_posix(),
        system=system,
        item=item,
        role=role,
        type=kind,
        seconds=round(info.duration, 3),
        fps=round(info.fps, 3),
        width=info.width,
        height=info.height,
        sound=info.has_audio,
        words=(),
        source=str(source),
        sha256=hashlib.sha256(made.read_bytes()).hexdigest(),
    )
