"""The page shows every volume with its numbers and its picture, and escapes names."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from bundle.volumes.report import quality_in_words, write_report

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
    largest, other = ({"volume_ml": ml, "side": "left", "region": "MCA"} for ml in (7.12, 0.944))
    done = {"status": "done", "volume_ml": 8.064, "lesions": [largest, other], "predicted_dice": 0.8, "seconds": 12.4}
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
    assert rows[0] == [NAME, "done", "8.1", "2", "7.1, left, MCA", "good", "", ""]
    assert rows[1] == ["c", "check", "8.1", "2", "7.1, left, MCA", "good", "no lesion found", "no picture"]
    assert rows[2][:7] == ["f", "failed", "-", "-", "-", "", "f is 4D."]


def test_it_needs_nothing_but_the_pictures_beside_it_and_escapes_names(tmp_path: Path) -> None:
    shown = page(tmp_path)
    assert "b" not in shown.tags
    assert [unquote_to_bytes(source).decode() for source in shown.pictures] == [f"figures/{NAME}.png"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    assert "3 volumes</h1>\n<p>2 segmented, 1 of these to check, 1 failed." in text
    assert "default-src 'none'" in text


def test_a_name_links_to_its_view_if_there_is_one_and_a_picture_to_its_file(tmp_path: Path) -> None:
    name = NAME + "#?%41\udcff"
    picture = tmp_path / "figures" / f"{name}.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (1200, 400), "white").save(picture)
    write_report([record("c", files=["figures/c.png"]), record(name, files=[f"views/{name}.html"])], tmp_path)
    shown = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    view, enlarged = shown.links
    assert os.fsdecode(unquote_to_bytes(view)) == f"views/{name}.html"
    assert os.fsdecode(unquote_to_bytes(enlarged)) == f"figures/{name}.png"
    assert shown.pictures == [enlarged]
    assert not set("#?\"'<> ").intersection(view + enlarged)


def test_a_thousand_volumes_are_a_page_of_less_than_2_mb(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (1200, 400), "white").save(tmp_path / "figures" / "v.png")
    write_report([record("v", warnings=["no lesion found"])] * 1000, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('src="figures/v.png"') == 1000
    assert len(text) < 2_000_000


def test_reasons_are_counted_regardless_of_their_numbers(tmp_path: Path) -> None:
    unsure = [record(f"u{bits}", warnings=[f"the network is unsure ({bits} of 1 bit)"]) for bits in (0.61, 0.75)]
    coarse = record("c", warnings=["voxels of 3.5 mm hide small lesions", "no lesion found"])
    write_report([*unsure, coarse, record("fine")], tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    listed = re.findall(r'<li><strong class="check">(\d+)</strong> (.+)</li>', text)
    assert listed == [
        ("2", "the network is unsure"),
        ("1", "voxels of ... mm hide small lesions"),
        ("1", "no lesion found"),
    ]


def test_the_plot_counts_volumes_by_lesion_volume(tmp_path: Path) -> None:
    """1 mL is in "1 to 3", 100 mL in "100 or more"; the highest bar is 120 of its units high."""
    records = [record(f"v{n}", volume_ml=ml) for n, ml in enumerate((0.0, 0.5, 1.0, 2.9, 2.9, 29.0, 100.0, 431.0))]
    write_report([*records, {"name": "f", "status": "failed", "error": "f is 4D.", "versions": "bundle 0"}], tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    bars = re.findall(r'height="([\d.]+)"/>\n<rect.*\n<text.*>(\d+)</text>\n<text.*>(.+)</text>', text)
    assert bars == [
        ("40.0", "1", "none"),
        ("40.0", "1", "under 1"),
        ("120.0", "3", "1 to 3"),
        ("0.0", "0", "3 to 10"),
        ("40.0", "1", "10 to 30"),
        ("0.0", "0", "30 to 100"),
        ("80.0", "2", "100 or more"),
    ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "good"),
        ({"predicted_dice": 0.7}, "good"),
        ({"predicted_dice": 0.69}, "fair"),
        ({"predicted_dice": 0.49}, "doubtful"),
        ({"predicted_dice": None}, "not known"),
        ({"warnings": ["not registered to MNI space (0.1), segmented where it lies"]}, "doubtful"),
        ({"volume_ml": 0.0, "predicted_dice": None}, "small lesions may be missed"),
    ],
)
def test_the_quality_of_a_mask_is_said_in_words(found: dict, words: str) -> None:
    assert quality_in_words(record("v", **found)) == words
