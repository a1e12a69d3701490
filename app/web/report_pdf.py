"""A report as a PDF: headings, paragraphs, lists, tables and code, in plain type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import pairwise

from fpdf import FPDF
from fpdf.enums import WrapMode, XPos, YPos
from markdown_it import MarkdownIt
from markdown_it.token import Token

from app.core.offload import run_off_loop_in_turn

MOST_CHARACTERS = 300_000
_FONT = "roboto"
_BODY_POINTS = 10.5
_LINE = 1.45
_HEADING_POINTS = {"h1": 17.0, "h2": 14.0, "h3": 12.0}
_POINT_MM = 0.3528
_INDENT_MM = 6.0
_parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])

Line = tuple[str, str, int]
"""Kind (h1, h2, h3, text, item, code), text, and how deep it is indented."""


def render_pdf(title: str, text: str, *, facts: str) -> bytes:
    """The Markdown report under its question; `facts` is the small line below that."""
    return run_off_loop_in_turn(_render, title, text[:MOST_CHARACTERS], facts)


def _render(title: str, text: str, facts: str) -> bytes:
    pdf = FPDF(format="A4")
    pdf.set_margin(20)
    pdf.set_auto_page_break(auto=True, margin=20)
    pdf.set_title(title[:200])
    pdf.set_creator("Weft")
    for style, name in (("", "Roboto-Regular.ttf"), ("B", "Roboto-Bold.ttf")):
        pdf.add_font(_FONT, style, str(files("font_roboto") / "files" / name))
    pdf.add_page()
    _write(pdf, "h1", title, 0)
    pdf.set_text_color(110)
    _write(pdf, "small", facts, 0)
    pdf.set_text_color(0)
    for kind, line, depth in report_lines(text):
        _write(pdf, kind, line, depth)
    return bytes(pdf.output())


def _write(pdf: FPDF, kind: str, text: str, depth: int) -> None:
    is_heading = kind in _HEADING_POINTS
    points = _HEADING_POINTS.get(kind, 9.0 if kind in ("code", "small") else _BODY_POINTS)
    pdf.set_font(_FONT, "B" if is_heading else "", points)
    pdf.set_x(pdf.l_margin + _INDENT_MM * min(depth, 5))
    if is_heading:
        pdf.ln(points * _POINT_MM * 0.6)
    pdf.multi_cell(
        0, points * _POINT_MM * _LINE, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT,
        wrapmode=WrapMode.CHAR if kind == "code" else WrapMode.WORD,
        fill=kind == "code",
    )  # fmt: skip
    if kind not in ("item", "code"):
        pdf.ln(1.5)


def report_lines(text: str) -> Iterator[Line]:
    """What a Markdown text says, block by block, without its marks."""
    markers: list[int | None] = []
    tokens = _parser.parse(text)
    for at, token in enumerate(tokens):
        if token.type in ("ordered_list_open", "bullet_list_open"):
            start = int(token.attrGet("start") or 1)
            markers.append(start if token.type.startswith("ordered") else None)
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            markers.pop()
        elif token.type in ("fence", "code_block"):
            yield ("code", token.content.rstrip("\n"), len(markers))
        elif token.type == "tr_open":
            yield ("item", " | ".join(_cells(tokens[at:])), 0)
        elif token.type == "inline" and tokens[at - 1].type not in ("th_open", "td_open"):
            yield _block(tokens, at, markers)


def _block(tokens: Sequence[Token], at: int, markers: list[int | None]) -> Line:
    opener, content = tokens[at - 1], _plain(tokens[at])
    if opener.type == "heading_open":
        return (opener.tag if opener.tag in _HEADING_POINTS else "h3", content, 0)
    if markers and at >= 2 and tokens[at - 2].type == "list_item_open":
        number = markers[-1]
        if number is None:
            return ("item", f"• {content}", len(markers))
        markers[-1] = number + 1
        return ("item", f"{number}. {content}", len(markers))
    return ("text", content, len(markers))


def _cells(tokens: Sequence[Token]) -> Iterator[str]:
    for before, token in pairwise(tokens):
        if token.type == "tr_close":
            return
        if token.type == "inline" and before.type in ("th_open", "td_open"):
            yield _plain(token)


def _plain(inline: Token) -> str:
    """The words of a line; a link with its address behind it, unless that is what it says."""
    parts: list[str] = []
    for token in inline.children or ():
        if token.type in ("softbreak", "hardbreak"):
            parts.append("\n" if token.type == "hardbreak" else " ")
        elif token.type == "link_close":
            href = _href(inline, token)
            if href and "".join(parts).rstrip().endswith(href) is False:
                parts.append(f" ({href})")
        else:
            parts.append(token.content)
    return "".join(parts)


def _href(inline: Token, closer: Token) -> str:
    children = inline.children or []
    opened = [one for one in children[: children.index(closer)] if one.type == "link_open"]
    return str(opened[-1].attrGet("href") or "") if opened else ""
