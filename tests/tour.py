"""The tour in docs/tour.md, followed: its commands are run, and what they print has the lines that it shows.

`python tests/tour.py FOLDER` follows it on a federation that `collegium demo --keep FOLDER` left, and writes what was
printed into the page: the outputs there are never made by hand.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tour.md"
FOLDER = "/tmp/tour"
CUT = "…"
KEY = re.compile(r"^its key, for the student alone, shown this once: ([0-9a-f]+)", re.M)


@dataclass
class Step:
    """A command of the page, and the lines that are shown below it."""

    command: str
    shown: list[str]


def steps(page: str) -> Iterator[Step]:
    """Yield the page's commands in their order: lines that begin with a dollar sign, in blocks without a language."""
    inside, step = "", None
    for line in page.splitlines():
        if line.startswith("```"):
            inside = "" if inside else line
            if step is not None:
                yield step
            step = None
        elif inside == "```" and line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(line[2:], [])
        elif step is not None:
            step.shown.append(line)


def follow(step: Step, folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the page on a federation in `folder`; `key` is the receipt's, once it was shown."""
    command = step.command.replace(FOLDER, str(folder)).replace(f"5c0e{CUT}", key)
    environment = {
        **os.environ,
        "COLLEGIUM_HOME": str(folder / "school-1"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def holds(step: Step, code: int) -> bool:
    """Whether a command ended as it should: a receipt may be older than the round that closed meanwhile (exit 7)."""
    return code == 0 or (code == 7 and "verify /tmp/tour/receipt" in step.command)


def label(line: str) -> str:
    """Return what a line begins with in every run: the name of a fact or row, or the sentence without its numbers."""
    name = re.split(r"  +", line.strip(), maxsplit=1)[0]
    return re.sub(r"[0-9a-f]{8,}|\d[\d.,]*", "#", name)


def lacking(step: Step, printed: str) -> list[str]:
    """Return the lines of the page that nothing printed begins as; what a receipt says depends on the moment."""
    if "/receipt" in step.command:
        return []
    labels = {label(line) for line in printed.splitlines()}
    # A line that begins with space goes on with a sentence: where it breaks depends on the numbers in it.
    return [line for line in step.shown if line != CUT and line[:1] != " " and label(line) not in labels]


def retaken(page: str, folder: Path) -> str:
    """Return the page with what its commands print now; a block that was cut stays as long as it was."""
    key = ""
    for step in steps(page):
        done = follow(step, folder, key)
        if not holds(step, done.returncode):
            raise SystemExit(f"{step.command}: {done.returncode}\n{done.stdout}{done.stderr}")
        match = KEY.search(done.stdout)
        key = match[1] if match else key
        printed = (done.stdout + done.stderr if not done.stdout else done.stdout).rstrip().replace(str(folder), FOLDER)
        lines = [line.rstrip() for line in printed.splitlines()]
        if CUT in step.shown:
            at = step.shown.index(CUT)
            tail = len(step.shown) - at - 1
            lines = [*lines[:at], CUT, *(lines[-tail:] if tail else [])]
        old = "\n".join([f"$ {step.command}", *step.shown])
        new = "\n".join([f"$ {step.command}", *lines])
        page = page.replace(old, new.replace(key, f"5c0e{CUT}") if key else new, 1)
    return page


if __name__ == "__main__":
    PAGE.write_text(retaken(PAGE.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")
