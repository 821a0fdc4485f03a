"""Members come and go between real daemons over real libp2p, by the commands that operators type (G1, G9)."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog

from collegium.cli.main import main
from collegium.crypto.errors import CollegiumError, RefusedError
from collegium.crypto.identity import Identity
from collegium.node.control.client import Client
from collegium.node.home import config as settings
from collegium.node.home.invitations import from_text
from collegium.node.home.paths import Home
from collegium.node.runtime.candidate import apply
from collegium.node.verify import verify_home_ledger, verify_home_states
from collegium.sims.processes.federation import Daemon, Institution, free_ports
from collegium.sims.processes.observe import View, fold_ledger

from ...waiting import LIMIT

Make = Callable[..., Any]
Run = Callable[..., Any]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("NO_COLOR", "1")
    before = structlog.get_config()

    def run_it(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        exit_code = main([*(str(word) for word in words), "--json"])
        out = capsys.readouterr().out
        assert exit_code == code, out
        return json.loads(out)

    yield run_it
    structlog.configure(**before)


def newcomer(four: Any, cli: Run, root: Path, name: str = "newcomer") -> Institution:
    """A directory as `init` makes it, with the tests' learner."""
    home = Home(root / name)
    like = settings.load(four.institutions[0].home.config)
    (port,) = free_ports(1)
    cli("init", "--home", home.root, "--name", name)
    home.config.unlink()
    settings.create(
        home.config,
        settings.Config(
            node=settings.Node(name=name, listen=(f"/ip4/127.0.0.1/tcp/{port}",)),
            data=like.data,
            learning=like.learning,
            privacy=like.privacy,
            log=like.log,
            timing=like.timing,
        ),
    )
    key = json.loads(home.key.read_text())
    return Institution(name, home, Identity.from_seed(bytes.fromhex(key["seed"])), None, 1.0)


def join_in(four: Any, institution: Institution) -> None:
    """Let the test watch and stop one more daemon."""
    four.institutions.append(institution)
    four.daemons.append(Daemon(institution))
    four.views.append(View())


def members(institution: Institution) -> set[str]:
    try:
        return {p["name"] for p in Client(institution.home).peers()["peers"] if p["state"] != "left"}
    except CollegiumError:
        return set()


def until(four: Any, done: Callable[[], bool]) -> None:
    def quiet() -> bool:
        try:
            return done()
        except CollegiumError:
            return False

    four.wait(quiet)


def status(institution: Institution) -> Any:
    return Client(institution.home).status()


