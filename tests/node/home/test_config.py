"""config.toml: what is written is read, and whatever is wrong is named with what is allowed."""

import os
import stat
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.crypto.errors import RefusedError, UsageError
from collegium.node import toml
from collegium.node.home import Config, config
from collegium.node.home.config import (
    Alarm,
    Data,
    Learning,
    Log,
    Models,
    Node,
    Peers,
    Privacy,
    Timing,
    Unlearning,
    default_text,
    load,
    parse,
)

PEER = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

FULL = Config(
    node=Node("Zürich", ("/ip4/192.168.1.20/tcp/4001", "/ip6/::1/tcp/0"), ("/dns4/a.example.org/tcp/80",), True, 3),
    data=Data(Path("data/oulad")),
    learning=Learning(
        contribute=False,
        quiet_hours=("22:00-06:00", "Mon-Fri 07:30-18:00"),
        rounds=20,
        engage=("head/*", "backbone"),
        lot_size=32.5,
        home_layer=True,
        personalise_every=3,
        private_adapter="rslora",
        private_rank=4,
        learner=("python", "-m", 'my "learner"'),
    ),
    privacy=Privacy(1.0, 1e-9, "never"),
    models=Models((("all/Mini.LM", Path("models/mini")), ('b "c"', Path("/d")))),
    log=Log("json", "debug"),
    alarm=Alarm((), "https://example.org:8443/hook?a=b", 0),
    unlearning=Unlearning("Sun 02:00"),
    timing=Timing(10, 3_600_000, 99),
    peers=Peers((PEER,)),
)


def test_an_empty_file_is_all_defaults() -> None:
    assert parse("", "config.toml") == Config()


@pytest.mark.parametrize("written", [Config(), FULL], ids=["defaults", "everything"])
def test_the_default_text_reads_back_as_what_it_was_made_from(written: Config) -> None:
    assert parse(default_text(written), "config.toml") == written


def test_the_default_text_shows_every_key() -> None:
    text = default_text()
    for section, (_, checks) in config._SECTIONS.items():
        assert f"\n[{section}]" in text
        for key in checks:
            assert f"\n{key} = " in text, key


def test_every_field_has_a_key_that_can_be_written() -> None:
    elsewhere = {"privacy": {"modalities"}, "models": {"folders"}}  # tables of their own
    for section, (make, checks) in config._SECTIONS.items():
        assert is_dataclass(make)
        assert {field.name for field in fields(make)} - elsewhere.get(section, set()) == checks.keys(), section


def test_the_text_fits_a_terminal_and_warns_of_the_wildcard_address() -> None:
    assert max(map(len, default_text().splitlines())) <= 120
    assert "0.0.0.0" in default_text()


@given(st.text(st.characters(exclude_categories=["C"]) | st.just("\x7f"), min_size=1, max_size=30))
def test_any_text_survives_quoting(word: str) -> None:
    written = Config(learning=Learning(learner=(word, 'a"b\\c\n\t')))
    assert parse(default_text(written), "config.toml") == written


def test_a_whole_number_is_a_number() -> None:
    epsilon = parse("[privacy]\nepsilon = 3", "config.toml").privacy.epsilon
    assert epsilon == 3.0
    assert type(epsilon) is float


@pytest.mark.parametrize("name", ["whole", "number", "kind", "texts"])
def test_true_is_no_number(name: str) -> None:
    """Python takes it for 1, and a list of it for a list of numbers."""
    table = toml.parse(f"key = {'[true]' if name == 'texts' else 'true'}", "config.toml")
    readings: dict[str, Callable[[], object]] = {
        "whole": lambda: table.whole("key", None, 0, 9),
        "number": lambda: table.number("key"),
        "kind": lambda: table.take("key", toml.kind(int, list)),
        "texts": lambda: table.texts("key"),
    }
    with pytest.raises(UsageError, match=r"config\.toml: key .*whole number|config\.toml: key .*finite number"):
        readings[name]()


