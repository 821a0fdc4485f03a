"""A browser for tests: chromium by chromedriver, over the W3C's WebDriver protocol. It needs no package of its own."""

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 300.0  # seconds; a limit for a machine with much other work, nothing is concluded from it
DESKTOP, PHONE = (1200, 900), (360, 740)


def missing() -> str:
    """Return which program is missing for a browser; "" if none is."""
    return ", ".join(name for name in ("chromium", "chromedriver") if shutil.which(name) is None)


class Browser:
    """One window of a browser."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http, self._session = http, session

    def _call(self, method: str, path: str, body: object = None) -> Any:
        answer = self._http.request(method, f"/session/{self._session}{path}", json=body)
        value = answer.json()["value"]
        assert answer.is_success, value
        return value

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self._call("GET", "/url"))

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a script in the page returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str = "main") -> str:
        """Return the visible text of an element."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def wait(self, script: str, what: str) -> Any:
        """Wait until a script in the page returns something true."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{self.text('body')}"
            time.sleep(0.1)
        return value

    def press(self, keys: str) -> None:
        """Press and release keys, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def command(self, name: str, **parameters: object) -> Any:
        """Give a command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def size(self, width: int, height: int) -> None:
        """Make the page so large, as on a screen of one pixel a point."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)

    def scheme(self, scheme: str) -> None:
        """Prefer "light" or "dark"."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def console(self) -> list[str]:
        """Return what the console said since the last call: warnings and errors of scripts, styles, network, policy."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def picture(self, path: Path) -> None:
        """Write the visible part of the page as a PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Open a browser with an empty profile. It ends with the block, whatever happens."""
    # It prints the free port that it chose.
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        port = next(
            int(line.rsplit(maxsplit=1)[1].rstrip(".")) for line in driver.stdout if "successfully on port" in line
        )
        options = {
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                f"--user-data-dir={profile}",
            ],
            "binary": shutil.which("chromium"),
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http:
            answer = http.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
            assert answer.is_success, answer.text
            session = answer.json()["value"]["sessionId"]
            try:
                window = Browser(http, session)
                window.size(*DESKTOP)
                yield window
            finally:
                http.delete(f"/session/{session}")
    finally:
        driver.terminate()
        driver.wait()