def test_invited_applied_approved_and_training(federation: Make, cli: Run, tmp_path: Path) -> None:
    four = federation(rounds=90, deadline_ms=3000, pace_ms=500)
    four.start()
    four.wait_rounds(5)
    inviter, second, third = (i.home.root for i in four.institutions[:3])
    file = tmp_path / "invitation"
    given = cli("peer", "invite", "the newcomer", "--out", file, "--home", inviter)
    assert given["file"] == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    new = newcomer(four, cli, tmp_path)
    joined = cli("join", file, "--home", new.home.root)
    assert joined["state"] in ("waiting", "proposed")
    assert joined["federation"] == four.charter.federation.hex()
    assert new.home.charter.read_bytes()
    (shown,) = cli("peer", "invitations", "--home", inviter)["invitations"]
    assert shown["applicant"]["key"] == new.identity.public_key.hex()
    join_in(four, new)
    four.daemons[-1].start()
    until(four, lambda: _open(four.institutions[1]))
    assert any("waits for your ballot" in note for note in status(four.institutions[1])["notes"])
    assert cli("peer", "approve", "newcomer", "--home", second)["your_ballot"] == "yes"
    cli("peer", "approve", "newcomer", "--home", second, code=5)  # a ballot is final
    assert cli("peer", "approve", "newcomer", "--home", third)["result"] == "passed"
    until(four, lambda: "newcomer" in members(four.institutions[3]))

    def counted() -> bool:
        rounds = Client(inviter_home).rounds(limit=3)
        return any("newcomer" in {m["name"] for m in r["counted"]} for r in rounds)

    inviter_home = four.institutions[0].home
    until(four, counted)
    assert status(new)["is_member"]
    shown = cli("peer", "show", "newcomer", "--home", inviter)
    assert shown["since_height"] > 0
    assert shown["ended_motions"][0]["result"] == "passed"
    assert cli("join", file, "--home", new.home.root)["state"] == "admitted"
    for institution in four.institutions:
        report = verify_home_ledger(institution.home)
        assert len(report.ledger.members) == 5
    old = [e.blob for e in fold_ledger(new, four.charter).components["head/task0"].rounds[0].entries]
    assert not any(list(new.home.blobs.rglob(blob.hex())) for blob in old), "it fetched history that it does not need"
    report = verify_home_ledger(new.home)
    ((state,), _) = verify_home_states(new.home, report)
    assert state.since > 0, "it has no bytes of the rounds before it joined"
    assert state.round >= state.since
    cli("peer", "leave", "--yes", "--home", new.home.root)
    until(four, lambda: status(four.institutions[0])["federation"]["members"] == 4)
    until(four, lambda: any("has left the federation" in note for note in status(new)["notes"]))
    for institution in four.institutions[:4]:  # the gate is shut behind who left, and the open connection cut
        until(four, partial(_apart, institution, "newcomer"))


def _apart(institution: Institution, name: str) -> bool:
    return name not in {member["name"] for member in status(institution)["live"]["connected"]}


def _open(institution: Institution) -> bool:
    return bool(Client(institution.home).motions()["open"])


@pytest.mark.soak  # scenarios "expelled-by-motion" and "lost-key" are the short form
def test_an_expelled_member_is_told_and_a_lost_key_is_replaced(federation: Make, cli: Run, tmp_path: Path) -> None:
    five = federation(count=5, rounds=80, deadline_ms=3000)
    five.start()
    five.wait_rounds(2)
    homes = [i.home.root for i in five.institutions]
    new = newcomer(five, cli, tmp_path, "node-3-again")
    claim = cli(
        "peer", "rekey", "--claim", "node-3", "--charter", five.institutions[3].home.charter, "--home", new.home.root
    )
    five.daemons[3].kill()
    lost, _ = five.daemons.pop(3), five.institutions.pop(3)
    five.views.pop(3)
    assert lost.process is None
    cli("peer", "rekey", claim["statement"], "--yes", "--home", homes[0])
    for home in (homes[1], homes[2]):
        cli("peer", "approve", "node-3", "--home", home)
    join_in(five, new)
    five.daemons[-1].start()
    until(five, lambda: status(new)["is_member"] and status(new)["live"]["signing"])
    assert status(new)["member"]["name"] == "node-3", "it goes on under the member's name"
    cli("peer", "expel", "node-4", "--reason", "sends noise", "--yes", "--home", homes[0])
    for home in (homes[1], homes[2]):
        cli("peer", "approve", "node-4", "--home", home)
    until(five, lambda: any("was expelled by the members" in note for note in status(five.institutions[3])["notes"]))
    assert cli("peer", "show", "node-4", "--home", homes[0])["gone"] == "expelled"


