"""The token is made once, is the owner's alone, and what is none is said."""

from pathlib import Path

import pytest

from collegium.crypto.errors import CorruptError, RefusedError
from collegium.node.home import Home
from collegium.node.page.token import token


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.make()
    return made


def test_it_is_made_once_and_private(home: Home) -> None:
    made = token(home)
    assert len(made) == 43
    assert token(home) == made
    assert home.page_token.stat().st_mode & 0o777 == 0o600


def test_one_that_others_can_read_or_that_leads_elsewhere_is_refused(home: Home, tmp_path: Path) -> None:
    token(home)
    home.page_token.chmod(0o640)
    with pytest.raises(RefusedError, match="not a private file"):
        token(home)
    home.page_token.rename(tmp_path / "elsewhere")
    home.page_token.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="not a private file"):
        token(home)


@pytest.mark.parametrize("text", ["", "short", "x" * 44, "é" * 43])
def test_what_is_no_token_is_said(home: Home, text: str) -> None:
    token(home)
    home.page_token.write_text(text)
    with pytest.raises(CorruptError, match="does not hold a token"):
        token(home)
