"""Standard output and error as they are in pipes, on full disks and in other encodings; homes of every kind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COLLEGIUM = (sys.executable, "-P", "-m", "collegium.cli.main")


def shell(line: str, **environment: str | None) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of bash in which "$@" is the command; the exit code is that of the first in a pipe."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COLLEGIUM_")}
    kept |= {name: value for name, value in environment.items() if value is not None}
    kept = {name: value for name, value in kept.items() if environment.get(name, "") is not None}
    words = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}", "bash", *COLLEGIUM]
    return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, env=kept, check=False, timeout=120)


@pytest.mark.parametrize("words", ["sim list", "sim list --json"])
def test_who_reads_no_further_hears_of_no_error(words: str) -> None:
    """The reader is gone before anything is written: 141, as of any other program, and nothing on standard error."""
    done = shell(f'(sleep 0.3; exec "$@" {words}) | true')
    assert (done.returncode, done.stderr) == (141, b"")
    done = shell(f'"$@" {words} | head -n 2')
    assert (done.returncode in (0, 141), done.stderr) == (True, b"")
    assert len(done.stdout.splitlines()) == 2, "nothing of what was read is lost"


@pytest.mark.parametrize("words", ["sim list", "sim list --json"])
def test_a_full_disk_is_told_as_that(words: str) -> None:
    done = shell(f'"$@" {words} > /dev/full')
    assert done.returncode == 1
    assert b"cannot write the output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"bug" not in done.stderr


def test_a_closed_stream_ends_no_command() -> None:
    assert shell('"$@" sim list >&-').returncode == 0
    done = shell('"$@" sim list 2>&-')
    assert (done.returncode, b"calm" in done.stdout) == (0, True)


def test_an_encoding_without_our_letters_ends_no_command() -> None:
    done = shell('"$@" privacy presets', PYTHONIOENCODING="ascii")
    assert (done.returncode, b"bug" in done.stderr) == (0, False), done.stderr
    assert done.stdout
    done = shell('"$@" node status --home $(printf "/nowhere/\\xff")')
    assert (done.returncode, b"There is no node in" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("home", ["/etc/passwd", "x" * 300])
def test_without_a_home_directory_the_answer_says_so(home: str) -> None:
    done = shell('"$@" node status', HOME=home)
    assert done.returncode == 2, done.stderr
    assert b"internal error" not in done.stderr


def test_a_home_with_spaces_and_other_letters_is_one(tmp_path: Path) -> None:
    home = tmp_path / "Schule zur Brücke – №1 'é"
    words = '--home "$PLACE" init --name one --listen /ip4/127.0.0.1/tcp/45123'
    done = shell(f'"$@" {words}', PLACE=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "config.toml").exists()
    assert shell('"$@" doctor', COLLEGIUM_HOME=str(home)).returncode in (0, 1)