SMALL_ANSWERS = """
import sys
from collegium.node import __main__ as daemon
from collegium.node.core import sync
sync.SYNC_TARGET = 1
sys.argv = sys.argv[4:]
sys.exit(daemon.main())
"""
CRASHING = """
import runpy, sys
sys.argv = sys.argv[4:]
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.mark.soak  # "catching up" in tests/sims/simulator/test_membership.py is the short form
def test_an_interrupted_catch_up_goes_on(federation: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Answers hold one block here, and the one that was away dies each time it has stored a second time."""
    four = federation(rounds=0, deadline_ms=1500)
    for daemon in four.daemons:
        daemon.prefix = (sys.executable, "-c", SMALL_ANSWERS)
    four.start()
    four.wait_rounds(1)
    away = four.daemons[3]
    away.kill()
    seen = [fold_ledger(four.institutions[3], four.charter).height]
    four.wait(lambda: min(view.height for view in four.views[:3]) >= seen[0] + 16)
    path = Path(__file__).with_name("crashing_daemon.py")
    for key, value in {"AT": "2", "HOW": "after", "ONLY": "PutBlock", "LOG": str(tmp_path / "point")}.items():
        monkeypatch.setenv(f"CRASH_{key}", value)
    for _ in range(3):
        goal = fold_ledger(four.institutions[0], four.charter).height
        away.prefix = (sys.executable, "-c", CRASHING.format(path=str(path)))
        away.start()
        assert away.process.wait(LIMIT) == -signal.SIGKILL
        away.kill()
        seen.append(fold_ledger(four.institutions[3], four.charter).height)
        assert seen[-1] < goal, "it was interrupted"
    # Two writes bring two heights or more: none of them is one that it had.
    assert all(after - before >= 2 for before, after in pairwise(seen)), seen
    away.prefix = ()
    away.start()
    last = four.last()
    four.wait_rounds(last + 1)


@pytest.fixture(scope="module")
def four(lasting: Make) -> Any:
    """Four for the last two tests, that go on and on: what they take, tests after them would lack."""
    these = lasting(rounds=0, deadline_ms=3000)
    these.start()
    these.wait_rounds(1)
    return these


def test_g9_who_is_not_invited_gets_nothing_and_an_invitation_is_used_once(four: Any, cli: Run) -> None:
    home = four.institutions[0].home.root
    text = cli("peer", "invite", "--hold", "--home", home)["text"]
    invitation = from_text(text).value
    assert not invitation.charter
    stranger = Identity.generate()
    forged = type(invitation)(
        invitation.federation,
        invitation.author,
        "",
        invitation.addresses,
        stranger.seed,
        invitation.expires,
        b"",
    )
    with pytest.raises(RefusedError, match="lets nobody in"):
        apply(forged, stranger, "stranger", ())
    first, other = Identity.generate(), Identity.generate()
    charter, state = apply(invitation, first, "first", ())
    assert (len(charter) > 1000, state) == (True, "held")
    with pytest.raises(RefusedError, match="invitation-used"):
        apply(invitation, other, "second", ())
    assert not _open(four.institutions[0])
    cli("peer", "refuse", "nobody", "--home", home, code=2)
    again = cli("peer", "invite", "named", "--hold", "--home", home)
    cli("peer", "invite", "--withdraw", "named", "--home", home)
    with pytest.raises(RefusedError, match="lets nobody in"):
        apply(from_text(again["text"]).value, other, "second", ())
    four.daemons[0].stop()
    four.daemons[0].start()
    until(four, lambda: bool(status(four.institutions[0])["live"]))
    assert apply(invitation, first, "first", ())[1] == "held", "it is on disk"


def test_a_member_rotates_its_key_while_rounds_close(four: Any, cli: Run) -> None:
    home = four.institutions[1].home
    rotated = cli("peer", "rekey", "--yes", "--home", home.root)
    assert (home.root / rotated["kept"]).exists()
    assert not home.next_key.exists()
    key = bytes.fromhex(rotated["key"])

    def counted() -> bool:
        rounds = Client(four.institutions[0].home).rounds(limit=3)
        return any(key.hex() in {m["key"] for m in r["counted"]} for r in rounds)

    until(four, counted)
    assert cli("peer", "show", "node-1", "--home", four.institutions[0].home.root)["earlier_keys"] == [
        rotated["old_key"]
    ]
    report = verify_home_ledger(four.institutions[2].home)
    assert key in report.ledger.members
