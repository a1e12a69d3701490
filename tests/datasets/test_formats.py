"""What a file is: by its content first, by its name where that leaves it open."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.datasets import csv_rows
from app.core.datasets.formats import EMPTY, HEAD_BYTES, NO_CSV, UNKNOWN, inspect, inspect_head
from app.core.domain.datasets import Inspected
from app.core.domain.errors import InvalidInput
from app.core.storage import Storage

CELLS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n\ufeff"), min_size=1,
    max_size=12,
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Storage:
    return Storage("", tmp_path)


def inspected(
    files: Storage, content: bytes, name: str, *, must_be_csv: bool = False
) -> Inspected:
    stored = files.put_bytes("datasets", content)
    return inspect(files, stored.name, name, must_be_csv=must_be_csv)


@pytest.mark.parametrize(
    ("content", "name", "format_", "kind"),
    [
        (b"a,b\n1,2\n", "x.csv", "csv", "table"),
        (b"a\tb\n1\t2\n", "x.tsv", "csv", "table"),
        (b"a;b\n1;2\n3;4\n", "figures.txt", "csv", "table"),
        (b"one\ntwo\n", "one-column.csv", "csv", "table"),
        (b"Dear Sir, Madam,\nI write to you, and you.\n", "letter.txt", "txt", "document"),
        (b"# Title\n\n- a\n", "notes.md", "md", "document"),
        (b'[{"a": 1}]', "x.csv", "json", "table"),
        (b'{"a": 1}', "x.txt", "json", "document"),
        (b'[1, 2, "three"]', "x.json", "json", "document"),
        (b'{"a": 1}\n{"a": 2}\n', "x.json", "jsonl", "table"),
        (b'{"a": 1}\n', "one.jsonl", "jsonl", "table"),
        (b'{"a": 1', "broken.json", "txt", "document"),
        (b"<!DOCTYPE html><html></html>", "x.txt", "html", "document"),
        (b"<p>Part of a page</p>", "x.html", "html", "document"),
        (b"%PDF-1.7\n\0\0", "x.txt", "pdf", "document"),
        (b"PAR1\0\0", "x", "parquet", "table"),
        (b"PK\x03\x04\0\0", "x.csv", "zip", "archive"),
        (b"\x1f\x8b\x08\0\0", "x.csv", "gz", "archive"),
        (b"\0" * 257 + b"ustar\x0000", "x", "tar", "archive"),
    ],
)
def test_the_format_comes_from_the_content_before_the_name(
    files: Storage, content: bytes, name: str, format_: str, kind: str
) -> None:
    found = inspected(files, content, name)

    assert (found.format, found.kind) == (format_, kind)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n\0\0", b"MZ\0\0", "ä,ö\n1,2".encode("utf-16"), b"caf\xe9,b\n1,2"],
)
def test_what_is_no_text_in_utf_8_and_no_known_format_is_refused(
    files: Storage, content: bytes
) -> None:
    with pytest.raises(InvalidInput, match="none of the formats") as refused:
        inspected(files, content, "x.csv")
    assert refused.value.message == UNKNOWN
    with pytest.raises(InvalidInput, match=NO_CSV):
        inspected(files, content, "x.csv", must_be_csv=True)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \r\n\t\n"])
def test_an_empty_file_is_said_to_be_empty(files: Storage, content: bytes) -> None:
    for must_be_csv in (False, True):
        with pytest.raises(InvalidInput, match=EMPTY):
            inspected(files, content, "x.csv", must_be_csv=must_be_csv)


def test_a_csv_with_a_header_alone_is_empty_where_it_must_be_a_csv(files: Storage) -> None:
    with pytest.raises(InvalidInput, match=EMPTY):
        inspected(files, b"a,b\n", "x.csv", must_be_csv=True)
    assert inspected(files, b"a,b\n", "x.csv").row_count == 0


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}', b"%PDF-1.4", b"<html><body>a,b</body></html>", b'a,b\n"1,2\n', b'a,b\n"1"2,3\n',
        b"a,b\n1,2\0\n", b"a" + b",b" * csv_rows.MOST_COLUMNS + b"\n1\n",
        b"a,b\n1," + b"x" * (csv_rows.MOST_CELL_CHARACTERS + 1) + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_csv_is_refused_where_it_must_be_one(files: Storage, content: bytes) -> None:
    with pytest.raises(InvalidInput, match=NO_CSV):
        inspected(files, content, "x.csv", must_be_csv=True)


def test_quotes_delimiters_and_byte_order_marks_are_read_as_rfc_4180_has_them(
    files: Storage,
) -> None:
    content = '\ufeffname;note\r\n"A; B";"she said ""no""\r\nand left"\r\nC;\r\n'.encode()

    found = inspected(files, content, "x.csv", must_be_csv=True)

    assert found.headers == ("name", "note")
    assert found.preview_rows == (("A; B", 'she said "no"\r\nand left'), ("C", ""))
    assert found.row_count == 2


@pytest.mark.parametrize("break_", [b"", b'1,"open'])
@pytest.mark.parametrize("where", ["folder", "elsewhere"])
def test_the_rows_of_a_large_csv_are_counted_to_its_end(
    files: Storage, monkeypatch: pytest.MonkeyPatch, where: str, break_: bytes
) -> None:
    if where == "elsewhere":
        monkeypatch.setattr(files, "local_path", lambda name: None)
    row = b'1,"two\nlines"\n'
    count = HEAD_BYTES // len(row) + 1000
    content = b"a,b\n" + row * count + break_
    if break_:
        with pytest.raises(InvalidInput, match=NO_CSV):
            inspected(files, content, "x.csv", must_be_csv=True)
        return

    found = inspected(files, content, "x.csv", must_be_csv=True)

    assert found.row_count == count
    assert len(found.preview_rows or ()) == 10
    assert inspected(files, content, "x.csv").row_count is None


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=2, max_size=8),
    delimiter=st.sampled_from(csv_rows.DELIMITERS),
)
def test_whatever_is_written_as_csv_is_read_as_it_was(
    rows: list[list[str]], delimiter: str
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)

    lines = csv_rows.lines_of(io.BytesIO(text.getvalue().encode("utf-8-sig")))

    assert list(csv_rows.rows_of(lines, delimiter)) == rows


@settings(max_examples=150, deadline=None)
@given(
    head=st.one_of(
        st.binary(max_size=600),
        st.text(max_size=300).map(str.encode),
        st.recursive(
            st.none() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    name=st.sampled_from(["x", "x.csv", "x.json", "x.jsonl", "x.md", "x.html", "x.txt"]),
    is_whole=st.booleans(),
)  # fmt: skip
def test_any_bytes_are_some_format_or_none(head: bytes, name: str, is_whole: bool) -> None:
    found = inspect_head(head, name, is_whole=is_whole)

    is_text = b"\0" not in head
    try:
        head.decode()
    except UnicodeDecodeError:
        is_text = False
    if is_text and is_whole:
        assert found is not None
