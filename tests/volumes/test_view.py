"""The page holds the head and the mask on their grid and nothing else of the file, and escapes names."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.volumes import view
from bundle.volumes.view import save_view

NAME = 'site/<b>o\'brien "Müller" & 頭 </script></title> \udcff'
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) * 2.0, (-40, 12, 7))
NIIVUE = Path(view.__file__).parent / "niivue"


class Page(HTMLParser):
    """The tags, the text of the heading and of the scripts that have an id, and where the crosshair is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: dict[str, str] = {}
        self.centre = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self._open = dict(attrs).get("id", tag)
        if tag == "canvas":
            self.centre = dict(attrs)["data-centre"]

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def volume(self, which: str) -> nib.Nifti1Image:
        return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(self.texts[which])))


def save(path: Path, head: np.ndarray, mask: np.ndarray, **options: object) -> Page:
    image = nib.Nifti1Image(head, OBLIQUE)
    image.header["descrip"] = b"Jane Doe"
    save_view(NAME, image, nib.Nifti1Image(mask, OBLIQUE), path, **options)
    return Page(path.read_text(encoding="utf-8"))


def test_it_holds_the_head_in_256_greys_and_the_mask_on_their_grid(
    tmp_path: Path, even_head: np.ndarray, cubes: np.ndarray
) -> None:
    even_head[40, 52, 58] = 5000  # one voxel that must not make the rest black
    page = save(tmp_path / "page.html", even_head, cubes)
    greys, mask = page.volume("head"), page.volume("mask")
    assert np.array_equal(mask.dataobj, cubes)
    # More than a thousandth of the head is of its second brightest value, 110, which is white.
    assert np.array_equal(greys.dataobj, np.minimum(np.round(even_head / 110 * 255), 255))
    assert greys.get_data_dtype() == mask.get_data_dtype() == np.uint8
    for image in (greys, mask):
        assert np.allclose(image.affine, OBLIQUE, atol=1e-5)
        assert image.header["descrip"] == b""


def test_names_are_escaped(tmp_path: Path, head: np.ndarray, cubes: np.ndarray) -> None:
    page = save(tmp_path / "page.html", head, cubes)
    assert page.texts["h1"] == page.texts["title"] == NAME.replace("\udcff", "\\udcff")
    assert "b" not in page.tags


@pytest.mark.parametrize(("centre_mm", "written"), [(None, "null"), ((49.5, -109.0, 119.0), "[49.5, -109.0, 119.0]")])
def test_the_crosshair_is_where_it_is_asked_for(
    tmp_path: Path, head: np.ndarray, cubes: np.ndarray, centre_mm: tuple | None, written: str
) -> None:
    assert save(tmp_path / "page.html", head, cubes, centre_mm=centre_mm).centre == written


def test_equal_volumes_give_equal_bytes(tmp_path: Path, head: np.ndarray, cubes: np.ndarray) -> None:
    for name in ("a.html", "b.html"):
        save(tmp_path / "pages" / name, head, cubes)
    assert (tmp_path / "pages" / "a.html").read_bytes() == (tmp_path / "pages" / "b.html").read_bytes()
    assert len(list((tmp_path / "pages").iterdir())) == 2


def test_niivue_is_the_file_of_its_readme_and_can_be_embedded_in_a_script() -> None:
    content = (NIIVUE / "niivue.umd.js").read_bytes()
    assert f"`{hashlib.sha256(content).hexdigest()}`" in (NIIVUE / "README.md").read_text(encoding="utf-8")
    assert not re.search(rb"</script|<!--", content, re.IGNORECASE)
