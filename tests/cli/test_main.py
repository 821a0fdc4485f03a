"""The command as a whole: help, exit codes, errors for people and for programs."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.cli import component
from collegium.cli.main import EXIT_CODES
from collegium.crypto import errors
from collegium.crypto.errors import CollegiumError

if TYPE_CHECKING:
    from .conftest import Run

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
SUBCLASSES = {
    errors.UsageError: 2,
    errors.CorruptError: 3,
    errors.UnreachableError: 4,
    errors.RefusedError: 5,
    errors.VerificationError: 6,
    errors.OperatorError: 1,
}


def test_exit_codes_are_those_of_the_errors_and_listed_everywhere(run: "Run") -> None:
    """They are stable: scripts depend on them. Changing this table is breaking."""
    assert {error: error.exit_code for error in SUBCLASSES} == SUBCLASSES
    assert set(EXIT_CODES) == {0, *SUBCLASSES.values(), 7, 8, 130, 141}  # 7 and 8 are no errors
    text = " ".join(run("--help").out.split())
    docs = DOCS.read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in text
        assert f"| {code} | {meaning}" in docs


@pytest.mark.parametrize("error", SUBCLASSES)
def test_an_error_becomes_a_line_advice_and_its_code(
    run: "Run", monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[errors.OperatorError]
) -> None:
    def fail(*_: object) -> object:
        raise error("It broke", "Mend it.")

    monkeypatch.setattr(component, "existing_home", fail)
    answer = run("component", "list")
    assert (answer.code, answer.out) == (error.exit_code, "")
    assert answer.err == "error: It broke\n  Mend it.\n"
    answer = run("component", "list", "--json")
    assert (answer.code, answer.err) == (error.exit_code, "")
    assert answer.value == {"error": "It broke", "advice": "Mend it.", "exit_code": error.exit_code}


def test_a_bug_is_said_shortly_and_its_traceback_kept(
    run: "Run", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> object:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(component, "existing_home", fail)
    answer = run("--home", tmp_path, "component", "list")
    assert answer.code == 1
    assert "internal error: ZeroDivisionError: by nothing" in answer.err
    assert "Traceback" not in answer.err
    log = tmp_path / "cli.log"
    assert str(log) in answer.err
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_interruption_is_130(run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(component, "existing_home", fail)
    assert run("component", "list").code == 130


@pytest.mark.parametrize(
    "words", [["nonsense"], ["node", "nonsense"], ["node", "status", "--nonsense"], ["round", "show", "x", "y"], []]
)
def test_wrong_commands_are_2(run: "Run", words: list[str]) -> None:
    answer = run(*words)
    assert answer.code == 2
    assert answer.err


def test_a_wrong_option_is_json_with_json(run: "Run") -> None:
    answer = run("node", "status", "--nonsense", "--json")
    assert (answer.code, answer.err) == (2, "")
    assert "--nonsense" in answer.value["error"]


def test_commands_without_a_node_say_where_they_looked(
    run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nowhere"
    for words in (("peer", "list"), ("--home", nowhere, "peer", "list"), ("peer", "list", "--home", nowhere)):
        answer = run(*words)
        assert answer.code == 2
        assert "There is no node in" in answer.err
    assert str(nowhere) in answer.err
    monkeypatch.setenv("COLLEGIUM_HOME", str(tmp_path / "by-environment"))
    assert "by-environment" in run("peer", "list").err


def test_the_version_is_the_packages(run: "Run") -> None:
    from importlib.metadata import version

    assert run("--version").out == f"collegium {version('collegium')}\n"


def test_help_loads_nothing_heavy() -> None:
    """Goal: 0.5 s. What is loaded is asserted and not the time, so that a busy machine does not decide."""
    code = "import sys, collegium.cli.main as m; m.main(['--help']); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not loaded & {
        "torch",
        "libp2p",
        "trio",
        "numpy",
        "rich",
        "httpx",
        "starlette",
        "sklearn",
        "structlog",
        "nacl",
    }


@pytest.mark.parametrize(
    ("words", "module", "attributes"),
    [
        (["demo", "--rounds", "4", "--no-dp", "--json"], "collegium.sims.processes.demo", {"rounds": 4, "dp": False}),
        (["bench", "fold", "--quick"], "collegium.sims.bench.run", {"name": "fold", "quick": True, "as_json": False}),
    ],
)
def test_demo_and_bench_hand_on_their_options_and_exit_code(
    run: "Run", monkeypatch: pytest.MonkeyPatch, words: list[str], module: str, attributes: dict[str, object]
) -> None:
    from types import SimpleNamespace

    seen: dict[str, object] = {}

    def pretend(**options: object) -> int:
        seen.update(options)
        return 1

    monkeypatch.setitem(sys.modules, module, SimpleNamespace(run=pretend))
    assert run(*words).code == 1
    assert attributes.items() <= seen.items()


@pytest.mark.parametrize("epsilon", ["nan", "0", "-1", "-inf", "1e6"])
def test_an_epsilon_that_is_none_is_refused(run: "Run", epsilon: str) -> None:
    answer = run("bench", "learn", "--epsilon", epsilon)
    assert (answer.code, "--epsilon" in answer.err) == (2, True)


def test_open_tasks_are_said_to_have_no_epsilon(run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "collegium.sims.learn.bench", SimpleNamespace(run=lambda **_: 0))
    for words, tasks in (
        (("--only", "fsdd", "--epsilon", "3"), ["fsdd"]),
        (("--epsilon", "3"), ["omniglot", "fsdd", "fsdd-pretrained", "omniglot-pretrained", "omniglot-sum"]),
        (("--only", "oulad", "--epsilon", "3"), []),
        (("--only", "fsdd", "--epsilon", "inf"), []),
        (("--only", "fsdd"), []),
    ):
        answer = run("bench", "learn", *words)
        assert (answer.code, answer.out) == (0, "")
        assert [line.split(" is open: ")[0] for line in answer.err.splitlines()] == tasks


def test_an_unknown_bench_is_refused(run: "Run") -> None:
    assert run("bench", "nonsense").code == 2


def test_every_error_class_has_a_code_of_the_table() -> None:
    todo: list[type[CollegiumError]] = [CollegiumError]
    while todo:
        cls = todo.pop()
        assert cls.exit_code in EXIT_CODES
        todo += cls.__subclasses__()
