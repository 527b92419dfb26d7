"""A report's folder: ``index.html``, which loads nothing else, the same as ``report.md``, and the
pictures of that in ``figures/``.

Templates are ``report.html.j2``, which extends ``page.html.j2``, and ``report.md.j2``. Text is
escaped in both. The same input gives the same bytes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillspeak import __version__
from stillspeak.errors import OutputError, OutputExistsError
from stillspeak.reporting.numbers import interval, number
from stillspeak.reporting.plots import Plot
from stillspeak.system.atomic import whole_folder


@dataclass(frozen=True)
class Picture:
    """A plot or strip of frames: ``markup`` in the page, ``data`` in a file beside the Markdown."""

    file: str
    markup: str
    data: bytes
    alt: str


@dataclass
class Figures:
    """The pictures of a report, numbered as they are added."""

    pictures: list[Picture] = field(default_factory=list)

    def plot(self, plot: Plot, alt: str) -> Picture:
        """Add a plot; the filter ``svg`` shows it in the page."""
        number = len(self.pictures) + 1
        return self._add(f"plot-{number:03}.svg", plot.inline(f"p{number}"), plot.file(), alt)

    def png(self, data: bytes, alt: str) -> Picture:
        """Add a PNG; its markup is a data URL."""
        markup = "data:image/png;base64," + base64.b64encode(data).decode()
        return self._add(f"frames-{len(self.pictures) + 1:03}.png", markup, data, alt)

    def _add(self, *parts: Any) -> Picture:
        self.pictures.append(Picture(*parts))
        return self.pictures[-1]


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse to write a report where something else is.

    Raises:
        OutputExistsError: there is a report already, and ``overwrite`` is not set.
        OutputError: something else is there.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise OutputError(f"{target}: is no folder; give another place for the report")
    there = sorted(path.name for path in target.iterdir())
    if there and not {"index.html", "report.md"} <= set(there):
        raise OutputError(
            f"{target}: holds something else than a report ({there[0]}); give another folder"
        )
    if there and not overwrite:
        raise OutputExistsError(
            f"{target}: holds a report already; give another folder, or --overwrite"
        )


def write_page(
    target: Path,
    context: Mapping[str, Any],
    figures: Figures,
    *,
    templates: tuple[str, str] = ("stillspeak", "resources/report"),
    files: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Render a report and write its folder, all of it or nothing.

    Args:
        target: the folder; what is there is replaced, so call :func:`check_target` first.
        context: of both templates; ``title`` is needed.
        figures: that the context shows.
        templates: package and folder of ``report.html.j2`` and ``report.md.j2``.
        files: further files, name to text.

    Returns:
        The page and the Markdown.

    Raises:
        OutputError: the folder cannot be written.
    """
    texts = {
        **(files or {}),
        "report.md": _render("report.md.j2", templates, context),
        "index.html": _render("report.html.j2", templates, context),
    }
    try:
        with whole_folder(target) as partial:
            (partial / "figures").mkdir()
            for picture in figures.pictures:
                (partial / "figures" / picture.file).write_bytes(picture.data)
            for name, text in texts.items():
                (partial / name).write_text(text, "utf-8")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target / "index.html", target / "report.md"


def _render(name: str, templates: tuple[str, str], context: Mapping[str, Any]) -> str:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    page = name.endswith(".html.j2")
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(*templates), PackageLoader("stillspeak", "resources/report")]
        ),
        autoescape=page,  # noqa: S701 - Markdown has its own, below
        finalize=None if page else escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["svg"] = lambda picture: Markup(picture.markup)  # noqa: S704
    environment.filters |= {"code": _Code, "number": number, "interval": interval}
    return environment.get_template(name).render(version=__version__, **context)


class _Code(str):
    """Text of a fenced block, which Markdown takes as it is; fences inside cannot close it."""

    def __new__(cls, text: str) -> _Code:
        return super().__new__(cls, str(text).replace("```", "'''"))


def escape_markdown(value: Any) -> Any:
    """Text so that Markdown shows it as it is, also in tables; other values unchanged."""
    if isinstance(value, _Code) or not isinstance(value, str):
        return value
    text = " ".join(value.split()) if value.strip() else value
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)
