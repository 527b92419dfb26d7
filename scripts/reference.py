"""Writes docs/api.md and docs/commands.md from docstrings, signatures and the command line itself.

    python scripts/reference.py            # writes the pages
    python scripts/reference.py --check    # says which page is behind the code, exit code 1

A test runs ``--check``: no signature, option or default in those pages can go stale.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

import stillspeak
from stillspeak import errors
from stillspeak.cli import app as cli

ROOT = Path(__file__).resolve().parents[1]

GROUPS = (
    ("Making videos", ("animate", "Animator", "Animation")),
    ("While the sound comes in", ("StreamSession",)),
    ("Pictures, sound and video", ("load_image", "load_audio", "write_video")),
    ("Faces", ("Face", "LandmarkDetector", "MediaPipeDetector")),
    ("Models", ("load_model", "save_model", "Generator", "GeneratorConfig")),
)
"""Where a public name stands on the page; names that are in no group come last."""

GIVEN = ("rendering.check.StillWarning", "stream.Frame", "stream.Latency")
"""What public functions return that nobody makes, or needs to import."""

SECTIONS = ("Args", "Returns", "Raises", "Yields", "Attributes")

WIDTH = 110


# --- the Python side --------------------------------------------------------------------------


def api_page() -> str:
    """docs/api.md."""
    grouped = {name for _, names in GROUPS for name in names}
    rest = tuple(n for n in stillspeak.__all__ if n not in grouped and not _is_error(n))
    lines = [
        "# API reference",
        "",
        "The public names of `stillspeak`; all else may change from version to version. Written",
        "by `python scripts/reference.py` from the docstrings: change those, not this page. Arrays",
        "are given by their shapes: B clips, T frames, S waveform samples, N window samples, C",
        "channels, H rows, W columns, K landmarks, D features.",
        "",
    ]
    groups = [*GROUPS, *([("More", rest)] if rest else []), ("What sessions give back", GIVEN)]
    for title, names in groups:
        links = ", ".join(f"[`{name}`](#{_anchor(_heading(name))})" for name in names)
        lines.append(f"- {title}: {links}")
    lines += ["- Mistakes: [errors](#errors)", ""]
    for title, names in groups:
        lines += [f"## {title}", ""]
        for name in names:
            lines += _entry(name)
    lines += ["## Errors", "", *_errors()]
    return "\n".join(lines).rstrip() + "\n"


def _named(name: str) -> Any:
    """A public name, or with its module one of :data:`GIVEN`."""
    module, _, own = name.rpartition(".")
    return getattr(import_module(f"stillspeak.{module}") if module else stillspeak, own)


def _heading(name: str) -> str:
    value = _named(name)
    return f"{'class ' if inspect.isclass(value) else ''}{name}"


def _entry(name: str) -> Iterator[str]:
    value = _named(name)
    yield from (f"### {_heading(name)}", "")
    if inspect.isclass(value):
        yield from _class(value, name)
    else:
        yield from (*_code(f"stillspeak.{name}", value), *markdown(_doc(value)))


def _class(kind: type, place: str) -> Iterator[str]:
    if not getattr(kind, "_is_protocol", False) and place not in GIVEN:
        yield from _code(f"stillspeak.{place}", kind)
    yield from markdown(_doc(kind))
    fields = list(_fields(kind))
    if any(explained for _, _, _, explained in fields):
        yield from ("| field | default | |", "| --- | --- | --- |")
        for name, default, about, _ in fields:
            yield f"| `{name}` | {default} | {inline(about)} |"
        yield ""
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            about = " ".join(_doc(member).split())
            yield from (f"**`{kind.__name__}.{name}`** (property): {inline(about)}", "")
        elif isinstance(member, classmethod | staticmethod) or inspect.isfunction(member):
            function = getattr(kind, name)
            yield from (f"#### {kind.__name__}.{name}", "")
            yield from (*_code(name, function, bound=True), *markdown(_doc(function)))


def _fields(kind: type) -> Iterator[tuple[str, str, str, bool]]:
    """Of a dataclass's or named tuple's fields the name, the default, the explanation or else the
    type, and whether it is an explanation."""
    if not (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name = node.target.id
        if name.startswith("_") or "ClassVar" in ast.unparse(node.annotation):
            continue
        about = _type(ast.unparse(node.annotation))
        explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if explained:
            about = " ".join(str(after.value.value).split())
        default = "needed"
        if node.value is not None:  # what a factory makes has no value in the class
            made = hasattr(kind, name)
            default = f"`{_plain(getattr(kind, name))}`" if made else "made anew"
        yield name, default, about, explained


def _code(name: str, value: Callable[..., Any], *, bound: bool = False) -> list[str]:
    """A signature as a fenced block, an argument a line where it is long."""
    signature = inspect.signature(value)
    parameters = list(signature.parameters.values())
    if bound and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    back = signature.return_annotation
    returns = (
        "" if back is inspect.Signature.empty or inspect.isclass(value) else f" -> {_type(back)}"
    )
    words: list[str] = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(_parameter(parameter))
    whole = f"{name}({', '.join(words)}){returns}"
    if len(whole) > WIDTH - 10:
        whole = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){returns}"
    return ["```", whole, "```", ""]


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        text = f"*{text}"
    elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
        text = f"**{text}"
    if parameter.annotation is not inspect.Parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        text += f" = {_plain(parameter.default)}"
    return text


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"npt\.NDArray\[(?:np\.)?(\w+)\]", r"array[\1]", text)
    # The same where the annotation is no text but the thing itself.
    whole = r"numpy\.ndarray\[tuple\[typing\.Any, \.\.\.\], numpy\.dtype\[numpy\.(\w+)\]\]"
    text = re.sub(whole, r"array[\1]", text)
    text = re.sub(r"\bstillspeak(\.\w+)*\.(?=[A-Z])", "", text)
    text = re.sub(r"\bPicture\b", "array[uint8]", text)
    return text.replace("array[Any]", "array").replace("Waveform", "array[float32]")


def _plain(value: object) -> str:
    if isinstance(value, enum.Enum):
        return repr(value.value)
    if isinstance(value, Path):
        return repr(str(value))
    return repr(value)


def _doc(value: object) -> str:
    text = inspect.getdoc(value)
    if not text:
        raise SystemExit(f"{value}: has no docstring")
    return text


def markdown(text: str) -> list[str]:
    """A docstring as Markdown: paragraphs, and lists of its Args, Returns and Raises."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in SECTIONS and head.endswith(":"):
            lines += [head, ""]
            items = _items(rest)
            if not any(item.startswith("`") for item in items):  # prose, whatever its lines
                items = [" ".join(items)]
            lines += [f"- {inline(item)}" for item in items]
        elif all(line.startswith("    ") for line in block.splitlines()):
            lines += ["```", *textwrap.dedent(block).splitlines(), "```"]
        elif re.match(r"\w+: ", head) and "\n" in block and _is_list(block):
            lines += [f"- {inline(item)}" for item in _items(block)]
        else:
            lines += textwrap.wrap(
                inline(" ".join(block.split())),
                WIDTH,
                break_long_words=False,
                break_on_hyphens=False,
            )
        lines.append("")
    return lines


