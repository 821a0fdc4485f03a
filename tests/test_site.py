"""The documentation as a site: every page is in it, and a browser that opens it asks nobody else for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = re.compile(r"""(?:<(?:script|img|iframe|source)[^>]*\ssrc|<link[^>]*\shref)=["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it: a warning ends it."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix().replace("README.md", "index.md")
        assert (site / name).with_suffix(".html").is_file(), name


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert [page.name for page in pages if ELSEWHERE.search(page.read_text(encoding="utf-8"))] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not [1 for text in styles if re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", text)]


def test_links_that_only_a_forge_can_follow_are_plain_words(site: Path) -> None:
    text = (site / "CONTRIBUTING.html").read_text(encoding="utf-8")
    assert "tests/firstweek/schools.py" in text
    assert 'href="tests/' not in text
    assert 'href="data-protection.html#ε-and-δ-in-plain-words"' in (site / "index.html").read_text(encoding="utf-8")
