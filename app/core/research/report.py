"""How a report is put together: the text between what the models write."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.core.domain.research import Source
from app.core.research.plan import one_line

_MARKUP = re.compile(r"([\\`*_\[\]<>#|~])")
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


def plan_text(questions: Sequence[str]) -> str:
    """The plan as a numbered list."""
    lines = (f"{number}. {plain(text)}" for number, text in enumerate(questions, 1))
    return "## Plan\n\n" + "\n".join(lines) + "\n\n"


def gather_text(sources: Sequence[Source], notes: Sequence[str]) -> str:
    """What was read, or plainly that nothing was."""
    if sources:
        noun = "source" if len(sources) == 1 else "sources"
        text = f"Read {len(sources)} {noun}, listed at the end."
    else:
        text = "No sources: this report rests on what the model knows, and may be wrong."
    return "".join(f"*{' '.join([text, *notes])}*\n\n")


def look_text(description: str) -> str:
    """What the vision model saw."""
    return f"## The image\n\n{description.strip()}\n\n"


def section_head(title: str) -> str:
    """The heading of a section."""
    return f"## {plain(title)}\n\n"


def section_end(text: str, *, is_cut: bool) -> str:
    """What closes a section: an ellipsis where it was cut, a code block left open."""
    end = " …" if is_cut else ""
    if len(_FENCE.findall(text)) % 2:
        end += "\n```"
    return end + "\n\n"


def failed_section(error: str) -> str:
    """What stands where an answer should be."""
    return f"*This part could not be answered: {plain(error)}*\n\n"


def sources_text(sources: Sequence[Source]) -> str:
    """The numbered list at the end."""
    if not sources:
        return ""
    lines = (f"{one.number}. {plain(one.title)} – <{_url(one.url)}>" for one in sources)
    return "## Sources\n\n" + "\n".join(lines) + "\n"


def plain(text: str, most: int = 300) -> str:
    """A stranger's line as text that Markdown leaves alone."""
    return _MARKUP.sub(r"\\\1", one_line(text, most))


def _url(url: str) -> str:
    return url.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20")
