"""Making a study: folders of videos matched by name, checked, and copied into its folder."""

from __future__ import annotations

import csv
import hashlib
import os
import random
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillspeak.errors import InputError, OutputError, OutputExistsError
from stillspeak.media.source import reason
from stillspeak.media.video import probe_video
from stillspeak.study.answers import normalise
from stillspeak.study.config import FILE, as_toml
from stillspeak.study.kinds import Study, StudyKind, default_config, find_kind
from stillspeak.study.materials import VIDEOS, Materials, Role, Video, save_materials
from stillspeak.study.records import VideoOptions
from stillspeak.study.transcode import SUFFIXES, check_playable, convert, copy_streams
from stillspeak.system.atomic import whole_folder

CATCHES = 4
"""Catch videos that are made where none are given."""

OTHER_VIDEOS = {".mpg", ".mpeg", ".mov", ".mkv", ".avi", ".ogv", ".wmv", ".flv", ".3gp", ".ts"}
GRID_PLACES = ("Command", "Colour", "Preposition", "Letter", "Digit", "Adverb")

Found = dict[str, dict[str, Path]]
"""System -> item -> file."""

Progress = Callable[[int, int], None]
"""Called with how many files are done, and of how many."""


def init_study(
    folder: str | Path,
    kind: str,
    sources: Sequence[str | Path],
    options: VideoOptions = VideoOptions(),  # noqa: B008 - it cannot be changed
    *,
    names: Sequence[str] | None = None,
    questions: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Study, tuple[str, ...]]:
    """Make a study's folder from folders of videos.

    Videos are decoded whole, and copied without their metadata (which may name the system). The
    folder appears complete or not at all.

    Args:
        folder: to be made; it may exist if it is empty.
        kind: of the study.
        sources: pairs: two systems or more; Turing test: the real videos, then the fake ones;
            ratings and lip reading: one system or more.
        options: how the videos are taken.
        names: of the systems, in place of the folders' names.
        questions: ids of ready-made questions; the first one without.
        seed: of order and sides, and of which videos are kept for training.
        progress: told of every video.

    Returns:
        The study, and notes that say what visitors could tell systems apart by.

    Raises:
        InputError: a folder or a file in it cannot be used; says which and why.
        OutputExistsError: the folder is there and not empty.
        OutputError: the disk refuses.
        ConfigError: unknown kind or questions.
    """
    target, how = Path(folder), find_kind(kind)
    systems = _check_sources(how, sources, names)
    found = {s: _find(Path(p), options.convert) for s, p in zip(systems, sources, strict=True)}
    if how.paired:
        _check_partners(found, options.skip_unpaired)
    words = _words(how, found, options.words)
    if options.link and options.convert:
        raise InputError("--link and --convert: a converted video is a new file; choose one")
    if target.exists() or target.is_symlink():
        if not target.is_dir():
            raise OutputExistsError(f"{target}: is a file; give a new folder's name")
        if any(target.iterdir()):
            raise OutputExistsError(
                f"{target}: is not empty; give a new folder first, then those of the videos"
            )
    try:
        with whole_folder(target) as place:
            intake = _Intake(place, how, options, progress, sum(map(len, found.values())))
            study, notes = _fill(intake, found, words, questions, seed)
    except OSError as error:
        raise OutputError(f"{target}: cannot be made ({error.strerror or error})") from error
    return replace(study, folder=target), notes


def _fill(
    intake: _Intake,
    found: Found,
    words: Mapping[str, tuple[str, ...]],
    questions: Sequence[str],
    seed: int,
) -> tuple[Study, tuple[str, ...]]:
    kind = intake.kind
    (intake.place / VIDEOS).mkdir()
    videos = [
        replace(intake.take(path, system, item, "main"), words=words.get(item, ()))
        for system, files in found.items()
        for item, path in files.items()
    ]
    if kind.paired:
        _check_lengths(videos, intake.options.length_tolerance)
    notes = list(_differences(videos, silent=kind.silent))
    caught = _catches(intake, videos, found)
    choices, labels = _choices(videos) if kind.spoken else ((), ())
    if kind.spoken and not choices:
        notes.append("words differ in number, so visitors type them (trials.entry)")
    items = sorted({v.item for v in videos})
    trials = kind.propose(len(items), len(found), len(caught))
    trials = replace(trials, entry="pick" if choices else "type")
    config = default_config(kind, trials, questions=questions, labels=labels, seed=seed)
    # Nobody is asked about what is kept for training; a fair choice, by the seed.
    shuffled = items.copy()
    random.Random(f"training {seed}").shuffle(shuffled)
    kept = set(shuffled[: trials.training])
    videos = [replace(v, role="training") if v.item in kept else v for v in videos]
    materials = Materials(kind.name, tuple(found), tuple(videos + caught), choices)
    save_materials(intake.place, materials)
    (intake.place / FILE).write_text(as_toml(config), "utf-8")
    return Study(intake.place, config, materials), tuple(notes)


