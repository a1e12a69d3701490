"""What the index of a file holds: real files of every format, and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import duckdb
import fpdf
import pytest

from app.core.datasets import archives, sources, tables
from app.core.datasets.index_file import IndexedPassage, IndexReader, TimeUp
from app.core.datasets.indexer import Order, make_index
from app.core.datasets.words import asked_words

ENOUGH = 1000


class Made:
    """An index, and what was said of it."""

    def __init__(self, said: dict[str, Any], path: Path) -> None:
        self.said = said
        self.reader = IndexReader(path)

    def find(self, question: str) -> list[IndexedPassage]:
        return self.reader.search([asked_words(question)], most=5)[0]

    def places(self, question: str) -> list[str]:
        return [one.place for one in self.find(question)]

    @property
    def summary(self) -> str:
        return " ".join(one.text for one in self.reader.summary(most=9))


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Index these bytes as a file of this format."""

    def index(format_: str, content: bytes, *, name: str = "file", most: int = ENOUGH) -> Made:
        source, target = tmp_path / "source", tmp_path / "index.db"
        source.write_bytes(content)
        target.unlink(missing_ok=True)
        order = Order(os.getpid(), source, target, format_, name, most, 60)
        return Made(make_index(order), target)

    return index


def pdf(*pages: str, password: str | None = None) -> bytes:
    document = fpdf.FPDF()
    document.set_font("helvetica", size=12)
    if password:
        document.set_encryption(owner_password=password, user_password=password)
    for text in pages:
        document.add_page()
        document.multi_cell(0, 8, text)
    return bytes(document.output())


def parquet(query: str, path: Path) -> bytes:
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return out.getvalue()


TOWERS = (
    b"name;height;opened;note\nEiffel Tower;330;1889-03-31;\nTokyo Tower;333;1958-12-23;red\n"
    b"Helsinki;72;1940-06-08;\n"
)


def test_a_table_is_summed_up_and_its_rows_are_found(make: Make) -> None:
    made = make("csv", TOWERS, name="towers.csv")

    assert made.said["headers"] == ["name", "height", "opened", "note"]
    assert made.said["preview_rows"][2] == ["Helsinki", "72", "1940-06-08", ""]
    assert (made.said["row_count"], made.said["kind"]) == (3, "table")
    assert "The table “towers.csv” has 3 rows and 4 columns." in made.summary
    assert "height: whole number from 72 to 333; mean 245; sum 735" in made.summary
    assert "opened: date from 1889-03-31 to 1958-12-23" in made.summary
    assert "note: text; always red; 2 empty." in made.summary
    row = made.find("How high is Helsinki?")[0]
    assert row.place == "rows 1–3"
    assert "name: Helsinki; height: 72; opened: 1940-06-08." in row.text


def test_a_column_says_which_values_are_frequent(make: Make) -> None:
    rows = b"".join(b"%s,%d.5\n" % (b"north" if n % 3 else b"south", n) for n in range(30))

    made = make("csv", b"region,share\n" + rows)

    assert (
        "region: text; 2 different values, most often north (20 rows), south (10 rows)."
        in made.summary
    )
    assert "share: number from 0.5 to 29.5; mean 15; sum 450" in made.summary


@pytest.mark.parametrize(
    ("format_", "content"),
    [
        ("jsonl", b'{"name": "Eiffel", "h": 330}\n\n{"name": "Tokyo", "tags": ["red", 1]}\n'),
        ("json", b'[{"name": "Eiffel", "h": 330}, {"name": "Tokyo", "tags": ["red", 1]}]'),
    ],
)
def test_records_of_json_are_rows(make: Make, format_: str, content: bytes) -> None:
    made = make(format_, content)

    assert made.said["headers"] == ["name", "h", "tags"]
    assert made.said["preview_rows"] == [["Eiffel", "330", ""], ["Tokyo", "", "red, 1"]]
    assert "name: Tokyo; tags: red, 1." in made.find("Tokyo")[0].text


