"""The simulator finds bugs: each known mistake, put into a fresh copy of the code, is caught within a few seeds.

A mutation replaces source text of one module when a child process imports it. It has to be caught by an invariant or an
expectation, and not because the mutated code falls over. docs/simulator.md has the list's results.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from collegium.sims.scenarios.loading import load
from collegium.sims.scenarios.play import play

CORE = "collegium.node.core.core"
INBOX = "collegium.node.core.inbox"
FEEDS = "collegium.node.core.feeds"
UPDATES = "collegium.node.core.updates"
HEIGHTS = "collegium.node.core.heights"
CANDIDATES = "collegium.node.core.candidates"
TRAINING = "collegium.node.core.training"
PACING = "collegium.node.core.pacing"
SPENDING = "collegium.node.core.spending"
AGREEMENT, FOLD, ROUNDS = "collegium.consensus.agreement", "collegium.consensus.fold", "collegium.consensus.rounds"
LEDGER, CUT = "collegium.consensus.ledger", "collegium.consensus.cut"
WITHDRAWAL, WITHDRAWING = "collegium.consensus.withdrawal", "collegium.node.core.withdrawing"
MEMBERSHIP, MOTIONS = "collegium.consensus.membership", "collegium.node.core.motions"
POOL, BLOCKS, RECORDS = "collegium.node.core.pool", "collegium.protocol.blocks", "collegium.protocol.records"
OFFERS, TRAINERS = "collegium.node.core.offers", "collegium.consensus.trainers"
AMENDING, AMENDMENT = "collegium.node.core.amending", "collegium.protocol.amendment"
STATE, POLICY, UPDATE = "collegium.node.core.state", "collegium.node.privacy.policy", "collegium.protocol.update"
RULES, SIGNING = "collegium.consensus.rules", "collegium.protocol.signing"
EFFECTS = "collegium.consensus.effects"


@dataclass(frozen=True)
class Mutation:
    """`edits` are (module, text, text in its place). `seed` is the first one of `scenario` that shows it, as `by`."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    scenario: str
    seed: int
    by: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "locks do not bind",
        (
            (AGREEMENT, "(self.locked is None or self.locked[0] == identifier)", "True"),
            (AGREEMENT, "(self.locked is None or self.locked[1] <= before or self.locked[0] == identifier)", "True"),
        ),
        "hasty-crashes",
        2,
        ("G2",),
    ),
    Mutation(
        "one prevote unlocks",
        (
            (
                AGREEMENT,
                "self.votes.count(before, PREVOTE, identifier) < self.quorum:",
                "not self.votes.count(before, PREVOTE, identifier):",
            ),
        ),
        "liar-claims-prevotes",
        29,
        ("G2",),
    ),
    Mutation(
        "locks are lost at a restart",
        ((AGREEMENT, "if locks and (self.locked is None", "if False and (self.locked is None"),),
        "hasty-crashes",
        2,
        ("G2",),
    ),
    Mutation(
        "votes leave before they are written",
        ((HEIGHTS, "for item in (*action.proof, action.message):", "for item in action.proof:"),),
        "calm",
        1,
        ("G8",),
    ),
    Mutation(
        "precommits are written without their proof",
        ((HEIGHTS, "for item in (*action.proof, action.message):", "for item in (action.message,):"),),
        "calm",
        1,
        ("G2",),
    ),
    Mutation(
        "a record need not follow the one before",
        ((RECORDS, "if record.value.prev != head:", "if False:"),),
        "liar-breaks-chain",
        1,
        ("G4",),
    ),
    Mutation(
        "a block is accepted before every update is in",
        (
            (
                HEIGHTS,
                "if all(candidates.is_punctual(state, before, close.component, mine) for close in block.close):",
                "if mine:",
            ),
        ),
        "liar-hides-update",
        1,
        ("expect.everybody",),
    ),
    Mutation(
        "rounds close as soon as they can",
        ((CANDIDATES, "    if expected <= present:\n", "    if present:\n"),),
        "clock-fast",
        1,
        ("expect.everybody",),
    ),
    Mutation(
        "an update that is in at the deadline may be left out",
        ((CANDIDATES, "return (deadline.held & still) <= {entry.update for entry in entries}", "return True"),),
        "liar-at-the-deadline",
        6,
        ("expect.everybody",),
    ),
    Mutation(
        "forks are not detected",
        ((FEEDS, "if proof is None or (not provable(*proof) and provable(a, b)):", "if False:"),),
        "liar-forks",
        1,
        ("expect.expelled",),
    ),
    Mutation(
        "double votes are not reported",
        ((AGREEMENT, "if other is message or vote.author in self.convicted:", "if True:"),),
        "liar-double-votes",
        1,
        ("expect.expelled",),
    ),
    Mutation(
        "evidence expels nobody",
        ((FOLD, "    guilty = guilty & set(ledger.members)\n", "    guilty = set()\n"),),
        "liar-double-votes",
        1,
        ("expect.expelled",),
    ),
    Mutation(
        "one vote decides about members",
        ((MEMBERSHIP, "return quorum(max(1, len(voters(motion, members))), fault_model)", "return 1"),),
        "members-come-and-go",
        1,
        ("G2",),
    ),
    Mutation(
        "one vote twice is evidence",
        ((CUT, "if where[0] == where[1] and x.value.block != y.value.block:", "if where[0] == where[1]:"),),
        "liar-false-evidence",
        9,
        ("G8",),
    ),
    Mutation(
        "a vote that comes twice counts twice",
        (
            (AGREEMENT, "        if (vote.author, vote.block) in votes:\n            return False, None\n", ""),
            (AGREEMENT, "set()).add(vote.author)", "set()).add(vote.author + bytes([len(votes)]))"),
            (
                AGREEMENT,
                "            votes[vote.author, vote.block] = message\n",
                "            votes[vote.author, vote.block + bytes([len(votes)])] = message\n",
            ),
            (INBOX, "    if agreement is not None and name in agreement.seen:\n        return False\n", ""),
        ),
        "storm",
        1,
        ("G2",),
    ),
    Mutation(
        "a quorum is one too small",
        ((BLOCKS, "return 2 * members // 3 + 1 if", "return 2 * members // 3 if"),),
        "calm",
        1,
        ("G2",),
    ),
    Mutation(
        "half is a majority",
        ((BLOCKS, "else members // 2 + 1", "else members // 2"),),
        "two-halves-of-six",
        1,
        ("G2",),
    ),
    Mutation(
        "others' certificates are not checked",
        ((INBOX, "verify_certificate(block, decided.certificate, ", "(lambda *_: None)("),),
        "liar-serves-false-blocks",
        1,
        ("G2",),
    ),
    Mutation(
        "acknowledged without the bytes",
        (
            (
                UPDATES,
                "update = state.in_flight[header.digest] = InFlightUpdate(header)",
                "update = state.in_flight[header.digest] = InFlightUpdate(header)\n"
                "    state.unacked[header.digest] = None",
            ),
        ),
        "calm",
        1,
        ("G8",),
    ),
    Mutation(
        "two headers for one update key are acknowledged",
        (
            (
                UPDATES,
                "elif state.acked.setdefault(update.key, update.header.digest) == update.header.digest:",
                "elif update.key:",
            ),
            (UPDATES, "if state.acked.get(key, header.digest) != header.digest:", "if False:"),
        ),
        "liar-two-headers",
        1,
        ("G5",),
    ),
    Mutation(
        "own acknowledgements are forgotten at a restart",
        ((CORE, "        state.acked[value.author, value.component, value.round] = header.digest\n", ""),),
        "liar-two-headers-and-crashes",
        2,
        ("G5",),
    ),
    Mutation(
        "a restored node signs before it has asked",
        (
            (
                HEIGHTS,
                "if len(state.reports.intersection(state.ledger.members)) < state.ledger.quorum - 1:",
                "if False:",
            ),
        ),
        "restored-in-a-storm",
        1,
        ("G8",),
    ),
    Mutation(
        "an update is sent that no budget was charged for",
        (
            (
                TRAINING,
                "    state.reservations.append(put)\n    state.emit(ev.Persist(put))\n    lot",
                "    state.reservations.append(put)\n    lot",
            ),
        ),
        "noised",
        1,
        ("G6",),
    ),
    Mutation(
        "an update counts again when its author is late",
        (
            (
                ROUNDS,
                "            and (\n                p.author not in counted\n"
                "                or (p.round > close.round - counted[p.author].staleness and not spec.is_statistic)\n"
                "            )\n",
                "",
            ),
        ),
        "slow-member",
        2,
        ("G4",),
    ),
    Mutation(
        "robust rules take stale updates",
        (
            (
                ROUNDS,
                "limit = charter.rules.max_staleness if charter.rule(name) in AVERAGES else 0",
                "limit = charter.rules.max_staleness",
            ),
        ),
        "slow-member-robust",
        1,
        ("G5",),
    ),
    Mutation(
        "the weights are another member's",
        (
            (
                RULES,
                "for w_i, s in zip(w, staleness, strict=True)]",
                "for w_i, s in zip(w, staleness[::-1], strict=True)]",
            ),
        ),
        "slow-member",
        1,
        ("G4",),
    ),
    Mutation(
        "random effects weigh a member by its place",
        ((EFFECTS, "for a, s in zip(whole, staleness, strict=True))", "for s, a in enumerate(whole))"),),
        "noised",
        1,
        ("G4",),
    ),
    Mutation(
        "one acknowledgement is enough",
        (
            (
                UPDATES,
                "        need = quorum(max(1, len(hosts)), state.ledger.fault_model)\n",
                "        need = 1\n",
            ),
            (ROUNDS, "_in_common(p.acks, hosts) >= need:", "_in_common(p.acks, hosts) >= 1:"),
        ),
        "calm",
        1,
        ("G4",),
    ),
    Mutation(
        "a restart sweeps the bytes of updates in flight",
        (
            (
                UPDATES,
                "keep = {update.header.value.blob for update in state.in_flight.values()}",
                "keep: set[bytes] = set()",
            ),
        ),
        "crashes",
        1,
        ("G4",),
    ),
    Mutation(
        "a refold keeps what was withdrawn",
        ((WITHDRAWAL, "if not withdrawn.covers(c.name, round_.number, e))", "if c)"),),
        "withdrawal",
        1,
        ("G7",),
    ),
    Mutation(
        "a withdrawal of single updates takes the whole component",
        ((LEDGER, "        return update in terms.updates\n", "        return True\n"),),
        "withdraws-updates",
        2,
        ("G4",),
    ),
    Mutation(
        "a rewind takes the member's own updates only",
        ((LEDGER, 'return self.mode == "rewind" or self._counts(', "return self._counts("),),
        "rewinds",
        1,
        ("G7",),
    ),
    Mutation(
        "no round is skipped after rewound ones",
        ((FOLD, "        state = skip_rounds(state.charter, state)\n", "        pass\n"),),
        "rewinds",
        1,
        ("G3", "expect.rounds"),
    ),
    Mutation(
        "a round that too few can send for stays open",
        ((ROUNDS, "return len(able) < spec.min_updates <= len(able | barred)", "return not able"),),
        "withdraws-the-open-round",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "nobody is told which rounds a member gave up",
        (
            (
                WITHDRAWING,
                '    if statement.scope == "updates":\n        for number',
                "    if False:\n        for number",
            ),
        ),
        "withdraws-the-open-round",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "a round is given up only with what a block has",
        ((WITHDRAWAL, "reaches(ledger, withdrawn) or _bars_anew(ledger, withdrawn)", "reaches(ledger, withdrawn)"),),
        "withdraws-the-open-round",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "updates in flight outlive a rewind",
        ((LEDGER, "in _map(self.since) and number <= last + 1", "in _map(self.since) and number < 1"),),
        "rewinds",
        1,
        ("G7",),
    ),
    Mutation(
        "withdrawn bytes stay on the disk",
        ((HEIGHTS, "        if gone:\n", "        if False:\n"),),
        "withdrawal",
        1,
        ("G7",),
    ),
    Mutation(
        "withdrawn bytes go before the state without them is certified",
        (
            (
                HEIGHTS,
                "if e not in older and name not in state.hosted]",
                "if e not in older]",
            ),
        ),
        "withdrawal",
        1,
        ("G7",),
    ),
    Mutation(
        "bytes that wait for their erasure count as unneeded",
        ((UPDATES, "        blobs -= {blob for erasure in c.erasures for blob in erasure.blobs}\n", ""),),
        "withdrawal",
        1,
        ("G7",),
    ),
    Mutation(
        "deadlines never pass",
        ((CORE, "                deadline.due = True\n", ""),),
        "dead-member",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "no node requests what it missed",
        (
            (
                CORE,
                "            state.emit(ev.SetTimer(SyncDue(), state.options.sync_ms))\n"
                "            if state.neighbours and",
                "            if state.neighbours and",
            ),
        ),
        "storm",
        1,
        ("expect.rounds", "G3"),
    ),
    Mutation(
        "missing members are not reported",
        ((HEIGHTS, 'return "no update" if host in', 'return "" if host in'),),
        "slow-member-robust",
        1,
        ("G3",),
    ),
    Mutation(
        "the quota of a height is not held",
        (
            (CUT, "        if count[author] > charter.rules.records_per_height:\n", "        if False:\n"),
            (HEIGHTS, "if head.seq - agreed > state.charter.rules.records_per_height:", "if False:"),
            (
                CANDIDATES,
                "state.pool.chain(author, state.ledger.heads)[: rules.records_per_height]",
                "state.pool.chain(author, state.ledger.heads)",
            ),
        ),
        "liar-floods",
        1,
        ("G9",),
    ),
    Mutation(
        "records wait without a bound",
        ((POOL, "if value.seq > last + self.per_author and not agreed:", "if False:"),),
        "liar-floods",
        1,
        ("G9",),
    ),
    Mutation(
        "records under a proposed cut are taken unread",
        (
            (FEEDS, "                    check_record(record, state.federation)", "                    pass"),
            (
                CANDIDATES,
                "size > rules.bytes_per_height or not _admissible(state, record)",
                "size > rules.bytes_per_height",
            ),
        ),
        "liar-names-oversized",
        1,
        ("G1",),
    ),
    Mutation(
        "strangers' records under a proposed cut are kept",
        (
            (FEEDS, "        if head.author not in state.ledger.members:\n            continue", ""),
            (HEIGHTS, 'raise RemoteProtocolError("not-a-member", "the author is not a member", head.author)', "pass"),
        ),
        "liar-names-strangers",
        1,
        ("G9",),
    ),
    Mutation(
        "another federation's records count",
        ((SIGNING, "    if value.federation != federation:\n", "    if False:\n"),),
        "liar-replays-foreign",
        1,
        ("G4", "G8", "expect.refused"),
    ),
    Mutation(
        "heights without work",
        (
            (
                CANDIDATES,
                "return any(candidate.chains.values()) and state.idle_due and not underway",
                "return state.idle_due",
            ),
            (HEIGHTS, "if state.agreement is None or not (records or closes):", "if state.agreement is None:"),
            (FOLD, "    if not records and not closes:\n", "    if False:\n"),
        ),
        "calm",
        1,
        ("expect.idle", "G1"),
    ),
    Mutation(
        "a suspension never ends",
        (
            (
                OFFERS,
                "not all(state.is_current(name) or name in state.halted for name in state.hosted)",
                "state.ledger.height > 3",
            ),
        ),
        "silent-host",
        1,
        ("expect.counted",),
    ),
    Mutation(
        "a silent host is waited for",
        ((MOTIONS, "if rounds < SILENT_ROUNDS or", "if rounds >= 0 or"),),
        "silent-host",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "a suspended host still counts as a host",
        ((FOLD, "hosts=tuple(h for h in c.hosts if h != subject)", "hosts=c.hosts"),),
        "silent-host",
        1,
        ("G3",),
    ),
    Mutation(
        "hosts that do not train are waited for",
        (
            (
                CANDIDATES,
                "expected = set(trainers.trainers(ledger.offers, component.hosts, name))",
                "expected = set(component.hosts)",
            ),
        ),
        "hosts-without-data",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "a round closes without waiting for a trainer",
        (
            (
                CANDIDATES,
                "expected = set(trainers.trainers(ledger.offers, component.hosts, name))",
                "expected = set[bytes]()",
            ),
        ),
        "calm",
        1,
        ("expect.everybody",),
    ),
    Mutation(
        "a node that stops does not say so",
        (
            (
                OFFERS,
                "return state.stopped.get(name)",
                "return None",
            ),
        ),
        "hosts-without-data",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "the pace is ignored",
        ((PACING, "if left > 0:", "if False:"),),
        "paced",
        1,
        ("pace",),
    ),
    Mutation(
        "a federation does not wait for its start",
        ((PACING, "1000 * state.charter.rules.start - snapshot.clock", "0"),),
        "paced-withdrawal",
        1,
        ("pace",),
    ),
    Mutation(
        "a restart forgets when the last round closed",
        ((CORE, "    pacing.recall(state, snapshot)\n", ""),),
        "paced",
        1,
        ("pace",),
    ),
    Mutation(
        "a deadline runs while the pace does not allow a close",
        (
            (
                CANDIDATES,
                "        if name in state.resting:\n            continue",
                "        if False:\n            continue",
            ),
        ),
        "paced",
        1,
        ("expect.everybody",),
    ),
    Mutation(
        "a silent trainer is not suspended",
        ((MOTIONS, "waited.get(host, 0) + (host in asked)", "0"),),
        "hung-learner",
        1,
        ("expect.rounds", "expect.notices"),
    ),
    Mutation(
        "a suspended trainer still counts as a trainer",
        ((FOLD, "trainers.silenced(ledger.offers[subject])", "ledger.offers[subject]"),),
        "hung-learner",
        1,
        ("G3",),
    ),
    Mutation(
        "a node that trains again does not say so",
        ((OFFERS, "        del state.stopped[name]\n", "        pass\n"),),
        "hung-learner",
        1,
        ("expect.counted",),
    ),
    Mutation(
        "a repeated offer to train is waited for in every round",
        ((TRAINERS, "return times < 2 or ", "return True or "),),
        "liar-says-it-trains",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "a ballot may be cast twice",
        ((MEMBERSHIP, "    if author in opened.yes | opened.no:\n", "    if False:\n"),),
        "liar-floods-motions",
        1,
        ("G2",),
    ),
    Mutation(
        "motions of a member have no bound",
        ((MEMBERSHIP, "for opened in roll.motions) >= MAX_OPEN:", "for opened in roll.motions) >= 99:"),),
        "liar-floods-motions",
        1,
        ("G9",),
    ),
    Mutation(
        "a replaced key stays a member's",
        ((FOLD, "members=tuple(sorted((*state.members, new)))", "members=tuple(sorted((*ledger.members, new)))"),),
        "changes-its-key",
        1,
        ("G2",),
    ),
    Mutation(
        "the spending of a lost key is forgotten",
        ((SPENDING, "for stored in blocks if keys else ():", "for stored in ():"),),
        "lost-key",
        1,
        ("G6",),
    ),
    Mutation(
        "a member expelled by motion stays a host",
        ((FOLD, "hosts=tuple(host for host in c.hosts if host not in gone),", "hosts=c.hosts,"),),
        "expelled-by-motion",
        8,
        ("G2",),
    ),
    Mutation(
        "an expulsion by motion is not carried out",
        ((FOLD, "return replace(_without_members(ledger, {subject}), expelled=", "return replace(ledger, expelled="),),
        "expelled-by-motion",
        1,
        ("G2",),
    ),
    Mutation(
        "hosts wait for a close that cannot come",
        ((ROUNDS, "or len(trainers.trainers(offers, c.hosts, c.name)) < spec.min_updates", "or not c.hosts"),),
        "joins-when-budgets-are-spent",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "a host trains alone a round that cannot close",
        ((TRAINING, "    return len(able) >= state.specs[name].min_updates\n", "    return True\n"),),
        "alone-with-a-reserve",
        1,
        ("G6",),
    ),
    Mutation(
        "hosts with a reserve wait for each other's offers",
        ((TRAINING, "        _offer_again(state, trainable)\n", ""),),
        "reserves-end-unevenly",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "an offer to train again does not ask the budget",
        ((TRAINING, "    if _costs(state, run):\n        state.run = run", "    if False:\n        state.run = run"),),
        "alone-with-a-reserve",
        1,
        ("expect.used",),
    ),
    Mutation(
        "who trained its last round tells the others too late",
        ((TRAINING, "    if state.last_run:\n", "    if False:\n"),),
        "reserves-end-unevenly",
        1,
        ("expect.used",),
    ),
    Mutation(
        "an amendment is in force within its block",
        (
            (
                FOLD,
                "close_rounds(ledger.charter, apply_records(ledger, records, trusted=trusted), closes, height)",
                "(lambda s: close_rounds(s.voted or s.charter, s, closes, height))"
                "(apply_records(ledger, records, trusted=trusted))",
            ),
        ),
        "amended-in-a-storm",
        4,
        ("G1",),
    ),
    Mutation(
        "two amendments of one number pass",
        ((AMENDMENT, "    if amendment.number != charter.number + 1:\n", "    if False:\n"),),
        "amendments-at-once",
        1,
        ("G10",),
    ),
    Mutation(
        "updates in flight are not judged by a new charter",
        ((FOLD, "if _is_allowed(p.header, charter) and not _is_outdated", "if not _is_outdated"),),
        "amendment-voids",
        2,
        ("G10",),
    ),
    Mutation(
        "a retired component goes on",
        (
            (ROUNDS, "spec is not None and name not in charter.retired and len(", "spec is not None and len("),
            (UPDATE, "    if header.component in charter.retired:\n", "    if False:\n"),
            (STATE, "[name for name in self.hosted if name not in charter.retired]", "list(self.hosted)"),
            (TRAINING, "if name in state.learner and name not in state.charter.retired]", "if name in state.learner]"),
        ),
        "amendment-retires",
        1,
        ("G10",),
    ),
    Mutation(
        "an amendment passes by its author's vote",
        (
            (
                MEMBERSHIP,
                '        case "admit" | "amend" | "rewind":\n            return frozenset(members)\n',
                '        case "amend":\n            return frozenset((motion.author,))\n'
                '        case "admit" | "rewind":\n            return frozenset(members)\n',
            ),
        ),
        "liar-amends-alone",
        1,
        ("G2",),
    ),
    Mutation(
        "nobody takes part in what opens",
        ((AMENDING, "hosted=event.hosted", "hosted=state.options.hosted"),),
        "amendment-opens",
        1,
        ("expect.rounds",),
    ),
    Mutation(
        "a run under an older recipe is declared as one of the new",
        ((AMENDING, "    if run is not None and (", "    if run is not None and not run and ("),),
        "amendment-voids",
        1,
        ("G6",),
    ),
    Mutation(
        "a vote overrules a member's own policy",
        (
            (
                POLICY,
                '            if policy.policy == "dp" and not specs',
                '            if policy.policy == "" and not specs',
            ),
            (POLICY, '        elif policy.policy == "dp":\n', '        elif policy.policy == "":\n'),
        ),
        "amendment-against-a-policy",
        1,
        ("G6",),
    ),
    Mutation(
        "a voted rule is not that of the rounds after it",
        ((ROUNDS, '        rule = c.rules[-1][1] if c.rules else ""\n', '        rule = ""\n'),),
        "amended-then-joined",
        1,
        ("G10",),
    ),
    Mutation(
        "no round makes room after void updates",
        ((FOLD, "    if _tightened(before, charter) and ", "    if not charter and "),),
        "amendments-at-once",
        2,
        ("expect.rounds",),
    ),
    Mutation(
        "the core asks the founding charter",
        (
            (
                STATE,
                "        self.federation = ledger.federation\n",
                "        self.federation, self.at_first = ledger.federation, ledger.charter\n",
            ),
            (STATE, "        return self.ledger.charter\n", "        return self.at_first\n"),
        ),
        "amendment-needs-everybody",
        1,
        ("G1",),
    ),
)

