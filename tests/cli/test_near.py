"""`unlearn subject`: which ids are meant, where the data have others that are written nearly alike."""

import os
import pty
import sys
from pathlib import Path

import pytest

from collegium.cli import near
from collegium.crypto.errors import RefusedError, UsageError
from collegium.node.data.records import in_test
from collegium.node.home import Config, Home
from collegium.node.home import config as settings

TOML = """format = 1
[unit]
subject = "pupil"
[tables.work]
path = "work.csv"
key = "id"
keep = [{ column = "y", values = ["0", "1"] }]
[[modality]]
name = "x"
kind = "tabular"
columns = [{ name = "x", low = 0, high = 1 }]
[[task]]
name = "y"
kind = "binary"
column = "y"
positive = "1"
[split]
share = 0.2
salt = "s"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "node")
    made.make()
    settings.create(made.config, Config())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.toml").write_text(TOML)
    # 0s2 has no row that is kept: an update may have seen it all the same, before
    rows = ["a,s2,0,1", "b,S2 ,0,0", "c,0s2,0,9", "d,s20,0,1", "e,Zoe\u0301,0,1"]
    (tmp_path / "data" / "work.csv").write_text("\n".join(["id,pupil,x,y", *rows]) + "\n", encoding="utf-8")
    text = made.config.read_text().replace('path = ""', f'path = "{tmp_path / "data"}"')
    made.config.write_text(text.replace("lot_size = 0.0", "lot_size = 20.0"))
    return made


def test_without_a_terminal_it_has_to_be_said_whether_near_ids_are_the_same(home: Home) -> None:
    with pytest.raises(UsageError, match=r"'S2', '0s2'.*--also S2 --also 0s2; if not, add --exactly") as caught:
        near.meant(home, " s2", (), exactly=False, yes=True)
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="'0s2', which differs from what"):
        near.meant(home, "s2", ["S2"], exactly=False, yes=True)
    assert near.meant(home, " s2\u00a0", (), exactly=True, yes=True) == ["s2"]
    assert near.meant(home, "s2", ["S2", "0s2 "], exactly=False, yes=True) == ["s2", "S2", "0s2"]
    assert near.meant(home, "Zo\u00e9", (), exactly=False, yes=True) == ["Zo\u00e9"]
    assert near.meant(home, "nobody", (), exactly=False, yes=True) == ["nobody"]
    with pytest.raises(UsageError, match="is empty"):
        near.meant(home, " \u200b", (), exactly=False, yes=True)


@pytest.mark.parametrize(("typed", "ids"), [(b"y\n", ["s2", "S2", "0s2"]), (b"n\ny\n", ["s2"]), (b"n\nn\n", None)])
def test_at_a_terminal_it_asks(
    home: Home, typed: bytes, ids: list[str] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    master, slave = pty.openpty()
    os.write(master, typed)
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        if ids is None:
            with pytest.raises(RefusedError, match="did not confirm"):
                near.meant(home, "s2", (), exactly=False, yes=False)
        else:
            assert near.meant(home, "s2", (), exactly=False, yes=False) == ids
    os.close(master)
    assert "'S2', '0s2', which differ from what you gave" in capsys.readouterr().err


def test_data_that_cannot_be_read_are_no_obstacle(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = settings.load(home.config).data.path
    assert folder is not None
    (folder / "work.csv").unlink()
    assert near.meant(home, "s2", (), exactly=False, yes=True) == ["s2"]
    assert "cannot be looked up now" in capsys.readouterr().err


def test_who_is_held_out_by_the_split_as_it_stands_is_found(home: Home) -> None:
    names = ("s2", "S2", "0s2", "s20", *(f"p{n}" for n in range(40)))
    held = [name for name in names if near.is_held_out(home, name)]
    assert held == [name for name in names if in_test("s", name, 0.2)] != []
    folder = settings.load(home.config).data.path
    assert folder is not None
    by_column = TOML.replace('share = 0.2\nsalt = "s"', 'column = "y"\ntrain = ["0", "9"]\ntest = ["1"]')
    (folder / "dataset.toml").write_text(by_column)
    assert [near.is_held_out(home, name) for name in ("s2", "S2", "0s2", "nobody")] == [True, False, False, False]
    (folder / "work.csv").unlink()
    assert not near.is_held_out(home, "s2")
