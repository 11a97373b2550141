"""The page in a real browser: it loads without an error, scrolls, sorts and toggles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from engine.report.page import Around, write_page
from tests.engine.report.pages import two_networks

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no browser: apt-get install chromium chromium-driver, to try pages in one"
)
COLOURS = {"truth": (255, 225, 77), "student": (255, 125, 59)}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that shows a report of three cases."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    path = tmp_path_factory.mktemp("report") / "report.html"
    networks, viewer = two_networks(["1", "2", "3"], ("teacher", "student"))
    write_page(path, networks, viewer, Around("a report", "a notice"))
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_script_timeout(60)
        driver.get(path.as_uri())
        wait(driver, "document.getElementById('v-text').textContent")
        yield driver
    finally:
        driver.quit()


def wait(driver: Any, condition: str) -> None:
    """Until a JavaScript expression is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(f"return {condition}"))


def press(driver: Any, key: str) -> None:
    """A key on the viewer's picture, and the drawing that follows."""
    driver.execute_script(
        "document.getElementById('v-stage').dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))", key
    )
    drawn(driver)


def drawn(driver: Any) -> None:
    """After the next two frames: a drawing that was asked for has been done."""
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def slice_text(driver: Any) -> str:
    return str(driver.execute_script("return document.getElementById('v-text').textContent"))


def coloured(driver: Any, layer: str) -> int:
    """Pixels of the viewer's picture in a layer's colour."""
    script = """
        const canvas = document.getElementById('v-canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let count = 0;
        for (let i = 0; i < data.length; i += 4)
          if (arguments[0].every((value, channel) => Math.abs(value - data[i + channel]) < 12)) count++;
        return count;"""
    return int(driver.execute_script(script, COLOURS[layer]))


def column(driver: Any, number: int) -> list[str]:
    """Of the first table of all cases."""
    script = """return [...document.querySelector('table.cases').tBodies[0].rows].map(
        (row) => row.cells[arguments[0]].textContent.trim())"""
    return list(driver.execute_script(script, number))


def test_the_viewer_scrolls(driver: Any) -> None:
    assert slice_text(driver) == "slice 5 of 12"
    for key, number in (("ArrowUp", 6), ("End", 12), ("PageDown", 2), ("Home", 1), ("ArrowDown", 1)):
        press(driver, key)
        assert slice_text(driver) == f"slice {number} of 12"
    stage = "document.getElementById('v-stage')"
    driver.execute_script(f"{stage}.dispatchEvent(new WheelEvent('wheel', {{deltaY: -120, cancelable: true}}))")
    drawn(driver)
    assert slice_text(driver) == "slice 2 of 12"
    assert driver.execute_script(f"return {stage}.getAttribute('aria-valuetext')") == "slice 2 of 12"


def test_contours_can_be_toggled(driver: Any) -> None:
    for _ in range(2):
        press(driver, "Home")
    assert not coloured(driver, "truth")
    for _ in range(5):
        press(driver, "ArrowUp")
    assert coloured(driver, "truth") > 100 and coloured(driver, "student") > 100
    for digit in "12":
        press(driver, digit)
    assert coloured(driver, "truth") > 100 and not coloured(driver, "student")
    press(driver, "0")
    assert not coloured(driver, "truth")
    for digit in "012":
        press(driver, digit)
    assert coloured(driver, "truth") > 100 and coloured(driver, "student") > 100


def test_windows_change_the_picture(driver: Any) -> None:
    mean = """const canvas = document.getElementById('v-canvas');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.reduce((sum, value) => sum + value, 0) / data.length"""
    before = driver.execute_script(mean)
    press(driver, "w")
    limits = driver.execute_script("return document.getElementById('v-limits').textContent")
    assert limits == "-160 to 240 HU" and driver.execute_script(mean) != pytest.approx(before, rel=1e-3)


def test_tables_lead_to_the_case(driver: Any) -> None:
    driver.execute_script("document.querySelector('table.cases button[data-look=\"3\"]').click()")
    wait(driver, "document.getElementById('v-stage').getAttribute('aria-label') === 'slices of case 3'")
    assert driver.execute_script("return document.activeElement.id") == "v-stage"


def test_a_heading_sorts_its_table(driver: Any) -> None:
    heading = "document.querySelector('table.cases').tHead.rows[1].cells[3]"
    for order in ("ascending", "descending"):
        driver.execute_script(f"{heading}.querySelector('button').click()")
        values = [float(text) for text in column(driver, 3)]
        assert values == sorted(values, reverse=order == "descending") and len(set(values)) == 3
        assert driver.execute_script(f"return {heading}.getAttribute('aria-sort')") == order


def test_it_fits_a_telephone(driver: Any) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    drawn(driver)  # else the page may still be laid out for the window of before
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    width = driver.execute_script("return document.getElementById('v-canvas').getBoundingClientRect().width")
    assert 200 < width <= 390


def test_nothing_was_reported_to_the_console(driver: Any) -> None:
    """But that the test itself reads the picture often."""
    assert [entry for entry in driver.get_log("browser") if "getImageData" not in entry["message"]] == []
