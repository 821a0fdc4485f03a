"""The commands of membership without a daemon: what they read, what they refuse, and with which exit code."""

import errno
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.control import membership as control
from collegium.node.core import events as ev
from collegium.node.home import Home, hold
from collegium.node.home.invitations import to_text
from collegium.node.runtime import candidate
from collegium.protocol.membership import Invitation
from collegium.protocol.signing import sign
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill
from .test_founding import MARKS

if TYPE_CHECKING:
    from .conftest import Run

INVITER = Identity.from_seed(sha256(b"inviter"))


def text(
    federation: bytes = bytes(32),
    expires: int | None = None,
    address: str = "/ip4/127.0.0.1/tcp/1",
    charter: bytes = b"",
) -> str:
    """An invitation to a place where nobody is."""
    from collegium.node.network.identity import peer_id

    where = f"{address}/p2p/{peer_id(INVITER.public_key)}"
    until = int(time.time()) + 3600 if expires is None else expires
    return to_text(
        sign(INVITER, Invitation(federation, INVITER.public_key, "", (where,), sha256(b"token"), until, charter))
    )


def test_members_and_motions_are_read_from_the_files(run: "Run", home: Home, cluster: Cluster) -> None:
    motions = run("peer", "motions", "--home", home.root, "--json").value
    assert (motions["open"], motions["ended"]) == ([], [])
    assert "No open motions" in run("peer", "motions", "--home", home.root).out
    name = cluster.charter.members[0].name
    shown = run("peer", "show", name, "--home", home.root, "--json").value
    assert (shown["key"], shown["since_height"], shown["gone"]) == (cluster.charter.members[0].key.hex(), 0, None)
    assert "the charter" in run("peer", "show", name, "--home", home.root).out
    assert run("peer", "show", "nobody", "--home", home.root).code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("invite", "x"),
        ("invitations",),
        ("approve", "x"),
        ("refuse", "x"),
        ("expel", "x", "--yes"),
        ("leave", "--yes"),
        ("rekey", "--yes"),
    ],
)
def test_what_needs_the_daemon_says_so(run: "Run", home: Home, words: tuple[str, ...]) -> None:
    answer = run("peer", *words, "--home", home.root)
    assert answer.code == 4
    assert f"collegium --home {home.root} node start" in answer.err


def test_what_is_no_invitation_is_refused_with_advice(run: "Run", tmp_path: Path) -> None:
    good = text()
    cases = {
        str(tmp_path / "nothing"): 2,
        "": 2,
        good[:-20]: 2,
        text(expires=1): 5,
    }
    for invitation, code in cases.items():
        answer = run("join", invitation, "--home", tmp_path / "new")
        assert answer.code == code, answer.err
        assert not (tmp_path / "new").exists(), "nothing is made before the invitation is read"
    assert "the invitation is empty" in run("join", "", "--home", tmp_path / "new").err
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    answer = run("join", binary, "--home", tmp_path / "new")
    message = f"error: {binary} is no invitation: it is no text\n  Name the file that the member sent.\n"
    assert (answer.code, answer.err) == (2, message)
    for cut in (good[:11], good + "é"):  # no word of Python's of how it could not be decoded
        answer = run("join", cut, "--home", tmp_path / "new")
        message = "no intact invitation (characters of it are missing, or were changed)"
        assert (answer.code, message in answer.err) == (2, True), answer.err
    assert not (tmp_path / "new").exists()


def test_a_directory_of_another_federation_is_not_taken(run: "Run", home: Home) -> None:
    before = home.charter.read_bytes()
    assert run("join", text(), "--home", home.root).code == 2
    assert home.charter.read_bytes() == before


def test_a_member_that_cannot_be_reached_is_named(run: "Run", tmp_path: Path) -> None:
    answer = run("join", text(), "--home", tmp_path / "new")
    assert answer.code == 4
    assert "can be reached" in answer.err
    assert Home(tmp_path / "new").key.exists(), "the key is kept for the next try"


def test_a_members_key_is_not_replaced_by_joining(run: "Run", home: Home, cluster: Cluster) -> None:
    before = home.key.read_bytes()
    answer = run("join", text(cluster.charter.federation), "--new-key", "--home", home.root)
    assert answer.code == 2
    assert "peer rekey" in answer.err
    assert home.key.read_bytes() == before


