"""What was spent of the students' privacy, until when the rest lasts, and what leaves this house."""

from collections.abc import Mapping, Sequence
from functools import partial

from ....protocol.update import max_frame_size
from ... import views
from ...home import config as settings
from ...home.paths import Home
from ...home.policies import policies
from ...views.context import Context
from ...views.shapes_ledger import RecordLine
from ...views.shapes_privacy import Forecast, ModalityShown, PrivacyShown
from ...words import of_kind
from ..blocks import Badge, Cell, Facts, Many, Moment, Page, Section, Table, Words
from ..source import Reading
from . import cells

POLICIES = {
    "dp": "under differential privacy",
    "open": "NOT noised: updates may show what single records are like",
    "never": "never learned from",
}
RECORDS = 1000


def budgets(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return the budget of each modality, and the date on which it runs out."""
    spent = _spent(read)
    of = (len(spent["reservations"]), [(line["modality"], line["epsilon_spent"]) for line in spent["modalities"]])
    forecast = read.source.once("forecast", of, lambda: read.files(partial(_forecast, read.home)))
    rows = [_budget(line, forecast) for line in spent["modalities"]]
    columns = ("modality", "policy", "ε spent", "ε allowed", "δ", "rounds left", "used up about", "reaches")
    student = forecast["student"] if forecast else None
    computing = (
        () if forecast else (Words("The rounds that are left are being computed; they appear here soon.", True),)
    )
    facts: list[tuple[str, Cell]] = [
        (
            f"one {spent['unit']} over all modalities",
            None
            if not forecast
            else "no bound"
            if student is None
            else f"ε {cells.epsilon(student['epsilon'])} at δ {student['delta']:g},"
            f" over {cells.listed(student['modalities'])}",
        ),
        ("kept for recovery", f"{spent['recovery_share']:.0%} of every ε, for the rounds after a withdrawal"),
        ("planned rounds", (forecast or spent)["planned_rounds"]),
        ("jurisdiction", spent["jurisdiction"]),
    ]
    runs: list[list[Cell]] = [
        [
            one["run"],
            cells.pairs(one["rounds"]),
            cells.pairs({name: f"ε {cells.epsilon(value)}" for name, value in one["epsilon"].items()}),
            f"{one['sample_rate']:g}",
            one["steps"],
            "yes" if one["published"] else "no (spent all the same)",
        ]
        for one in reversed(spent["reservations"])
    ]
    command = ("collegium privacy show",)
    return Page(
        "Privacy budgets",
        (
            Section(
                "budgets",
                "Budgets",
                (
                    Table("Budgets by modality", columns, rows, "The charter has no modality."),
                    *computing,
                    *(Words(note) for note in spent["notes"]),
                    Words("The date is the last round's, as far on as rounds close now. Spent ε cannot be restored."),
                ),
                command,
            ),
            Section("student", "One student", (Facts(facts),), command),
            Section(
                "runs",
                "Training runs",
                (
                    Table(
                        "Training runs, last first",
                        ("run", "rounds", "ε with it", "sample rate", "steps", "published"),
                        runs,
                        "Nothing was trained on the students' data.",
                    ),
                ),
                (*command, "collegium privacy log"),
            ),
        ),
    )


def _spent(read: Reading) -> PrivacyShown:
    def offline(context: Context) -> PrivacyShown:
        config = settings.load(read.home.config)
        return views.privacy(context, policies(config, context.charter), config.privacy.jurisdiction)

    return read(lambda client: client.privacy(), offline)


def _forecast(home: Home, context: Context) -> Forecast:
    config = settings.load(home.config)
    return views.forecast(context, policies(config, context.charter), config.learning.rounds)


def _budget(line: ModalityShown, forecast: Forecast | None) -> list[Cell]:
    left = forecast["modalities"].get(line["modality"]) if forecast else None
    allowed = line["epsilon_budget"]
    level = "ok" if line["policy"] != "open" else "warning"
    return [
        line["modality"],
        Badge(f"{line['policy']} ({line['policy_from']})" + (", withheld" if line["withheld"] else ""), level),
        cells.epsilon(line["epsilon_spent"]),
        None
        if allowed is None
        else f"{allowed:g} ({line['epsilon_from']}), {line['epsilon_before_recovery']:g} before recovery",
        f"{line['delta']:g}",
        left and left["rounds_left"],
        Moment(left["runs_out_at"]) if left else None,
        cells.listed(line["reaches"]),
    ]


def protection(read: Reading, _query: Mapping[str, str]) -> Page:
    """Return what leaves this house, to whom, how much, under which rule; to be printed."""
    status = read(lambda client: client.status(), views.status)
    components = read(lambda client: client.components(), views.components)
    peers = read(lambda client: client.peers(), views.peers)["peers"]
    spent, charter = _spent(read), read.files(lambda context: context.charter)
    me = status["member"]
    records = _own(read, me["key"]) if me else []
    sent: dict[str, list[int]] = {}
    kinds: dict[str, int] = {}
    for record in records:
        kinds[record["kind"]] = kinds.get(record["kind"], 0) + 1
        about = record["about"]
        if record["kind"] == "update" and "bytes" in about:
            sent.setdefault(about["component"], []).append(about["bytes"])
    rows: list[list[Cell]] = []
    for c in components:
        spec = charter.component(c["component"])
        own = sent.get(c["component"], [])
        if spec is None:
            continue
        rows.append(
            [
                c["component"],
                f"a change of {c['parameters']:,} weights",
                cells.listed(sorted(charter.learning.upstream(c["component"]))),
                f"noise {c['noise_multiplier']:g}, clipped at {c['clip_norm']:g}"
                if c["noise_multiplier"]
                else "NOT noised",
                cells.members(host for host in c["hosts"] if me is None or host["key"] != me["key"]),
                cells.size(max_frame_size(spec)),
                len(own),
                cells.size(sum(own)),
            ]
        )
    columns = (
        "update of",
        "what it is",
        "learns from",
        "protected by",
        "held by",
        "at most",
        "sent so far",
        "bytes so far",
    )
    rules: list[list[Cell]] = [
        [
            line["modality"],
            of_kind(line["kind"], line["sensitivity"]),
            POLICIES[line["policy"]],
            line["policy_from"],
            None if line["epsilon_budget"] is None else f"{line['epsilon_budget']:g} ({line['epsilon_from']})",
            cells.epsilon(line["epsilon_spent"]),
            f"{line['delta']:g}",
        ]
        for line in spent["modalities"]
    ]
    present: list[list[Cell]] = [
        [cells.member(peer), Many(tuple(peer["addresses"])) if peer["addresses"] else None, peer["state"]]
        for peer in peers
        if not peer["me"]
    ]
    live = status["live"]
    federation = status["federation"]
    facts: list[tuple[str, Cell]] = [
        ("this institution", me["name"] if me else None),
        ("federation", f"{federation['name']} ({federation['id'][:16]})"),
        ("as of height", status["height"]),
        ("last block", Moment(status["last_block_at"])),
        ("jurisdiction", spent["jurisdiction"]),
    ]
    return Page(
        "Data protection",
        (
            Section("about", "About this page", (Facts(facts),), ("collegium node status",)),
            Section(
                "what",
                "What leaves this house",
                (
                    Words(
                        "No record of a student, and no text, picture, id or result of one. What leaves are changes of"
                        " the model's weights, in each round at most one for each component."
                    ),
                    Table("Updates, to whom and how much", columns, rows, "Nothing."),
                    Words(
                        "With them go, signed: this member's name, key and addresses; what it trains and withdraws; the"
                        " number of students that it declares (lot_size, no count of the data); what each round cost in"
                        " privacy; its votes. All members keep these records."
                    ),
                ),
                ("collegium charter review", "collegium component list", "collegium ledger log --kind update"),
            ),
            Section(
                "rule",
                "Under which rule",
                (
                    Table(
                        "Privacy by modality",
                        ("modality", "kind", "policy", "set by", "ε allowed", "ε spent", "δ"),
                        rules,
                        "The charter has no modality.",
                    ),
                    Words(
                        "ε bounds what anybody can learn of one student from all updates of this member together,"
                        " whatever else they know. δ is the chance that the bound fails. A smaller ε is more private."
                    ),
                ),
                ("collegium privacy show",),
            ),
            Section(
                "whom",
                "To whom",
                (Table("Members that this node sends to", ("member", "addresses", "state"), present, "Nobody."),),
                ("collegium peer list",),
            ),
            Section(
                "much",
                "How much",
                (
                    Facts(
                        [
                            ("own records in the ledger", cells.pairs(kinds) or "none"),
                            ("bytes sent since the daemon's start", cells.size(live["bytes_sent"]) if live else None),
                            ("of these, own updates so far", cells.size(sum(map(sum, sent.values())))),
                        ]
                    ),
                    Words(f"Of the last {RECORDS} own records." if len(records) == RECORDS else "Of all own records."),
                ),
                (f"collegium ledger log --author {me['key'][:16] if me else 'MEMBER'} --limit {RECORDS}",),
            ),
            Section(
                "stays",
                "What stays here",
                (
                    Words(
                        "The data folder, the lists of the students that a training used or leaves out, private"
                        " components, and every figure of quality. The page that you read is served to this machine"
                        " alone."
                    ),
                ),
                ("collegium privacy show", "collegium unlearn status"),
                live=False,
            ),
        ),
        "What leaves this house, to whom, how much, and under which rule. It can be printed.",
        print_button=True,
    )


def _own(read: Reading, key: str) -> Sequence[RecordLine]:
    return read(
        lambda client: client.ledger_log(author=key, limit=RECORDS),
        lambda context: views.ledger_log(context, author=bytes.fromhex(key), limit=RECORDS),
    )
