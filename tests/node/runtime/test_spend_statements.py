"""Other members' spend statements are recomputed in a process of its own: its limits, and one that takes too much."""

import sys
from typing import Any

import structlog
import trio

from collegium.node.runtime.spend_statements import SpendStatements
from collegium.protocol.claims import Claim, DpEvents
from collegium.protocol.components import MILLION
from collegium.protocol.update import Engaged, UpdateHeader

HONEST = Claim("made-up", (DpEvents(100_000, MILLION, 80),), 6400, 10_000)  # 6.35
LOW = Claim("made-up", (DpEvents(100_000, MILLION, 80),), 5000, 10_000)
LONG = Claim("made-up", tuple(DpEvents(100_000, MILLION + n, 1) for n in range(3)), 8000, 10_000)


def header(author: int, *claims: Claim) -> UpdateHeader:
    recipe = Engaged("head/a", bytes(32), MILLION, MILLION, MILLION)
    author_key, nothing = bytes([author]) * 32, bytes(32)
    return UpdateHeader(nothing, author_key, "head/a", 1, 0, nothing, nothing, 0, 4, 100_000, 1000, (recipe,), claims)


def told(statements: SpendStatements, *headers: UpdateHeader) -> list[tuple[str, int]]:
    """Return the warnings and whom they are about."""

    async def run() -> list[Any]:
        with structlog.testing.capture_logs() as logs:
            await statements.check(headers)
        return list(logs)

    return [(log["event"], log["member"][0]) for log in trio.run(run)]


def test_a_member_that_claims_too_little_is_told_of_and_an_honest_one_is_not() -> None:
    findings = told(SpendStatements(), header(1, HONEST), header(2, LOW))
    assert findings == [("a member claims less ε than its training runs compose to", 2)]


def test_g9_a_spend_statement_that_ends_the_process_costs_no_other_its_check() -> None:
    ends = "import json, sys\nfor line in sys.stdin:\n    n = len(json.loads(line)['events'])\n"
    ends += "    assert n < 3\n    print(5500, flush=True)\n"
    findings = told(SpendStatements([sys.executable, "-c", ends]), header(1, LONG), header(2, LOW), header(3, HONEST))
    assert findings == [
        ("a member claims less ε than its training runs compose to", 2),
        ("a member's spend statement could not be recomputed", 1),
    ]


def test_g9_the_process_has_limits_of_memory_and_time() -> None:
    code = "import resource\nfrom collegium.node.privacy import recompute\nrecompute.main()\n"
    code += "print(*resource.getrlimit(resource.RLIMIT_AS), *resource.getrlimit(resource.RLIMIT_CPU))"

    async def run() -> bytes:
        return (await trio.run_process([sys.executable, "-c", code], stdin=b"", capture_stdout=True)).stdout

    assert [int(word) for word in trio.run(run).split()] == [2 << 30, 2 << 30, 60, 60]


def test_the_last_spend_statement_of_a_member_takes_the_place_of_those_before() -> None:
    statements = SpendStatements()
    for epsilon in range(1, 1000):
        statements.add(header(1, Claim("made-up", HONEST.events, epsilon, 10_000)))
    assert [claim.epsilon for waiting in statements._waiting.values() for claim in waiting.claims] == [999]
