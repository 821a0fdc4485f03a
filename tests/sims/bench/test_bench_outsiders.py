"""The bench of what outsiders check, on a ledger of a few hundred records: its figures are of what they say."""

from pathlib import Path

import pytest

from collegium.node.verify import verify_file
from collegium.sims.bench import outsiders
from collegium.sims.bench.outsiders import INDEPENDENT, PRODUCT, History
from collegium.sims.paper import verifying


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, History]:
    folder = tmp_path_factory.mktemp("ledgers")
    short, long = folder / "short", folder / "long"
    return short, long, outsiders.write_ledgers(short, 50, long, 150)


def test_the_short_ledger_is_the_beginning_of_the_long_one(ledgers: tuple[Path, Path, History]) -> None:
    reports = []
    for path in ledgers[:2]:
        with path.open("rb") as file:
            reports.append(verify_file(file, str(path)).as_map())
    assert 50 <= int(str(reports[0]["records"])) < 150 <= int(str(reports[1]["records"]))
    assert not reports[1]["refused_records"], "nothing in it is inert: every signature counts"


def test_both_are_paced_against_the_same_signatures(ledgers: tuple[Path, Path, History]) -> None:
    counts = set()
    for verify in outsiders.verifiers().values():
        ours, bare, count = outsiders.paced(ledgers[1], verify)
        assert 0 < bare < ours
        counts.add(count)
    assert counts == {len(list(outsiders.signatures(ledgers[1])))}
    with ledgers[1].open("rb") as file:
        report = verify_file(file, "it").as_map()
    (count,) = counts
    assert count == int(str(report["signatures"])) + 4, "the charter's own are checked too"


def test_memory_is_that_of_a_process_of_its_own(ledgers: tuple[Path, Path, History]) -> None:
    small, large = (outsiders.peak(name, ledgers[0]) for name in (INDEPENDENT, PRODUCT))
    assert 1e6 < small < large


def test_proofs_are_weighed(ledgers: tuple[Path, Path, History]) -> None:
    rows = outsiders.proof_sizes(ledgers[2])
    assert len(rows) == 2
    assert all(row.ours > len(ledgers[2].federation.charter_file) for row in rows)


def test_what_is_missed_misses_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outsiders.caught(20).met is True
    monkeypatch.setattr(verifying, "product", lambda data: None)
    row = outsiders.caught(20)
    assert (row.ours, row.met) == (0, False)