def _is_list(block: str) -> bool:
    return all(re.match(r"(\w+: |\s+)", line) for line in block.splitlines())


def _items(block: str) -> list[str]:
    """The entries of a docstring's list: what is indented further belongs to the line above."""
    items: list[str] = []
    lines = textwrap.dedent(block).splitlines()
    for line in lines:
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    return [
        re.sub(r"^([\w, *]+?): ", lambda m: f"`{m[1].replace(', ', '`, `')}`: ", item)
        for item in items
    ]


def inline(text: str) -> str:
    """Roles and double backticks of a docstring as Markdown's code."""
    text = re.sub(r":\w+:`~?([\w.]+)`", lambda m: f"`{m[1].removeprefix('stillspeak.')}`", text)
    return text.replace("``", "`").replace("|", "\\|")


def _is_error(name: str) -> bool:
    value = getattr(stillspeak, name)
    return inspect.isclass(value) and issubclass(value, Exception)


def _errors() -> Iterator[str]:
    yield "All that stillspeak raises on purpose; each message is one line that says which file,"
    yield "what is wrong and what to do: [troubleshooting.md](troubleshooting.md)."
    yield "`stillspeak.StillspeakError` catches them all, the others are in `stillspeak.errors`."
    yield "Mistakes of a program raise the built-in `ValueError` and `TypeError`."
    yield ""
    kinds = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.StillspeakError)
    ]

    def branch(kind: type, depth: int) -> Iterator[str]:
        yield f"{'  ' * depth}- `{kind.__name__}`: {inline(_doc(kind).splitlines()[0])}"
        for child in kinds:
            if child.__bases__[0] is kind:
                yield from branch(child, depth + 1)

    yield from branch(errors.StillspeakError, 0)


