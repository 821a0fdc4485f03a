"""`collegium dashboard` in a real browser, on a federation that is at work: one federation for all of it.

`make screenshots` runs this and keeps the pictures of docs/dashboard.md.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from collegium.node.page.content import PLACES

from ..page.webdriver import DESKTOP, PHONE, Browser, browser, missing
from .schools import COMMAND, Federation, School, collegium
from .test_changes import EPSILON, NAMES, allow, pupils

PICTURES = os.environ.get("SCREENSHOTS", "")  # a folder
ROUNDS = ("--epsilon", EPSILON, "--rounds", 2000, "--pace", "3s", "--deadline", 7200)
TALLEST = 1100  # pixels of a picture
pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no browser to test the page in: no {missing()}")


@contextmanager
def dashboard(school: School) -> Iterator[str]:
    """Run the command; give out the link that it prints."""
    words = [str(COMMAND), "--home", str(school.home), "dashboard", "--no-browser", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, f"it ended: {text}"
            text += line
        yield str(json.loads(text)["link"])
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def refuses_strangers(link: str, school: School) -> None:
    """What no browser of the operator would send. The link is not used by it."""
    root = link[: link.index("/open/")]
    token = (school.home / "page.token").read_text().strip()
    right = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=root) as http:
        assert http.get("/").status_code == 401
        assert http.get("/open/wrong").status_code == 401
        assert http.get("/v1/status", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert http.get("/v1/status", headers=right | {"Host": "evil.example"}).status_code == 421
        assert http.post("/v1/stop", headers=right | {"Origin": "http://evil.example"}, json={}).status_code == 403
        assert http.post("/v1/stop", headers=right, json={}).status_code == 405
        assert "collegium_height" in http.get("/metrics", headers=right).text


def sees_everything(window: Browser, base: str, school: School) -> None:
    """Each page shows live data, says nothing to the console, and is as wide as a desktop's and a phone's screen."""
    status, heads = school.status(), ("encoder/person", "head/passed")
    wanted: dict[str, tuple[str, ...]] = {
        "/": ("Notes", "north", "3 of 3", *heads),
        "/federation": ("east", "south", "west", "connected", "Who is awaited, and why"),
        "/rounds": ("certified", *NAMES, *heads),
        "/quality": ("passed (binary)", "accuracy", "shared model", "for this institution alone"),
        "/privacy": ("person", "dp", "before recovery", "Training runs"),
        "/ledger": ("update", "attest", "component: ", *NAMES),
        "/withdrawals": ("Nothing was withdrawn", "collegium unlearn subject ID"),
        "/members": ("/ip4/127.0.0.1/tcp/", "No open motions", *NAMES),
        "/protection": ("No record of a student", "under differential privacy", "clipped at", *NAMES),
        "/logs": ("node started", "round-closed"),
    }
    assert wanted.keys() == {place.path for place in PLACES}
    for place in PLACES:
        window.open(base + place.path)
        text = window.text()
        assert not [word for word in wanted[place.path] if word not in text], (place.name, text)
        assert "In a terminal".lower() in text.lower() or "The same in a terminal" in text
        assert window.run("return document.querySelector('nav [aria-current]').innerText") == place.name
        keep(window, place.path.strip("/") or "overview", DESKTOP)
        window.scheme("dark")
        window.size(*PHONE)
        assert window.run("return document.documentElement.scrollWidth") <= PHONE[0], place.name
        keep(window, f"{place.path.strip('/') or 'overview'}-phone", PHONE)
        window.scheme("light")
        window.size(*DESKTOP)
    window.open(base + "/privacy")
    window.wait("return !document.querySelector('[data-again]')", "the rounds that are left")
    assert window.run("return document.querySelectorAll('#budgets time').length") == 1, "the date of running out"
    window.open(base + f"/rounds/head/passed/{min(2, status['components'][0]['round'])}")
    assert "Counted updates" in window.text()
    window.run("document.querySelector('#facts a').click()")  # to the block that closed it
    window.wait("return document.querySelector('h1').innerText.startsWith('Block ')", "the block")
    window.open(base + "/ledger?kind=update&author=east")
    authors = window.run("return [...document.querySelectorAll('#records [data-label=author]')].map(a => a.innerText)")
    assert set(authors) == {"east"}


def keep(window: Browser, name: str, size: tuple[int, int]) -> None:
    if PICTURES:
        height = window.run("return document.documentElement.scrollHeight")
        window.size(size[0], min(TALLEST, height))
        window.picture(Path(PICTURES) / f"{name}.png")
        window.size(*size)


def can_be_used_by_keyboard_and_reader(window: Browser, base: str) -> None:
    """The first key leads past the navigation, and what axe calls serious in names and structure is not there."""
    window.open(base + "/ledger")
    window.press("\ue004")  # tab
    assert window.run("return document.activeElement.className") == "skip"
    window.press("\ue007")  # enter
    window.wait("return document.activeElement.id === 'main'", "the focus in the content")
    problems = """
        const name = e => e.innerText?.trim() || e.getAttribute('aria-label') || e.labels?.[0]?.innerText;
        const controls = [...document.querySelectorAll('a[href],button,input,select,summary')].filter(e => !e.hidden);
        const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
        const levels = [...document.querySelectorAll('h1,h2,h3')].map(e => Number(e.tagName[1]));
        return [
          ...controls.filter(e => !name(e)).map(e => 'no name: ' + e.outerHTML),
          ...ids.filter((id, n) => ids.indexOf(id) !== n).map(id => 'twice: ' + id),
          ...levels.filter((l, n) => n && l > levels[n - 1] + 1).map(l => 'skipped to h' + l),
          ...[...document.querySelectorAll('table')].filter(t => !t.caption || !t.querySelector('th[scope]')).map(
            t => 'no caption: ' + t.outerHTML.slice(0, 80)),
          ...(document.documentElement.lang ? [] : ['no language']),
          ...(document.querySelectorAll('main,nav,header,footer').length === 4 ? [] : ['landmarks']),
        ]"""
    for place in PLACES:
        window.open(base + place.path)
        assert window.run(problems) == [], place.name
        for scheme in ("light", "dark"):
            window.scheme(scheme)
            assert window.run(CONTRAST) == [], (place.name, scheme)
    window.scheme("light")


# WCAG 2.2, 1.4.3: 4.5 to 1 between a text and what is behind it.
CONTRAST = """
    const light = c => {
      const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
      return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = e => {
      for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if (c !== 'rgba(0, 0, 0, 0)') return c;
      }
      return 'rgb(255, 255, 255)';
    };
    const texts = [...document.querySelectorAll('body *')].filter(
      e => !e.closest('svg') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
    return texts.filter(e => {
      const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
      return (a + .05) / (b + .05) < 4.5;
    }).map(e => e.outerHTML.slice(0, 120))"""


def test_the_page_in_a_browser(found: Callable[[], Federation], tmp_path: Path) -> None:
    folders = [pupils(tmp_path / name, seed) for seed, name in enumerate(NAMES, 1)]
    (tmp_path / "model.toml").write_text(collegium("charter", "model", *folders).out)
    federation = found()
    for name, folder in zip(NAMES, folders, strict=True):
        allow(federation.init(name, folder, lot_size=12))
    federation.charter("--model", tmp_path / "model.toml", *ROUNDS)
    federation.start()
    federation.wait_rounds(2, counted=3)
    north, east, *_ = federation.schools
    with dashboard(north) as link, browser(tmp_path / "profile") as window:
        refuses_strangers(link, north)
        window.open(link)
        window.wait("return document.querySelector('nav') !== null", "the link leads to the page")
        base = window.url.rstrip("/")
        sees_everything(window, base, north)
        can_be_used_by_keyboard_and_reader(window, base)

        # A withdrawal is asked for at another school; the page follows it without being loaded again.
        window.open(base + "/withdrawals")
        window.run("window.loaded = 1")
        east.command("unlearn", "request", "--yes")
        done = "return document.querySelector('#state').innerText.includes('1')"
        window.wait(done, "the withdrawal is counted")
        assert window.run("return window.loaded") == 1
        window.open(base + "/withdrawals")
        window.wait("return document.querySelector('#withdrawal-1 .badge.ok') !== null", "it is certified")
        assert "everything" in window.text("#withdrawal-1")
        keep(window, "withdrawal", DESKTOP)
        assert window.console() == []

        # The daemon ends: the page says so and shows what the disk has.
        north.command("node", "stop")
        federation.away = [north]
        window.open(base + "/")
        assert "No daemon runs" in window.text()
        assert "encoder/person" in window.text()

        # Somebody uses the link once more: nobody is let in, and the first session ends.
        assert "used before" in httpx.get(link).text
        window.open(base + "/")
        assert "needs its link" in window.text()
    federation.stop()
