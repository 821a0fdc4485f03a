"""`privacy audit`: exit codes, what people and programs are told. The learner's side is tested where it lives."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from collegium.cli import audit
from collegium.node.learner.answers import Audited, Finding
from collegium.node.learner.messages import Audit

if TYPE_CHECKING:
    from .conftest import Run


def answer(fault: str | None, caught: tuple[str, ...]) -> Audited:
    finding = Finding(
        "crowd", 2000, 320, 268, claimed=3.387, exact=3.387, audited=1.28, provable=4.1, delta=1e-5, confidence=0.99,
        refuted=caught, seconds=2.7,
    )  # fmt: skip
    return Audited((finding,), fault, "what it is", caught, 0.95, 2.8)


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, list[str]]:
    """What a learner that is not there finds, by fault."""
    caught_by: dict[str | None, list[str]] = {None: [], **{name: ["guesses"] for name in audit.FAULTS}}

    class Learner:
        def ask(self, request: Audit) -> Audited:
            return answer(request.fault, tuple(caught_by[request.fault]))

    @contextmanager
    def learner() -> Iterator[Learner]:
        yield Learner()

    monkeypatch.setattr(audit, "_learner", learner)
    return caught_by


def test_a_claim_that_holds(run: "Run", caught: dict[str | None, list[str]]) -> None:
    done = run("privacy", "audit")
    assert done.code == 0
    assert "every claim holds (95 % confidence over all probes, δ = 1e-05)" in done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["crowd", "3.39", "1.28", "4.10", "320", "268", "2000", "2.7", "holds"] in rows
    value = run("privacy", "audit", "--json").value
    assert value["passed"] is True
    assert value["findings"][0]["audited"] == 1.28
    assert "faults" not in value


def test_a_claim_that_is_refuted(run: "Run", caught: dict[str | None, list[str]]) -> None:
    caught[None] = ["exact"]
    done = run("privacy", "audit")
    assert done.code == 1
    assert "A CLAIM IS REFUTED" in done.out
    assert "refuted" in done.out
    refuted = run("privacy", "audit", "--json")
    assert (refuted.code, refuted.value["passed"]) == (1, False)


def test_a_planted_mistake(run: "Run", caught: dict[str | None, list[str]]) -> None:
    caught["shared-prompt"] = ["assertion", "guesses"]
    done = run("privacy", "audit", "--fault", "shared-prompt")
    assert done.code == 1
    assert "planted mistake found (shared-prompt: what it is), by: the training refuses it, guesses" in done.out
    caught["no-clip"] = []
    missed = run("privacy", "audit", "--fault", "no-clip")
    assert missed.code == 0
    assert "the planted mistake was NOT found (no-clip" in missed.out
    assert run("privacy", "audit", "--fault", "none").code == 2


def test_all_planted_mistakes(run: "Run", caught: dict[str | None, list[str]]) -> None:
    done = run("privacy", "audit", "--all-faults")
    assert done.code == 0
    assert all(name in done.out for name in audit.FAULTS)
    assert "all of them were caught" in done.out
    caught["seeded-noise"] = []
    missed = run("privacy", "audit", "--all-faults")
    assert missed.code == 1
    assert "not caught: seeded-noise" in missed.out
    assert [f["fault"] for f in run("privacy", "audit", "--all-faults", "--json").value["faults"]] == list(audit.FAULTS)


def test_a_real_learner_finds_a_mistake(run: "Run") -> None:
    done = run("privacy", "audit", "--fault", "seeded-noise", "--json")
    assert done.code == 1
    assert done.value["caught"] == ["guesses"]
    assert done.value["findings"][0]["audited"] > done.value["findings"][0]["claimed"]


@pytest.mark.soak
def test_a_real_learner_finds_all_mistakes(run: "Run") -> None:
    done = run("privacy", "audit", "--all-faults", "--json")
    assert done.code == 0
    assert done.value["faults"][4]["caught"] == ["assertion", "guesses"]
