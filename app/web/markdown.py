"""What models write, as HTML that does nothing: rendered first, sanitised after that."""

from __future__ import annotations

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

_ALLOWED_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol",
    "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ALLOWED_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
_SCHEMES = {"http", "https", "mailto"}
_LINK_REL = "nofollow noopener noreferrer"

# Images are left out of the rules: their source stays text, and nothing is loaded.
_renderer = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable("image")
)


def render_markdown(text: str) -> Markup:
    """Markdown of a stranger as HTML. No raw HTML, no images, links to http(s) and mailto."""
    html = nh3.clean(
        _renderer.render(text), tags=_ALLOWED_TAGS, attributes=_ALLOWED_ATTRIBUTES,
        url_schemes=_SCHEMES, link_rel=_LINK_REL,
    )  # fmt: skip
    return Markup(html)  # noqa: S704 - cleaned in the line above
