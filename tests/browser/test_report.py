"""The report and its views as people see them: in a real browser, from the disk, without a network."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from bundle.options import SegmentOptions
from bundle.transforms import VolumePreprocessing
from bundle.volumes import Ledger, VolumeBatch, VolumeInput, VolumePipeline, write_report
from tests.conftest import _textured_head as synthetic_head
from tests.volumes.conftest import AFFINE, find_bright

pytestmark = pytest.mark.browser

Browser = webdriver.Chrome

CORNER = np.array((28, 40, 46))
EDGES = {"large": 25, 'site/o\'brien "Müller" <頭> #1 50%': 15, "a small one": 10}
"""Edge in voxels of the cube in each head, by the volume's name: 125, 27 and 8 mL."""
LARGE, MIDDLE, SMALL = EDGES
GONE = "not there"


def cube(edge: int) -> tuple[slice, ...]:
    return tuple(slice(start, start + edge) for start in CORNER)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three heads with a bright cube that is found, and of a file that is missing."""
    folder = tmp_path_factory.mktemp("batch")
    volumes = [VolumeInput(folder / "none.nii", GONE)]
    for number, (name, edge) in enumerate(EDGES.items()):
        image = synthetic_head().copy()
        image[cube(edge)] = 250
        header = nib.Nifti1Image(image.astype(np.int16), AFFINE)
        header.set_sform(AFFINE, 1)
        volumes.append(VolumeInput(folder / f"{number}.nii", name))
        nib.save(header, volumes[-1].file)
    output = folder / "results"
    pipeline = VolumePipeline(
        VolumePreprocessing("image", spacing_mm=2.0, slice_size=96), output, options=SegmentOptions(views=True)
    )
    batch = VolumeBatch(
        pipeline, find_bright, Ledger(output, "weights", "settings", "versions"), workers=0, progress=False
    )
    write_report(batch.run(volumes), output)
    return output


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Headless, with a network in which no name and no address leads anywhere."""
    paths = [shutil.which(program) for program in ("chromium", "chromedriver")]
    if None in paths:
        pytest.fail("Chromium and its driver are missing: apt-get install chromium chromium-driver", pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The sandbox does not start as root, as in containers.
    always = ("--headless=new", "--no-sandbox", "--window-size=1400,900", "--host-resolver-rules=MAP * ~NOTFOUND")
    for flag in (*always, *flags):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, Service(paths[1]))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """With a processor in place of a graphics card."""
    with chromium("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader") as started:
        yield started


def open_report(browser: Browser, results: Path) -> None:
    browser.get((results / "report.html").as_uri())


def open_view(browser: Browser, results: Path, name: str) -> str:
    """Follows the link of the name; what the page says of the crosshair when the volume is shown."""
    open_report(browser, results)
    browser.find_element(By.LINK_TEXT, name).click()
    return told(browser)


def told(browser: Browser) -> str:
    """What the view's page says once it has unpacked the volume, or given up."""

    def say(browser: Browser) -> str:
        text = browser.find_element(By.ID, "place").text
        return "" if "is being unpacked" in text else text

    return WebDriverWait(browser, 120).until(say)


def names(browser: Browser) -> list[str]:
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "td.name")]


def shown(browser: Browser) -> list[str]:
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "td.name") if cell.is_displayed()]


def sort_by(browser: Browser, column: str) -> list[str]:
    browser.find_element(By.XPATH, f"//th/button[text()='{column}']").click()
    return names(browser)


def pixels(element: WebElement) -> np.ndarray:
    """As on the screen, ``(H, W, 3)``."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)


def orange_and_grey(browser: Browser) -> tuple[int, int]:
    """How many of the canvas's pixels are the mask's, and how many the rest of the head's."""
    red, green, blue = np.moveaxis(pixels(browser.find_element(By.TAG_NAME, "canvas")), -1, 0)
    orange = (red > green + 10) & (green > blue + 10)
    grey = (red > 8) & (abs(red - green) <= 2) & (abs(green - blue) <= 2)
    return np.count_nonzero(orange), np.count_nonzero(grey)


