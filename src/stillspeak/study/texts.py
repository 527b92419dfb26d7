"""Limited Markdown to HTML that can do no harm."""

from __future__ import annotations

from stillspeak.errors import MissingDependencyError


def render(text: str) -> str:
    """Paragraphs, line breaks, emphasis, lists and http(s) or mail links; all else is text.

    Raises:
        MissingDependencyError: markdown-it-py is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise MissingDependencyError(
            "markdown-it-py is not installed; install stillspeak with the extra: "
            "pip install 'stillspeak[study]'"
        ) from error
    markdown = MarkdownIt("zero", {"html": False, "breaks": False})
    markdown.enable(["emphasis", "link", "list", "newline", "escape", "entity"])
    markdown.validateLink = _safe  # type: ignore[method-assign]
    return str(markdown.render(text.strip()))


def _safe(url: str) -> bool:
    return url.lower().startswith(("https://", "http://", "mailto:"))
