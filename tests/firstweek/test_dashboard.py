"""`collegium dashboard` in a real browser, on a federation that is at work: two members, three rounds, for all of it.

North trains on its data; the other's learner makes its updates up, which costs nothing. Commands run in this process,
but for the page's own and the daemons. `make screenshots` runs this with learners that train, and keeps the pictures of
docs/dashboard.md.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import resources
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import httpx
import pytest

from collegium.cli.main import main
from collegium.node.control.client import Client
from collegium.node.home import Home
from collegium.node.home.invitations import from_text
from collegium.node.page.actions.forms import CAUTION
from collegium.node.page.content import PLACES
from collegium.sims.processes.federation import SYNTHETIC

from ..page.webdriver import DESKTOP, PHONE, Browser, browser, missing
from ..waiting import wait_for
from .schools import COMMAND, Answer, Federation, School
from .test_changes import EPSILON, allow, pupils

NAMES = ("north", "east")
PICTURES = os.environ.get("SCREENSHOTS", "")  # a folder
ROUNDS = (
    "--epsilon",
    EPSILON,
    "--rounds",
    2000,
    "--anyway",
    "--pace",
    "2s",
    "--deadline",
    7200,
    "--fault-model",
    "crash",
)
ENOUGH = 3  # rounds; then the federation rests, and the machine is the browser's
TALLEST = 1100  # pixels of a picture
pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no browser to test the page in: no {missing()}")


class Here(School):
    """A school whose commands run in this process, one at a time: each of its own would first import for a second."""

    alone: ClassVar[Lock] = Lock()

    def command(self, *words: object, code: int | None = 0) -> Answer:
        """Run a command in this home; with a `code` the test fails unless it ends with it."""
        done = typed("--home", self.home, *words)
        assert code in (None, done.code), f"{self.name}: {words} ended with {done.code}\n{done.out}\n{done.err}"
        return done


def typed(*words: object) -> Answer:
    """Run `collegium WORDS` in this process."""
    with Here.alone, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


@contextmanager
def dashboard(school: School, said: Path) -> Iterator[str]:
    """Run the command; give out the link that it prints. What it says beside it goes to a file."""
    words = [str(COMMAND), "--home", str(school.home), "dashboard", "--no-browser", "--json"]
    with said.open("wb") as err:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=err, text=True)
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
        assert http.post("/act/pause", headers=right, data={"token": token}).status_code == 401
        assert "collegium_height" in http.get("/metrics", headers=right).text


def sees_everything(window: Browser, base: str, school: School) -> None:
    """Each page shows live data; axe finds nothing in it, light and dark, on a desktop and a phone."""
    status, heads = school.status(), ("encoder/person", "head/passed")
    wanted: dict[str, tuple[str, ...]] = {
        "/": ("Notes", "north", "1 of 1", *heads),
        "/federation": ("east", "connected", "Who is awaited, and why"),
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
        visit(window, base + place.path)
        text = window.text()
        assert not [word for word in wanted[place.path] if word not in text], (place.name, text)
        assert "In a terminal".lower() in text.lower() or "The same in a terminal" in text
        assert window.run("return document.querySelector('nav [aria-current]').innerText") == place.name
        looks_right(window, place.path.strip("/") or "overview")
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


def visit(window: Browser, address: str) -> None:
    """Open a page that a daemon answers: on a machine with much other work it may have taken it for one that hangs."""
    window.open(address)
    window.wait("return !document.querySelector('#absent *')", "the daemon answers the page")


def looks_right(window: Browser, name: str) -> None:
    """Look at the page on a desktop's light and a phone's dark screen: nothing is cut off, and axe finds nothing."""
    assert faults(window) == [], name
    keep(window, name, DESKTOP)
    window.scheme("dark")
    window.size(*PHONE)
    assert window.run("return document.documentElement.scrollWidth") <= PHONE[0], name
    assert faults(window) == [], f"{name} on a phone, dark"
    keep(window, f"{name}-phone", PHONE)
    window.scheme("light")
    window.size(*DESKTOP)


AXE = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def faults(window: Browser) -> list[Any]:
    """Return what axe finds in the page, whatever it calls it: minor, moderate, serious or critical."""
    if not window.run("return 'axe' in window"):
        window.run(AXE)
    found: list[Any] = window.run(
        """return axe.run({resultTypes: ['violations']}).then(
            found => found.violations.map(v => [v.impact, v.id, v.help, v.nodes.map(n => n.html)]))"""
    )
    return found


def keep(window: Browser, name: str, size: tuple[int, int]) -> None:
    if PICTURES:
        height = window.run("return document.documentElement.scrollHeight")
        window.size(size[0], min(TALLEST, height))
        window.picture(Path(PICTURES) / f"{name}.png")
        window.size(*size)


def can_be_used_by_keyboard(window: Browser, base: str) -> None:
    """The first key leads past the navigation."""
    window.open(base + "/ledger")
    window.press("\ue004")  # tab
    window.wait("return document.activeElement.className === 'skip'", "the focus on the link past the navigation")
    window.press("\ue007")  # enter
    window.wait("return document.activeElement.id === 'main'", "the focus in the content")


def press(window: Browser, action: str, fields: Mapping[str, str] | None = None, nth: int = 0) -> None:
    """Fill in a form and press its button; wait for the page of the step that it leads to."""
    window.run("window.left = true")
    window.run(
        """const form = document.querySelectorAll(`form[action$="${arguments[0]}"]`)[arguments[1]];
        for (const [name, value] of Object.entries(arguments[2])) form.elements[name].value = value;
        form.querySelector('button').click();""",
        action,
        nth,
        dict(fields or {}),
    )
    window.wait("return window.left === undefined && !!document.querySelector('main')", f"the page after {action}")


def stage(window: Browser, wanted: str) -> str:
    """Wait until the action is so far, and return what the page says."""
    what = f"return (document.querySelector('main')?.dataset.stage ?? '').match(/-({wanted}|failed)$/)?.[1]"
    assert window.wait(what, f"the action {wanted}") == wanted, window.text()
    return window.text()


def confirm(window: Browser) -> str:
    """Press the button of a plan, and return the outcome."""
    stage(window, "asks")
    press(window, window.run("return new URL(location).pathname.split('/').slice(-2).join('/')"))
    return stage(window, "done")


def kept(window: Browser, nth: int = 0) -> bytes:
    """Return a file that the page gives out, as the browser downloads it."""
    script = """const link = document.querySelectorAll('a[download]')[arguments[0]];
        return fetch(link.href).then(a => a.arrayBuffer()).then(b =>
            btoa([...new Uint8Array(b)].map(c => String.fromCharCode(c)).join('')))"""
    return base64.b64decode(window.run(script, nth))


def checks(window: Browser, base: str, content: bytes, **fields: str) -> str:
    """Have the page check a file of somebody, and return its verdict."""
    window.open(base + "/ledger")
    window.run(
        """const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
        const given = new DataTransfer();
        given.items.add(new File([bytes], 'given'));
        document.querySelector('#act-check-file-file').files = given.files;""",
        base64.b64encode(content).decode(),
    )
    press(window, "/act/check-file", fields)
    return stage(window, "done")


def acts(window: Browser, base: str, north: School, east: School) -> None:
    """Pause and resume, an invitation, a ballot, a proof."""
    window.open(base + "/")
    press(window, "/act/pause")
    stage(window, "asks")
    assert faults(window) == []
    assert "trains nothing until it is resumed" in confirm(window)
    assert north.status()["paused"]
    window.open(base + "/")
    press(window, "/act/resume")
    confirm(window)
    assert not north.status()["paused"]

    window.open(base + "/members")
    press(window, "/act/invite", {"name": "west", "days": "3"})
    confirm(window)
    assert from_text(kept(window).decode().strip()).value.federation.hex() == north.status()["federation"]["id"]
    assert faults(window) == []
    assert [one["name"] for one in north.get("/invitations")["invitations"]] == ["west"]

    east.command("unlearn", "propose", "north", "--mode", "rewind", "--reason", "consent", "--yes")
    window.open(base + "/members")
    window.wait("return !!document.querySelector('form[action$=\"/act/vote\"]')", "the motion is here")
    assert faults(window) == []
    keep(window, "motion", DESKTOP)
    press(window, "/act/vote", nth=1)  # no
    assert "A ballot is final" in stage(window, "asks")
    confirm(window)
    window.open(base + "/members")
    window.wait("return document.querySelector('#ended').innerText.includes('rewind everything')", "it is rejected")

    window.open(base + "/ledger?kind=update&author=north")
    window.run("document.querySelector('#records [data-label=record] a').click()")
    window.wait("return document.querySelector('h1').innerText.startsWith('Record ')", "the record")
    press(window, "/act/prove")
    assert "Verified: record" in stage(window, "done")
    proof = kept(window)
    assert "Verified: inclusion" in checks(window, base, proof)
    window.open(base + "/ledger")
    press(window, "/act/verify-ledger")
    assert "Verified from the charter alone" in stage(window, "done")


def forgets_a_student(window: Browser, base: str, north: School) -> str:
    """A student is looked up, the price is measured, the removal is confirmed, and the receipt is checked."""
    client = Client(Home(north.home))
    ids = (f"S1-{number:03d}" for number in range(60))
    looks = ((name, client.look_for_students(name)) for name in ids)
    student = next(name for name, look in looks if 0 < look["would_withdraw"] < look["own_updates"])
    window.open(base + "/withdrawals")
    press(window, "/act/forget", {"students": "S1-999"})
    assert "Nobody has this id" in window.wait("return document.querySelector('.critical')?.innerText", "no such id")
    window.open(base + "/withdrawals")
    press(window, "/act/forget", {"students": student})
    assert "updates that saw this student" in stage(window, "asks")
    window.wait("return document.querySelector('#price')?.innerText.includes('recovery rounds cost')", "the price")
    assert "held-out students here" in window.text("#price"), window.text("#price")
    looks_right(window, "forget")
    done = confirm(window)
    assert "left out of all training from now on" in done, done
    key = window.run(
        "return [...document.querySelectorAll('dd code')].map(c => c.innerText).find(t => t.length === 64)"
    )
    receipt = kept(window)
    looks_right(window, "forgotten")
    assert "Verified as of height" in checks(window, base, receipt, student=student, key=key)
    window.open(base + "/withdrawals")
    window.wait("return document.querySelector('#withdrawal-1 .badge.ok') !== null", "it is certified")
    press(window, "/act/verify-withdrawal")
    assert "Verified: the withdrawals of north" in stage(window, "done")
    window.open(base + "/withdrawals")
    press(window, "/act/certificate")
    assert "Verified: the certificate" in stage(window, "done")
    assert "Verified: the certificate" in checks(window, base, kept(window))
    return student


def test_the_page_in_a_browser(found: Callable[[], Federation], tmp_path: Path) -> None:
    folders = [pupils(tmp_path / name, seed) for seed, name in enumerate(NAMES, 1)]
    (tmp_path / "model.toml").write_text(typed("charter", "model", *folders).out)
    federation = found()
    federation.kind = Here
    for name, folder in zip(NAMES, folders, strict=True):
        school = federation.init(name, folder, lot_size=12)
        allow(school)
        config = school.home / "config.toml"
        text = config.read_text().replace("\nrounds = 0 ", f"\nrounds = {ENOUGH} ")
        if name != "north" and not PICTURES:
            text = text.replace("\nlearner = [] ", f"\nlearner = {json.dumps(SYNTHETIC)} ")
        config.write_text(text)
    federation.charter("--model", tmp_path / "model.toml", *ROUNDS)
    federation.start()
    federation.wait_rounds(ENOUGH, counted=2)
    north, east = federation.schools
    with dashboard(north, tmp_path / "said") as link, browser(tmp_path / "profile") as window:
        refuses_strangers(link, north)
        window.open(link)
        window.wait("return document.querySelector('nav') !== null", "the link leads to the page")
        base, opened = window.url.rstrip("/"), time.monotonic()
        sees_everything(window, base, north)
        can_be_used_by_keyboard(window, base)
        wait_for(lambda: time.monotonic() - opened > CAUTION)  # before, the page confirms nothing
        acts(window, base, north, east)
        student = forgets_a_student(window, base, north)

        # A withdrawal is asked for at another school; the page follows it without being loaded again.
        window.open(base + "/withdrawals")
        window.run("window.loaded = 1")
        east.command("unlearn", "request", "--yes")
        done = "return document.querySelector('#state').innerText.includes('2')"
        window.wait(done, "the withdrawal is counted")
        assert window.run("return window.loaded") == 1
        window.open(base + "/withdrawals")
        window.wait("return document.querySelector('#withdrawal-2 .badge.ok') !== null", "it is certified")
        assert "everything" in window.text("#withdrawal-2")
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
    for log in (tmp_path / "said", north.home / "node.log"):
        assert student not in log.read_text(), f"{log.name} has a student's id"
    federation.stop()
