"""What the commands share: options, messages and the progress bar.

A command is a function that :mod:`stillspeak.cli.app` registers; heavy imports happen inside it,
so that ``--help`` stays quick.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Protocol, get_args, get_type_hints

import typer
from pydantic import Field
from pydantic.fields import FieldInfo

from stillspeak.errors import InputError
from stillspeak.options import OPTIONS
from stillspeak.system.configuration import configuration, fields_of, range_of
from stillspeak.system.runtime import DeviceName

if TYPE_CHECKING:
    from stillspeak.animate import Animation
    from stillspeak.media.marks.marking import MarkChoices
    from stillspeak.rendering.check import StillWarning


MAX_STDIN_BYTES = 512 * 2**20


def known_device(name: str | None) -> str | None:
    if name is not None and name not in get_args(DeviceName):
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(get_args(DeviceName))}")
    return name


def flag(name: str, kind: Any, default: Any, about: list[Any]) -> Any:
    """A type with the command line's form of an option: its names, range and help text."""
    spelled = tuple(one for one in about[:-1] if isinstance(one, str))
    if kind is bool and not default and not spelled:
        spelled = (f"--{name.replace('_', '-')}",)  # its --no- form would change nothing
    field = next((one for one in about if isinstance(one, FieldInfo)), FieldInfo())
    least, most = range_of(field)
    text = about[-1] if isinstance(about[-1], str) else field.description
    return Annotated[kind, typer.Option(*spelled, min=least, max=most, help=text)]


Quiet = Annotated[bool, "--quiet", "-q", "Only errors."]
Overwrite = Annotated[bool, "Replace an existing output."]
Model = Annotated[str, "A released model's name, or a weights file."]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", callback=known_device)]
FaceIndex = Annotated[int | None, OPTIONS["face"]]
AsJson = Annotated[bool, "--json", "Print the result as JSON."]

NAMES = tuple[str, ...] | None
"""The type of a field that is given as names separated by commas."""


@configuration()
class SigningOptions:
    """Whether a video says that it is synthetic, and who signs that."""

    no_mark: Annotated[
        bool,
        Field(
            description="No watermark and no content credentials: then it is up to you to say "
            "that the video is synthetic, as the law asks for in many places."
        ),
    ] = False
    certificate: Annotated[
        Path | None, Field(description="Sign with this certificate chain (PEM) and --key.")
    ] = None
    key: Annotated[Path | None, Field(description="The certificate's private key (PEM).")] = None

    def choices(self, text: str | None = None) -> MarkChoices:
        """The choices, with a visible label, checked before anything slow begins.

        Raises:
            ConfigError: the label or the certificate cannot be used.
        """
        from stillspeak.media.marks.marking import MarkChoices

        signed = self.certificate or self.key
        usage({"--certificate and --key sign, which --no-mark forbids": self.no_mark and signed})
        choices = MarkChoices(not self.no_mark, text, self.certificate, self.key)
        choices.check()
        return choices