def _check_sources(
    kind: StudyKind, sources: Sequence[str | Path], names: Sequence[str] | None
) -> tuple[str, ...]:
    """The systems' names."""
    least, most, what = kind.folders
    if not least <= len(sources) <= most:
        raise InputError(f"{len(sources)} folders given; this kind of study takes {what}")
    for source in sources:
        if not Path(source).is_dir():
            raise InputError(f"{source}: no such folder; give {what}")
    whole = [Path(source).resolve() for source in sources]
    for number, source in enumerate(whole):
        if source in whole[:number]:
            raise InputError(f"{sources[number]}: is given twice")
    if kind.sides:
        if names:
            raise InputError(f"--names: this kind of study has {' and '.join(kind.sides)}")
        return kind.sides
    if names is not None and len(names) != len(sources):
        raise InputError(f"--names: {len(names)} given for {len(sources)} folders")
    labels = [source.name for source in whole] if names is None else list(names)
    if names is None and len(set(labels)) < len(labels):
        labels = [f"{source.parent.name}/{source.name}" for source in whole]
    if len(set(labels)) < len(labels):
        raise InputError("two folders have the same name; tell them apart with --names A,B")
    for label in labels:
        if not label.strip() or not label.isprintable() or len(label) > 80:
            raise InputError(f"--names: {label!r} is not a name of 1 to 80 printable characters")
    return tuple(labels)


def _find(source: Path, converting: bool) -> dict[str, Path]:
    """The videos below a folder by their name without suffix, with the folders between."""
    found: dict[str, Path] = {}
    other: list[Path] = []
    for path in sorted(source.rglob("*")):
        suffix, place = path.suffix.lower(), path.relative_to(source)
        hidden = any(part.startswith(".") for part in place.parts)
        if hidden or not path.is_file() or suffix not in SUFFIXES.keys() | OTHER_VIDEOS:
            continue
        item = place.with_suffix("").as_posix()
        if suffix in OTHER_VIDEOS and not converting:
            other.append(path)
        elif item in found:
            raise InputError(f"{path}: {found[item].name} has the same name; keep one of them")
        else:
            found[item] = path
    if other:
        raise InputError(
            f"{other[0]}: browsers do not play {other[0].suffix} files ({len(other)} such files); "
            "give mp4 or webm, or --convert"
        )
    if not found:
        raise InputError(f"{source}: holds no mp4 or webm videos")
    return found


def _check_partners(found: Found, skip: bool) -> None:
    everywhere = set.intersection(*map(set, found.values()))
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


def _differences(videos: Sequence[Video], *, silent: bool) -> Iterator[str]:
    """What tells the systems apart without a look at faces."""
    told = defaultdict[str, dict[str, set[str]]](lambda: defaultdict(set))
    for v in videos:
        told["size"][v.system].add(f"{v.width} x {v.height}")
        told["frames a second"][v.system].add(f"{v.fps:g}")
        told["kind of file"][v.system].add(v.type.removeprefix("video/"))
        if not silent:
            told["sound"][v.system].add("some" if v.sound else "none")
    for what, systems in told.items():
        if len({frozenset(values) for values in systems.values()}) > 1:
            listing = "; ".join(
                f"{s}: {', '.join(sorted(v)[:3])}{' ...' if len(v) > 3 else ''}"
                for s, v in systems.items()
            )
            yield f"visitors can tell the systems apart by {what} ({listing})"


def _words(kind: StudyKind, found: Found, table: Path | None) -> dict[str, tuple[str, ...]]:
    """The words of every item."""
    if not kind.spoken:
        if table is not None:
            raise InputError("--words: goes with --intelligibility")
        return {}
    from stillspeak.data.layouts.grid import grid_text

    spoken: dict[str, tuple[str, ...]] = {}
    given = read_words(table) if table is not None else {}
    for files in found.values():
        for item, path in files.items():
            name = Path(item).name
            if table is None:
                text = grid_text(name)
                problem = (
                    f"{path}: its name spells no GRID sentence; give --words FILE.csv with "
                    "the columns file and words"
                )
            else:
                text = given.get(item) or given.get(path.name) or given.get(name)
                problem = f"{table}: has no words for {path.name}"
            if text is None:
                raise InputError(problem)
            spoken[item] = tuple(normalise(text))
    return spoken


