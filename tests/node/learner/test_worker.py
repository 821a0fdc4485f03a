"""The worker as a process: frames in, frames out."""

import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, get_args, get_origin

import msgpack
import numpy as np
import pytest

from collegium.node.blueprint import recipe
from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.learner.answers import BadReplyError, BadRequestError, Failed, Figure, Progress, Reply, Trained
from collegium.node.learner.client import Worker
from collegium.node.learner.coding import REPLIES, REQUESTS, decode_reply, decode_request, encode, expect
from collegium.node.learner.frames import FRAME_LIMIT, read_frame, write_frame
from collegium.node.learner.messages import (
    Asks,
    CrossCheck,
    DecideRun,
    Engagement,
    Epsilon,
    Evaluate,
    EvaluateVariants,
    Open,
    PredictScores,
    Request,
    SampledSteps,
    Train,
)
from collegium.node.privacy.budget import Budget, Modality, NoisePart
from collegium.protocol.claims import DpEvents
from collegium.sims.learn.datasets import prepare_digits

from ...waiting import LIMIT

Process = subprocess.Popen[bytes]
A = TypeVar("A")


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


def send(worker: Process, request: Asks[Any], **fields: object) -> tuple[Reply, list[Progress]]:
    """Send a request, or one with other fields than its class has; return the reply and the progress before it."""
    requests, responses = pipes(worker)
    body = msgpack.unpackb(encode(7, request))
    write_frame(requests, msgpack.packb(body | {"fields": body["fields"] | fields}))
    progress: list[Progress] = []
    while (answer := read_frame(responses)) is not None:
        number, reply = decode_reply(answer)
        assert number == 7
        if not isinstance(reply, Progress):
            return reply, progress
        progress.append(reply)
    raise AssertionError("the worker ended")


def ask(worker: Process, request: Asks[A]) -> A:
    reply, _ = send(worker, request)
    assert not isinstance(reply, Failed | Progress), reply
    return expect(request, reply)


def opening(folder: Path) -> Open:
    specs, learning = preset("digits", budget=recipe.Budget(8.0, 1e-5, 10), rounds=10, institutions=4)
    return Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs), seed=5)


ENGAGED = dict.fromkeys(("encoder/image", "head/digit"), Engagement(1.0, 0.0, 1.0))


def test_open_train_evaluate(shared: Process, folder: Path) -> None:
    opened = ask(shared, opening(folder))
    assert opened.components == {"encoder/image": 2080, "head/digit": 330}
    assert opened.modalities["image"].width == 64
    assert opened.simulated is True
    before = ask(shared, Evaluate({})).tasks["digit"]
    reply, progress = send(shared, Train({}, ENGAGED, steps=20, sample_rate=0.3, lot=0.3 * opened.subjects))
    assert isinstance(reply, Trained)
    assert progress[-1] == Progress(20, 20)
    client, told = Worker(shared), list[tuple[int, int]]()
    client.told = lambda done, total: told.append((done, total))
    client.ask(Train({}, ENGAGED, steps=2, sample_rate=0.3, lot=0.3 * opened.subjects))
    assert told[-1] == (2, 2)
    states = {name: (256 * np.frombuffer(raw, "<i1").astype(np.int32)).tobytes() for name, raw in reply.updates.items()}
    after = ask(shared, Evaluate(states)).tasks["digit"]
    assert after.n == opened.held_out
    assert after.metric == "accuracy"
    assert before.value is not None
    assert after.value is not None
    assert after.value > before.value + 0.3
    variants: list[dict[str, bytes]] = [{name: bytes(4 * size)} for name, size in opened.components.items()]
    variants.append({})
    figures = ask(shared, EvaluateVariants(states, tuple(variants))).variants
    for variant, figure in zip(variants, figures, strict=True):
        alone = ask(shared, Evaluate(states | variant)).tasks["digit"]
        assert figure["digit"] == Figure(alone.metric, alone.value, alone.n)
    assert len({figure["digit"].value for figure in figures}) > 1
    predicted = ask(shared, PredictScores(states)).tasks["digit"]
    right = np.mean(np.argmax(predicted.scores, axis=1) == np.array(predicted.labels)[:, 0])
    assert right == after.value
    assert len(set(predicted.subjects)) == opened.held_out