@configuration()
class MarkOptions(SigningOptions):
    """The same for videos that may also show a label."""

    label: Annotated[bool, Field(description='Show "AI-generated" in the bottom left corner.')] = (
        False
    )
    label_text: Annotated[str | None, Field(description="Show this text there instead.")] = None

    def choices(self, text: str | None = None) -> MarkChoices:
        """The same, with the label that was asked for."""
        from stillspeak.media.marks.label import DEFAULT_TEXT

        label = DEFAULT_TEXT if self.label else None
        return super().choices(label if self.label_text is None else self.label_text)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command say its options briefly.

    ``Annotated[int, "help text"]`` is an option, ``Annotated[int, Field(ge=1), "help text"]`` one
    with a range, ``Annotated[str, "-o", "--output", "help text"]`` one with names of its own. A
    parameter whose type is a configuration, such as ``AnimateOptions``, becomes one option for
    each field with a description; one of the same name is the command's own. What typer itself
    understands stays as it is.
    """
    groups: dict[str, tuple[Any, dict[str, FieldInfo]]] = {}
    shown: list[Parameter] = []
    hints = get_type_hints(command, include_extras=True)

    def show(name: str, kind: Any, default: Any) -> None:
        shown.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind))

    for name, parameter in signature(command).parameters.items():
        kind, *about = get_args(hints[name]) or (hints[name],)
        if is_dataclass(kind):
            known = fields_of(kind)  # type: ignore[arg-type]
            fields = {k: f for k, f in known.items() if f.description and k not in hints}
            groups[name] = kind, fields
            for each, field in fields.items():
                one = str | None if field.annotation == NAMES else field.annotation
                show(each, flag(each, one, field.default, [field]), field.default)
        elif about and isinstance(about[-1], str | FieldInfo):
            show(name, flag(name, kind, parameter.default, about), parameter.default)
        else:
            show(name, hints[name], parameter.default)

    @wraps(command)
    def run(**arguments: Any) -> None:
        for name, (group, fields) in groups.items():
            values = {each: arguments.pop(each) for each in fields}
            lists = {k: listed(v) for k, v in values.items() if fields[k].annotation == NAMES}
            arguments[name] = group(**values | lists)
        command(**arguments)

    run.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in shown}
    return run


def read_source(argument: str) -> str | bytes:
    """A path as it is; ``-`` as the bytes on standard input, with a bound."""
    if argument != "-":
        return argument
    if sys.stdin is None:
        raise InputError("standard input: is closed; give a file")
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise InputError(f"standard input: more than {MAX_STDIN_BYTES >> 20} MiB; give a file")
    return data


def usage(mistakes: Mapping[str, object]) -> None:
    """Refuse a command line for the first message whose value is true."""
    for message, wrong in mistakes.items():
        if wrong:
            raise typer.BadParameter(message)


def listed(text: str | None) -> list[str] | None:
    """The names in a list separated by commas; None if it was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def command_line() -> str:
    """The command line as it was given, fit for a shell."""
    return " ".join(["stillspeak", *map(shlex.quote, sys.argv[1:])])


def tell(message: str, quiet: bool = False) -> None:
    """One line on standard error."""
    if not quiet:
        print(f"stillspeak: {message}", file=sys.stderr)


def tell_unmarked(choices: MarkChoices, quiet: bool) -> None:
    if not choices.mark:
        tell("note: written without marks; say yourself that it is synthetic", quiet)


def tell_warnings(warnings: Iterable[StillWarning], photo: str, quiet: bool) -> None:
    for warning in warnings:
        tell(f"warning: {photo}: {warning.message}", quiet)


def fail(message: str, *, code: int = 1) -> NoReturn:
    tell(" ".join(message.splitlines()))
    raise SystemExit(code)


def in_bytes(number: int) -> str:
    return f"{number / 2**20:.3g} MiB" if number < 2**30 else f"{number / 2**30:.3g} GiB"


def in_time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, done: int, text: str = "") -> None: ...


@contextmanager
def progress_bar(what: str, total: int | None, quiet: bool) -> Iterator[Advance]:
    """A progress bar on standard error, if that is a terminal and ``quiet`` is false."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, text="": None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        "{task.fields[text]}",
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, text="")
        yield lambda done, text="": bar.update(task, completed=done, text=text)


@contextmanager
def progress_stages(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage of a work, of which one is shown at a time."""
    with ExitStack() as bars:
        shown: dict[str, Advance] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                bars.close()
                shown.clear()
                shown[stage] = bars.enter_context(progress_bar(stage, total, quiet))
            shown[stage](done)

        yield progress


def save(
    animation: Animation,
    target: str | Path,
    *,
    overwrite: bool,
    quiet: bool,
    choices: MarkChoices | None = None,
) -> int:
    """Write a video with a progress bar; how many frames it has."""
    marks = {} if choices is None else vars(choices)
    with progress_bar("animating", len(animation), quiet) as advance:
        return animation.save(target, overwrite=overwrite, progress=advance, **marks)
