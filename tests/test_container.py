"""The Containerfile: what it copies is there and is enough, and the image runs a node as nobody special."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cli.test_pages import wrong
from .test_packaging import modules
from .waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
HOME = "/var/lib/collegium"


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, lines that go on put together."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]


def copied() -> list[tuple[str, str]]:
    """The names in this checkout that are copied, and where to; not those of an earlier stage."""
    found = []
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            *sources, target = shlex.split(rest)
            found += [(source, source if target == "./" else target) for source in sources]
    return found


def of(word: str) -> str:
    """The last instruction of this kind."""
    return [rest for each, rest in instructions() if each == word][-1]


def test_what_is_copied_is_there_and_makes_the_whole_package(tmp_path: Path) -> None:
    for source, target in copied():
        place = ROOT / source
        assert place.exists(), source
        if place.is_dir():
            shutil.copytree(place, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, tmp_path / target)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as archive:
        assert {name for name in archive.namelist() if name.startswith("collegium/")} == modules()
        scripts = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert f"\n{json.loads(of('ENTRYPOINT'))[0]} = " in scripts


def test_nothing_but_what_is_copied_is_sent_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == {source for source, _ in copied()}


def test_the_image_runs_a_node_in_a_volume_and_as_no_root() -> None:
    assert of("USER") == "collegium"
    assert of("VOLUME") == HOME
    assert f"COLLEGIUM_HOME={HOME}" in of("ENV")
    typed = shlex.join([*json.loads(of("ENTRYPOINT")), *json.loads(of("CMD"))])
    assert typed == "collegium node start --foreground"
    health = of("HEALTHCHECK").partition(" CMD ")[2]
    assert [wrong(typed), wrong(health)] == ["", ""]
    for found, healthy in ((0, True), (1, True), (2, False)):  # the exit codes of --check
        done = subprocess.run(["sh", "-c", f"collegium() {{ return {found}; }}; {health}"], check=False)
        assert done.returncode == (0 if healthy else 1)


def test_the_version_of_torch_is_that_of_the_checks() -> None:
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    assert any(pin in rest.split() for word, rest in instructions() if word == "RUN")


def builder() -> str:
    """The builder that works here; empty if there is none."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], check=False, capture_output=True).returncode == 0:
            return name
    return ""


@pytest.fixture
def image() -> Iterator[tuple[str, str]]:
    """The builder's name and that of the built image. COLLEGIUM_TORCH_INDEX: of PyTorch's packages for CPUs."""
    name = builder()
    if not name:
        pytest.skip("neither podman nor docker works here: nothing is built")
    tag, index = f"collegium-test-{os.getpid()}", os.environ.get("COLLEGIUM_TORCH_INDEX", "")
    choice = ["--build-arg", f"TORCH_INDEX={index}"] if index else ["--build-arg", "CUDA=yes"]
    shape = ["--format", "docker"] if name == "podman" else []
    subprocess.run([name, "build", *shape, *choice, "-f", "Containerfile", "-t", tag, "."], cwd=ROOT, check=True)
    try:
        yield name, tag
    finally:
        for words in (["rm", "--force", tag], ["volume", "rm", "--force", tag], ["rmi", "--force", tag]):
            subprocess.run([name, *words], check=False, capture_output=True)


@pytest.mark.soak  # it downloads and builds for minutes; the tests above are its short form
def test_the_image_is_built_and_a_node_lives_in_it(image: tuple[str, str]) -> None:
    name, tag = image

    def run(*words: str, entry: tuple[str, ...] = ()) -> str:
        command = [name, "run", "--rm", "--volume", f"{tag}:{HOME}", *entry, tag, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert run("-u", entry=("--entrypoint", "id")).strip() == "10001"
    address = "/ip4/127.0.0.1/tcp/4001"
    member = json.loads(run("init", "--name", "alone", "--listen", address, "--json"))["member"]
    run("charter", "create", "--name", "one", "--preset", "digits", "--member", member, "--fault-model", "crash")
    run("charter", "sign", "--yes")
    start = [name, "run", "--detach", "--init", "--name", tag, "--volume", f"{tag}:{HOME}", "--read-only"]
    subprocess.run([*start, "--tmpfs", "/tmp", "--cap-drop", "all", tag], check=True)

    def healthy() -> bool:
        check = [name, "exec", tag, "collegium", "node", "status", "--check"]
        return subprocess.run(check, check=False, capture_output=True).returncode in (0, 1)

    wait_for(healthy, lambda: subprocess.run([name, "logs", tag], check=False, capture_output=True, text=True).stdout)
    subprocess.run([name, "stop", tag], check=True)
    ended = subprocess.run([name, "inspect", "--format", "{{.State.ExitCode}}", tag], check=True, capture_output=True)
    assert ended.stdout.strip() == b"0"