def read_words(path: Path) -> dict[str, str]:
    """A CSV file with the columns ``file`` and ``words``: words by name, with and without suffix.

    Raises:
        InputError: it cannot be read, or a file or its words are missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", "words"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: needs a first line with the columns file and words")
            rows = {}
            for row in reader:
                name, text = (row["file"] or "").strip(), (row["words"] or "").strip()
                if not name or not normalise(text):
                    raise InputError(f"{path}, line {reader.line_num}: no file or no words")
                rows[name] = rows[Path(name).with_suffix("").as_posix()] = text
            return rows
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8 ({error})") from error


def _choices(videos: Sequence[Video]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The words to pick from at each place, and the places' names where they are GRID's."""
    from stillspeak.data.layouts.grid import GRID_WORDS

    grid = tuple(tuple(table.values()) for table in GRID_WORDS)
    sentences = [video.words for video in videos]
    if all(
        len(s) == len(grid) and all(w in place for w, place in zip(s, grid, strict=True))
        for s in sentences
    ):
        return grid, GRID_PLACES
    if len({len(s) for s in sentences}) > 1:
        return (), ()
    places = tuple(tuple(sorted(set(place))) for place in zip(*sentences, strict=True))
    return (places if all(len(place) > 1 for place in places) else ()), ()


@dataclass
class _Intake:
    """Takes videos into a study's folder, one at a time."""

    place: Path
    kind: StudyKind
    options: VideoOptions
    progress: Progress | None
    total: int
    done: int = field(default=0, init=False)

    def take(self, path: Path, system: str, item: str, role: Role) -> Video:
        """Check a video and copy it."""
        silent = self.kind.silent
        try:
            kind = check_playable(path)
        except InputError:
            if not self.options.convert:
                raise
            kind = "video/mp4"
            target = self._new(kind)
            convert(path, target, silent=silent)
        else:
            target = self._new(kind)
            if self.options.link:
                if silent and probe_video(path).has_audio:
                    raise InputError(f"{path}: has sound, which a link keeps; leave out --link")
                try:
                    os.link(path, target)
                except OSError as error:
                    raise InputError(
                        f"{path}: cannot be linked ({error.strerror}); leave out --link"
                    ) from error
            else:
                copy_streams(path, target, silent=silent)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
        return self._measured(target, path, system, item, role)

    def spoil(self, path: Path, item: str) -> Video:
        """A copy of a video that is obviously wrong."""
        target = self._new("video/mp4")
        convert(path, target, silent=self.kind.silent, spoil=True)
        return self._measured(target, path, "catch", item, "catch")

    def _new(self, kind: str) -> Path:
        return self.place / VIDEOS / f"{secrets.token_hex(8)}.{kind.removeprefix('video/')}"

    def _measured(self, target: Path, source: Path, system: str, item: str, role: Role) -> Video:
        info = probe_video(target)
        return Video(
            id=target.stem,
            file=f"{VIDEOS}/{target.name}",
            system=system,
            item=item,
            role=role,
            type=f"video/{target.suffix[1:]}",
            seconds=round(info.duration, 3),
            fps=round(info.fps, 3),
            width=info.width,
            height=info.height,
            sound=info.has_audio,
            words=(),
            source=str(source),
            sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
        )


def _catches(intake: _Intake, videos: Sequence[Video], found: Found) -> list[Video]:
    kind, folder = intake.kind, intake.options.catch
    if not kind.bad_videos:
        if folder is not None:
            raise InputError("--catch: lip reading asks for given words in place of bad videos")
        return []
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; --catch takes one of bad videos")
        bad = _find(folder, intake.options.convert)
        for item, path in bad.items():
            if kind.paired and all(video.item != item for video in videos):
                raise InputError(f"{path}: no video of that name to set beside it")
        return [intake.take(path, "catch", item, "catch") for item, path in bad.items()]
    # The last of given sides is the fake one.
    files = found[kind.sides[-1]] if kind.sides else next(iter(found.values()))
    step = max(1, len(files) // CATCHES)
    return [intake.spoil(files[item], item) for item in sorted(files)[::step][:CATCHES]]