def test_a_json_object_is_found_by_paths_and_values(make: Make) -> None:
    content = {"tower": {"height": 330, "owners": [{"name": "Paris"}]}, "open": True}

    made = make("json", json.dumps(content).encode())

    assert made.said["kind"] == "document"
    text = made.find("owners")[0].text
    assert "tower.height: 330." in text
    assert "tower.owners 1.name: Paris." in text
    assert "open: yes." in text


def test_parquet_and_large_json_are_read_by_duckdb(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = (
        "SELECT i AS id, 'tower ' || i AS name, i * 1.5 AS height, [i, 2] AS list,"
        " DATE '2024-01-01' + i::int AS day FROM range(1500) t(i)"
    )
    made = make("parquet", parquet(query, tmp_path / "x.parquet"))

    assert made.said["headers"] == ["id", "name", "height", "list", "day"]
    assert made.said["row_count"] == 1500
    assert made.said["preview_rows"][1] == ["1", "tower 1", "1.5", "1, 2", "2024-01-02"]
    assert "name: tower 777" in made.find("tower 777")[0].text

    monkeypatch.setattr(sources, "MOST_JSON_BYTES", 10)
    made = make("json", b'[{"name": "Eiffel", "h": 330}, {"name": "Tokyo"}]')

    assert made.said["row_count"] == 2
    assert made.said["preview_rows"] == [["Eiffel", "330"], ["Tokyo", ""]]


def test_duckdb_opens_the_one_file_and_nothing_else(tmp_path: Path) -> None:
    file, secret = tmp_path / "x.parquet", tmp_path / "secret.csv"
    parquet("SELECT 1 AS a", file)
    secret.write_text("a\n1\n")

    connection = sources.locked_duckdb(file)

    assert connection.execute("SELECT a FROM read_parquet(?)", [str(file)]).fetchall() == [(1,)]
    for query in (
        f"SELECT * FROM read_csv('{secret}')", f"COPY (SELECT 1) TO '{secret}'", "LOAD httpfs",
        "SET enable_external_access = true", f"ATTACH '{secret}.db'",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
    ):  # fmt: skip
        with pytest.raises(duckdb.Error):
            connection.execute(query).fetchall()


def test_texts_are_cut_between_sentences_and_found(make: Make) -> None:
    text = (
        "The tower is made of iron. " * 60 + "\x07Its lift was built in Leeds. " + "Café." * 9
    )

    for format_ in ("txt", "md"):
        made = make(format_, text.encode("utf-8-sig"))
        assert "Its lift was built in Leeds." in made.find("Who builds lifts?")[0].text
        assert "\x07" not in made.find("lift")[0].text
        assert made.find("cafe")
        assert all(len(one.text) <= 700 for one in made.find("tower iron lift"))
    assert made.summary == ""


def test_a_page_is_read_without_its_menus(make: Make) -> None:
    page = (
        "<html><body><nav><a href=/>Imprint</a></nav><main><article><h1>Tower</h1>"
        "<p>The tower is three hundred and thirty metres high, with its antenna.</p>"
        "<p>It was built by the company of an engineer between two world fairs.</p>"
        "</article></main></body></html>"
    )

    made = make("html", page.encode())

    assert made.find("antenna")
    assert made.find("imprint") == []


def test_pages_of_a_pdf_are_found_by_their_number(make: Make) -> None:
    made = make("pdf", pdf("The tower has seven floors.", "", "Its lift was built in Leeds."))

    assert made.places("Leeds") == ["page 3"]
    assert made.said["passages"] == 2


@pytest.mark.parametrize(
    ("format_", "content", "why"),
    [
        ("csv", b'a,b\n1,2\n"open', "no CSV from row 3 on"),
        ("csv", b"a,b\n1,\xff\n", "UTF-8"),
        ("jsonl", b'{"a": 1}\nnonsense\n', "Line 2 is no JSON"),
        ("json", b'{"a": ', "no JSON"),
        ("json", b"[" * 100_000, "no JSON"),
        ("txt", b"caf\xe9 and more", "UTF-8"),
        ("pdf", b"%PDF-1.7 and nothing else", "as a PDF"),
        ("pdf", pdf("secret", password="x"), "password"),
        ("parquet", b"PAR1" + b"x" * 40 + b"PAR1", "broken"),
        ("zip", b"PK\x03\x04 and nothing else", "broken"),
        ("tar", b"\0" * 257 + b"ustar\x0000" + b"x" * 300, "broken"),
        ("gz", b"\x1f\x8b\x08\0\0", "broken"),
    ],
)
def test_a_broken_file_says_what_is_wrong(
    make: Make, format_: str, content: bytes, why: str
) -> None:
    assert why in make(format_, content).said["error"]


def test_an_index_ends_where_it_is_full_and_its_table_is_counted_on(make: Make) -> None:
    rows = b"".join(b"%d,%s\n" % (n, b"word " * 20) for n in range(500))

    made = make("csv", b"id,text\n" + rows, most=3)

    assert made.said["is_cut"]
    assert made.said["row_count"] == 500
    assert "500 rows" in made.summary
    assert made.reader.opening(most=99)[-1].id == 1003

    made = make("txt", b"One sentence of words. " * 1000, most=3)
    assert (made.said["is_cut"], made.said["passages"]) == (True, 3)


def test_a_table_that_takes_too_long_is_what_was_read_of_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(
        file: IO[bytes], head: str, *, is_whole: bool
    ) -> tuple[list[str], Iterator[list[str]]]:
        def rows() -> Iterator[list[str]]:
            yield ["Eiffel", "330"]
            raise TimeUp

        return ["name", "height"], rows()

    monkeypatch.setattr(sources, "csv_table", slow)

    made = make("csv", TOWERS)

    assert (made.said["is_cut"], made.said["row_count"]) == (True, None)
    assert made.said["preview_rows"] == [["Eiffel", "330"]]
    assert "has more than 1 row and 2 columns" in made.summary


def test_texts_and_tables_of_archives_are_searched_and_nothing_is_unpacked(
    make: Make, tmp_path: Path
) -> None:
    members = {"../../evil.txt": b"The tower is high.", "deep/towers.csv": TOWERS}
    before = set(tmp_path.iterdir())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    picture = b"\x89PNG" * 9
    found = [
        make("zip", zipped(**members, **{"picture.txt": picture, "inner.zip": zipped(a=b"")})),
        make("tar", out.getvalue()),
        make("gz", gzip.compress(out.getvalue()), name="towers.tar.gz"),
    ]

    assert set(tmp_path.iterdir()) - before == {tmp_path / "source", tmp_path / "index.db"}
    for made in found:
        assert made.said["row_count"] is None
        assert made.said["passages"] > 2
    made = make("gz", gzip.compress(TOWERS), name="towers.csv.gz")
    assert made.places("Helsinki") == ["towers.csv, rows 1–3"]
    assert "The table “towers.csv” has 3 rows" in made.summary


def test_a_bomb_stops_at_what_it_may_unpack_to(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_RATIO_FROM_BYTES", 10_000)
    bomb = b"word " * 1_000_000
    made = make("zip", zipped(a__txt=b"First tower.", b__txt=bomb), most=10_000)
    assert made.find("tower")
    assert made.find("word") == []
    assert "unpacks to more" in made.said["note"]

    made = make("gz", gzip.compress(bomb), name="a.txt.gz", most=10_000)
    assert "unpacks to more" in made.said["note"]
    assert made.said["passages"] < len(bomb) / 700 / 2

    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    made = make("zip", zipped(a__txt=b"a", b__txt=b"b", c__txt=b"c"))
    assert "unpacks to more" in made.said["note"]


def test_columns_beyond_any_table_and_numbers_beyond_any_size_break_nothing(make: Make) -> None:
    names = ",".join(f"c{number}" for number in range(tables.MOST_SUMMED_COLUMNS + 5))
    made = make("csv", f"{names}\n{'1e999,' * 9}-1e308\nnan,inf,=1+1\n".encode())

    assert made.said["row_count"] == 2
    assert "c0: text" in made.summary
