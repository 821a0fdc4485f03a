"""The charter: the signed founding document of a federation. Its digest is the federation id."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from ..crypto.errors import CorruptError, LocalProtocolError, RefusedError, RemoteProtocolError, UsageError
from ..crypto.hashing import digest
from ..crypto.identity import Identity, verify
from . import names as grammar
from . import schema, statistics
from .bounds import MAX_PACE, NO_PRIVACY, delta_problem, epsilon_problem, steps_problem
from .codec import unpack
from .component_names import ComponentKind, names_statistic, parse_name
from .components import RIDGE, SUM, ComponentSpec, base_digest, base_vector
from .learning import (
    GENERATE,
    MODALITY_KINDS,
    PASSAGE,
    POLICIES,
    PRETRAINED_KINDS,
    RULES,
    SENSITIVITIES,
    TASK_KINDS,
    Learning,
    Modality,
    Task,
)  # fmt: skip
from .schema import MAX_MEMBERS, U32, Between, Bytes32, Bytes64, Name, Size

CHARTER_LIMIT = 1 << 20
FILE_LIMIT = CHARTER_LIMIT + 65_536  # of a charter with its signatures
VERSION = 1  # of the charter's format
FAULT_MODELS = ("byzantine", "crash")
Address = Annotated[str, Size(1, 256)]


@dataclass(frozen=True, slots=True)
class Member:
    """One institution: its key, its name, and addresses (multiaddrs) at which its node may be found."""

    key: Bytes32
    name: Name
    addresses: Annotated[tuple[Address, ...], Size(0, 8)]


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits that bind all members. Milliseconds, counts and bytes.

    `round_deadline` runs from the first acknowledged update of a round, and not before the pace allows its close.
    `max_staleness` is S of design.md section 7. An author may add at most `records_per_height` records and
    `bytes_per_height` bytes to one height. `refold_horizon` counts rounds: older contributions can no longer be
    withdrawn by refold. `pace` is the least time between two closes of one component, 0 for none.
    No component closes its first round before `start`, in Unix seconds.
    """

    fault_model: Name
    round_deadline: Annotated[int, Between(100, 7 * 86_400_000)]
    max_staleness: Annotated[int, Between(0, 8)]
    records_per_height: Annotated[int, Between(1, 2**16)]
    bytes_per_height: Annotated[int, Between(2**16, 2**26)]
    refold_horizon: Annotated[int, Between(1, 2**20)]
    pace: Annotated[int, Between(0, 1000 * MAX_PACE)] = 0
    start: U32 = 0


@dataclass(frozen=True)
class Charter:
    """The founding document. `members` are sorted by key, `components` by name."""

    version: Annotated[int, Between(VERSION, VERSION)]
    name: Name
    created: U32
    seed: Bytes32
    members: Annotated[tuple[Member, ...], Size(1, MAX_MEMBERS)]
    rules: Rules
    components: Annotated[tuple[ComponentSpec, ...], Size(1, 256)]
    learning: Learning

    @cached_property
    def federation(self) -> bytes:
        """The federation id, 32 bytes."""
        return digest("charter", schema.dump(self))

    @cached_property
    def specs(self) -> dict[str, ComponentSpec]:
        """The components by name."""
        return {spec.name: spec for spec in self.components}

    def component(self, name: str) -> ComponentSpec | None:
        """Return the spec of a component, or None."""
        return self.specs.get(name)

    @property
    def number(self) -> int:
        """The number of amendments that passed: none, of a founding charter (amendment.py)."""
        return 0

    @cached_property
    def retired(self) -> frozenset[str]:
        """The components that have no round any more."""
        return frozenset()

    @property
    def widest_rate(self) -> int:
        """The highest sample rate that was ever in force, in millionths."""
        return self.learning.sample_rate

    @property
    def encoded(self) -> bytes:
        """The canonical bytes of the amendments' result; b"" of a founding charter."""
        return b""

    @property
    def digest(self) -> bytes:
        """The digest of the charter in force, 32 bytes: of a founding charter the federation's id."""
        return self.federation

    def rule(self, name: str) -> str:
        """Return the rule by which a component's next round closes. Raises KeyError."""
        return self.specs[name].rule

    def member(self, key: bytes) -> Member | None:
        """Return a founding member, or None."""
        return next((member for member in self.members if member.key == key), None)


