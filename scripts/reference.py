"""Pages of the site that are made from the code: a hook of ``mkdocs.yml``.

``api.md`` names the public classes and functions, which mkdocstrings fills from their docstrings.
``commands.md`` is read from the command line itself, ``metrics.md`` from their registry,
``dependencies.md`` from what is installed.
Pages that live outside ``docs/``, such as the model card, join the site, and links between the
two are adjusted.
"""

from __future__ import annotations

import inspect
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import stillspeak
from stillspeak.cli import app as cli
from stillspeak.evaluation.metrics import all_metrics

ROOT = Path(__file__).resolve().parents[1]

GROUPS = {
    "Making videos": (
        *("animate", "Animator", "Animation", "options.AnimateOptions"),
        *("motion.moods.Mood", "motion.moods.MoodPlan"),
    ),
    "While the sound comes in": (
        *("StreamSession", "stream.Frame", "stream.Latency", "rendering.check.StillWarning"),
    ),
    "Images, sound and video": ("load_image", "load_audio", "write_video"),
    "Faces": ("Face", "LandmarkDetector", "MediaPipeDetector"),
    "Models": ("load_model", "save_model", "Generator", "GeneratorConfig"),
}
"""Where a name stands on the API page; a public name in no group comes after them."""

OUTSIDE = {
    "MODEL_CARD.md": "model-card.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
"""Pages outside ``docs/`` and their names on the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and those from outside ``docs/``."""
    made = {"api.md": api_page(), "commands.md": commands_page()}
    made["metrics.md"] = metrics_page()
    made["dependencies.md"] = runpy.run_path(str(ROOT / "scripts/audit.py"))["table"]()
    for source, target in OUTSIDE.items():
        made[target] = (ROOT / source).read_text("utf-8")
    for target, content in made.items():
        files.append(File.generated(config, target, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adjust the links that lead into or out of ``docs/``."""
    target = page.file.src_uri
    source = next((s for s, t in OUTSIDE.items() if t == target), f"docs/{target}")
    return site_links(markdown, source, target)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave roles such as ``:class:`` out of what mkdocstrings made of docstrings."""
    return re.sub(r":\w+:<code>~?", "<code>", html) if page.file.src_uri == "api.md" else html


def site_links(markdown: str, source: str, target: str) -> str:
    """A page's links as they must be on the site.

    Args:
        markdown: the page.
        source: its path in the repository.
        target: its path on the site.

    Returns:
        The page; a link to a file that the site does not have is left as its text.
    """

    def adjusted(match: re.Match[str]) -> str:
        label, link, anchor = match[1], match[2], match[3] or ""
        inside = os.path.normpath(Path(source).parent / link)
        place = OUTSIDE.get(inside)
        if place is None and inside.startswith("docs/") and not (ROOT / inside).is_dir():
            place = inside.removeprefix("docs/")
        if place is None:
            return label.removeprefix("!")[1:-1]
        return f"{label}({os.path.relpath(place, Path(target).parent)}{anchor})"

    return re.sub(r"(!?\[[^\]\[]*\])\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)", adjusted, markdown)


# --- the Python side --------------------------------------------------------------------------


def api_page() -> str:
    """The API page: a directive of mkdocstrings for each public name."""
    grouped = {name for names in GROUPS.values() for name in names}
    errors = {name for name in stillspeak.__all__ if name.endswith("Error")}
    rest = tuple(name for name in stillspeak.__all__ if name not in grouped | errors)
    lines = [
        "# API reference",
        "",
        "The public names of `stillspeak`. All other names may change from version to version.",
        "Arrays are given by their shapes: B clips, T frames, S waveform samples, N window",
        "samples, C channels, H rows, W columns, K landmarks, D features.",
        "",
    ]
    for title, names in {**GROUPS, **({"More": rest} if rest else {})}.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += [*_directive(_canonical(name), f"stillspeak.{name}"), ""]
    lines += [
        "## Errors",
        "",
        "Everything that stillspeak raises on purpose. Each message is one line that says which",
        "file, what is wrong and what to do: [Troubleshooting](troubleshooting.md).",
        "`stillspeak.StillspeakError` catches them all; the others are in `stillspeak.errors`.",
        "A mistake in your program raises the built-in `ValueError` or `TypeError`.",
        "",
        *_directive("stillspeak.errors", "stillspeak.errors"),
    ]
    return "\n".join(lines) + "\n"


def _directive(path: str, heading: str) -> list[str]:
    return [f"::: {path}", "    options:", f"      heading: {heading}", "      heading_level: 3"]


def _canonical(name: str) -> str:
    """Where a public name is defined."""
    module, _, own = name.rpartition(".")
    if module:
        return f"stillspeak.{name}"
    return f"{getattr(stillspeak, own).__module__}.{own}"


def metrics_page() -> str:
    """The metrics page: what ``stillspeak evaluate --list`` prints."""
    better = {"higher": "higher is better", "lower": "lower is better", "real": "best as real"}
    lines = ["# Metrics", "", "The definition of every metric, in the order of a report.", ""]
    for metric in all_metrics():
        unit = "" if metric.unit == "1" else f", {metric.unit}"
        lines += [
            f"## {metric.name}",
            "",
            f"Version {metric.version}{unit}, {better[metric.better]}.",
        ]
        lines += ["", metric.definition, ""]
    return "\n".join(lines)


# --- the command line -------------------------------------------------------------------------


def commands_page() -> str:
    """The commands page: each command's help, and a table of its arguments and options."""
    found = list(_leaves("stillspeak", typer.main.get_command(cli.app)))
    lines = [
        "# Commands",
        "",
        "`stillspeak COMMAND --help` says the same. If an input is wrong, you get one line on",
        "standard error and exit code 1; a wrong option gives exit code 2.",
        "",
    ]
    for path, command in found:
        about = (command.help or "").strip().splitlines()[0]
        lines.append(f"- [`{path}`](#{path.replace(' ', '-')}): {_escaped(about)}")
    for path, command in found:
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join([path, *map(_argument, arguments), *(["[OPTIONS]"] if options else [])])
        lines += ["", f"## {path}", "", _escaped(inspect.cleandoc(command.help or "")), ""]
        lines += ["```text", usage, "```"]
        if command.params:
            lines += ["", "| | default | |", "| --- | --- | --- |"]
            lines += [_row(parameter) for parameter in (*arguments, *options)]
    return "\n".join(lines) + "\n"


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Commands that do something, groups gone through."""
    if hasattr(command, "commands"):
        for name, child in sorted(command.commands.items()):
            if not child.hidden:
                yield from _leaves(f"{path} {name}", child)
    else:
        yield path, command


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name or "").upper()
    name += "..." if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{_argument(parameter)}`"
    else:
        shown = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
        shown += "" if parameter.is_flag else f" {_kind(parameter)}"
    default = parameter.default
    given = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    needed = "required" if parameter.required else ""
    about = _escaped(" ".join((parameter.help or "").split()))
    return f"| {shown} | {f'`{default}`' if given and default != '' else needed} | {about} |"


def _kind(parameter: Any) -> str:
    """What an option takes, in words."""
    descriptor = getattr(parameter, "type_descriptor", None)
    kind = getattr(descriptor, "annotation", None) or str
    if kind not in (int, float):
        return "path" if kind is Path else "text"
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if low is None:
        return "number"
    return f"number from {low:g}" + (f" to {high:g}" if high is not None else "")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\b", "")