CHILD = """
import importlib.machinery, json, sys
task = json.load(sys.stdin)
sys.path[:0] = task["path"]

class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        text = self.get_data(self.path).decode()
        for module, old, new in task["edits"]:
            if module == name:
                assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
                text = text.replace(old, new)
        return compile(text, self.path, "exec")

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in {module for module, _, _ in task["edits"]}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = Loader(name, spec.origin)
        return spec

sys.meta_path.insert(0, Finder)
from collegium.sims.scenarios.play import play
from collegium.sims.scenarios.loading import load
scenario = load(task["scenario"])
for seed in task["seeds"]:
    outcome = play(scenario, seed)
    if not outcome.held:
        print(json.dumps({"seed": seed, "promise": outcome.promise, "what": outcome.what}))
        break
"""


def caught(mutation: Mutation, seeds: Sequence[int]) -> dict[str, Any] | None:
    task = {
        "path": [entry for entry in sys.path if entry],
        "edits": mutation.edits,
        "scenario": mutation.scenario,
        "seeds": list(seeds),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(task), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)) if done.stdout else None


def check(mutation: Mutation, seeds: Sequence[int]) -> None:
    failure = caught(mutation, seeds)
    assert failure is not None, f"{mutation.scenario} misses it with seeds {list(seeds)}"
    assert failure["seed"] == mutation.seed
    assert failure["promise"] in mutation.by, failure
    assert "fell over" not in failure["what"], failure


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: str(mutation.name))
def test_the_mistake_is_caught(mutation: Mutation) -> None:
    check(mutation, [mutation.seed])


