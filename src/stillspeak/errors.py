"""Everything stillspeak raises on purpose, as one tree.

A message says which file, what is wrong and what to do, in one line: the command line
prints it as it stands. Programming mistakes raise the built-in exceptions instead.
"""

import errno
import re
from collections.abc import Iterator

LONGEST = 1000
"""Characters of a message: a file may hold a key or a name of any length."""

_BREAKS = re.compile(r"[ \t]*[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]+[ \t]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class StillspeakError(Exception):
    """Base of every error that stillspeak raises on purpose.

    As a string it is one line of printable characters, whatever name, key or value of a user's
    file the message quotes: what is printed can neither look like two messages nor steer a
    terminal.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """A text as one printable line of :data:`LONGEST` characters at most."""
    line = _BREAKS.sub(" ", text)
    line = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], line)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 200]} ... {line[-190:]}"
    return line


class InputError(StillspeakError):
    """A user's file or value cannot be used."""


class ImageError(InputError):
    """A picture cannot be read."""


class VideoGivenError(ImageError):
    """A video was given where a picture is wanted."""


class AudioError(InputError):
    """A sound file or waveform cannot be read or holds nothing to speak."""


class VideoError(InputError):
    """A video cannot be read."""


class FaceError(InputError):
    """The picture holds no face that can be animated."""


class NoFaceError(FaceError):
    """No face was found, or not as many as asked for."""


class FaceTooSmallError(FaceError):
    """The face has too few pixels."""


class MouthOutsideError(FaceError):
    """The mouth is cut off by the picture's edge."""


class FaceTurnedError(FaceError):
    """The face looks too far away from the camera."""


class OutputError(StillspeakError):
    """The result cannot be written."""


class OutputExistsError(OutputError):
    """The output is there already and overwriting was not asked for."""


class ConfigError(StillspeakError):
    """A configuration file or value is wrong."""


class WeightsError(StillspeakError):
    """A weights file is missing, damaged or belongs to another model."""


class DataError(StillspeakError):
    """A corpus or a prepared cache cannot be used."""


class TrainingError(StillspeakError):
    """A training run cannot start or go on."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged or belongs to another configuration."""


class StudyError(StillspeakError):
    """A study's folder or database cannot be used."""


class MissingDependencyError(StillspeakError):
    """A package that this function needs is not installed."""


_MACHINE = (errno.EAGAIN, errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = re.compile(
    "(can't|cannot) allocate memory|not enough memory|out of memory"
    "|bad_alloc|failed to map segment|could not create a primitive",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused, in whichever of the ways in which libraries say so."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError) and bool(_NO_MEMORY.search(str(error)))


def out_of_files(error: BaseException) -> bool:
    """Whether one open file more was refused; safetensors says it in words."""
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return True
    return isinstance(error, RuntimeError) and "too many open files" in str(error).lower()


def of_the_machine(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is the machine's and not a file's.

    Without memory, room on the disk or open files left, the best of files cannot be read.
    """
    return any(
        out_of_memory(one) or out_of_files(one) or getattr(one, "errno", None) in _MACHINE
        for one in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one that it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__
