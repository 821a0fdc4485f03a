"""The study of heads that are sums: rows that say what they are of, and a federation that beats its members."""

from pathlib import Path

from collegium.sims.learn import sums
from collegium.sims.learn.datasets import prepare_digits
from collegium.sims.learn.workers import start_workers


def test_rows_of_two_schools(tmp_path: Path) -> None:
    folders = prepare_digits(tmp_path, 2, 0.3, seed=0)
    with start_workers(1) as (worker,):
        rows = sums._rows(
            worker,
            source="digits",
            institutions={folder.name: (folder,) for folder in folders},
            architecture="prototypes",
            seeds=[1, 2],
            epsilons=(None, 2.0),
        )
    by_mode = {(row["mode"].rpartition(" ")[2], row["epsilon"]): row["values"] for row in rows}
    assert {key: len(values) for key, values in by_mode.items()} == {
        ("federated", None): 1,
        ("alone", None): 1,
        ("federated", 2.0): 2,
        ("alone", 2.0): 2,
    }
    assert by_mode["federated", None][0] > 0.85
    assert by_mode["federated", 2.0][0] != by_mode["federated", 2.0][1], "each seed has its own noise"
    assert 0.5 < min(by_mode["federated", 2.0]) < by_mode["federated", None][0]
    shown = sums.table({"title": "", "metric": "", "unit": "", "rows": rows})
    assert shown.row_count == 4