@pytest.mark.soak
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: str(mutation.name))
def test_it_is_caught_within_so_many_seeds(mutation: Mutation) -> None:
    check(mutation, range(1, mutation.seed + 1))


@pytest.mark.soak  # seed 1 of each is in the gate already
@pytest.mark.parametrize(("scenario", "seed"), sorted({(m.scenario, m.seed) for m in MUTATIONS}), ids=str)
def test_the_code_as_it_is_passes_the_same(scenario: str, seed: int) -> None:
    outcome = play(load(scenario), seed)
    assert outcome.held, outcome


def test_every_planted_text_is_in_its_module() -> None:
    """In a second, for whoever moves code; the children that plant it take minutes."""
    for mutation in MUTATIONS:
        for module, text, _ in mutation.edits:
            spec = find_spec(module)
            assert spec is not None, (mutation.name, module)
            assert spec.origin is not None
            assert text in Path(spec.origin).read_text(encoding="utf-8"), (mutation.name, module)


def test_the_documentation_has_the_list() -> None:
    table = (Path(__file__).parents[3] / "docs/simulator.md").read_text(encoding="utf-8")
    for mutation in MUTATIONS:
        rows = (f"| {mutation.name} | {mutation.scenario} | {by} | {mutation.seed} |" for by in mutation.by)
        assert any(row in table for row in rows), mutation.name
