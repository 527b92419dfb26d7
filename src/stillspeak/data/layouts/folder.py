"""Your own videos: one face each, cut into clips at pauses and scene cuts."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stillspeak.constants import VIDEO_FPS
from stillspeak.data.clips import (
    Clip,
    Rejected,
    Split,
    check_clips,
    corpus_root,
    read_split,
    split_of_speaker,
)
from stillspeak.data.segments import Frames, SegmentRules, VoiceActivity, find_segments, versions
from stillspeak.errors import DataError, InputError
from stillspeak.system.atomic import whole_file

_CONTAINERS = "mp4 m4v mov mkv webm avi mpg mpeg mts m2ts flv wmv 3gp"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _CONTAINERS.split())

_SHARE = 0.1  # of the speakers, for validation and again for testing


@dataclass(frozen=True)
class Looking:
    """What the progress callback gets after each video: how many were looked through."""

    done: int
    total: int
    path: Path


def find_folder(
    root: str | Path,
    *,
    rules: SegmentRules | None = None,
    memory: str | Path | None = None,
    progress: Callable[[Looking], None] | None = None,
    rejected: Callable[[Rejected], None] | None = None,
) -> list[Clip]:
    """Clips of any tree of videos, each of which shows one person who speaks.

    The speaker is the first folder below the root, or for a video in the root itself the
    file's name without its suffix. Hidden files and folders are left alone. Each video is
    cut into clips; ``split.json`` decides the split, or :func:`split_speakers`.

    Args:
        root: the folder.
        rules: how long clips may be.
        memory: a folder that keeps what was found in each video, by the hash of its content,
            the rules and the versions of what they lean on; made if needed. A video is
            looked through again if any of these is another one.
        progress: called after each video.
        rejected: called for each video that cannot be used.

    Returns:
        Clips sorted by speaker, file and time.

    Raises:
        DataError: if there are no videos or none can be used, the split misses a speaker or
            names one twice, or ``memory`` cannot be written.
        MissingDependencyError: if a package of the ``corpora`` extra is not installed.
    """
    root = corpus_root(root, "the videos")
    videos = list_videos(root)
    if not videos:
        raise DataError(f"{root}: no videos found; they end in {', '.join(sorted(VIDEO_SUFFIXES))}")
    speakers = {speaker for speaker, _, _ in videos}
    split_of = read_split(root, split_speakers(speakers))
    for speaker in sorted(speakers):
        split_of_speaker(root, split_of, speaker)  # before the slow part
    rules = rules or SegmentRules()
    search = _Search(rules, None if memory is None else Path(memory))
    clips: list[Clip] = []
    reasons: list[str] = []
    for done, (speaker, name, path) in enumerate(videos, start=1):
        try:
            found = search.segments(path)
        except (InputError, DataError, OSError) as error:
            reasons.append(" ".join(str(error).split()))
            if rejected is not None:
                rejected(Rejected(path, reasons[-1]))
        else:
            clips += [
                Clip(
                    speaker=speaker,
                    stem=path.stem,
                    path=path,
                    split=split_of[speaker],
                    # Named by where it begins, in milliseconds.
                    name=f"{name}-{first * 1000 // VIDEO_FPS:08d}",
                    start=first / VIDEO_FPS,
                    end=stop / VIDEO_FPS,
                    alone=True,
                )
                for first, stop in found
            ]
        if progress is not None:
            progress(Looking(done, len(videos), path))
    if not clips:
        raise DataError(f"{root}: none of {len(videos)} videos can be used; {reasons[0]}")
    check_clips(clips)
    return clips


def split_speakers(speakers: Iterable[str]) -> dict[Split, list[str]]:
    """A split that needs no list: a tenth of the speakers each for validation and testing.

    They are drawn by the hash of their names. From two speakers on there is one for validation
    at least, from three on one for testing; a single speaker is for training.
    """
    drawn = sorted(set(speakers), key=lambda name: hashlib.sha256(name.encode()).digest())
    share = max(round(_SHARE * len(drawn)), 1)
    validation = share if len(drawn) > 1 else 0
    test = share if len(drawn) > 2 else 0
    return {
        "validation": sorted(drawn[:validation]),
        "test": sorted(drawn[validation : validation + test]),
        "train": sorted(drawn[validation + test :]),
    }


def list_videos(root: Path) -> list[tuple[str, str, Path]]:
    """Speaker, name and path of every video, in this order; names as in :func:`find_folder`."""
    found = []
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        if any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        if path.suffix.lower() in VIDEO_SUFFIXES:
            folders = inside.parts[:-1]
            speaker = folders[0] if folders else path.stem
            found.append((speaker, "-".join((*folders[1:], path.stem)), path))
    times = Counter((speaker, name) for speaker, name, _ in found)
    return sorted(
        (speaker, name if times[speaker, name] == 1 else f"{name}-{path.suffix[1:]}", path)
        for speaker, name, path in found
    )


class _Search:
    """Finds the clips of one video after the other, and remembers them where that is asked."""

    def __init__(self, rules: SegmentRules, memory: Path | None) -> None:
        self.rules = rules
        self.memory = memory
        self.voice = VoiceActivity()
        self.versions = versions()
        if memory is not None:
            try:
                memory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{memory}: cannot be made ({error.strerror})") from error

    def segments(self, path: Path) -> list[Frames]:
        if self.memory is None:
            return find_segments(path, self.rules, self.voice)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        inputs = {"content": content, "rules": asdict(self.rules), "versions": self.versions}
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        kept = self.memory / f"{key}.json"
        with suppress(OSError, ValueError, TypeError):
            rows = json.loads(kept.read_text("utf8"))
            return [(int(first), int(stop)) for first, stop in rows]
        found = find_segments(path, self.rules, self.voice)
        # It only saves time: where it cannot be kept, the video is looked through again.
        with suppress(OSError), whole_file(kept) as partial:
            partial.write_text(json.dumps(found), "utf8")
        return found
