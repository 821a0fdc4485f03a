"""Hard personalisation: a node without audio holds no audio weights, on disk or in memory."""

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from collegium.node.blueprint.parts import encoder, head
from collegium.node.blueprint.recipe import Recipe, charter_parts
from collegium.node.control.client import Client
from collegium.node.core.events import Evaluate, Train
from collegium.node.core.events import Recipe as Recipes
from collegium.node.home.config import Privacy, load
from collegium.node.home.lock import hold
from collegium.node.home.policies import parts_here
from collegium.node.learner import client
from collegium.node.learner import messages as msg
from collegium.node.learner.client import Worker, worker
from collegium.node.learner.messages import Asks, Engagement, opening
from collegium.node.runtime.learner import LearnerError
from collegium.node.runtime.runtime import Runtime
from collegium.node.runtime.serve import load as load_all
from collegium.node.store.database import Store
from collegium.protocol.charter import Charter
from collegium.protocol.learning import Modality, Task
from collegium.protocol.records import GENESIS
from collegium.sims.processes.federation import SYNTHETIC, Agreed, Daemon, Institution, Settings, found
from collegium.sims.processes.observe import View, closed, fold_ledger, look

from ...waiting import wait_for

MARKS, SOUND = Modality("marks", "tabular", 1, 1), Modality("sound", "audio", 8, 4)
TASK = Task("pass", "binary", 2, ("marks", "sound"))
HELD = ("encoder/marks", "head/pass")
ROUNDS = 3

TOML = """
format = 1
[unit]
kind = "record"
[tables.t]
path = "t.csv"
key = "id"
[[modality]]
name = "marks"
kind = "tabular"
columns = [{ name = "a", low = 0, high = 1 }]
[[task]]
name = "pass"
kind = "binary"
column = "b"
positive = ["yes"]
[split]
share = 0.3
salt = "s"
"""
AUDIO = """
[[modality]]
name = "sound"
kind = "audio"
file = "clip"
rate = 8000
max_seconds = 1.0
bands = 8
frames = 4
"""


def federation(root: Path, learner: tuple[str, ...] = SYNTHETIC) -> tuple[Charter, list[Institution]]:
    """One institution with audio, and one without."""
    recipe = Recipe(
        modalities=(MARKS, SOUND),
        tasks=(TASK,),
        parts=(encoder(MARKS, 4, "linear-tanh"), encoder(SOUND, 4, "attention-pool"), head(TASK, 4)),
        students=20.0,
        steps=2,
        sample_rate=500_000,
        clip_norm=20_000_000,
        learning_rate=1_000_000,
        free_learning_rate=1_000_000,
        width=16,
    )
    specs, learning = charter_parts(recipe, None, min_updates=1)
    named: list[tuple[str, Path | None, float]] = []
    for name, more in (("loud", AUDIO), ("quiet", "")):
        folder = root / f"data-{name}"
        folder.mkdir()
        (folder / "dataset.toml").write_text(TOML + more)
        rows = [f"r{n},{n % 7 / 7},{'yes' if n % 2 else 'no'},r{n}.wav" for n in range(40)]
        (folder / "t.csv").write_text("\n".join(["id,a,b,clip", *rows]) + "\n")
        named.append((name, folder, 10.0))
    return found(
        root,
        named,
        Agreed("t", specs, learning, bytes(32), fault_model="crash"),
        Settings(ROUNDS, Privacy(policy="open"), learner=learner),
    )


