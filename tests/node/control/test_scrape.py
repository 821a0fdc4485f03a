"""`/metrics` is what Prometheus can read, has the names of docs/operations.md, and nothing of the students' data."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collegium.node import views
from collegium.node.control import scrape
from collegium.node.views.note import Note, NoteKind

from .test_openapi import ask

if TYPE_CHECKING:
    from .conftest import FakeDaemon

ROOT = Path(__file__).resolve().parents[3]


def scraped(daemon: "FakeDaemon") -> dict[str, dict[tuple[str, ...], float]]:
    answer = ask(daemon, "GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


def test_it_is_the_state_that_the_commands_show(daemon: "FakeDaemon") -> None:
    samples, height = scraped(daemon), daemon.core.ledger.height
    assert samples["collegium_height"] == {(): height}
    assert samples["collegium_members"] == {(): 4}
    assert samples["collegium_neighbours"] == {(): 3}
    assert samples["collegium_network_received_bytes_total"] == {(): 7}
    assert samples["collegium_learner_state"][("ready",)] == 1
    assert sum(samples["collegium_learner_state"].values()) == 1
    rounds = {(name,): c.round for name, c in daemon.core.ledger.components.items()}
    assert samples["collegium_component_round"] == rounds
    assert samples["process_resident_memory_bytes"][()] > 1e6


def test_every_name_is_documented_and_no_other(daemon: "FakeDaemon") -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page[page.index("### Metrics") :]
    documented = set(re.findall(r"^\| `(collegium_\w+)`", table, re.MULTILINE))
    daemon.core.refusals[(b"x" * 32, "not-a-member")] = 1
    context = replace(scrape_context(daemon))
    text = scrape.text(context, tuple(daemon.core.policies.values()), daemon.config).decode()
    assert set(re.findall(r"^# TYPE (collegium_\w+)", text, re.MULTILINE)) == documented


def test_promtool_finds_nothing_to_mend(daemon: "FakeDaemon") -> None:
    """Prometheus's own check: the syntax, and its advice on names, units and help texts."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    daemon.core.refusals[(b"x" * 32, "not-a-member")] = 1
    text = ask(daemon, "GET", "/metrics").text

    def checked(metrics: str) -> subprocess.CompletedProcess[str]:
        words = ["promtool", "check", "metrics"]
        return subprocess.run(words, input=metrics, capture_output=True, text=True, check=False)

    done = checked(text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert checked("# TYPE a_total gauge\na_total 1\n").returncode != 0, "it would find something"


def scrape_context(daemon: "FakeDaemon") -> views.Context:
    from collegium.node.control.facts import context_of

    return context_of(daemon)


def test_nothing_of_the_students_is_in_it(daemon: "FakeDaemon", monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(ask(daemon, "GET", "/metrics").text.splitlines())
    daemon.learner.left_out, daemon.learner.students = 4711, 815
    daemon.learner.cut, daemon.learner.labelled = {"essay": 471}, {"passed": 81}
    plain = views.status

    def status(context: views.Context) -> object:
        text = plain(context)
        note = Note(NoteKind.STUDENTS_LEFT_OUT, "4711 students are left out.", "")
        text["findings"].append({"kind": note.kind, "level": note.level, "found": note.found, "advice": ""})
        return text

    monkeypatch.setattr(views, "status", status)
    changed = {
        line for line in ask(daemon, "GET", "/metrics").text.splitlines() if line.startswith("collegium")
    } - before
    assert not changed, changed


def test_names_of_members_cannot_break_out_of_a_label(daemon: "FakeDaemon") -> None:
    daemon.title = 'x"} 1\ncollegium_height 99\n'
    daemon.core.me, me = b"\1" * 32, daemon.core.me
    try:
        assert scraped(daemon)["collegium_height"] == {(): daemon.core.ledger.height}
    finally:
        daemon.core.me = me
