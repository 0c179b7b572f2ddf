"""A real browser for the report's tests: Chromium without a screen, driven by Selenium, on this machine alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --no-first-run --disable-sync"
)
WIDTHS = {"desktop": 1280, "phone": 390}


class Browser:
    """One window; what it complained of and asked the network for since the last `open`."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str | Path, device: str = "desktop", scheme: str = "light") -> None:
        """Load a page as seen on ``device`` and wait until its plots, if any, are drawn."""
        from selenium.webdriver.support.ui import WebDriverWait

        screen = {"width": WIDTHS[device], "height": 900, "deviceScaleFactor": 1, "mobile": device == "phone"}
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(address.as_uri() if isinstance(address, Path) else address)
        drawn = (
            "return [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg.marks'))"
        )
        WebDriverWait(self.driver, 30).until(lambda _: self.js(drawn))

    def js(self, script: str, *arguments: Any) -> Any:
        """What ``script`` returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Console messages, those of the policy among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


def browsers() -> Iterator[Browser]:
    """One browser, closed at the end; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its chromedriver on the path")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
