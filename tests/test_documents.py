"""What the pages for engineers name is there: whoever moves a file or a function moves it there too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("CONTRIBUTING.md", "docs/paths.md", "docs/architecture.md", "docs/threat-model.md")
NAME = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.\-/]+/[\w.\-]+\.(?:py|md|toml|json)")
WORD = re.compile(r"[A-Za-z_]\w+")


def files(text: str) -> set[str]:
    return {name for name in NAME.findall(text) if FILE.fullmatch(name) and not name.endswith("/NAME.toml")}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    names = {name for name in files((ROOT / page).read_text()) if "NOUN" not in name}
    assert len(names) >= 4
    assert not [name for name in sorted(names) if not (ROOT / name).is_file()]


def test_every_link_leads_somewhere() -> None:
    """Of all pages: a link is relative to the page that it is on."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert ROOT / "README.md" in pages
    assert ROOT / "docs/tour.md" in pages
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize(("page", "names"), [("docs/paths.md", 50), ("docs/threat-model.md", 40)])
def test_every_name_of_a_path_is_in_the_file_before_it(page: str, names: int) -> None:
    looked_at = 0
    for line in (ROOT / page).read_text().splitlines():
        path, text = "", ""
        for name in NAME.findall(line):
            if FILE.fullmatch(name):
                path, text = name, (ROOT / name).read_text()
            elif path and WORD.fullmatch(name):
                looked_at += 1
                assert re.search(rf"\b{name}\b", text), f"{name} is not in {path}"
    assert looked_at > names
