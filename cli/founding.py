"""Warnings and refusals before a charter is drawn up or signed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..crypto.errors import RefusedError, UsageError
from ..node.words import lasting
from .options import seconds_of
from .output import say, table
from .proposals import elsewhere

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from ..node.home.paths import Home
    from ..protocol.charter import Charter, Member
    from ..protocol.components import ComponentSpec
    from ..protocol.learning import Learning

MIN_ROBUST = 4  # members, with which one liar is tolerated
FAINT = 0.15  # of the signal: more noise gives a warning; the presets, which learn, have less than half of it
PASSES = 200  # over the data, in all rounds; the presets make 40
LOUD_ROUND = 2  # times the signal of one round: with more noise than that in each, fewer rounds teach the same
DIMENSIONS = 10_000  # of a component under noise (design.md section 5)


def check_addresses(people: "Sequence[Member]", *, anyway: bool) -> None:
    """Refuse addresses that other members could not dial. Raises RefusedError unless `anyway`."""
    problems = _address_problems(people)
    if problems and not anyway:
        raise RefusedError(
            "Members could not reach each other by these addresses: " + "; ".join(problems),
            "Each member gives an address that the others can dial (`collegium init --advertise`). If they find each"
            " other in another way (mdns, `peer add`): --anyway.",
        )


def _address_problems(people: "Sequence[Member]") -> list[str]:
    from ..node.home.addresses import members_problems

    return members_problems([(person.name, person.addresses) for person in people])


def check_twice(people: "Sequence[Member]") -> None:
    """Refuse a name or a key that is given for two members. Raises UsageError."""
    for what, values in (("name", [p.name for p in people]), ("key", [p.key.hex()[:16] for p in people])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UsageError(f"Two members have the {what} {', '.join(twice)}", "Give each member once.")


def check_same(first: "tuple[Path, Charter]", second: "tuple[Path, Charter]", *, kept: "Path") -> None:
    """Refuse copies of two different charters, with each file's id. Raises RefusedError."""
    if first[1].federation == second[1].federation:
        return
    ids = "; ".join(f"{path} is of federation {charter.federation.hex()[:16]}" for path, charter in (first, second))
    advice = "Ask the member who drew it up which federation id is the right one, by telephone."
    if kept in (first[0], second[0]):
        advice += f" If this home's own copy is the wrong one, move {kept} away and sign the right one."
    else:
        advice += " Leave the other file out."
    raise RefusedError(f"These are two different charters: {ids}", advice)


def warn_of_lot(home: "Home", charter: "Charter") -> None:
    """Warn before the start if a home with data declares no lot size. Raises UsageError (config)."""
    if lacks_lot(home):
        say(
            f"warning: {home.config} declares no lot_size, and `node start` refuses without it. Set lot_size under"
            f" [learning] to {charter.learning.drawn:g} (the share that a step draws, by this charter) times the"
            " number of students that you expect, rounded; not a count of your data."
        )


def check_fit(here: "Mapping[str, Any] | None", *, anyway: bool) -> None:
    """Refuse a charter that the home's data folder does not fit (review's `here`). Raises RefusedError."""
    if here is None or not here["misfits"] or anyway:
        return
    raise RefusedError(
        f"{here['folder']} does not fit the charter, and this node could not train on it: {'; '.join(here['misfits'])}",
        "Nothing was signed or handed in, and the draft stays open. Compare your dataset.toml with the founder's, mend"
        " the one that is wrong, and run the same command again. To go on all the same: --anyway.",
    )


def start_step(home: "Home", charter: "Charter") -> str:
    """Return the last step of a member whose charter is signed. Raises UsageError (config)."""
    return f"Next: {lot_step(home, charter)}`collegium node start`."


def lot_step(home: "Home", charter: "Charter") -> str:
    """Return the step before the start if a home with data declares no lot size, else "".

    Raises UsageError (config).
    """
    if not lacks_lot(home):
        return ""
    rate = charter.learning.drawn
    return (
        f"set lot_size under [learning] in {home.config} to {rate:g} times the number of students that you expect (this"
        " node cannot train without it), then "
    )


def lacks_lot(home: "Home") -> bool:
    """Return whether a home with data, which is to train, declares no lot size. Raises UsageError (config)."""
    from ..node.home import config as settings

    if not home.config.exists():
        return False
    config = settings.load(home.config)
    return config.learning.contribute and config.data.path is not None and config.learning.lot_size < 1


def next_steps(home: "Home", charter: "Charter", missing: "Sequence[str]") -> list[str]:
    """Return the next steps with a charter that this member has signed, in lines."""
    path = home.charter
    if not missing:
        return [
            elsewhere(
                "Signed by everybody. A member whose copy lacks signatures takes them over from this file:"
                f" `collegium charter sign --merge {path.name}`."
            ),
            start_step(home, charter),
        ]
    return [
        f"Still to sign: {', '.join(missing)}.",
        f"Next: send {path} to them, or back to the member who sent it to you.",
        "Copies that come back are merged with `collegium charter sign --merge FILE`.",
    ]


