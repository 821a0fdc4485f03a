"""Starting and stopping the daemon, and saying why it did not start."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import node as node_module
from collegium.cli import training
from collegium.cli.output import console
from collegium.crypto.errors import CollegiumError, RefusedError, UnreachableError
from collegium.node import scarce
from collegium.node.home import Home, running
from collegium.sims.learn.datasets import prepare_digits

from ..descriptors import limit
from ..waiting import LIMIT, wait_for

if TYPE_CHECKING:
    from .conftest import Run


@pytest.fixture
def alone(run: "Run", tmp_path: Path) -> Home:
    """A federation of one, ready to start."""
    root = tmp_path / "n"
    made = run("init", "--home", root, "--name", "alone", "--json").value
    words = (
        "charter",
        "create",
        "--home",
        root,
        "--name",
        "solo",
        "--no-dp",
        "--preset",
        "digits",
        "--fault-model",
        "crash",
    )
    assert run(*words, "--member", made["member"]).code == 0
    assert run("charter", "sign", "--yes", "--home", root).code == 0
    return Home(root)


def misspell(home: Home) -> None:
    text = home.config.read_text()
    assert 'engage = ["*"]' in text
    home.config.write_text(text.replace('engage = ["*"]', 'engage = ["haed/*", "encoder/*"]'))


def test_a_pattern_of_engage_that_matches_nothing_is_named(
    run: "Run", alone: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    def found() -> list[Any]:
        checks = run("doctor", "--no-data", "--home", alone.root, "--json").value["checks"]
        return [(check["verdict"], check["found"], check["advice"]) for check in checks if check["check"] == "engage"]

    assert found() == []
    misspell(alone)
    ((verdict, text, advice),) = found()
    assert verdict == "warn"
    assert text == "engage in config.toml has 'haed/*', which no component of the charter matches."
    assert "The components are encoder/image, head/digit, statistic/digit." in advice
    learner = {"state": "off", "device": "", "cut_texts": {}, "left_out": 0, "warnings": []}
    started: Any = {"learner": learner, "data": None, "unmatched": [text], "older": [], "paused": [], "quiet": []}
    training.tell(console(), started)
    assert f"warning: {text}" in " ".join(capsys.readouterr().out.split())


def test_a_start_raises_the_limit_of_open_files_and_names_a_pattern_that_matches_nothing(
    run: "Run", alone: Home
) -> None:
    """A shell often allows few, and each connection of a stranger takes one (G9)."""
    misspell(alone)
    try:
        with limit(256):
            started = run("node", "start", "--wait", LIMIT, "--home", alone.root, "--json")
        assert started.code == 0, started.err
        soft, hard = resource.prlimit(started.value["pid"], resource.RLIMIT_NOFILE)
        assert soft == (scarce.WANTED if hard == resource.RLIM_INFINITY else min(scarce.WANTED, hard))
        assert "few open files are allowed" not in alone.log.read_text()
        (warning,) = started.value["unmatched"]
        assert warning.startswith("engage in config.toml has 'haed/*', which no component of the charter matches. ")
        status = run("node", "status", "--home", alone.root, "--json").value
        (finding,) = [entry for entry in status["findings"] if entry["kind"] == "pattern-unmatched"]
        assert warning == f"{finding['found']} {finding['advice']}"
        assert finding["level"] == "warning"
        checks = run("doctor", "--no-data", "--home", alone.root, "--json").value["checks"]
        assert [check["check"] for check in checks if check["found"] == finding["found"]] == ["engage"], "said once"
    finally:
        run("node", "stop", "--force", "--home", alone.root)
    assert finding in run("node", "status", "--home", alone.root, "--json").value["findings"], "without a daemon too"


def test_a_daemon_starts_answers_and_stops(
    run: "Run", alone: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = alone.root
    foreign = tmp_path / "where the operator stands"
    foreign.mkdir()
    for name in ("h2", "trio", "msgpack", "json"):
        (foreign / f"{name}.py").write_text("raise SystemExit('code of the working directory ran')\n")
    monkeypatch.chdir(foreign)  # G9: what lies there is not for the daemon to import
    try:
        started = run("node", "start", "--home", root, "--json")
        assert started.code == 0, started.err + alone.log.read_text()
        assert running(alone) == started.value["pid"]
        assert alone.socket.stat().st_mode & 0o777 == 0o600
        assert alone.log.stat().st_mode & 0o777 == 0o600
        assert run("node", "status", "--home", root, "--json").value["running"] is True
        assert "running" in run("node", "status", "--home", root).out
        assert run("peer", "list", "--home", root, "--json").value["peers"][0]["me"] is True
        assert run("node", "start", "--home", root).code == 2
        assert run("unlearn", "request", "--yes", "--home", root).code == 5
        assert run("unlearn", "request", "--home", root).code == 2  # nobody to ask
        assert run("doctor", "--home", root).code == 0
        stopped = run("node", "stop", "--home", root, "--json")
        assert (stopped.code, stopped.value["running"]) == (0, False)
    finally:
        pid = running(alone)
        if pid:
            os.kill(pid, signal.SIGKILL)
    assert running(alone) is None
    assert run("node", "status", "--home", root, "--json").value["running"] is False
    assert run("node", "stop", "--home", root).code == 4


def test_a_learner_that_cannot_use_its_data_is_seen(run: "Run", alone: Home, tmp_path: Path) -> None:
    data = prepare_digits(tmp_path / "data", 4, 0.5, 1)[0]
    manifest = data / "dataset.toml"
    good = manifest.read_text()
    manifest.write_text(good.replace('prefix = "pixel"', 'columns = ["pixel0", "pixel1"]'))
    text = alone.config.read_text().replace('path = ""', f'path = "{data}"').replace("lot_size = 0.0", "lot_size = 9.0")
    text = text.replace('policy = "dp"', 'policy = "open"')
    alone.config.write_text(text)
    root = alone.root
    try:
        begun = run("node", "start", "--wait", 600, "--home", root)
        assert (begun.code, begun.out.split()[0]) == (8, "running"), begun.err
        assert "cannot train: the learner failed: modality 'image'" in begun.err

        def status() -> Any:
            return run("node", "status", "--home", root, "--json").value

        wait_for(lambda: status()["live"]["learner"]["state"] == "failed", status)
        state = status()
        assert "'image': the data have image of 2 features" in state["live"]["learner"]["detail"]
        assert any("nothing is trained here" in note and "2 features" in note for note in state["notes"])
        shown = " ".join(run("node", "status", "--home", root).out.split())
        assert "2 features" in shown
        checked = run("doctor", "--home", root, "--json")
        assert checked.code == 1
        (check,) = [check for check in checked.value["checks"] if check["check"] == "learner"]
        assert check["verdict"] == "fail"
        assert "2 features" in check["found"]
        assert "dataset.toml" in check["found"]
        (note,) = [note for note in state["notes"] if "2 features" in note]
        assert "no restart is needed" in note
        assert note == f"{check['found']} {check['advice']}"
        assert sum("2 features" in check["found"] for check in checked.value["checks"]) == 1

        # The check of the folder says the same, and the daemon comes back by itself once it is mended.
        checked = run("data", "check", data, "--home", root)
        assert checked.code == 2
        reason, advice = state["live"]["learner"]["detail"].split(". Declare ")
        assert reason in " ".join(checked.err.split())
        assert advice in " ".join(checked.err.split())
        assert "can train" not in checked.out
        assert run("data", "check", data).code == 0, "no charter is at hand"
        manifest.write_text(good)
        checked = run("data", "check", data, "--home", root)
        assert (checked.code, "can train on this folder" in checked.out) == (0, True), checked.err
        wait_for(lambda: status()["live"]["learner"]["state"] in {"ready", "training"}, status)
    finally:
        run("node", "stop", "--home", root, "--force")
        pid = running(alone)
        if pid:
            os.kill(pid, signal.SIGKILL)


def test_the_reason_is_said_when_it_does_not_start(run: "Run", alone: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = re.sub(r"/tcp/\d+", f"/tcp/{port}", alone.config.read_text())
        alone.config.write_text(text)
        answer = run("node", "start", "--home", alone.root)
    assert answer.code == 2
    assert str(port) in answer.err
    assert "did not start" in answer.err
    assert running(alone) is None


def test_a_wrong_config_is_named(run: "Run", alone: Home) -> None:
    alone.config.write_text("[node]\nnmae = 'typo'\n")
    answer = run("node", "start", "--home", alone.root, "--json")
    assert (answer.code, answer.value["exit_code"]) == (2, 2)
    assert "nmae" in answer.value["error"]


def process_that(code: str, home: Home) -> subprocess.Popen[bytes]:
    with home.log.open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)


def test_old_lines_of_the_log_are_not_the_reason(alone: Home) -> None:
    alone.log.write_text("collegium: an old error\n")
    offset = alone.log.stat().st_size
    with pytest.raises(RefusedError, match="wrote nothing"):
        node_module.wait_until_up(alone, process_that("import sys; sys.exit(5)", alone), offset, LIMIT)
    script = "import sys; print('collegium: the new one', file=sys.stderr); sys.exit(5)"
    with pytest.raises(RefusedError, match="the new one"):
        node_module.wait_until_up(alone, process_that(script, alone), offset, LIMIT)


def test_a_silent_death_gives_the_status(alone: Home) -> None:
    alone.log.write_text("")
    with pytest.raises(CollegiumError, match="ended with status -9 and wrote nothing"):
        node_module.wait_until_up(alone, process_that("import os; os.kill(os.getpid(), 9)", alone), 0, LIMIT)


def test_a_crash_without_a_word_of_ours_gives_the_last_lines(alone: Home) -> None:
    alone.log.write_text("")
    with pytest.raises(CollegiumError, match="ZeroDivisionError"):
        node_module.wait_until_up(alone, process_that("1/0", alone), 0, LIMIT)


def test_one_that_takes_too_long_is_left_running_and_its_last_word_told(alone: Home) -> None:
    alone.log.write_text("")
    process = process_that("import time; print('loading', flush=True); time.sleep(600)", alone)
    try:
        wait_for(lambda: "loading" in alone.log.read_text())
        with pytest.raises(UnreachableError, match="loading"):
            node_module.wait_until_up(alone, process, 0, 1.5)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_g6_what_waits_for_other_trainers_is_said_in_words() -> None:
    one: Any = {"component": "head/a", "trainers": 1, "needed": 2, "why": "1 of 2 trainers; north: it is paused"}
    assert training.trained({"trained": ["head/a"], "waiting": [one], "idle": []}) == (
        "1 component; it waits: 1 of 2 trainers; north: it is paused"
    )
    both: Any = [one, {**one, "component": "head/b"}]
    assert training.trained({"trained": ["head/a", "head/b", "head/c"], "waiting": both, "idle": []}) == (
        "3 components; 2 of them wait: 1 of 2 trainers; north: it is paused"
    )


def test_a_node_that_is_not_admitted_yet_is_not_said_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    learner = {"state": "ready", "device": "cpu", "cut_texts": {}, "left_out": 0, "warnings": []}
    started: Any = {"learner": learner, "data": None, "training": {"trained": ["head/a"], "waiting": [], "idle": []}}
    started |= {"unmatched": [], "older": [], "paused": [], "quiet": []}
    started["is_member"] = True
    training.tell(console(), started)
    assert "training: 1 component\n" in capsys.readouterr().out
    started["is_member"] = False
    training.tell(console(), started)
    text = " ".join(capsys.readouterr().out.split())
    assert "training: nothing yet: this node waits to be admitted. The members decide" in text
    assert "1 component" not in text


def test_the_passphrase_travels_by_environment_and_is_not_an_argument(
    alone: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}

    def pretend(words: list[str], **options: object) -> object:
        seen.update(words=words, environment=options["env"])
        return object()

    monkeypatch.setattr("collegium.cli.node.subprocess.Popen", pretend)
    node_module.spawn(alone, "open sesame")
    assert "open sesame" not in json.dumps(seen["words"])
    environment = seen["environment"]
    assert isinstance(environment, dict)
    assert environment["COLLEGIUM_PASSPHRASE"] == "open sesame"
    monkeypatch.setenv("COLLEGIUM_PASSPHRASE", "left over")
    node_module.spawn(alone, None)
    environment = seen["environment"]
    assert isinstance(environment, dict)
    assert "COLLEGIUM_PASSPHRASE" not in environment


def test_stop_reaches_a_daemon_that_lost_its_socket(run: "Run", tmp_path: Path) -> None:
    home = Home(tmp_path / "held")
    home.make()
    code = (
        "import sys, time; from pathlib import Path; from collegium.node.home import Home, hold\n"
        "with hold(Home(Path(sys.argv[1]))):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert run("node", "stop", "--home", home.root).code == 0
        assert process.wait(LIMIT) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