def complaints(browser: Browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def asked_for(browser: Browser) -> set[str]:
    """The schemes of all that the pages asked for so far."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {url.split(":")[0] for url in urls}


def test_the_pictures_show(browser: Browser, results: Path) -> None:
    open_report(browser, results)
    pictures = browser.find_elements(By.TAG_NAME, "img")
    assert len(pictures) == 3
    for picture in pictures:
        browser.execute_script("arguments[0].scrollIntoView()", picture)
        WebDriverWait(browser, 30).until(lambda _, picture=picture: picture.get_property("naturalWidth") == 1200)
        shown = pixels(picture)
        assert np.count_nonzero(shown[..., 0] > shown[..., 2] + 40) > 100  # the outline
    assert complaints(browser) == []


def test_a_click_on_a_column_sorts_by_its_numbers_or_letters_and_another_turns_it_round(
    browser: Browser, results: Path
) -> None:
    open_report(browser, results)
    assert names(browser) == [GONE, LARGE, MIDDLE, SMALL]
    by_volume = [GONE, SMALL, MIDDLE, LARGE]
    assert sort_by(browser, "lesion, mL") == by_volume
    assert browser.find_element(By.CSS_SELECTOR, "[aria-sort=ascending]").text.startswith("lesion, mL")
    assert sort_by(browser, "lesion, mL") == by_volume[::-1]
    by_name = [SMALL, LARGE, GONE, MIDDLE]
    assert sort_by(browser, "volume") == by_name
    assert sort_by(browser, "volume") == by_name[::-1]
    assert complaints(browser) == []


def test_filters_show_the_volumes_that_are_asked_for_alone(browser: Browser, results: Path) -> None:
    open_report(browser, results)
    browser.find_element(By.CSS_SELECTOR, "input[value=failed]").click()
    assert shown(browser) == [GONE]
    browser.find_element(By.CSS_SELECTOR, "input[value='']").click()
    assert len(shown(browser)) == 4
    search = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("MÜLLER")
    assert shown(browser) == [MIDDLE]
    assert browser.find_element(By.TAG_NAME, "output").text == "1 shown"
    search.send_keys(Keys.ENTER)
    assert shown(browser) == [MIDDLE]
    assert complaints(browser) == []


def test_a_picture_opens_larger_by_the_keyboard_and_escape_closes_it(browser: Browser, results: Path) -> None:
    open_report(browser, results)
    dialog = browser.find_element(By.TAG_NAME, "dialog")
    for key, name in ((Keys.ENTER, MIDDLE), (Keys.ENTER, LARGE)):
        row = next(row for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr") if name in row.text)
        row.find_element(By.CSS_SELECTOR, "a.enlarge").send_keys(key)
        picture = WebDriverWait(browser, 30).until(lambda _: dialog.find_element(By.TAG_NAME, "img"))
        WebDriverWait(browser, 30).until(lambda _, picture=picture: picture.get_property("naturalWidth") == 1200)
        assert name in picture.get_attribute("alt")
        assert dialog.is_displayed()
        dialog.send_keys(Keys.ESCAPE)
        assert not dialog.is_displayed()
    assert complaints(browser) == []


@pytest.mark.parametrize("name", EDGES)
def test_a_view_opens_at_the_largest_lesion_and_shows_it_on_the_head_in_three_planes(
    browser: Browser, results: Path, name: str
) -> None:
    place = open_view(browser, results, name)
    assert browser.find_element(By.TAG_NAME, "h1").text == name
    centre = CORNER + (EDGES[name] - 1) / 2
    assert place == "Crosshair: {:.1f}, {:.1f}, {:.1f} mm".format(*(2 * centre))
    orange, grey = orange_and_grey(browser)
    head = synthetic_head() > 0
    cut = sum(np.count_nonzero(head.take(int(middle), axis)) for axis, middle in enumerate(centre))
    # The crosshair covers an eighth of the smallest.
    assert orange / (orange + grey) == pytest.approx(3 * EDGES[name] ** 2 / cut, rel=0.15)
    assert complaints(browser) == []


def test_the_mask_fades_until_it_is_gone(browser: Browser, results: Path) -> None:
    open_view(browser, results, MIDDLE)
    orange, grey = orange_and_grey(browser)
    assert orange > 1000
    browser.find_element(By.CSS_SELECTOR, "input[type=range]").send_keys(Keys.HOME)
    faded, uncovered = orange_and_grey(browser)
    assert faded == 0
    assert uncovered == pytest.approx(grey + orange, rel=0.01)


def test_a_click_moves_the_crosshair(browser: Browser, results: Path) -> None:
    before = open_view(browser, results, MIDDLE)
    browser.find_element(By.TAG_NAME, "canvas").click()
    assert told(browser) != before


def test_a_browser_without_3d_says_so(results: Path) -> None:
    with chromium("--disable-3d-apis") as browser:
        assert open_view(browser, results, MIDDLE).startswith("This browser cannot show the volume: ")


def test_nothing_but_files_and_what_they_hold_was_asked_for(browser: Browser, results: Path) -> None:
    asked_for(browser)  # by the tests before
    open_view(browser, results, MIDDLE)
    assert asked_for(browser) == {"file", "data"}