def test_a_node_without_audio_holds_no_audio_weights_on_disk(tmp_path: Path) -> None:
    charter, institutions = federation(tmp_path)
    daemons = [Daemon(institution) for institution in institutions]
    views = [View(), View()]
    quiet = institutions[1].home
    try:
        for daemon in daemons:
            daemon.start()

        def all_closed() -> bool:
            assert [daemon.dead() for daemon in daemons] == [None, None]
            views[:] = [look(i, v) for i, v in zip(institutions, views, strict=True)]
            return closed(views[0], charter) >= ROUNDS

        def folded() -> bool:
            return all(c["folded_round"] == ROUNDS for c in Client(quiet).components() if c["hosted_here"])

        wait_for(all_closed, lambda: [i.home.log.read_text()[-2000:] for i in institutions])
        wait_for(folded)
        shown = Client(quiet).components()
    finally:
        for daemon in daemons:
            daemon.kill()
    assert [c["component"] for c in shown if c["digest"] or c["hosted_here"]] == list(HELD), "nor in memory"
    ledger = fold_ledger(institutions[0], charter)
    author = institutions[1].identity.public_key
    assert ledger.offers[author].components == HELD
    for i, audio in ((institutions[0], True), (institutions[1], False)):
        folders = {path.name for path in i.home.states.iterdir()}
        there = {name: hashlib.sha256(name.encode()).hexdigest()[:32] in folders for name in ledger.components}
        assert there == {"encoder/marks": True, "encoder/sound": audio, "head/pass": True}
        blobs = {path.name for path in i.home.blobs.rglob("*") if len(path.name) == 64}
        entries = [e.blob.hex() for r in ledger.components["encoder/sound"].rounds for e in r.entries]
        assert len(entries) == ROUNDS
        assert (set(entries) <= blobs) is audio
        assert blobs.isdisjoint(entries) is not audio


@pytest.fixture(scope="module")
def process() -> Iterator[Worker]:
    with client.process() as child:
        yield child


@pytest.mark.parametrize(("engage", "followed"), [(("*",), ()), (("head/*",), ("encoder/marks",))])
def test_and_neither_does_its_worker(
    process: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engage: tuple[str, ...],
    followed: tuple[str, ...],
) -> None:
    monkeypatch.setattr(client, "process", lambda _: nullcontext(process))
    charter, (_, quiet) = federation(tmp_path)
    config = load(quiet.home.config)
    config = replace(config, learning=replace(config.learning, engage=engage))
    parts = parts_here(config, charter)
    assert (parts.held, parts.followed) == (HELD, followed)
    assert quiet.data is not None
    with worker(opening(charter, quiet.data, parts.held)) as learner:
        opened = learner.opened
        assert sorted(opened.components) == list(HELD)
        assert opened.device in ("cpu", "cuda")
        # Only what it engages is trained, beside the states of the rest.
        zero = {name: bytes(4 * size) for name, size in opened.components.items()}
        rules = dict.fromkeys(parts.hosted, Engagement(1.0, 0.0, 1.0))
        trained = learner.ask(msg.Train(zero, rules, steps=1, sample_rate=1.0, lot=10.0))
        assert sorted(trained.updates) == list(parts.hosted)


def test_the_learner_gets_what_is_held_and_every_state_of_it(tmp_path: Path) -> None:
    charter, (_, quiet) = federation(tmp_path)
    config, charter, signed, identity = load_all(quiet.home, None)
    config = replace(config, learning=replace(config.learning, engage=("head/*",)))
    asked: list[Asks[Any]] = []

    async def request(message: Asks[Any]) -> Any:
        asked.append(message)
        raise LearnerError("that was all")

    with hold(quiet.home), Store.open(quiet.home.database, charter.federation) as store:
        runtime = Runtime(quiet.home, config, charter, signed, identity, store)
        request_to_open = runtime.jobs._opening()
        assert request_to_open is not None
        assert request_to_open.hosted == tuple(HELD)
        assert (runtime.core.hosted, runtime.core.followed) == (("head/pass",), ("encoder/marks",))
        runtime.learner.request = request  # type: ignore[method-assign]
        recipe = Recipes("head/pass", 1, GENESIS, 0, 1_000_000, 1_000_000)
        trio.run(runtime.jobs.train, Train(1, (recipe,), 1, 500_000, 10_000, (("encoder/marks", GENESIS),)))
        states = tuple((name, 0, 0, GENESIS) for name in HELD)
        trio.run(runtime.jobs._measure, Evaluate(states))
    train, evaluate = asked
    assert isinstance(train, msg.Train)
    assert isinstance(evaluate, msg.Evaluate)
    assert sorted(train.engaged) == ["head/pass"]
    assert sorted(train.states) == sorted(evaluate.states) == list(HELD)