def test_g6_a_training_run_draws_from_its_shard_alone(shared: Process, folder: Path) -> None:
    """Every student is in one shard, and in the same one after a restart and with other students there."""
    asked = opening(folder)
    sharded = replace(asked, learning=replace(asked.learning, shards=3))
    students = ask(shared, sharded).subjects
    drawn = [
        set(ask(shared, Train({}, ENGAGED, steps=1, sample_rate=1.0, lot=9.0, shard=shard)).subjects or ())
        for shard in range(3)
    ]
    assert sum(map(len, drawn)) == len(set.union(*drawn)) == students
    assert min(map(len, drawn)) > students / 6
    ask(shared, sharded)
    again = ask(shared, Train({}, ENGAGED, steps=8, sample_rate=0.5, lot=9.0, shard=1)).subjects
    assert set(again or ()) <= drawn[1]
    ask(shared, asked)  # one shard: all may be drawn
    assert len(ask(shared, Train({}, ENGAGED, steps=1, sample_rate=1.0, lot=9.0, shard=0)).subjects or ()) == students


def test_one_seed_gives_one_result_and_no_seed_another_each_time(shared: Process, folder: Path) -> None:
    def update(seed: int | None) -> bytes:
        opened = ask(shared, replace(opening(folder), seed=seed))
        assert opened.simulated is (seed is not None)
        trained = ask(shared, Train({}, {"head/digit": Engagement(1.0, 2.0, 1.0)}, 1, 0.3, 100.0))
        assert set(trained.updates) == {"head/digit"}
        return trained.updates["head/digit"]

    assert update(5) == update(5) != update(6)
    assert update(None) != update(None)


def test_privacy_operations(shared: Process) -> None:
    ran = (SampledSteps(0.05, 0.7682212795973759, 400),)
    assert ask(shared, Epsilon(ran, 1e-5)).claimed == 11779
    assert ask(shared, Epsilon((SampledSteps(0.05, 0.0, 1),), 1e-5)).epsilon == float("inf")
    budget = Budget(8000, 1e-5, 250_000, recovery_open=False)
    verdict = ask(
        shared,
        DecideRun(
            (Modality("m", budget, (DpEvents(10**5, 10**6, 8),), ("c",)),),
            (NoisePart("c", noise=10**6, last=0, clip=10**6, utility=10**6, dimension=9),),
            sample_rate=10**5, steps=8, rounds=2, lines=64,
        ),
    )  # fmt: skip
    assert (verdict.allowed, verdict.reason) == (True, "")
    assert verdict.noises == {"c": 10**6}
    assert verdict.modalities["m"].limit == 6000
    assert verdict.modalities["m"].rounds_left > 2


