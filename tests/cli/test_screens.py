"""What stands on the screen: `node status --watch` of a real daemon, the demo's live table, tables at 80 columns."""

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console
from rich.live import Live

from collegium.cli import output
from collegium.sims.processes.federation import free_ports
from collegium.sims.processes.observe import View
from collegium.sims.processes.report import Progress

from .terminal import Screen, Terminal

COLLEGIUM = (sys.executable, "-P", "-m", "collegium.cli.main")
SIZES = [(80, 24), (120, 40)]


def collegium(*words: object) -> str:
    done = subprocess.run([*COLLEGIUM, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that `init` made, of a federation of one, with its daemon."""
    home = tmp_path_factory.mktemp("screens") / "school-a"
    (port,) = free_ports(1)
    address = f"/ip4/127.0.0.1/tcp/{port}"
    answer = collegium("--home", home, "init", "--name", "school-a", "--listen", address)
    (key,) = re.findall(r"public key\s+([0-9a-f]{64})", answer)
    collegium(
        *("--home", home, "charter", "create", "--name", "ours", "--preset", "digits"),
        *("--member", f"school-a={key}@{address}", "--fault-model", "crash"),
    )
    collegium("--home", home, "charter", "sign", "--yes")
    collegium("--home", home, "node", "start", "--wait", 120)
    yield home
    collegium("--home", home, "node", "stop", "--force")


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(words: Sequence[str], columns: int, rows: int) -> Terminal:
        started.append(Terminal(words, columns, rows))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_the_watched_status_stands_on_the_screen(
    node: Path, terminal: Callable[..., Terminal], columns: int, rows: int
) -> None:
    """Line for line what `node status` prints, over the whole screen, again and again; Ctrl-C gives the screen back."""
    words = [*COLLEGIUM, "--home", str(node), "node", "status", "--watch", "--interval", "0.3"]
    seen = terminal(words, columns, rows)
    pictures: list[list[str]] = []

    def thrice(screen: Screen) -> bool:
        if "head/digit" in screen.text and "statistic/digit" in screen.text:
            pictures.append(screen.lines)
        return len(pictures) > 3

    screen = seen.until(thrice)
    assert screen.full
    lines = screen.lines
    assert re.fullmatch(r"node +school-a, running", lines[0])
    assert re.match(r"federation +ours, ", lines[1])
    assert not any("Text" in line or "\x1b" in line or "[" in line for line in lines), "no code, no escape"
    assert sum(line.startswith("federation") for line in lines) == 1, "the pictures stand one over the other"
    (head,) = (line for line in lines if line.startswith("component"))
    assert head.split() == ["component", "round", "generation", "trainers", "state", "digest"]
    seen.end(interrupt=True)
    assert (screen.full, seen.code) == (False, 130)


def test_a_low_window_says_what_it_does_not_show(node: Path, terminal: Callable[..., Terminal]) -> None:
    seen = terminal([*COLLEGIUM, "--home", str(node), "node", "status", "--watch"], 80, 6)
    screen = seen.until(lambda screen: "more lines: make the window higher" in screen.lines[-1])
    assert screen.lines[0].startswith("node")
    seen.end(interrupt=True)


def test_watched_into_a_pipe_it_is_one_picture_after_the_other(node: Path) -> None:
    with subprocess.Popen(
        [*COLLEGIUM, "--home", str(node), "node", "status", "--watch", "--interval", "0.2"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = 0
        while seen < 3:
            line = process.stdout.readline()
            assert "\x1b" not in line
            seen += line.startswith("federation")
        process.terminate()


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_the_live_table_of_the_demo_shows_the_newest_rounds(columns: int, rows: int) -> None:
    """Rounds come one by one; the last one is always there, whole, and what is left out is told."""
    keys = [bytes([n]) * 32 for n in range(1, 5)]
    views = [View() for _ in keys]
    charter = cast("Any", SimpleNamespace(components=(SimpleNamespace(name="head/digit", is_statistic=False),)))
    schools = cast("Any", [SimpleNamespace(name=f"school-{n + 1}") for n in range(4)])
    table = Progress(views, schools, charter, "accuracy", 1.0, {key: f"school-{n + 1}" for n, key in enumerate(keys)})
    file = io.StringIO()
    console = Console(
        file=file, width=columns, height=rows, force_terminal=True, color_system=None, legacy_windows=False
    )
    screen = Screen(columns, rows)
    with Live(table, console=console, auto_refresh=False) as live:
        for round_ in range(1, 31):
            absent = {keys[1].hex(): "no update, no connection from here"} if round_ % 3 == 0 else {}
            for view in views:
                view.notes["head/digit", round_] = {
                    "counted": [key.hex() for key in keys if key.hex() not in absent],
                    "missing": absent,
                    "received": 1000.0 * round_,
                    "trained_at": float(round_),
                    "folded_at": round_ + 0.25,
                }
                view.metrics[0, round_] = 0.5 + round_ / 100
            live.update(replace(table), refresh=True)
            screen.feed(file.getvalue().replace("\n", "\r\n").encode())
            file.seek(0)
            file.truncate()
            rows_ = [line for line in screen.lines if re.search(rf"│ +{round_} │", line)]
            assert len(rows_) == 1, screen.text
            assert f"{0.5 + round_ / 100:.3f}" in rows_[0]
            assert "…" not in screen.text.replace(" … ", " ") or round_ == 1, screen.text
    assert "school-4: height 0" in " ".join(screen.text.split())
    assert "are not shown" in " ".join(screen.text.split())
    views[1].notes["head/digit", 30]["trained_at"] = 31.0  # it was killed, and trained for a round that was over
    views[0].epsilon = 3130
    file.seek(0)
    file.truncate()
    console.print(replace(table, whole=True))
    printed = file.getvalue()
    numbers = [round_ for round_ in range(1, 31) if re.search(rf"│ +{round_} │", printed)]
    assert numbers == [*range(1, 31)], "what scrolled by can be read at the end"
    assert "are not shown" not in printed
    assert "-" not in printed.replace("school-", ""), "no negative seconds"
    assert "ε of one student up to 3.13" in " ".join(printed.split())


def drawn(width: int, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    file = io.StringIO()
    output.table(Console(file=file, width=width, markup=False, highlight=False), columns, rows, empty="")
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_table_is_never_wider_than_the_screen_and_breaks_no_word() -> None:
    digest = "0123456789abcdef" * 4
    reason = "it sends noise since the third of May, and nobody answers there"
    for columns, rows in (
        (("component", "round", "digest"), [("encoder/image", 8, digest), ("head/digit", 8, digest)]),
        (("motion", "what", "by", "until height", "reason"), [("9dafe150", "expel d", "school-a", 596, reason)]),
        (("one",), [(digest,)]),
    ):
        for width in (80, 100, 200):
            lines = drawn(width, columns, rows)
            assert max(map(len, lines)) <= width
            words = " ".join(lines).split()
            for row in rows:
                assert all(word in words for cell in row for word in str(cell).split()), lines
    lines = drawn(200, ("component", "digest"), [("encoder/image", digest)])
    assert lines == ["component      digest", f"encoder/image  {digest}"]


def test_facts_put_what_is_too_long_below_its_name() -> None:
    file = io.StringIO()
    digest = "0123456789abcdef" * 4
    console = Console(file=file, width=80, markup=False, highlight=False, force_terminal=True, color_system=None)
    output.facts(console, [("federation", f"ours, {digest}"), ("the other public key", digest), ("height", 3)])
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "federation",
        f"  ours, {digest}",
        "the other public key",
        f"  {digest}",
        "height                3",
    ]


def test_values_of_the_programming_language_are_put_in_words() -> None:
    assert output.plain({"a": [1, None], "b": True, "c": {}}) == "a 1, –, b yes, c –"
