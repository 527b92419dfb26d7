"""What the commands share: options, inputs, messages and the progress bar.

A command is a function that :mod:`stillspeak.cli.app` registers; heavy imports happen inside it,
so that ``--help`` stays quick.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args, get_type_hints

import typer

from stillspeak.errors import InputError
from stillspeak.options import OPTIONS, AnimateOptions
from stillspeak.system.runtime import DeviceName

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stillspeak.animate import Animator
    from stillspeak.animation import Animation
    from stillspeak.media.marks.marking import MarkChoices
    from stillspeak.rendering.check import StillWarning

MAX_STDIN_BYTES = 512 * 2**20


def known_device(name: str) -> str:
    if name not in get_args(DeviceName):
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(get_args(DeviceName))}")
    return name


def flag(name: str) -> Any:
    """The command line's form of an option of ``animate``."""
    option = OPTIONS[name]
    spelled = f"--{name.replace('_', '-')}"
    if option.kind is bool:  # without a --no- form
        return typer.Option(spelled, help=option.help)
    return typer.Option(spelled, min=option.least, max=option.most, help=option.help)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of ``animate``, which it takes as one value, ``options``."""
    hints = get_type_hints(command, include_extras=True)
    shown: dict[str, Parameter] = {}
    for name, parameter in signature(command).parameters.items():
        if name != "options":
            shown[name] = parameter.replace(annotation=hints[name])
            continue
        for each, option in OPTIONS.items():
            kind = Annotated[option.annotation, flag(each)]  # type: ignore[name-defined]
            shown[each] = Parameter(
                each, Parameter.KEYWORD_ONLY, default=option.default, annotation=kind
            )

    @wraps(command)
    def run(**arguments: Any) -> None:
        options = AnimateOptions(**{name: arguments.pop(name) for name in OPTIONS})
        command(**arguments, options=options)

    run.__signature__ = signature(command).replace(parameters=list(shown.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in shown.items()}
    return run


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Model = Annotated[str, typer.Option(help="A released model's name, or a weights file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", callback=known_device)]
Seed = Annotated[int, flag("seed")]
FaceIndex = Annotated[int | None, flag("face")]
Blink = Annotated[float, flag("blink")]
Expression = Annotated[float, flag("expression")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


NoMark = Annotated[
    bool,
    typer.Option(
        "--no-mark",
        help="No watermark and no content credentials: then it is up to you to say that the "
        "video is synthetic, as the law asks for in many places.",
    ),
]
WithLabel = Annotated[
    bool, typer.Option("--label", help='Show "AI-generated" in the bottom left corner.')
]
LabelText = Annotated[str | None, typer.Option(help="Show this text there instead.")]
Certificate = Annotated[
    Path | None, typer.Option(help="Sign with this certificate chain (PEM) and --key.")
]
Key = Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).")]


def mark_choices(
    no_mark: bool, label: bool, label_text: str | None, certificate: Path | None, key: Path | None
) -> MarkChoices:
    """The choices, found out to be possible before anything slow begins.

    Raises:
        ConfigError: the label or the certificate cannot be used.
    """
    from stillspeak.media.marks.label import DEFAULT_TEXT
    from stillspeak.media.marks.marking import MarkChoices

    if no_mark and (certificate or key):
        raise typer.BadParameter("--certificate and --key sign, which --no-mark forbids")
    text = label_text if label_text is not None else DEFAULT_TEXT if label else None
    choices = MarkChoices(not no_mark, text, certificate, key)
    choices.check()
    return choices


def say_unmarked(choices: MarkChoices, quiet: bool) -> None:
    if not (choices.mark or quiet):
        print(
            "stillspeak: note: written without marks; say yourself that it is synthetic",
            file=sys.stderr,
        )


def say_warnings(warnings: Iterable[StillWarning], photo: str, quiet: bool) -> None:
    """One line each on standard error."""
    if not quiet:
        for warning in warnings:
            print(f"stillspeak: warning: {photo}: {warning.message}", file=sys.stderr)


def fail(message: str, *, code: int = 1) -> NoReturn:
    print(f"stillspeak: {' '.join(message.splitlines())}", file=sys.stderr)
    raise SystemExit(code)


def open_animator(model: str, device: str) -> Animator:
    from stillspeak.animate import Animator

    return Animator(model, device=device)


def source(argument: str) -> str | bytes:
    """A path as it is; ``-`` as the bytes on standard input, with a bound."""
    if argument != "-":
        return argument
    if sys.stdin is None:
        raise InputError("standard input: is closed; give a file")
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise InputError(f"standard input: more than {MAX_STDIN_BYTES >> 20} MiB; give a file")
    return data


def source_name(argument: str) -> str:
    return "standard input" if argument == "-" else argument


def save(
    animation: Animation,
    target: str | Path,
    *,
    overwrite: bool,
    quiet: bool,
    choices: MarkChoices | None = None,
) -> int:
    from stillspeak.media.video import write_video

    settings = animation.video_settings
    if choices is not None:
        settings["marks"] = choices.applied(settings["marks"])

    with progress_bar("animating", len(animation), quiet) as advance:
        return write_video(
            target,
            counted(animation, advance),
            overwrite=overwrite,
            **settings,
        )


def counted(
    frames: Iterable[npt.NDArray[np.uint8]], advance: Callable[[int, str], None]
) -> Iterator[npt.NDArray[np.uint8]]:
    for number, frame in enumerate(frames, start=1):
        yield frame
        advance(number, "")


@contextmanager
def nothing() -> Iterator[None]:
    yield None


def in_bytes(number: int) -> str:
    return f"{number / 2**20:.3g} MiB" if number < 2**30 else f"{number / 2**30:.3g} GiB"


def in_time(seconds: float) -> str:
    """In the unit that fits."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def listed(text: str | None) -> list[str] | None:
    """The names in a list separated by commas; None if it was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def command_line() -> str:
    """The command line as it was given, fit for a shell."""
    return " ".join(["stillspeak", *map(shlex.quote, sys.argv[1:])])


@contextmanager
def progress_bar(what: str, total: int | None, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on standard error, if that is a terminal and nobody asked for quiet."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    with bar:
        task = bar.add_task(what, total=total, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)