TRAIN = Train({}, ENGAGED, steps=1, sample_rate=0.1, lot=10.0)
UNREADABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a field of the wrong type": ("train", {"steps": "1"}, "Train.steps: str where int belongs"),
    "a field too many": ("train", {"epochs": 1}, r"Train: .*\['epochs'\]"),
    "a number that is none": ("train", {"sample_rate": float("nan")}, "Train.sample_rate: nan is not between 0 and 1"),
    "a number out of bounds": ("train", {"steps": 0}, "Train.steps: 0 is not between"),
    "no states": ("train", {"states": None}, "Train.states: no map"),
    "an unknown split": ("train", {"split": "test"}, "Train.split: 'test' is none of held_out"),
    "a rule without clip": ("train", {"engaged": {"head/digit": {}}}, "Train.engaged: Engagement: missing"),
    "an adapter of no known kind": ("open", {"private_adapter": {"kind": "full", "rank": 4}}, "'full' is none of lora"),
    "an adapter of no rank": ("open", {"private_adapter": {"kind": "lora", "rank": 0}}, "0 is not between"),
    "a malformed spec": ("open", {"components": [{"name": 1}]}, "Open.components: ComponentSpec: missing"),
    "no folder": ("open", {"data": []}, "Open.data: 0 is not between"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_request_that_does_not_decode_is_refused_by_its_field(shared: Process, folder: Path, name: str) -> None:
    kind, fields, text = UNREADABLE[name]
    reply, _ = send(shared, TRAIN if kind == "train" else opening(folder), **fields)
    assert isinstance(reply, Failed)
    assert (reply.kind, reply.exit_code) == ("bad-request", 2)
    assert re.search(text, reply.message), reply
    with pytest.raises(BadRequestError, match=text):  # as the worker's own errors, of the class that exits with 2
        decode_request(raw("train" if kind == "train" else "open", folder, fields))


def raw(kind: str, folder: Path, fields: dict[str, Any]) -> bytes:
    body = msgpack.unpackb(encode(7, TRAIN if kind == "train" else opening(folder)))
    return bytes(msgpack.packb(body | {"fields": body["fields"] | fields}))


@pytest.mark.parametrize("change", [{"note": ""}, {"id": 2**63}, {"id": -1}, {"id": True}, {"type": 3}])
def test_an_envelope_holds_an_id_in_bounds_a_type_and_fields_and_nothing_else(change: dict[str, Any]) -> None:
    request, reply = (msgpack.unpackb(encode(2**63 - 1, message)) for message in (CrossCheck((), 1e-5), Progress(1, 2)))
    assert decode_request(msgpack.packb(request))[0] == decode_reply(msgpack.packb(reply))[0] == 2**63 - 1
    with pytest.raises(BadRequestError):
        decode_request(msgpack.packb(request | change))
    with pytest.raises(BadReplyError):
        decode_reply(msgpack.packb(reply | change))


def test_refusals_name_the_fault_and_the_worker_goes_on(shared: Process, folder: Path) -> None:
    good = opening(folder)
    (modality,) = good.learning.modalities
    wide = replace(good.learning, modalities=(replace(modality, width=65),))
    refusals: list[tuple[Asks[Any], str, str]] = [
        (CrossCheck((), 1e-5), "bad-request", "audits nothing"),
        (replace(TRAIN, session="another"), "bad-request", "no data folder is open"),
        (replace(good, base_seed=bytes(31) + b"x"), "bad-request", "initial weights differ"),
        (replace(good, hosted=("head/x",)), "bad-request", "not in the charter"),
        (replace(good, learning=wide), "bad-data", "64 features"),
        (replace(good, data=(str(folder / "x"),)), "bad-data", "there is no such folder"),
    ]
    for request, kind, text in refusals:
        reply, _ = send(shared, request)
        assert isinstance(reply, Failed), text
        assert (reply.kind, reply.exit_code) == (kind, 2)
        assert text in reply.message, reply
    ask(shared, good)
    reply, _ = send(shared, replace(TRAIN, states={"head/digit": b"1"}))
    assert isinstance(reply, Failed)
    assert "has 1 bytes" in reply.message


@pytest.mark.parametrize("kind", [*REQUESTS.values()])
def test_every_request_says_what_answers_it(kind: type[Request]) -> None:
    (base,) = kind.__orig_bases__  # type: ignore[union-attr]  # Asks[…]
    assert get_origin(base) is Asks
    assert get_args(base)[0] in REPLIES.values()


def test_a_garbage_frame_is_answered_and_the_worker_goes_on(shared: Process) -> None:
    requests, responses = pipes(shared)
    for body in (b"\xc1\xc1\xc1", b"\x93\x01\x02\x03", b"\x81\x01\x02", b"", b"\x81\xa1a"):
        requests.write(struct.pack(">I", len(body)) + body)
        requests.flush()
        answer = read_frame(responses)
        assert answer is not None
        number, reply = decode_reply(answer)
        assert isinstance(reply, Failed)
        assert (number, reply.kind) == (0, "bad-request")
    assert ask(shared, Epsilon((), 1e-5)).claimed == 0


def test_an_oversized_frame_ends_the_worker_with_a_named_error(worker: Process) -> None:
    requests, responses = pipes(worker)
    requests.write(struct.pack(">I", FRAME_LIMIT + 1))
    requests.flush()
    answer = read_frame(responses)
    assert answer is not None
    assert isinstance(decode_reply(answer)[1], Failed)
    assert worker.wait(LIMIT) == 3


def test_closing_the_input_ends_the_worker_which_has_nothing_to_say(worker: Process) -> None:
    _, errors = worker.communicate(timeout=LIMIT)
    assert (worker.returncode, errors) == (0, b"")


def test_a_killed_worker_ends_the_stream(shared: Process, folder: Path) -> None:
    """The last test of this file: it kills the worker that the others share."""
    ask(shared, opening(folder))
    requests, responses = pipes(shared)
    write_frame(requests, encode(8, replace(TRAIN, steps=100_000)))
    assert read_frame(responses) is not None  # it is training
    os.kill(shared.pid, signal.SIGKILL)
    assert shared.wait(LIMIT) == -signal.SIGKILL
    while (body := read_frame(responses)) is not None:
        assert isinstance(decode_reply(body)[1], Progress)