def check_policy(home: "Home", charter: "Charter", *, anyway: bool) -> None:
    """Refuse a charter under which this home's own policy lets nothing be trained; warn where it withholds something.

    Raises RefusedError unless `anyway`; UsageError for a config.toml that cannot be read.
    """
    if not home.config.exists():
        return
    reason, advice, everything = withheld_here(home, charter)
    if everything and not anyway:
        raise RefusedError(
            f"Nothing could be trained at this node under this charter: {reason}",
            f"{advice} To sign all the same: --anyway.",
        )
    if reason:
        say(f"warning: {reason}")


def withheld_here(home: "Home", charter: "Charter") -> tuple[str, str, bool]:
    """Return the data that this home's policy excludes from training, the advice, and whether nothing is left."""
    from ..node.home import config as settings
    from ..node.home.policies import policies
    from ..node.privacy.policy import remedy, withheld

    config = settings.load(home.config)
    in_force = policies(config, charter)
    reasons = withheld(charter, in_force, [spec.name for spec in charter.components])
    if not reasons:
        return "", "", False
    reason = "; ".join(dict.fromkeys(reasons.values()))
    everything = len(reasons) == len(charter.learning.modalities)
    trains = config.learning.contribute and config.data.path is not None
    sentence = f"data of {', '.join(reasons)} take no part in training here: {reason}"
    return sentence, remedy(in_force, reasons), everything and trains


def noise(specs: "Sequence[ComponentSpec]", learning: "Learning", students: float, members: int) -> list[str]:
    """Return a sentence with figures on each component that is all noise, with so many students at every member.

    And one on rounds that are too many for any component under noise.
    """
    from ..node.blueprint.noise import drowned

    texts, rounds = [], learning.planned_rounds
    passes = rounds * learning.steps * learning.drawn
    if passes > PASSES and any(spec.noise_multiplier and not spec.is_statistic for spec in specs):
        texts.append(
            f"{rounds} rounds read each student's data {passes:,.0f} times: fewer rounds, with less noise in each,"
            f" teach as much (up to {PASSES} times are taken as sensible)"
        )
    for one in drowned(specs, learning, students, members, 0):
        if one.noise > one.signal:
            texts.append(
                f"{one.component}: over {one.rounds} rounds the noise adds up to a norm of {one.noise:,.3g}, where all"
                f" clipped gradients together reach at most {one.signal:,.3g}"
            )
        elif one.in_one_round > LOUD_ROUND:
            texts.append(
                f"{one.component}: with {one.rounds} rounds the noise of each is {one.in_one_round:.1f} times the most"
                " that its clipped gradients could add up to"
            )
    return texts


def shard_facts(shards: int) -> list[tuple[str, object]]:
    """Return the line on the shards of the students; none where there is one."""
    if shards == 1:
        return []
    return [("shards", f"{shards}: a student is in one, for ever, and rounds take turns; so in 1 of {shards} rounds")]


def faint(charter: "Charter", students: float) -> list[str]:
    """Return a sentence on each component that learns little under its noise, with so many students at every member."""
    from ..node.blueprint.noise import drowned

    noisy = drowned(charter.components, charter.learning, students, len(charter.members), FAINT)
    return [
        f"{one.component} may learn little: with {students:g} students at each member its noise is"
        f" {one.noise / one.signal:.0%} of the most that all clipped gradients could add up to, and real ones add up to"
        " a small part of that. A smaller component, fewer rounds or a larger ε help (docs/models.md)"
        for one in noisy
        if one.noise <= one.signal
    ]


def loudness(charter: "Charter", students: float) -> list[dict[str, Any]]:
    """Return for each component under noise the norms of `noise` and of all clipped gradients, over all rounds."""
    from ..node.blueprint.noise import drowned

    every = drowned(charter.components, charter.learning, students, len(charter.members), 0)
    return [{"component": one.component, "noise": one.noise, "gradients": one.signal} for one in every]


def show_loudness(console: "Console", shown: list[dict[str, Any]], students: float) -> None:
    """Print what `loudness` returned."""
    if shown:
        rows = [
            (
                one["component"],
                f"{one['noise']:,.3g}",
                f"{one['gradients']:,.3g}",
                f"{one['noise'] / one['gradients']:.0%}",
            )
            for one in shown
        ]
        table(console, ("component", "norm of its noise", "of all clipped gradients, at most", "share"), rows, empty="")
        console.print(f"Over all planned rounds, with {students:g} students at each member; real gradients reach less.")


