"""The page shows every volume, its numbers and its picture, and nothing of a name is taken for HTML."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

from PIL import Image

from bundle.volumes.report import write_report

NAME = 'site/<b>Müller & 頭 "x"'


class Page(HTMLParser):
    """The text of each cell of the table's body, and the sources of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def record(name: str, **found: object) -> dict:
    done = {"status": "done", "volume_ml": 8.064, "lesions": [{}, {}], "uncertainty": 0.31, "seconds": 12.4}
    return {"name": name, "error": "", "warnings": [], "versions": "bundle 0", **done, **found}


def page(tmp_path: Path) -> Page:
    (tmp_path / "figures" / "site").mkdir(parents=True)
    Image.new("RGB", (1188, 243), "white").save(tmp_path / "figures" / f"{NAME}.png")
    failed = {"name": "f", "status": "failed", "error": "f is 4D.", "versions": "bundle 0"}
    write_report([record(NAME), record("c", warnings=["no lesion found"]), failed], tmp_path)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_each_volume_has_a_row_with_its_numbers(tmp_path: Path) -> None:
    cells = page(tmp_path).cells
    rows = [[cell.strip() for cell in cells[start : start + 8]] for start in range(0, len(cells), 8)]
    assert rows[0] == [NAME, "done", "8.1", "2", "0.31", "12", "", ""]
    assert rows[1] == ["c", "check", "8.1", "2", "0.31", "12", "no lesion found", "no picture"]
    assert rows[2][:7] == ["f", "failed", "-", "-", "-", "-", "f is 4D."]


def test_it_needs_nothing_beside_it_and_takes_no_name_for_html(tmp_path: Path) -> None:
    shown = page(tmp_path)
    assert "b" not in shown.tags
    assert [source[:23] for source in shown.pictures] == ["data:image/jpeg;base64,"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in text
    assert "3 volumes</h1>\n<p>2 segmented, 1 of these to check, 1 failed." in text


def test_a_name_and_its_picture_lead_to_the_view_where_there_is_one(tmp_path: Path) -> None:
    name = NAME + "#?%41\udcff"
    write_report([record("c", files=["figures/c.png"]), record(name, files=[f"views/{name}.html"])], tmp_path)
    links = Page((tmp_path / "report.html").read_text(encoding="utf-8")).links
    assert len(links) == 2
    assert {os.fsdecode(unquote_to_bytes(link)) for link in links} == {f"views/{name}.html"}
    assert not set("#?\"'<> ").intersection(links[0])
