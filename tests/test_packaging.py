"""The package is what the folders at the root say: every folder has its link, and the wheel holds every module."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from .firstweek.schools import free_address
from .firstweek.test_changes import pupils

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cli", "sims", "node", "consensus", "protocol", "crypto")


def modules() -> set[str]:
    names = {f"collegium/{p.relative_to(ROOT).as_posix()}" for f in FOLDERS for p in (ROOT / f).rglob("*.py")}
    for folder in (ROOT / "node" / "home", ROOT / "sims" / "scenarios"):
        tables = {f"collegium/{p.relative_to(ROOT).as_posix()}" for p in folder.rglob("*.toml")}
        assert tables
        names |= tables
    page = {f"collegium/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "node" / "page").glob("[st]*/*.*")}
    assert {"base.html", "page.css", "page.js"} <= {name.rpartition("/")[2] for name in page}
    return names | page | {"collegium/__init__.py", "collegium/py.typed"}


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")

    def build(kind: str, where: Path) -> Path:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)], cwd=where, check=True
        )
        return next(folder.glob("*.tar.gz" if kind == "sdist" else "*.whl"))

    with tarfile.open(build("sdist", ROOT)) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", next(path for path in folder.iterdir() if path.is_dir()))


def test_the_wheel_built_from_the_sdist_lists_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("collegium/")}
    assert names == modules()


ABSENT = ("opacus", "matplotlib", "sklearn")  # of the extras audit, plots and sims
BLOCK = f"""
import sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder)
"""


def test_an_installed_wheel_runs_a_node_without_the_extras(wheel: Path, tmp_path: Path) -> None:
    """Installed as pip does it, in an environment of its own, beside this one's other packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    # The installed package comes first: nothing of this checkout is imported.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    packages = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (Path(packages) / "others.pth").write_text("\n".join(paths))
    (Path(packages) / "sitecustomize.py").write_text(BLOCK)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         "--ignore-installed", str(wheel)],
        check=True,
    )  # fmt: skip
    command = tmp_path / "env" / "bin" / "collegium"

    def run(*args: str, code: int = 0) -> str:
        done = subprocess.run(
            [command, *args], capture_output=True, text=True, check=False, cwd=tmp_path, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    where = subprocess.run(
        [python, "-c", "import collegium; print(collegium.__file__)"], capture_output=True, text=True, check=True
    )
    assert where.stdout.startswith(packages)
    assert run("--version").strip().startswith("collegium ")
    data = pupils(tmp_path / "data", 1)
    words = ("init", "--name", "north", "--listen", free_address(), "--lot-size", "12", "--data", str(data), "--json")
    member = json.loads(run("--home", "home", *words))["member"]
    (tmp_path / "model.toml").write_text(run("charter", "model", str(data)))
    founding = ("--model", "model.toml", "--member", member, "--fault-model", "crash", "--rounds", "5")
    run("--home", "home", "charter", "create", "--name", "alone", *founding)
    run("--home", "home", "charter", "sign", "--yes")
    try:
        begun = run("--home", "home", "node", "start", "--wait", "600")
        assert "the learner is ready" in begun, begun
    finally:
        run("--home", "home", "node", "stop")
    audit = subprocess.run([python, "-m", "collegium.node.learner.audit"], check=False, stdin=subprocess.DEVNULL)
    assert audit.returncode == 0
    assert "all promises held" in run("sim", "run", "calm")
    answer = run("demo", "--keep", "kept", code=2)
    assert "sklearn" in answer
    assert "pip install 'collegium[sims]'" in " ".join(answer.split())


@pytest.mark.parametrize(
    "module",
    ["collegium.node.runtime", "collegium.node.__main__", "collegium.cli.main", "collegium.sims.scenarios.seeds"],
)
def test_the_daemon_and_the_command_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'opacus', 'dp_accounting') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