@dataclass(frozen=True, slots=True)
class CharterSignature:
    """One founding member's signature over the charter."""

    member: Bytes32
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class SignedCharter:
    """The content of a charter file: the charter's canonical bytes and the founding members' signatures."""

    charter: Annotated[bytes, Size(1, CHARTER_LIMIT)]
    signatures: Annotated[tuple[CharterSignature, ...], Size(0, MAX_MEMBERS)]


class OtherFormatError(UsageError):
    """A charter of another release's format: whole, as far as can be told, and nothing that this one reads."""


def check(charter: Charter) -> None:
    """Check names, order, uniqueness, bounds and base digests, which types cannot. Raises UsageError with advice."""
    check_terms(charter)
    for spec in charter.components:
        if spec.starts_pretrained:
            continue  # each member's learner compares it with the model that it imported
        if base_digest(base_vector(charter.seed, spec.name, spec.tensors)) != spec.base:
            raise UsageError(f"component {spec.name}: the base digest does not match the seed and the tensors")


def check_terms(charter: Charter) -> None:
    """Check all of `check` but the base digests, whose computation takes time. Raises UsageError with advice."""
    _check_names(charter)
    keys = [member.key for member in charter.members]
    names = [spec.name for spec in charter.components]
    modalities = {modality.name for modality in charter.learning.modalities}
    for ok, problem in (
        (keys == sorted(set(keys)), "members are not sorted by key, or one is there twice"),
        (len({member.name for member in charter.members}) == len(keys), "two members have the same name"),
        (names == sorted(set(names)), "components are not sorted by name, or one is there twice"),
        (charter.rules.fault_model in FAULT_MODELS, f"fault_model must be one of {', '.join(FAULT_MODELS)}"),
        (
            all(charter.rule(spec.name) in RULES or spec.is_statistic for spec in charter.components),
            f"a rule must be one of {', '.join(RULES)}",
        ),
        (
            all(spec.is_statistic == names_statistic(spec.name) for spec in charter.components),
            f"the rule of statistics is {SUM}, and of nothing else",
        ),
        (
            all(spec.width in (8, 16) for spec in charter.components if not spec.is_statistic),
            "a component's width must be 8 or 16 bits",
        ),
        (
            all(spec.ridge == RIDGE for spec in charter.components if spec.architecture != "ridge"),
            "a ridge is of ridge statistics, and of nothing else",
        ),
        (all(m.kind in MODALITY_KINDS for m in charter.learning.modalities), "unknown kind of modality"),
        (
            {m.sensitivity for m in charter.learning.modalities} <= {"", *SENSITIVITIES},
            f"a sensitivity must be one of {', '.join(SENSITIVITIES)}, or left out",
        ),
        (all(map(_embeddable, charter.learning.modalities)), "a pretrained model that its modality has no use for"),
        (all(task.kind in TASK_KINDS for task in charter.learning.tasks), "unknown kind of task"),
        (all(floor.policy in POLICIES for floor in charter.learning.floors), f"a policy must be one of {POLICIES}"),
        (
            {len(m.layout) for m in charter.learning.modalities} | {len(task.layout) for task in charter.learning.tasks}
            <= {0, 32},
            "a layout is 32 bytes, or empty",
        ),
        ({floor.modality for floor in charter.learning.floors} == modalities, "not every modality has a privacy floor"),
        (len(charter.learning.floors) == len(modalities), "a modality has two privacy floors"),
        (len(charter.learning.modalities) == len(modalities), "two modalities have the same name"),
        (len({task.name for task in charter.learning.tasks}) == len(charter.learning.tasks), "two tasks share a name"),
        (all(_fits(task, modalities) for task in charter.learning.tasks), "a task's classes or modalities do not fit"),
        (not _equity_problem(charter), f"equity: {_equity_problem(charter)}"),
        (_templates_fit(charter.learning), "a task that writes reads one text under a pretrained model, by a template"),
    ):
        if not ok:
            raise UsageError(f"the charter is not valid: {problem}", "Correct it and create the charter again.")
    _check_numbers(charter)
    _check_privacy(charter)
    for spec in charter.components:
        if spec.dimension > 2**26:
            raise UsageError(f"component {spec.name} has {spec.dimension} parameters; at most 67,108,864 are allowed")
        if spec.is_statistic:
            statistics.check(spec, charter.learning)