# --- the command line -------------------------------------------------------------------------


def commands_page() -> str:
    """docs/commands.md."""
    group = typer.main.get_command(cli.app)
    lines = [
        "# Commands",
        "",
        "Every command and option, written by `python scripts/reference.py` from the command line",
        "itself. `stillspeak COMMAND --help` says the same. An input's mistake costs one line on",
        "standard error and exit code 1, a wrong option 2.",
        "",
    ]
    found = list(_leaves("stillspeak", group))
    for path, command in found:
        about = (command.help or "").strip().splitlines()[0]
        lines.append(f"- [`{path}`](#{_anchor(path)}): {_escaped(about)}")
    lines.append("")
    for path, command in found:
        lines += [f"## {path}", "", *_paragraphs(command.help or ""), ""]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join([path, *map(_argument, arguments), *(["[OPTIONS]"] if options else [])])
        lines += ["```text", usage, "```", ""]
        if arguments or options:
            lines += ["| | default | |", "| --- | --- | --- |"]
            lines += [_row(parameter) for parameter in (*arguments, *options)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Commands that do something, groups gone through."""
    for name, child in sorted(command.commands.items()):
        if getattr(child, "hidden", False):
            continue
        if hasattr(child, "commands"):
            yield from _leaves(f"{path} {name}", child)
        else:
            yield f"{path} {name}", child


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name or "").upper()
    name += "..." if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{_argument(parameter)}`"
    else:
        spellings = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
        kind = "" if parameter.is_flag else f" {_kind(parameter)}"
        shown = spellings + kind
    default = parameter.default
    given = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    given = given and default != ""
    needed = "needed" if parameter.required else ""
    about = _escaped(" ".join((parameter.help or "").split()))
    return f"| {shown} | {f'`{default}`' if given else needed} | {about} |"


def _kind(parameter: Any) -> str:
    """What an option takes, in words."""
    descriptor = getattr(parameter, "type_descriptor", None)
    kind = getattr(descriptor, "annotation", None) or str
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if kind in (int, float):
        if low is not None and high is not None:
            return f"number from {low:g} to {high:g}"
        return "number" if low is None else f"number from {low:g}"
    return "path" if kind is Path else "text"


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines += [*textwrap.wrap(_escaped(" ".join(block.split())), WIDTH), ""]
    return lines[:-1]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\b", "")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- both -------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Every page's place and content."""
    return {"docs/api.md": api_page(), "docs/commands.md": commands_page()}


def main() -> int:
    """Write the pages, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    behind = []
    for name, content in pages().items():
        path = ROOT / name
        if not arguments.check:
            path.write_text(content, "utf-8")
            print(path)
        elif not path.is_file() or path.read_text("utf-8") != content:
            behind.append(name)
    for name in behind:
        print(f"{name}: behind the code; run python scripts/reference.py", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