def test_no_application_is_handed_in_with_data_that_do_not_fit_the_charter(
    run: "Run", home: Home, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_in: list[str] = []

    async def connect(*_: object) -> None: ...

    async def ask(_network: object, _invitation: object, request: Any) -> SimpleNamespace:
        handed_in.append(str(request))
        return SimpleNamespace(state="held")

    monkeypatch.setattr(candidate, "connect", connect)
    monkeypatch.setattr(candidate, "_ask", ask)
    (tmp_path / "marks").mkdir()
    (tmp_path / "marks" / "dataset.toml").write_text(MARKS)
    invitation = text(cluster.charter.federation, charter=home.charter.read_bytes())
    words = ("join", invitation, "--home", tmp_path / "new", "--data", tmp_path / "marks")
    refused = run(*words)
    assert (refused.code, handed_in) == (5, []), refused.err
    assert "does not fit the charter" in " ".join(refused.err.split())
    assert "--lot-size" in refused.err, "it cannot train without one"
    assert not Home(tmp_path / "new").charter.exists()
    going_on = run(*words, "--anyway")
    assert (going_on.code, len(handed_in)) == (0, 1), going_on.err
    assert "set lot_size under [learning]" in " ".join(going_on.out.split())


@pytest.fixture
def former(tmp_path: Path) -> tuple[Home, bytes]:
    """Return the directory of a member that has left, and its federation."""
    cluster = Cluster(4, 6, Invariants, rounds=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    gone = cluster.nodes[3].identity
    cluster.nodes[3].deliver(ev.ProposeMotion("leave", gone.public_key, b"", "", 100))
    cluster.run(lambda: False, cluster.now + 3000)
    core = cluster.nodes[0].core
    assert core is not None
    assert core.ledger.roll.seats[gone.public_key].gone == "left"
    cluster.nodes[0].identity = gone
    home = Home(tmp_path / "former")
    fill(home, cluster, cluster.nodes[0])
    return home, cluster.charter.federation


def test_a_former_member_takes_a_new_key_only_while_no_daemon_uses_the_old(
    run: "Run", former: tuple[Home, bytes]
) -> None:
    home, federation = former
    before = home.key.read_bytes()
    words = ("join", text(federation), "--new-key", "--home", home.root, "--anyway")
    with hold(home):
        answer = run(*words)
    assert answer.code == 2
    assert f"collegium --home {home.root} node stop" in answer.err
    assert home.key.read_bytes() == before
    assert run(*words).code == 4, "nobody is there to apply to"
    assert home.key.read_bytes() != before
    assert sorted(home.root.glob("key.*.json"))


def test_a_former_member_is_told_to_come_back_in_the_same_directory(run: "Run", former: tuple[Home, bytes]) -> None:
    (check,) = [
        check
        for check in run("doctor", "--home", former[0].root, "--json").value["checks"]
        if check["check"] == "membership"
    ]
    for advice in (check["advice"], candidate._REFUSED["key-retired"], control._ADVICE["key-retired"]):
        assert "--new-key" in advice
        assert "directory" in advice
        assert "another" not in advice


class Daemon:
    """A daemon that answers as it is told, and keeps what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.invited: list[str] = []
        self.open: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        federation = {"members": 8, "fault_model": "byzantine", "tolerated_losses": 2}
        offered = [{"component": name, "hosted_here": True, "active_hosts": 4} for name in ("head/a", "head/b")]
        self.shown = {"is_member": True, "member": {"key": "me"}, "federation": federation, "components": offered}
        monkeypatch.setattr("collegium.node.control.client.Client", lambda _: self)

    def status(self) -> dict[str, object]:
        return self.shown

    def motions(self) -> dict[str, object]:
        return {"open": list(self.open), "ended": list(self.ended)}

    def member(self, who: str) -> dict[str, object]:
        return {"name": who, "key": who, "active_host_of": ["head/b"]}

    def propose(self, action: str, who: str = "me", **_: object) -> None:
        """Do as the federation does: what is open is voted for, else it is proposed, a block later."""
        new = motion("new", action, who)
        same = next((m for m in self.open if (m["action"], m["subject"]) == (action, new["subject"])), new)
        if same is new:
            threading.Timer(0.3, lambda: self.open.append(new)).start()
        threading.Timer(0.6, lambda: same.update(your_ballot="yes", yes=[1, 2])).start()

    def vote(self, word: str, **_: object) -> dict[str, object]:
        self.propose("admit", word)
        return {"submitted": True, "motion": None, "subject": word}

    def invite(self, name: str, **_: object) -> dict[str, object]:
        self.invited.append(name)
        return {"invitation": name, "expires": "", "addresses": [], "text": "collegium:x"}

    def uninvite(self, invitation: str) -> dict[str, object]:
        self.invited.remove(invitation)
        return {"withdrawn": invitation}


def motion(digest: str, action: str, who: str, **more: object) -> dict[str, Any]:
    """A motion as a daemon shows it."""
    shown = {"motion": digest, "action": action, "what": f"{action} {who}", "subject": {"key": who}}
    return {**shown, "your_ballot": "not cast", "yes": [1], "needed": 3, "undecided": []} | more


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    return Daemon(monkeypatch)


def test_an_invitation_replaces_no_file_and_none_is_open_without_one(
    run: "Run", home: Home, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("peer", "invite", "school", "--home", home.root, "--out")
    before = home.key.read_bytes()
    for path in (home.key, tmp_path / "nothing" / "x"):
        answer = run(*words, path)
        assert answer.code == 2, answer.err
        assert not daemon.invited
    assert home.key.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert run(*words, tmp_path / "x").code != 0
    assert not daemon.invited
    assert run(*words, tmp_path / "x").code == 0
    assert (daemon.invited, (tmp_path / "x").read_text()) == (["school"], "collegium:x\n")


@pytest.mark.parametrize("words", [("expel", "x", "--yes"), ("approve", "x")])
def test_an_earlier_motion_is_not_told_as_the_answer(
    run: "Run", home: Home, daemon: Daemon, words: tuple[str, ...]
) -> None:
    action = "expel" if words[0] == "expel" else "admit"
    earlier = motion("earlier", action, "x", result="refused", why="", at_height=84)
    del earlier["your_ballot"]
    daemon.ended.append(earlier)
    assert run("peer", *words, "--home", home.root, "--json").value["motion"] == "new"


def test_the_same_motion_again_is_told_when_this_vote_is_in_it(run: "Run", home: Home, daemon: Daemon) -> None:
    daemon.open.append(motion("theirs", "expel", "x"))
    answer = run("peer", "expel", "x", "--yes", "--home", home.root, "--json").value
    assert (answer["motion"], answer["your_ballot"], answer["yes"]) == ("theirs", "yes", [1, 2])


def test_who_leaves_is_told_of_the_components_that_it_is_an_active_host_of(
    run: "Run", home: Home, daemon: Daemon
) -> None:
    answer = run("peer", "leave", "--yes", "--home", home.root)
    assert answer.code == 0
    assert "head/b would have 3 hosts" in answer.err
    assert "head/a" not in answer.err, "it offers this one, and is no host of it"


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_claim_replaces_no_file(run: "Run", home: Home, tmp_path: Path, cluster: Cluster) -> None:
    again = Home(tmp_path / "again")
    assert run("init", "--home", again.root).code == 0
    before = again.key.read_bytes()
    words = ("peer", "rekey", "--claim", cluster.charter.members[2].name, "--charter", home.charter)
    for path in (again.key, tmp_path / "nothing" / "x"):
        assert run(*words, "--out", path, "--home", again.root).code == 2
        assert again.key.read_bytes() == before
        assert not again.joining.exists()


def test_a_claim_is_written_and_a_member_withdraws_by_itself(
    run: "Run", home: Home, tmp_path: Path, cluster: Cluster
) -> None:
    assert run("init", "--home", tmp_path / "again").code == 0
    name = cluster.charter.members[2].name
    words = ("peer", "rekey", "--claim", name, "--charter", home.charter, "--home", tmp_path / "again", "--json")
    claimed = run(*words)
    result = claimed.value
    assert "knows of no student that was removed under the old key" in claimed.err
    assert result["old_key"] == cluster.charter.members[2].key.hex()
    assert Path(result["statement"]).exists()
    assert run("peer", "rekey", "--claim", "nobody", "--charter", home.charter, "--home", tmp_path / "again").code == 2
    assert run("unlearn", "statement", "--out", tmp_path / "s", "--home", home.root).code == 2
    assert run("unlearn", "carry", tmp_path / "nothing", "--home", home.root).code == 2