def _check_names(charter: Charter) -> None:
    """Check that every text is visible as it is, and that names which are split and joined follow the grammar."""
    advice = "Correct it and create the charter again."
    for text in _texts(schema.to_map(charter)):
        if not grammar.visible(text) or text != text.strip():
            problem = f"the charter is not valid: {grammar.shown(text)!r} has characters that cannot be seen"
            raise UsageError(problem, "Write it without them, and without space around it, and create it again.")
    for what, name in (("federation", charter.name), *(("member", member.name) for member in charter.members)):
        problem = grammar.person_problem(name)
        if problem:
            raise UsageError(f"the charter is not valid: the name of {what} {name!r}: {problem}", advice)
    learning = charter.learning
    for name in (*(m.name for m in learning.modalities), *(task.name for task in learning.tasks)):
        if not grammar.plain(name):
            raise UsageError(f"the charter is not valid: {name!r} is no name", grammar.PLAIN_ADVICE)
    for spec in charter.components:
        try:
            parse_name(spec.name)
        except UsageError as error:
            raise UsageError(f"the charter is not valid: {error.message}", error.advice) from None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            # A template's lines may begin and end with spaces: what a model continues depends on them.
            yield from [line.strip() for line in item.split("\n")] if key == "template" else _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _check_numbers(charter: Charter) -> None:
    """Check the privacy floors and the planned steps against the bounds of config.toml and the options."""
    learning = charter.learning
    problem = steps_problem(learning.planned_rounds, learning.steps)
    if problem:
        raise UsageError(f"the charter is not valid: {problem}", "Plan fewer rounds, or fewer steps in each.")
    for floor in learning.bounds:
        if floor.policy == "dp":
            problem = epsilon_problem(floor.epsilon / 1000) or delta_problem(floor.delta / 1e9)
            if problem:
                raise UsageError(f"the charter is not valid: modality {floor.modality}: {problem}", NO_PRIVACY)


def _equity_problem(charter: Charter) -> str:
    """Return what is wrong with what the charter has of groups, or ""."""
    learning = charter.learning
    for equity in learning.equity:
        groups = {d.task for d in equity.decisions if ComponentKind.GROUPS.named(d.task) in charter.specs}
        if groups != {d.task for d in equity.decisions}:
            return "a decision has no component that holds its groups"
        return equity.problem(frozenset(task.name for task in learning.tasks if task.kind == "binary"))
    return ""


def _templates_fit(learning: Learning) -> bool:
    """Whether tasks that write, and no others, have a template of the passages of their one modality."""
    by_name = {modality.name: modality for modality in learning.modalities}
    read = [name for task in learning.tasks for name in task.modalities]
    return all(
        len(task.modalities) == 1
        and read.count(task.modalities[0]) == 1
        and template_fits(task.template, by_name.get(task.modalities[0]))
        if task.kind == GENERATE
        else not task.template
        for task in learning.tasks
    )


def template_fits(template: str, modality: Modality | None) -> bool:
    """Whether a template has each passage of a text under a pretrained model, and no other."""
    if modality is None or modality.kind != "text" or not modality.pretrained:
        return False
    return {int(number) for number in PASSAGE.findall(template)} == set(range(1, modality.length + 1))


def _embeddable(modality: Modality) -> bool:
    """Whether a modality has no pretrained model, or one of texts that reads tokens, or one of images or sound."""
    text = modality.kind == "text"
    known = text or (modality.kind in PRETRAINED_KINDS and modality.length == 1)
    return all(known and text == (model.max_tokens > 0) for model in modality.pretrained)


def _fits(task: Task, modalities: set[str]) -> bool:
    least = {"binary": 2, "regression": 1}.get(task.kind, 1 if task.kind == "multilabel" else 2)
    fixed = task.kind in ("binary", "regression")
    classes = task.classes == least if fixed else task.classes >= least
    return classes and list(task.modalities) == sorted(set(task.modalities)) and set(task.modalities) <= modalities


