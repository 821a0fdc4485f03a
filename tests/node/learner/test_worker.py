"""The worker as a process: frames in, frames out."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.learner.protocol import FRAME_LIMIT, Message, read_frame, write_frame
from collegium.protocol.schema import to_map
from collegium.sims.learn.datasets import prepare_digits

from ...waiting import LIMIT

Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_digits(tmp_path_factory.mktemp("digits"), 4, 0.5, 1)[0]


def started() -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", "collegium.node.learner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def shared() -> Iterator[Process]:
    """One worker for the tests that leave it alive: torch takes seconds to import."""
    yield from started()


@pytest.fixture
def worker() -> Iterator[Process]:
    yield from started()


def pipes(worker: Process) -> tuple[BinaryIO, BinaryIO]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    return worker.stdin, worker.stdout  # type: ignore[return-value]  # IO[bytes] of a pipe is a BinaryIO


def ask(worker: Process, op: str, **fields: Any) -> tuple[Message, list[Message]]:
    requests, responses = pipes(worker)
    write_frame(requests, {"id": 7, "op": op, **fields})
    progress: list[Message] = []
    while True:
        message = read_frame(responses)
        assert message is not None
        assert message["id"] == 7
        if "progress" not in message:
            return message, progress
        progress.append(message)


def opening(folder: Path) -> Message:
    specs, learning = preset("digits", dp=True, epsilon=8.0, delta=1e-5, rounds=10, institutions=4)
    return {
        "data": str(folder),
        "components": [to_map(spec) for spec in specs],
        "learning": to_map(learning),
        "base_seed": NO_SEED,
        "hosted": [spec.name for spec in specs],
        "seed": 5,
    }


ENGAGED = {
    "encoder/image": {"clip": 1.0, "noise": 0.0, "learning_rate": 1.0},
    "head/digit": {"clip": 1.0, "noise": 0.0, "learning_rate": 1.0},
}


def test_open_train_evaluate(shared: Process, folder: Path) -> None:
    opened, _ = ask(shared, "open", **opening(folder))
    assert opened["ok"], opened
    assert opened["components"] == {"encoder/image": 2080, "head/digit": 330}
    assert opened["modalities"]["image"]["width"] == 64
    assert opened["simulated"] is True
    before, _ = ask(shared, "evaluate", states={}, split="held_out")
    trained, progress = ask(
        shared, "train", states={}, engaged=ENGAGED, steps=20, sample_rate=0.3, lot=0.3 * opened["subjects"]
    )
    assert trained["ok"], trained
    assert progress[-1] == {"id": 7, "progress": 20, "total": 20}
    states = {
        name: (256 * np.frombuffer(raw, "<i1").astype(np.int32)).tobytes() for name, raw in trained["updates"].items()
    }
    after, _ = ask(shared, "evaluate", states=states, split="held_out")
    assert after["tasks"]["digit"]["n"] == opened["held_out"]
    assert after["tasks"]["digit"]["metric"] == "accuracy"
    assert after["tasks"]["digit"]["value"] > before["tasks"]["digit"]["value"] + 0.3
    empty = {name: bytes(4 * size) for name, size in opened["components"].items()}
    variants: list[dict[str, bytes]] = [{name: zeros} for name, zeros in empty.items()]
    variants.append({})
    many, _ = ask(shared, "evaluate_variants", states=states, variants=variants)
    for variant, each in zip(variants, many["variants"], strict=True):
        alone, _ = ask(shared, "evaluate", states=states | variant)
        assert each["digit"] == {key: alone["tasks"]["digit"][key] for key in ("metric", "value", "n")}
    assert len({each["digit"]["value"] for each in many["variants"]}) > 1
    scores, _ = ask(shared, "predict_scores", states=states)
    found = scores["tasks"]["digit"]
    right = np.mean(np.argmax(found["scores"], axis=1) == np.array(found["labels"])[:, 0])
    assert right == after["tasks"]["digit"]["value"]
    assert len(set(found["subjects"])) == opened["held_out"]


def test_one_seed_gives_one_result_and_no_seed_another_each_time(shared: Process, folder: Path) -> None:
    def update(seed: int | None) -> bytes:
        opened, _ = ask(shared, "open", **(opening(folder) | {"seed": seed}))
        assert opened["simulated"] is (seed is not None)
        rules = {"head/digit": {"clip": 1.0, "noise": 2.0, "learning_rate": 1.0}}
        trained, _ = ask(shared, "train", states={}, engaged=rules, steps=1, sample_rate=0.3, lot=100.0)
        assert set(trained["updates"]) == {"head/digit"}
        return bytes(trained["updates"]["head/digit"])

    assert update(5) == update(5) != update(6)
    assert update(None) != update(None)


def test_privacy_operations(shared: Process) -> None:
    answer, _ = ask(shared, "epsilon", events=[[0.05, 0.7682212795973759, 400]], delta=1e-5)
    assert answer["claimed"] == 11779
    answer, _ = ask(shared, "epsilon", events=[[0.05, 0.0, 1]], delta=1e-5)
    assert answer["epsilon"] == float("inf")
    answer, _ = ask(
        shared, "budget", sample_rate=10**5, steps=8, rounds=2, lines=64, recovery_share=250_000, recovery_open=False,
        modalities=[{"name": "m", "epsilon": 8000, "delta": 10**4, "spent": [[10**5, 10**6, 8]], "components": ["c"]}],
        components=[{"name": "c", "noise": 10**6, "last": 0, "clip": 10**6, "utility": 10**6, "dimension": 9}],
    )  # fmt: skip
    assert (answer["allowed"], answer["reason"]) == (True, "")
    assert answer["noises"] == {"c": 10**6}
    assert answer["modalities"]["m"]["limit"] == 6000
    assert answer["modalities"]["m"]["rounds_left"] > 2
    answer, _ = ask(shared, "cross_check", events=[[0.05, 0.7682212795973759, 400]], delta=1e-5)
    assert 11.77 < answer["pld"] <= answer["prv"] + 0.01 < 11.85
    answer, _ = ask(shared, "cross_check", events=[[0.05, 2.0, 400]], delta=1e-5)
    assert 0.0 < answer["pld"] - 0.01 <= answer["prv"] <= answer["pld"] + 2 * answer["error"] < 8.13


def refusals(folder: Path) -> dict[str, tuple[str, Message, str]]:
    good = opening(folder)
    train = {"states": {}, "engaged": ENGAGED, "steps": 1, "sample_rate": 0.1, "lot": 10.0}
    wide = [dict(good["learning"]["modalities"][0], width=65)]
    return {
        "an unknown operation": ("explain", {}, "unknown operation 'explain'"),
        "training before opening": ("train", train | {"session": "another"}, "no data folder is open"),
        "another base seed": ("open", good | {"base_seed": bytes(31) + b"x"}, "initial weights differ"),
        "a component that the charter lacks": ("open", good | {"hosted": ["head/x"]}, "not in the charter"),
        "another width": ("open", good | {"learning": good["learning"] | {"modalities": wide}}, "64 features"),
        "a folder that is not there": ("open", good | {"data": str(folder / "x")}, "there is no such folder"),
        "a malformed spec": ("open", good | {"components": [{"name": 1}]}, "invalid"),
        "a field of the wrong type": ("open", good | {"data": 3}, "data is missing or no str"),
        "an opening without fields": ("open", {}, "missing"),
    }


def test_refusals_name_the_fault_and_the_worker_goes_on(shared: Process, folder: Path) -> None:
    for name, (op, fields, text) in refusals(folder).items():
        answer, _ = ask(shared, op, **fields)
        assert answer["ok"] is False, name
        assert text in answer["error"], (name, answer)
    assert ask(shared, "open", **opening(folder))[0]["ok"]
    answer, _ = ask(shared, "train", states={"head/digit": b"1"}, engaged=ENGAGED, steps=1, sample_rate=0.1, lot=1.0)
    assert "has 1 bytes" in answer["error"]
    answer, _ = ask(shared, "train", states={}, engaged=ENGAGED, steps=1, sample_rate=float("nan"), lot=1.0)
    assert "sample_rate" in answer["error"]


def test_a_garbage_frame_is_answered_and_the_worker_goes_on(shared: Process) -> None:
    requests, responses = pipes(shared)
    for body in (b"\xc1\xc1\xc1", b"\x93\x01\x02\x03", b"\x81\x01\x02", b"", b"\x81\xa1a"):
        requests.write(struct.pack(">I", len(body)) + body)
        requests.flush()
        answer = read_frame(responses)
        assert answer is not None
        assert answer["ok"] is False
        assert answer["id"] is None
    assert ask(shared, "epsilon", events=[], delta=1e-5)[0]["claimed"] == 0


def test_an_oversized_frame_ends_the_worker_with_a_named_error(worker: Process) -> None:
    requests, responses = pipes(worker)
    requests.write(struct.pack(">I", FRAME_LIMIT + 1))
    requests.flush()
    answer = read_frame(responses)
    assert answer is not None
    assert answer["ok"] is False
    assert worker.wait(LIMIT) == 3


def test_closing_the_input_ends_the_worker_which_has_nothing_to_say(worker: Process) -> None:
    _, errors = worker.communicate(timeout=LIMIT)
    assert (worker.returncode, errors) == (0, b"")


def test_a_killed_worker_ends_the_stream(shared: Process, folder: Path) -> None:
    """The last test of this file: it kills the worker that the others share."""
    assert ask(shared, "open", **opening(folder))[0]["ok"]
    requests, responses = pipes(shared)
    write_frame(
        requests,
        {"id": 8, "op": "train", "states": {}, "engaged": ENGAGED, "steps": 100_000, "sample_rate": 0.3, "lot": 100.0},
    )
    assert read_frame(responses) is not None  # it is training
    os.kill(shared.pid, signal.SIGKILL)
    assert shared.wait(LIMIT) == -signal.SIGKILL
    while (message := read_frame(responses)) is not None:
        assert "progress" in message
