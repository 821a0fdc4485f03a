"""A federation that is founded as its users found it: by the command alone, one process for each command.

Nothing here makes a file or folder that the product makes. What a test gives are data folders, model files and the
words of commands; homes come from `collegium init`, charters from `collegium charter`, daemons from `node start`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collegium.cli.node import look
from collegium.cli.output import json_text
from collegium.node.control.client import Client
from collegium.node.home import Home, running

COMMAND = Path(sys.executable).with_name("collegium")
PATIENCE = 900.0  # seconds; a limit for a machine with much other work, nothing is concluded from it


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


def collegium(*words: object, environment: dict[str, str] | None = None, timeout: float = PATIENCE) -> Answer:
    """Run `collegium WORDS` as a process of its own, without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COLLEGIUM_")}
    kept |= {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | (environment or {})
    done = subprocess.run(
        [COMMAND, *map(str, words)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=kept,
        timeout=timeout,
    )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


class Going:
    """A command that goes on for a while, its output in files: what it says is waited for."""

    def __init__(self, folder: Path, *words: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COLLEGIUM_")}
        self._out, self._err = folder / "out", folder / "err"
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background lets its children ignore it
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [COMMAND, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=kept | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            )
        signal.signal(signal.SIGINT, before)

    @property
    def out(self) -> str:
        """What it printed so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it said beside that so far."""
        return self._err.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[Any]:
        """The JSON values on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines(keepends=True) if line.endswith("\n")]

    def until(self, done: Callable[[], object], what: str) -> None:
        """Wait until `done` says something true; the test fails where the command ends before."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            ended = self.process.poll() is not None
            if ended and done():
                return
            assert not ended, f"ended with {self.process.returncode} before {what}\n{self.out}\n{self.err}"
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{self.out}\n{self.err}"
            time.sleep(0.1)

    def end(self, code: int = 0, *, interrupt: bool = False) -> Answer:
        """Wait for its end, after Ctrl-C if asked for."""
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        answer = Answer(self.process.wait(PATIENCE), self.out, self.err)
        assert answer.code == code, f"ended with {answer.code}, not {code}\n{answer.out}\n{answer.err}"
        return answer

    def kill(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def free_address() -> str:
    """Return an address of this machine alone, on a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"


@dataclass
class School:
    """One institution, by its name and home."""

    name: str
    home: Path
    member: str = ""  # NAME=KEY@ADDRESS, as init prints it

    def command(self, *words: object, code: int | None = 0) -> Answer:
        """Run a command in this home; with a `code` the test fails unless it ends with it."""
        done = collegium("--home", self.home, *words)
        if code is not None:
            message = f"{self.name}: collegium {' '.join(map(str, words))} ended with {done.code}"
            assert done.code == code, f"{message}\n{done.out}\n{done.err}\n{self.log()}"
        return done

    def ask(self, *words: object) -> Any:
        """Return what a reading command says under --json."""
        return self.command(*words, "--json").value

    def status(self) -> Any:
        """Return what `node status --json` prints, without a process for each look: tests wait by it."""
        return json.loads(json_text(look(Home(self.home))))

    def get(self, path: str, **query: int) -> Any:
        """Return what the running daemon answers, as the commands ask it: tests wait by it, as by `status`."""
        return Client(Home(self.home)).get(path, **query)

    def log(self, length: int = 4000) -> str:
        """Return the end of node.log."""
        path = self.home / "node.log"
        return path.read_text(errors="replace")[-length:] if path.exists() else "(no node.log)"

    def kill(self) -> None:
        """End the daemon and its worker, if they run: by their process id, as a power cut would."""
        with suppress(FileNotFoundError):
            pid = running(Home(self.home))
            while pid == 0:  # it starts at this moment, and has not written its id yet
                time.sleep(0.05)
                pid = running(Home(self.home))
            if pid:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


@dataclass
class Federation:
    """Schools with one charter, signed by all."""

    root: Path
    schools: list[School] = field(default_factory=list)
    away: list[School] = field(default_factory=list)  # of them those whose daemon does not have to run
    going: list[Going] = field(default_factory=list)
    kind: type[School] = School

    @property
    def here(self) -> list[School]:
        """The schools that are not away."""
        return [school for school in self.schools if school not in self.away]

    def init(self, name: str, data: Path | None, *, lot_size: float = 20.0, options: Sequence[object] = ()) -> School:
        """Make a home with `collegium init`."""
        school = self.kind(name, self.root / name)
        self.schools.append(school)
        words: list[object] = ["init", "--name", name, "--listen", free_address(), "--lot-size", lot_size, *options]
        if data is not None:
            words += ["--data", data]
        school.member = school.command(*words, "--json").value["member"]
        return school

    def go(self, school: School, *words: object) -> Going:
        """Run a command in this home that goes on beside the test."""
        folder = self.root / f"command-{len(self.going) + 1}"
        self.going.append(Going(folder, "--home", school.home, *words))
        return self.going[-1]

    def charter(self, *options: object) -> None:
        """Draw up a charter in the first home, have it signed by all, and hand it round once more."""
        first, *others = self.schools
        words = [word for school in self.schools for word in ("--member", school.member)]
        first.command("charter", "create", "--name", "first-week", *words, *options)
        first.command("charter", "sign", "--yes")
        if others:
            self.each("charter", "sign", "--yes", first.home / "charter.bin", schools=others)
            signed = [word for school in others for word in ("--merge", school.home / "charter.bin")]
            first.command("charter", "sign", "--yes", *signed)
            self.each("charter", "sign", "--yes", first.home / "charter.bin", schools=others)
        assert first.ask("charter", "verify")["complete"]

    def start(self, *options: object, code: int = 0) -> list[Any]:
        """Start every daemon, all at once; return what `node start --json` said of each."""
        return [answer.value for answer in self.each("node", "start", *options, "--json", code=code)]

    def stop(self) -> None:
        """Stop every daemon."""
        self.each("node", "stop")

    def each(self, *words: object, schools: Sequence[School] = (), code: int | None = 0) -> list[Answer]:
        """Run a command in the home of everybody who is not away, or of some schools, in all of them at once."""
        chosen = schools or self.here
        with ThreadPoolExecutor(len(chosen)) as pool:
            return list(pool.map(lambda school: school.command(*words, code=code), chosen))

    def wait(self, done: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait until `done` says something true. The test fails where a daemon ended, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not done():
            for school in self.here:
                assert running(Home(school.home)) is not None, f"{school.name} ended\n{school.log()}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.tail()}"
            time.sleep(1.0)

    def wait_rounds(self, number: int, *, counted: int | None = None, components: Iterable[str] = ()) -> None:
        """Wait until all have folded round `number` of each component, and see that they folded the same.

        A learner that failed ends the test at once.
        `counted`: of how many members at least an update is in the last round. Statistics have one round.
        """
        named = set(components)

        def there() -> bool:
            states = [school.status() for school in self.schools]
            for school, one in zip(self.schools, states, strict=True):
                learner = one["live"]["learner"] if one["live"] else {}
                assert learner.get("state") != "failed", f"{school.name}: {learner}\n{school.log()}"
                for component in one["components"]:
                    wanted = 1 if component["component"].startswith("statistic/") else number
                    if (not named or component["component"] in named) and (component["folded_round"] or 0) < wanted:
                        return False
            return True

        self.wait(there, f"round {number} of {', '.join(sorted(named)) or 'every component'}")
        rounds = [school.get("/rounds", limit=1000) for school in self.schools]
        by_name = [{(r["component"], r["round"]): r["digest"] for r in one if r["digest"]} for one in rounds]
        for key in set(by_name[0]).intersection(*by_name[1:]):
            assert len({one[key] for one in by_name}) == 1, f"states differ after {key}"
        if counted is not None:
            for r in rounds[0]:
                if (not named or r["component"] in named) and r["round"] == number:
                    assert len(r["counted"]) >= counted, f"{r['component']} round {number}: {r['counted']}"

    def tail(self) -> str:
        """Return what every node's log says last."""
        return "\n".join(f"--- {school.name}\n{school.log()}" for school in self.schools)


@contextmanager
def federations(root: Path) -> Iterator[Callable[[], Federation]]:
    """Give out federations below `root`; no daemon of theirs is left, whatever happens."""
    made: list[Federation] = []

    def found() -> Federation:
        folder = root / f"federation-{len(made) + 1}"
        folder.mkdir()
        made.append(Federation(folder))
        return made[-1]

    try:
        yield found
    finally:
        for command in [command for federation in made for command in federation.going]:
            command.kill()
        for school in [school for federation in made for school in federation.schools]:
            school.kill()