def _check_privacy(charter: Charter) -> None:
    """Check that components reached by a "dp" modality have noise, and that none belongs to a "never" modality."""
    learning = charter.learning
    floors = {floor.modality: floor.policy for floor in learning.bounds}
    for spec in charter.components:
        seen = learning.upstream(spec.name)
        name = parse_name(spec.name)
        if not seen or not seen <= set(floors):
            raise UsageError(f"component {spec.name}: the charter has no modality or task {name.of!r}")
        if name.modality is not None and floors[name.modality] == "never":
            raise UsageError(
                f"component {spec.name}: the charter never lets {name.modality!r} be learned from",
                "Drop the component, or choose another policy for the modality.",
            )
        if spec.noise_multiplier == 0 and any(floors[modality] == "dp" for modality in seen):
            raise UsageError(
                f'component {spec.name} has no noise, and data under "dp" reach it',
                "Give it a noise multiplier, or let its tasks read no modality under dp.",
            )


def dump_file(signed: SignedCharter) -> bytes:
    """Return the bytes of a charter file."""
    return schema.dump(signed)


def load_file(data: bytes, source: str) -> tuple[Charter, SignedCharter]:
    """Read a charter file; `source` names it in errors.

    Raises CorruptError if it is damaged or if a signature does not match (one changed byte), UsageError if it breaks a
    rule, OtherFormatError if it is of another version, RefusedError if a non-member signed it.
    """
    advice = "Get an intact copy from another member; `collegium charter show` prints its id, compare it by telephone."
    try:
        signed = schema.load(SignedCharter, data, FILE_LIMIT)
        charter = schema.load(Charter, signed.charter, CHARTER_LIMIT)
    except RemoteProtocolError as error:
        _check_version(data, source)
        size = f" ({len(data)} bytes where at most {FILE_LIMIT} are allowed)" if len(data) > FILE_LIMIT else ""
        raise CorruptError(
            f"{source} is not a charter file or is damaged{size}",
            "Give the charter.bin that `collegium charter create` or `charter sign` wrote, or get an intact copy from"
            " another member.",
        ) from error
    federation = charter.federation
    for entry in signed.signatures:
        if charter.member(entry.member) is None:
            raise RefusedError(f"{source} is signed by {entry.member.hex()[:16]}, who is not a member", advice)
        if not verify(entry.member, "charter", federation, entry.signature):
            raise CorruptError(f"{source} was changed after {entry.member.hex()[:16]} signed it", advice)
    if len({entry.member for entry in signed.signatures}) != len(signed.signatures):
        raise CorruptError(f"{source} holds one member's signature twice", advice)
    try:
        check(charter)  # last: a bad signature is the more exact error for a charter that was tampered with
    except UsageError as error:
        raise UsageError(f"{source}: {error.message}", error.advice) from error
    return charter, signed


def _check_version(data: bytes, source: str) -> None:
    """Raise OtherFormatError for a charter file that cannot be read because it says that its format is another."""
    try:
        signed: Any = unpack(data, FILE_LIMIT)
        charter: Any = unpack(signed["charter"], CHARTER_LIMIT)
        version = charter["version"]
    except (RemoteProtocolError, TypeError, KeyError):
        return
    if type(version) is int and version != VERSION:
        newer = (
            "Install the release that wrote it, or a later one." if version > VERSION else "Found the federation again."
        )
        raise OtherFormatError(f"The charter {source} has format {version}; this release reads {VERSION}", newer)


def unsigned_members(charter: Charter, signed: SignedCharter) -> list[Member]:
    """Return the founding members whose signatures are still missing."""
    done = {entry.member for entry in signed.signatures}
    return [member for member in charter.members if member.key not in done]


def add_signature(charter: Charter, signed: SignedCharter, identity: Identity) -> SignedCharter:
    """Sign the charter as a member (again changes nothing). Raises RefusedError if this key is not a member's."""
    if charter.member(identity.public_key) is None:
        raise RefusedError(
            f"key {identity.public_key.hex()[:16]} is not a member of federation {charter.name!r}",
            "Ask whoever drafts the charter to add your public key (`collegium init` prints it).",
        )
    if signed.charter != schema.dump(charter):
        raise LocalProtocolError("the signed bytes are another charter's")
    others = [entry for entry in signed.signatures if entry.member != identity.public_key]
    mine = CharterSignature(identity.public_key, identity.sign("charter", charter.federation))
    return SignedCharter(signed.charter, tuple(sorted([*others, mine], key=lambda entry: entry.member)))
