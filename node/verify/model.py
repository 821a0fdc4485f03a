"""The model that a node's directory holds: the states in force, checked against the hosts' certificates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...consensus.components import State
from ...consensus.ledger import ComponentLedger
from ...crypto.errors import VerificationError
from ...protocol.components import ComponentSpec, state_digest
from ..home.paths import Home
from ..store.states import States
from .bytes import Disk
from .home import parts_of_home, verify_home_ledger
from .ledger import Progress, Report
from .states import anchor, label, refold


@dataclass(frozen=True, slots=True)
class Component:
    """One component's state X, [d] int32: the last that is certified in this generation; if none is, the last frozen
    one.

    `label` is the certificate's weight here; `attested` are the hosts that signed this digest.
    """

    spec: ComponentSpec
    state: State
    round: int
    generation: int
    digest: bytes
    certified: bool
    label: str
    attested: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """The components that exist at a node, by name, and the verified ledger that says so."""

    report: Report
    components: Mapping[str, Component]

    @property
    def trained(self) -> bool:
        """Whether any component has closed a round."""
        return any(component.round for component in self.components.values())


def home_model(
    home: Home,
    *,
    from_bytes: bool,
    at: Mapping[str, tuple[int, int]] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Verify the ledger in a node's directory, and return the states in force with digests that it confirms.

    `from_bytes`: fold every state from the updates' bytes (a late joiner: from the certified state that it took);
    else take stored ones where there are. Nothing is changed. `at`: rounds and generations of components whose states
    are wanted as they were then; of another generation, or of a round to come, the one in force is returned.
    Raises UsageError (the node never ran), VerificationError naming the component.
    """
    report = verify_home_ledger(home, progress=progress)
    held = parts_of_home(home, report.charter).held
    stored = States(home.states) if home.states.is_dir() and not from_bytes else None
    kept = States(home.states).get if home.states.is_dir() else None
    total = sum(len(r.entries) for name in held for r in report.ledger.components[name].rounds)
    done = 0

    def step(_: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("updates", done, total)

    components = {}
    for name in held:
        spec, c = report.charter.component(name), report.ledger.components[name]
        assert spec is not None  # parts are the charter's
        certified = c.certified if c.certified is not None and c.certified.generation == c.generation else None
        number = c.round if certified is None else certified.round
        then, generation = (at or {}).get(name, (number, c.generation))
        if generation == c.generation and then < number:
            number, certified = then, None
        rounds = c.rounds[:number]
        state = stored.get(name, rounds[-1].chain) if stored is not None and rounds else None
        if state is None or state.shape != (spec.words,):
            disk = Disk(home.blobs)
            since, first = anchor(report, replace(c, rounds=rounds), disk, kept)
            _, state, _ = refold(report, spec, rounds, disk, step, since=since, first=first)
        digest = state_digest(name, np.asarray(state))
        _check(c, number, digest, certified.digest if certified is not None else None)
        enough = report.ledger.certifiable(c)
        components[name] = Component(
            spec,
            state,
            number,
            c.generation,
            digest,
            certified is not None and enough,
            label(certified is not None, enough) if number else "no round yet",
            tuple(h for r, e, h, d in c.attests if (r, e, d) == (number, c.generation, digest)),
        )
    return Model(report, components)


def _check(c: ComponentLedger, number: int, digest: bytes, certified: bytes | None) -> None:
    attested = {d for r, e, _, d in c.attests if (r, e) == (number, c.generation)}
    if digest != certified if certified is not None else attested and digest not in attested:
        raise VerificationError(
            f"{c.name} round {number}, generation {c.generation}: state-differs: the state here is {digest.hex()},"
            f" the hosts signed {', '.join(sorted(d.hex() for d in attested | ({certified} if certified else set())))}",
            "Do not use this state. `collegium ledger verify` says more.",
        )
