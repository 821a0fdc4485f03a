"""The package is what the folders at the root say: every folder has its link, and the wheel holds every module."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cli", "sims", "node", "consensus", "protocol", "crypto")


def modules() -> set[str]:
    found = {f"collegium/{p.relative_to(ROOT).as_posix()}" for f in FOLDERS for p in (ROOT / f).rglob("*.py")}
    for folder in (ROOT / "node" / "privacy", ROOT / "sims" / "scenarios"):
        tables = {f"collegium/{p.relative_to(ROOT).as_posix()}" for p in folder.rglob("*.toml")}
        assert tables
        found |= tables
    return found | {"collegium/__init__.py", "collegium/py.typed"}


def test_every_folder_has_its_link() -> None:
    links = {path.name for path in (ROOT / "src" / "collegium").iterdir() if path.name != "__pycache__"}
    assert links == {*FOLDERS, "__init__.py", "py.typed"}
    for name in links:
        link = ROOT / "src" / "collegium" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_every_package_has_an_init() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} is no package: its modules would be lost"


def test_the_wheel_built_from_the_sdist_lists_every_module(tmp_path: Path) -> None:
    def build(kind: str, where: Path) -> Path:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(tmp_path)], cwd=where, check=True
        )
        return next(tmp_path.glob("*.tar.gz" if kind == "sdist" else "*.whl"))

    with tarfile.open(build("sdist", ROOT)) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = next(path for path in tmp_path.iterdir() if path.is_dir())
    with zipfile.ZipFile(build("wheel", unpacked)) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("collegium/")}
    assert names == modules()


@pytest.mark.parametrize(
    "module", ["collegium.node.runtime", "collegium.node.__main__", "collegium.cli.main", "collegium.sims.seeds"]
)
def test_the_daemon_and_the_command_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'opacus', 'dp_accounting') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