def test_patterns_choose_components() -> None:
    learning = Learning(engage=("head/*", "backbone"))
    assert [learning.engages(name) for name in ("head/pass", "backbone", "encoder/text", "Head/pass")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert Learning().engages("encoder/text")
    assert not Learning(engage=()).engages("backbone")


BAD: dict[str, tuple[str, str]] = {
    "unknown section": ("[nodes]\n", r"unknown key 'nodes'.*mean node"),
    "unknown key": ("[privacy]\nepsilom = 1.0", r"\[privacy\]: unknown key 'epsilom'.*mean epsilon"),
    "key outside of a section": ("name = 'x'", r"unknown key 'name'.*node, data, learning"),
    "a section that is no table": ("node = 1", r"\[node\]: a table of keys belongs here"),
    "a list of tables": ("[[node]]\nname = 'x'", r"\[node\]: a table of keys belongs here"),
    "not TOML": ("[node\n", r"not TOML.*line 1"),
    "a key twice": ("[node]\nname = 'a'\nname = 'b'", r"not TOML"),
    "deep nesting": ("x = " + "[" * 5000, r"not TOML"),
    "an empty name": ("[node]\nname = ''", r"\[node\]: name cannot be ''.*1 to 128 bytes"),
    "a long name": (f"[node]\nname = '{'x' * 129}'", r"\[node\]: name.*this value"),
    "control characters in the name": ('[node]\nname = "a\\nb"', r"\[node\]: name.*cannot be seen"),
    "a number for a name": ("[node]\nname = 7", r"\[node\]: name cannot be 7"),
    "no address to listen on": ("[node]\nlisten = []", r"\[node\]: listen.*1 to 8 addresses"),
    "one address without a list": ("[node]\nlisten = '/ip4/127.0.0.1/tcp/0'", r"\[node\]: listen.*a list"),
    "host and port": ("[node]\nlisten = ['127.0.0.1:4001']", r"\[node\]: listen.*such as /ip4/"),
    "port out of range": ("[node]\nlisten = ['/ip4/127.0.0.1/tcp/70000']", r"\[node\]: listen"),
    "not an ip address": ("[node]\nlisten = ['/ip4/300.0.0.1/tcp/1']", r"\[node\]: listen"),
    "listening on UDP": ("[node]\nlisten = ['/ip4/127.0.0.1/udp/1']", r"\[node\]: listen"),
    "listening with an id": (f"[node]\nlisten = ['{PEER}']", r"\[node\]: listen"),
    "listening on a name": ("[node]\nlisten = ['/dns4/x.org/tcp/1']", r"\[node\]: listen"),
    "nine addresses": (f"[node]\nlisten = {['/ip4/127.0.0.1/tcp/0'] * 9}", r"\[node\]: listen.*1 to 8"),
    "advertising with an id": (f"[node]\nadvertise = ['{PEER}']", r"\[node\]: advertise"),
    "advertising a number": ("[node]\nadvertise = [1]", r"\[node\]: advertise"),
    "mdns as text": ("[node]\nmdns = 'yes'", r"\[node\]: mdns cannot be 'yes'.*true or false"),
    "mdns as number": ("[node]\nmdns = 1", r"\[node\]: mdns.*true or false"),
    "no neighbours": ("[node]\nmax_neighbours = 0", r"\[node\]: max_neighbours.*1 to 64"),
    "neighbours as boolean": ("[node]\nmax_neighbours = true", r"\[node\]: max_neighbours"),
    "neighbours as float": ("[node]\nmax_neighbours = 6.0", r"\[node\]: max_neighbours"),
    "data as list": ("[data]\npath = ['x']", r"\[data\]: path.*folder"),
    "data with a zero byte": ('[data]\npath = "a\\u0000"', r"\[data\]: path"),
    "contribute as number": ("[learning]\ncontribute = 0", r"\[learning\]: contribute"),
    "negative rounds": ("[learning]\nrounds = -1", r"\[learning\]: rounds.*from 0"),
    "rounds as float": ("[learning]\nrounds = 1.5", r"\[learning\]: rounds"),
    "engage as text": ("[learning]\nengage = '*'", r"\[learning\]: engage.*a list"),
    "an empty pattern": ("[learning]\nengage = ['']", r"\[learning\]: engage"),
    "a negative lot": ("[learning]\nlot_size = -1", r"\[learning\]: lot_size"),
    "an infinite lot": ("[learning]\nlot_size = inf", r"\[learning\]: lot_size"),
    "a home layer as text": ("[learning]\nhome_layer = 'yes'", r"\[learning\]: home_layer.*true or false"),
    "an unknown private adapter": ('[learning]\nprivate_adapter = "full"', r"\[learning\]: private_adapter.*lora"),
    "a private adapter without a home layer": (
        '[learning]\nhome_layer = false\nprivate_adapter = "lora"',
        r'private_adapter cannot be "lora" without a home layer',
    ),
    "a private adapter of rank 0": ("[learning]\nprivate_rank = 0", r"\[learning\]: private_rank.*from 1"),
    "personalised never": ("[learning]\npersonalise_every = 0", r"\[learning\]: personalise_every.*from 1"),
    "a model without a folder": ("[models]\nminilm = ''", r"\[models\]: minilm cannot be ''.*folder"),
    "a model that is a table": ("[models.minilm]\npath = 'x'", r"\[models\]: minilm.*folder"),
    "the learner as one text": ("[learning]\nlearner = 'python x'", r"\[learning\]: learner.*a list"),
    "a number in the learner": ("[learning]\nlearner = ['python', 1]", r"\[learning\]: learner"),
    "epsilon 0": ("[privacy]\nepsilon = 0", r"\[privacy\]: epsilon.*from 0\.01 to 100"),
    "epsilon not a number": ("[privacy]\nepsilon = nan", r"\[privacy\]: epsilon"),
    "epsilon as text": ("[privacy]\nepsilon = '3'", r"\[privacy\]: epsilon"),
    "epsilon as boolean": ("[privacy]\nepsilon = true", r"\[privacy\]: epsilon"),
    "epsilon infinite": ("[privacy]\nepsilon = inf", r"\[privacy\]: epsilon"),
    "epsilon beyond any float": (f"[privacy]\nepsilon = {10**400}", r"\[privacy\]: epsilon"),
    "delta 0": ("[privacy]\ndelta = 0.0", r"\[privacy\]: delta"),
    "delta 1": ("[privacy]\ndelta = 1", r"\[privacy\]: delta.*under 0\.1"),
    "unknown policy": ("[privacy]\npolicy = 'DP'", r'\[privacy\]: policy.*"never", "dp", "open"'),
    "policy as list": ("[privacy]\npolicy = ['dp']", r"\[privacy\]: policy"),
    "unknown log format": ("[log]\nformat = 'xml'", r'\[log\]: format.*"console", "json"'),
    "unknown log level": ("[log]\nlevel = 'loud'", r"\[log\]: level.*warning"),
    "no patience": ("[timing]\npropose_ms = 9", r"\[timing\]: propose_ms.*10 to 3600000"),
    "idle as float": ("[timing]\nidle_ms = 1000.0", r"\[timing\]: idle_ms"),
    "sync as text": ("[timing]\nsync_ms = '2s'", r"\[timing\]: sync_ms"),
    "a peer without an id": ("[peers]\naddresses = ['/ip4/192.0.2.7/tcp/4001']", r"\[peers\]: addresses.*<peer id>"),
    "a peer with a bad id": ("[peers]\naddresses = ['/ip4/192.0.2.7/tcp/4001/p2p/nobody0']", r"\[peers\]: addresses"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_what_is_allowed(name: str) -> None:
    text, words = BAD[name]
    with pytest.raises(UsageError, match=rf"(?s)/home/config\.toml.*{words}") as caught:
        parse(text, "/home/config.toml")
    assert caught.value.advice
    assert len(str(caught.value)) < 600


def test_a_relative_data_folder_lies_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[data]\npath = 'records'")
    assert load(path).data.path == tmp_path / "records"
    path.write_text("[data]\npath = '/somewhere/records'")
    assert load(path).data.path == Path("/somewhere/records")
    path.write_text("[data]\npath = ''")
    assert load(path).data.path is None
    path.write_text("[data]\npath = '~/records'")
    assert load(path).data.path == Path("~/records").expanduser()


UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "No such file"),
    "not UTF-8": (b"[node]\nname = '\xff'", r"not UTF-8 text \(byte 15\)"),
    "over the limit": (b"#" * (toml.FILE_LIMIT + 1), "over 1048576 bytes"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    content, words = UNREADABLE[name]
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{words}") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read"):
        load(tmp_path)


def test_a_configuration_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    config.create(path, FULL)
    assert load(path).node == FULL.node
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RefusedError, match="already"):
        config.create(path, Config())
    assert load(path).node == FULL.node
    assert os.listdir(tmp_path) == ["config.toml"]  # noqa: PTH208 - names
