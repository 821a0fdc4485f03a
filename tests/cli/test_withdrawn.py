"""A checked withdrawal in words, as whoever answers for the data reads it."""

from typing import Any

import pytest

from collegium.cli import withdrawn
from collegium.cli.output import console

PART = {
    "component": "head/pass", "generation": 1, "round": 3, "removed_updates": 2, "rewound_updates_of_others": 0,
    "updates_beyond_refold_horizon": 0, "digest": "ab" * 32, "label": "certified", "attested": 4, "needed": 3,
}  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *parts: dict[str, Any], **more: Any) -> str:
    report = {
        "name": "east",
        "height": 9,
        "verified": True,
        "erased_blobs": 2,
        "problems": [],
        "pending": [],
        "components": parts,
    }
    capsys.readouterr()
    withdrawn.tell(console(), {**report, **more})
    return " ".join(capsys.readouterr().out.split())


def test_what_is_verified_is_said_and_what_nobody_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, PART)
    assert "verified: the 2 updates count in no round any more; 1 of 1 states were computed again here" in out
    assert "by the hosts, all of 1 components" in out
    assert "whether the institution deleted its own data" in out
    assert "stays" not in out


def test_what_is_not_certified_yet_is_said_beside_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """It said "uncertified by 3" beside "verified"."""
    waits = {**PART, "label": "not certified yet", "attested": 3, "needed": 4, "removed_updates": 0}
    few = {**PART, "component": "head/mark", "label": "uncertified", "attested": 3, "needed": 3}
    out = told(capsys, waits, few)
    assert "not yet: the state of head/pass (3 of 4 hosts). Ask again when enough hosts have signed it" in out
    assert "not to be had: head/mark has too few hosts for a certificate, whoever signs" in out
    assert "uncertified by" not in out


def test_what_stays_and_what_is_wrong_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, {**PART, "updates_beyond_refold_horizon": 5, "digest": None})
    assert "5 updates of east, older than the refold horizon: in the model still" in out
    assert "0 of 1 states were computed again here" in out
    assert "NOT verified: see the problems below" in told(capsys, PART, verified=False, problems=["list-differs"])
    assert "nothing that it withdrew counts" in told(capsys, {**PART, "removed_updates": 0})
