"""What mkdocs.yml cannot say: the pages beside docs/ belong to the site, and links lead there as they do on a forge."""

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
BESIDE = {name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")} | {"README.md": "index.md"}
LINK = re.compile(r"\[([^\[\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the root of the repository."""
    for name, target in BESIDE.items():
        files.append(File.generated(config, target, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links by paths of the repository as links by paths of the site.

    What the site does not have (a test, a folder) is named without a link; what nobody has stays, and mkdocs warns.
    """
    here = page.file.src_uri
    source = {target: name for name, target in BESIDE.items()}.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        text, path, anchor = link[1], normpath(f"{dirname(source)}/{link[2]}".lstrip("/")), link[3] or ""
        target = BESIDE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(target) is None and (ROOT / path).exists():
            return text
        return f"[{text}]({relpath(target, dirname(here))}{anchor})"

    return LINK.sub(moved, markdown)