def warnings(charter: "Charter") -> list[str]:
    """Return warnings on a charter: losses, liars, addresses, open modalities, large components."""
    from ..node.home.addresses import is_loopback
    from ..protocol.blocks import tolerated
    from ..protocol.learning import AVERAGES

    count, model = len(charter.members), charter.rules.fault_model
    texts = [f"addresses: {problem}" for problem in _address_problems(charter.members)]
    addresses = [address for member in charter.members for address in member.addresses]
    if count > 1 and addresses and all(map(is_loopback, addresses)):
        texts.append("all addresses are of one machine: nobody on another one can take part")
    if tolerated(count, model) == 0:
        least = 4 if model == "byzantine" else 3
        texts.append(
            f"with {count} members under {model!r} no lost member can be spared: every decision needs all their votes"
            f" (from {least} members on, one can be)"
        )
    if count < MIN_ROBUST and any(spec.rule not in AVERAGES and not spec.is_statistic for spec in charter.components):
        texts.append(f"with {count} members no rule tolerates a liar: from {MIN_ROBUST} on, one is tolerated")
    if any(floor.policy == "open" for floor in charter.learning.floors):
        texts.append(
            "a modality is open: updates may show what single students' records were like. A node keeps its data out of"
            ' what has no noise until its operator allows it: policy = "open" under [privacy] in config.toml, where'
            ' `init` writes "dp"'
        )
    texts += [
        f"{spec.name} has {spec.dimension:,} parameters under noise: at some hundred students of an institution the"
        f" noise drowns what they say of more than {DIMENSIONS:,} (docs/models.md)"
        for spec in charter.components
        if spec.noise_multiplier and spec.dimension > DIMENSIONS and not spec.is_statistic
    ]
    return texts


def pace_of(text: str) -> int:
    """Return the pace that an option names in milliseconds. Raises UsageError."""
    from ..protocol.bounds import MAX_PACE

    seconds = seconds_of(text, "--pace")
    if seconds > MAX_PACE:
        raise UsageError(f"A pace of {text} is too long", f"At most {lasting(MAX_PACE)} are allowed.")
    return round(seconds * 1000)


def start_of(text: str, drawn: int = 0) -> int:
    """Return the start that an option names in Unix seconds, 0 for none. Raises UsageError.

    A draft that has this start already (`drawn`) may be older than it.
    """
    from datetime import UTC, datetime

    from ..protocol.bounds import MAX_PACE

    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--start {text!r} is no time", "Write it in UTC, as 2026-09-07T06:00.") from error
    start = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if drawn and int(start.timestamp()) == drawn:
        return drawn
    ahead = (start - datetime.now(UTC)).total_seconds()
    if not 0 < ahead <= MAX_PACE:
        where = "over" if ahead <= 0 else f"more than {lasting(MAX_PACE)} ahead"
        raise UsageError(
            f"--start {text}: that is {where}", "Name a time to come, in UTC; without --start it is at once."
        )
    return int(start.timestamp())


def start_text(charter: "Charter") -> str:
    """Return the charter's start in UTC, "" if it has none."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(charter.rules.start, UTC).strftime("%Y-%m-%dT%H:%MZ") if charter.rules.start else ""


def start_facts(charter: "Charter") -> list[tuple[str, object]]:
    """Say the charter's start, if it has one."""
    return [("start", f"no round is trained or closed before {start_text(charter)}")] if charter.rules.start else []


def architecture(spec: "ComponentSpec") -> str:
    """Return the name of a component's architecture, with the package that brings it."""
    from ..node.architectures import words

    return words(spec.architecture)


def fusion_fact(charter: "Charter") -> tuple[str, str]:
    """Say how the modalities of a record are joined."""
    from ..node.blueprint.fusion import described
    from ..protocol.component_names import ComponentKind

    return "modalities", described(charter.component(ComponentKind.BACKBONE))


def pace_fact(charter: "Charter") -> str:
    """Say how fast rounds may follow each other, and how long the planned ones take at least."""
    return pace_words(charter.rules.pace / 1000, charter.learning.planned_rounds)


def pace_words(pace: float, rounds: int) -> str:
    """Say the same of a pace in seconds and so many planned rounds."""
    if not pace:
        return "none: rounds follow each other as fast as they are trained, perhaps all of them within minutes"
    return f"a component closes a round every {lasting(pace)} at most: the {rounds} planned ones take" + (
        f" {lasting(pace * (rounds - 1))} or longer" if rounds > 1 else " as long as one takes"
    )


def student(charter: "Charter") -> "dict[str, object] | None":
    """Return the planned rounds' cost for one student with data of every modality; None if nothing is under dp."""
    from dataclasses import asdict

    from ..node.blueprint.student import planned_cost

    cost = planned_cost(charter.components, charter.learning)
    if cost is None:
        return None
    return asdict(cost) | {
        "epsilon": None if cost.epsilon is None else cost.epsilon / 1000,
        "epsilon_with_reserve": None if cost.epsilon_with_reserve is None else cost.epsilon_with_reserve / 1000,
    }


def student_fact(cost: "Mapping[str, Any] | None") -> str:
    """Return the result of `student` in one sentence."""
    if cost is None:
        return "without a bound: no modality is under dp"
    many = len(cost["modalities"]) > 1
    over = f" over {', '.join(cost['modalities'])}{' together' if many else ''}"
    value = "without a bound" if cost["epsilon"] is None else f"ε {cost['epsilon']:g} at δ {cost['delta']:g}"
    reserve, about = cost["epsilon_with_reserve"], "about " if cost["reserve_estimated"] else ""
    later = "" if reserve is None else f"; {about}{reserve:g} once rounds after withdrawals have spent the reserve, too"
    more = "; the ε of each modality bounds that modality alone" if many else ""
    return f"{value} after all {cost['rounds']} planned rounds{over}{later}{more}"
