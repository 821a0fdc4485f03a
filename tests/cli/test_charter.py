"""Founding a federation from the command line."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli.members import parse_member
from collegium.crypto.errors import UsageError
from collegium.sims.learn.datasets import prepare_digits

if TYPE_CHECKING:
    from .conftest import Run


def node(run: "Run", root: Path, name: str, port: int) -> Any:
    address = f"/ip4/127.0.0.1/tcp/{port}"
    answer = run("init", "--home", root / name, "--name", name, "--listen", address, "--json")
    assert answer.code == 0, answer.err
    return answer.value


def create(run: "Run", home: Path, *members: str, **options: str) -> Any:
    words: list[object] = [
        "charter",
        "create",
        "--home",
        home,
        "--name",
        "test",
        "--no-dp",
        "--preset",
        "digits",
        "--json",
    ]
    for member in members:
        words += ["--member", member]
    for option, value in options.items():
        words += [f"--{option.replace('_', '-')}", value]
    return run(*words)


def test_init_makes_a_key_once(run: "Run", tmp_path: Path) -> None:
    first = node(run, tmp_path, "north", 4001)
    assert len(bytes.fromhex(first["public_key"])) == 32
    assert first["member"] == f"north={first['public_key']}@/ip4/127.0.0.1/tcp/4001"
    assert (tmp_path / "north" / "key.json").stat().st_mode & 0o777 == 0o600
    again = run("init", "--home", tmp_path / "north")
    assert (again.code, "never overwritten" in again.err) == (5, True)


def test_init_leaves_nothing_behind_for_a_wrong_option(run: "Run", tmp_path: Path) -> None:
    answer = run("init", "--home", tmp_path / "n", "--listen", "nonsense")
    assert answer.code == 2
    assert not (tmp_path / "n" / "key.json").exists()


def test_init_seals_the_key(run: "Run", tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    answer = run("init", "--home", tmp_path / "n", "--passphrase-file", tmp_path / "secret", "--json")
    assert answer.value["sealed"] is True
    assert '"seed"' not in (tmp_path / "n" / "key.json").read_text()
    (tmp_path / "empty").write_text("\n")
    assert run("init", "--home", tmp_path / "m", "--passphrase-file", tmp_path / "empty").code == 2
    assert run("init", "--home", tmp_path / "m", "--passphrase-file", tmp_path / "missing").code == 2


def test_two_members_sign_and_merge(run: "Run", tmp_path: Path) -> None:
    north, south = node(run, tmp_path, "north", 4001), node(run, tmp_path, "south", 4002)
    made = create(run, tmp_path / "north", north["member"], south["member"], fault_model="crash")
    assert made.code == 0
    assert "no lost member can be spared" in made.err
    charter = tmp_path / "north" / "charter.bin"
    incomplete = run("charter", "verify", "--home", tmp_path / "north", "--json")
    assert (incomplete.code, incomplete.value["missing"]) == (6, ["north", "south"])
    assert run("charter", "sign", "--yes", "--home", tmp_path / "north").code == 0
    assert run("charter", "sign", "--yes", charter, "--home", tmp_path / "south", "--json").value["missing"] == []
    copy = tmp_path / "south" / "charter.bin"
    merged = run("charter", "sign", "--yes", "--merge", copy, "--home", tmp_path / "north", "--json")
    assert merged.value["complete"] is True
    assert run("charter", "verify", "--home", tmp_path / "north").code == 0
    shown = run("charter", "show", copy, "--json").value
    assert shown["federation"] == made.value["federation"]
    assert shown["tolerated_losses"] == 0
    assert {c["name"] for c in shown["charter"]["components"]} == {"encoder/image", "head/digit", "statistic/digit"}
    assert copy.read_bytes() == charter.read_bytes()


def test_a_sealed_key_signs_with_its_passphrase_only(run: "Run", tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("wrong\n")
    words = ("init", "--home", tmp_path / "n", "--name", "n", "--passphrase-file", tmp_path / "secret", "--json")
    made = run(*words).value
    assert create(run, tmp_path / "n", made["member"]).code == 0
    sign = ("charter", "sign", "--yes", "--home", tmp_path / "n")
    assert run(*sign).code == 2  # nobody to ask
    assert run(*sign, "--passphrase-file", tmp_path / "wrong").code == 5
    assert run(*sign, "--passphrase-file", tmp_path / "secret").code == 0


def test_four_members_bear_a_loss_and_no_warning(run: "Run", tmp_path: Path) -> None:
    members = [node(run, tmp_path, name, 4001 + n)["member"] for n, name in enumerate("abcd")]
    made = create(run, tmp_path / "a", *members)
    assert made.value["tolerated_losses"] == 1
    assert "spared" not in made.err
    three = create(run, tmp_path / "b", *members[:3], out=str(tmp_path / "three.bin"))
    assert any("spared" in warning for warning in three.value["warnings"])


def test_dp_noise_is_in_the_charter(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    words = (
        "charter",
        "create",
        "--home",
        tmp_path / "a",
        "--name",
        "t",
        "--preset",
        "digits",
        "--member",
        member,
        "--epsilon",
        "3",
    )
    assert run(*words, "--rounds", "4").code == 0
    shown = run("charter", "show", "--home", tmp_path / "a", "--json").value["charter"]
    assert all(c["noise_multiplier"] > 0 for c in shown["components"])
    assert {(f["policy"], f["epsilon"]) for f in shown["learning"]["floors"]} == {("dp", 3000)}


def test_a_charter_is_not_overwritten(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    assert create(run, tmp_path / "a", member).code == 0
    assert create(run, tmp_path / "a", member).code == 5


def test_a_strangers_charter_is_not_signed(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    create(run, tmp_path / "a", member)
    node(run, tmp_path, "b", 4002)
    answer = run("charter", "sign", "--yes", tmp_path / "a" / "charter.bin", "--home", tmp_path / "b")
    assert answer.code == 5
    assert not (tmp_path / "b" / "charter.bin").exists()


def test_copies_of_different_charters_are_not_merged(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    create(run, tmp_path / "a", member)
    create(run, tmp_path / "a", member, out=str(tmp_path / "other.bin"))
    answer = run("charter", "sign", "--yes", "--merge", tmp_path / "other.bin", "--home", tmp_path / "a")
    assert (answer.code, "different charters" in answer.err) == (5, True)
    text = " ".join(answer.err.split())
    for path in (tmp_path / "a" / "charter.bin", tmp_path / "other.bin"):
        federation = run("charter", "show", path, "--json").value["federation"]
        assert f"{path} is of federation {federation[:16]}" in text
    assert f"move {tmp_path / 'a' / 'charter.bin'} away" in text


def test_every_step_of_signing_says_the_next(run: "Run", tmp_path: Path) -> None:
    north, south = node(run, tmp_path, "north", 4001), node(run, tmp_path, "south", 4002)
    words = ("--preset", "digits", "--no-dp", "--member", north["member"], "--member", south["member"])
    made = run("charter", "create", "--home", tmp_path / "north", "--name", "t", *words)
    assert f"sign it yourself (`collegium --home {tmp_path / 'north'} charter sign`)" in made.out
    charter = tmp_path / "north" / "charter.bin"
    first = run("charter", "sign", "--yes", "--home", tmp_path / "north").out
    assert "Still to sign: south." in first
    assert f"send {charter} to them" in first
    last = run("charter", "sign", "--yes", charter, "--home", tmp_path / "south").out
    assert "Signed by everybody" in last
    assert f"collegium --home {tmp_path / 'south'} node start" in last


def test_a_file_that_is_no_charter_and_one_that_is_not_there_are_told_apart(run: "Run", tmp_path: Path) -> None:
    node(run, tmp_path, "a", 4001)
    wrong = run("charter", "sign", "--yes", tmp_path / "a" / "config.toml", "--home", tmp_path / "a")
    assert wrong.code == 3
    assert "is not a charter file" in wrong.err
    assert "MessagePack" not in wrong.err
    for words in ((tmp_path / "no.bin",), ("--merge", tmp_path / "no.bin")):
        create(run, tmp_path / "a", node(run, tmp_path, f"b{len(words)}", 4002)["member"])
        absent = run("charter", "sign", "--yes", *words, "--home", tmp_path / "a")
        assert absent.code == 2
        assert "Check the path" in absent.err
        assert "charter create" not in absent.err


def test_a_lot_size_that_is_missing_is_said_at_once_with_the_sample_rate(run: "Run", tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    words = ("--name", "a", "--listen", "/ip4/127.0.0.1/tcp/4001", "--data", tmp_path / "data", "--json")
    made = run("init", "--home", tmp_path / "a", *words)
    assert "Set lot_size under [learning]" in made.err
    create(run, tmp_path / "a", made.value["member"])
    config = tmp_path / "a" / "config.toml"
    config.write_text(config.read_text().replace('policy = "dp"', 'policy = "open"'))
    rate = run("charter", "show", "--home", tmp_path / "a", "--json").value["charter"]["learning"]["sample_rate"] / 1e6
    shown = run("charter", "show", "--home", tmp_path / "a").out
    assert f"a step draws    {rate:g} of the students; lot_size is that times" in shown
    assert shown.count("federation id") == 1
    signed = run("charter", "sign", "--yes", "--home", tmp_path / "a")
    assert signed.code == 0, signed.err
    assert f"Set lot_size under [learning] to {rate:g}" in signed.err
    config.write_text(config.read_text().replace("lot_size = 0.0", "lot_size = 12.0"))
    assert "lot_size" not in run("charter", "sign", "--yes", "--home", tmp_path / "a").err


def test_a_member_line_can_be_pasted_into_a_shell(run: "Run", tmp_path: Path) -> None:
    listen = ("--listen", "/ip4/127.0.0.1/tcp/4001")
    plain = run("init", "--home", tmp_path / "a", "--name", "school-a", *listen).out
    assert "--member school-a=" in " ".join(plain.split())
    odd = run("init", "--home", tmp_path / "b", "--name", "a $(touch x)", *listen).out
    (line,) = [line for line in odd.splitlines() if "--member" in line]
    assert shlex.split(line[line.index("--member") :])[1].startswith("a $(touch x)=")


def test_a_member_given_twice_is_named_so(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    answer = create(run, tmp_path / "a", member, member)
    assert answer.code == 2
    assert answer.value["error"] == "Two members have the name a"


UNREACHABLE = {
    "the wildcard": ("/ip4/0.0.0.0/tcp/4001", "nobody can dial 0.0.0.0"),
    "port 0": ("/ip4/192.0.2.1/tcp/0", "nobody can dial port 0"),
    "loopback beside others": ("/ip4/127.0.0.1/tcp/4001", "a has only an address of its own machine"),
    "another one's": ("/ip4/192.0.2.9/tcp/4001", "a and b have the same address"),
    "none": ("", "a has no address"),
}


@pytest.mark.parametrize("what", UNREACHABLE)
def test_addresses_that_nobody_can_dial_are_not_drawn_up_and_not_signed(run: "Run", tmp_path: Path, what: str) -> None:
    address, problem = UNREACHABLE[what]
    key = node(run, tmp_path, "a", 4001)["public_key"]
    members = (f"a={key}@{address}", f"b={'00' * 32}@/ip4/192.0.2.9/tcp/4001")
    refused = create(run, tmp_path / "a", *members)
    assert refused.code in (2, 5)
    assert problem in refused.out  # --json
    if refused.code == 2:
        return  # it can never be meant
    words = ["charter", "create", "--home", tmp_path / "a", "--name", "t", "--no-dp", "--anyway", "--preset", "digits"]
    made = run(*words, *(word for member in members for word in ("--member", member)))
    assert (made.code, problem in made.err) == (0, True)
    sign = run("charter", "sign", "--yes", "--home", tmp_path / "a")
    assert (sign.code, problem in sign.err) == (5, True)
    assert run("charter", "sign", "--yes", "--home", tmp_path / "a", "--anyway").code == 0


def test_init_says_what_others_dial(run: "Run", tmp_path: Path) -> None:
    everywhere = ("init", "--home", tmp_path / "n", "--listen", "/ip4/0.0.0.0/tcp/4001")
    refused = run(*everywhere)
    assert (refused.code, "--advertise /ip4/" in refused.err) == (2, True)
    assert not (tmp_path / "n" / "key.json").exists()
    made = run(*everywhere, "--advertise", "/dns4/a.example.org/tcp/4001", "--json").value
    assert made["member"].endswith("@/dns4/a.example.org/tcp/4001")
    assert made["peer_id"].startswith("12D3Koo")
    assert 'advertise = ["/dns4/a.example.org/tcp/4001"]' in (tmp_path / "n" / "config.toml").read_text()
    for listen in ("/ip4/192.0.2.1/tcp/0", "/ip4/127.0.0.1/tcp/0"):
        assert run("init", "--home", tmp_path / "m", "--listen", listen).code == 2
    alone = run("init", "--home", tmp_path / "m", "--json")
    assert "this machine only" in alone.err
    assert not alone.value["member"].endswith("/tcp/0")


@pytest.mark.parametrize("host", ["ip4/224.0.0.1", "ip4/255.255.255.255", "ip6/ff02::1", "ip6/::ffff:224.0.0.1"])
def test_an_address_of_many_hosts_is_nobodys(run: "Run", tmp_path: Path, host: str) -> None:
    address, fine = f"/{host}/tcp/4001", "/ip4/192.0.2.1/tcp/4001"
    for words in (("--listen", address), ("--listen", address, "--advertise", fine),
                  ("--listen", fine, "--advertise", address)):  # fmt: skip
        answer = run("init", "--home", tmp_path / "n", *words)
        assert (answer.code, "is no single host" in answer.err) == (2, True), words
        assert not (tmp_path / "n").exists()
    made = create(run, tmp_path / "n", f"north={'00' * 32}@{address}")
    assert (made.code, "is no single host" in made.value["error"]) == (2, True)


@pytest.mark.parametrize(
    "name",
    ["a=b", "", " north", "no\nrth", "\x1b[2Jnorth", "nor\u202eth", "x" * 129, "\u2800", "nor\U0001d173th"],
)
def test_init_takes_no_name_that_a_charter_would_refuse(run: "Run", tmp_path: Path, name: str) -> None:
    answer = run("init", "--home", tmp_path / "n", "--name", name)
    assert (answer.code, "\x1b" in answer.err) == (2, False)
    assert not (tmp_path / "n").exists()


def test_a_name_with_accents_is_kept_composed(run: "Run", tmp_path: Path) -> None:
    made = run("init", "--home", tmp_path / "n", "--name", "Zu\u0308rich, Universita\u0308t", "--json").value
    assert made["name"] == "Zürich, Universität"
    assert create(run, tmp_path / "n", made["member"]).code == 0


def test_init_takes_no_folder_that_is_not_there(run: "Run", tmp_path: Path) -> None:
    answer = run("init", "--home", tmp_path / "n", "--data", tmp_path / "share")
    assert (answer.code, "There is no folder" in answer.err) == (2, True)
    assert not (tmp_path / "n" / "key.json").exists()


def test_members_come_from_a_file_too(run: "Run", tmp_path: Path) -> None:
    a, b = node(run, tmp_path, "a", 4001), node(run, tmp_path, "b", 4002)
    text = "".join(
        f'[[member]]\nname = "{n["name"]}"\nkey = "{n["public_key"]}"\naddresses = ["/dns4/{n["name"]}.org/tcp/4001"]\n'
        for n in (a, b)
    )
    (tmp_path / "members.toml").write_text(text)
    made = create(run, tmp_path / "a", members=str(tmp_path / "members.toml"))
    assert [m["name"] for m in made.value["members"]] == ["a", "b"]


BAD_MEMBERS = {
    "no key": "north",
    "a short key": "north=abcd@/ip4/127.0.0.1/tcp/1",
    "no hex": f"north={'zz' * 32}",
    "no name": f"={'00' * 32}",
    "no address": f"north={'00' * 32}@nonsense",
    "too many addresses": f"north={'00' * 32}@" + ",".join(["/ip4/127.0.0.1/tcp/1"] * 9),
    "a line break in the name": f"no\nrth={'00' * 32}",
}


@pytest.mark.parametrize("what", BAD_MEMBERS)
def test_a_bad_member_is_a_usage_error(what: str) -> None:
    with pytest.raises(UsageError):
        parse_member(BAD_MEMBERS[what])


BAD_FILES = {
    "not TOML": "[[member",
    "something else": "x = 1",
    "an unknown key": '[[member]]\nname = "a"\nport = 1',
    "addresses no list": '[[member]]\nname = "a"\naddresses = "x"',
    "no tables": "member = 1",
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_members_file_is_a_usage_error(run: "Run", tmp_path: Path, what: str) -> None:
    (tmp_path / "members.toml").write_text(BAD_FILES[what])
    answer = run("charter", "create", "--name", "t", "--members", tmp_path / "members.toml", "--out", tmp_path / "c")
    assert answer.code == 2


def test_other_wrong_options_are_usage_errors(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    for option, value in {
        "preset": "nothing",
        "fault_model": "none",
        "rule": "none",
        "deadline": "0",
        "epsilon": "-1",
    }.items():
        words = ["charter", "create", "--name", "t", "--member", member, "--out", tmp_path / "c"]
        words += [] if option == "preset" else ["--preset", "digits"]
        assert run(*words, f"--{option.replace('_', '-')}", value).code == 2, option
    assert run("charter", "create", "--name", "t", "--out", tmp_path / "c").code == 2
    assert run("charter", "show", tmp_path / "missing").code == 2
    assert not (tmp_path / "c").exists()


MODEL = """
[training]
rounds = 4
[[modality]]
name = "table"
kind = "tabular"
width = 5
[[modality]]
name = "scan"
kind = "image"
width = 784
encoder = "linear-tanh"
privacy = "open"
[[modality]]
name = "clicks"
kind = "series"
width = 2
length = 9
epsilon = 2.0
[[task]]
name = "grade"
kind = "ordinal"
classes = ["low", "middle", "high"]
modalities = ["clicks", "table"]
[[task]]
name = "theme"
kind = "multiclass"
classes = 7
modalities = ["scan"]
"""


@pytest.mark.parametrize(("option", "value"), [("--epsilon", "3"), ("--epsilon", "8"), ("--delta", "1e-6")])
def test_a_budget_of_privacy_and_no_privacy_are_not_asked_for_at_once(
    run: "Run", tmp_path: Path, option: str, value: str
) -> None:
    made = create(run, tmp_path / "a", node(run, tmp_path, "a", 4001)["member"], **{option[2:]: value})
    assert made.code == 2
    assert made.value["error"] == f"--no-dp asks for no privacy, and {option} for some"
    assert not (tmp_path / "a" / "charter.bin").exists()


def test_a_charter_of_a_model_file_is_shown_with_its_tasks(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    (tmp_path / "model.toml").write_text(MODEL)
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
    assert run(*words, "--home", tmp_path / "a", "--epsilon", "3").code == 0
    shown = run("charter", "show", "--home", tmp_path / "a")
    learning = run("charter", "show", "--home", tmp_path / "a", "--json").value["charter"]["learning"]
    assert learning["planned_rounds"] == 4
    assert {f["modality"]: (f["policy"], f["epsilon"]) for f in learning["floors"]} == {
        "table": ("dp", 3000), "scan": ("open", 0), "clicks": ("dp", 2000),
    }  # fmt: skip
    student = run("charter", "show", "--home", tmp_path / "a", "--json").value["student"]
    assert student == run(*words, "--out", tmp_path / "b.bin", "--epsilon", "3", "--json").value["student"]
    assert student["modalities"] == ["clicks", "table"]
    assert 1.5 <= student["epsilon"] <= 2.25, "both feed one task: the loosest of their shares bounds them together"
    assert f"ε {student['epsilon']:g} at δ 1e-05 after all 4 planned rounds over clicks, table together" in " ".join(
        shown.out.split()
    )
    assert "modalities are added up" in " ".join(shown.out.split())
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["grade", "ordinal", "3", "clicks,", "table"] in lines
    assert ["theme", "multiclass", "7", "scan"] in lines
    assert ["clicks", "series", "2", "9", "–", "dp", "2.0", "1e-05"] in lines
    assert ["scan", "image", "784", "1", "–", "open", "–", "–"] in lines
    again = (*words, "--out", tmp_path / "other.bin", "--rounds", "6", "--no-dp")
    assert run(*again).code == 2  # clicks is under dp, says the file
    (tmp_path / "model.toml").write_text(MODEL.replace("epsilon = 2.0", ""))
    assert run(*again).code == 0
    learning = run("charter", "show", tmp_path / "other.bin", "--json").value["charter"]["learning"]
    assert learning["planned_rounds"] == 6
    assert {f["policy"] for f in learning["floors"]} == {"open"}


def test_a_student_pays_for_tasks_that_read_different_modalities_together(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    apart = MODEL.replace('privacy = "open"', "").replace("epsilon = 2.0", "")
    (tmp_path / "model.toml").write_text(apart)
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
    drawn = run(*words, "--home", tmp_path / "a", "--epsilon", "8", "--anyway", "--json").value["student"]
    assert drawn["modalities"] == ["clicks", "scan", "table"]
    assert drawn["epsilon"] > 8, "each modality has 8 for itself, of which 6 for the planned rounds"
    assert drawn["reserve_estimated"], "no modality's data reach all components"
    assert drawn["epsilon"] < drawn["epsilon_with_reserve"] < 8 * len(drawn["modalities"])
    signed = run("charter", "sign", "--yes", "--home", tmp_path / "a", "--anyway")
    assert "over clicks, scan, table together" in " ".join(signed.out.split())


def test_what_is_trained_has_to_be_said(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    answer = run("charter", "create", "--name", "t", "--member", member, "--out", tmp_path / "c")
    assert (answer.code, "--model FILE" in answer.err, "--preset" in answer.err) == (2, True, True)
    assert not (tmp_path / "c").exists()


def test_a_recipe_that_is_noise_is_refused_in_numbers(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    text = """[training]
students = STUDENTS
[[modality]]
name = "table"
kind = "tabular"
width = 200
[[task]]
name = "grade"
kind = "binary"
"""
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml", "--epsilon")
    (tmp_path / "model.toml").write_text(text.replace("STUDENTS", "30"))
    refused = run(*words, "0.5", "--out", tmp_path / "c")
    assert refused.code == 5
    assert "This recipe is noise, with 1 members of 30 students each" in refused.err
    assert "encoder/table: over 20 rounds the noise adds up to a norm of" in refused.err
    assert not (tmp_path / "c").exists()
    anyway = run(*words, "0.5", "--out", tmp_path / "c", "--anyway")
    assert (anyway.code, "warning: encoder/table" in anyway.err) == (0, True)
    (tmp_path / "model.toml").write_text(text.replace("STUDENTS", "120"))
    many = run(*words, "8", "--rounds", "300", "--out", tmp_path / "e")
    assert (many.code, (tmp_path / "e").exists()) == (5, False)
    said = " ".join(many.err.split())
    assert "encoder/table: with 300 rounds the noise of each is " in said
    assert "300 rounds read each student's data 240 times" in said
    assert run(*words, "8", "--rounds", "8", "--out", tmp_path / "e").code == 0
    (tmp_path / "model.toml").write_text(text.replace("STUDENTS", "3000"))
    drawn = run(*words, "0.5", "--out", tmp_path / "d")
    assert drawn.code == 0
    assert "with 3000 students at each member" in " ".join(drawn.out.split())
    shown = run(*words, "0.5", "--out", tmp_path / "d", "--force", "--json").value["noise"]
    assert {one["component"] for one in shown} == {"encoder/table", "head/grade"}
    rounds = {one["component"]: one["noise"] / one["gradients"] for one in shown}
    (tmp_path / "model.toml").write_text(text.replace("STUDENTS", "6000"))
    shown = run(*words, "0.5", "--out", tmp_path / "d", "--force", "--json").value["noise"]
    assert all(one["noise"] / one["gradients"] < rounds[one["component"]] for one in shown)


def test_a_charter_that_a_home_could_not_train_under_is_not_signed(run: "Run", tmp_path: Path) -> None:
    """--no-dp, and the policy of config.toml as init writes it: the strictest holds, so nothing would be trained."""
    member = node(run, tmp_path, "a", 4001)["member"]
    made = create(run, tmp_path / "a", member)
    assert 'policy = "open" under [privacy]' in made.err
    sign = ("charter", "sign", "--yes", "--home", tmp_path / "a")
    hosts = run(*sign)
    assert (hosts.code, "warning: data of image take no part" in hosts.err) == (0, True)  # no data: it only hosts
    config = tmp_path / "a" / "config.toml"
    config.write_text(config.read_text().replace('path = ""', f'path = "{tmp_path}"'))
    refused = run(*sign)
    assert (refused.code, "Nothing could be trained" in refused.err, "--anyway" in refused.err) == (5, True, True)
    checks = run("doctor", "--home", tmp_path / "a", "--no-data", "--json").value["checks"]
    (policy,) = [check for check in checks if check["check"] == "policy"]
    assert (policy["verdict"], 'policy = "open"' in policy["advice"]) == ("fail", True)
    text = config.read_text().replace('policy = "dp"', 'policy = "open"')
    config.write_text(text.replace("lot_size = 0.0", "lot_size = 12.0"))
    assert (run(*sign).code, run(*sign).err) == (0, "")


def test_large_components_under_noise_are_warned_of(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    (tmp_path / "model.toml").write_text(MODEL.replace('privacy = "open"', ""))
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
    warnings = run(*words, "--out", tmp_path / "c", "--json").value["warnings"]
    assert [text for text in warnings if "encoder/scan has 12,576 parameters under noise" in text]
    (tmp_path / "model.toml").write_text(MODEL)
    warnings = run(*words, "--out", tmp_path / "d", "--json").value["warnings"]
    assert not [text for text in warnings if "parameters" in text]


def test_a_pretrained_model_is_shown_with_its_digest(run: "Run", tiny: Path, tmp_path: Path, one_worker: None) -> None:
    from collegium.node.pretrained.folder import weights_digest

    member = node(run, tmp_path, "a", 4001)["member"]
    folder = tmp_path / "encoder"
    shutil.copytree(tiny, folder)
    text = '[[modality]]\nname = "essay"\nkind = "text"\npretrained = "encoder"\n'
    (tmp_path / "model.toml").write_text(text + '[[task]]\nname = "pass"\nkind = "binary"\n')
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
    assert run(*words, "--home", tmp_path / "a").code == 0
    shown = run("charter", "show", "--home", tmp_path / "a").out
    assert f"encoder {weights_digest(folder).hex()[:16]}" in shown
    assert str(tmp_path) not in shown.replace(str(tmp_path / "a"), "")


def test_the_rule_is_the_option_s_then_the_file_s_then_what_the_members_can_bear(run: "Run", tmp_path: Path) -> None:
    members = [node(run, tmp_path, f"n{n}", 4001 + n)["member"] for n in range(4)]
    (tmp_path / "silent.toml").write_text(MODEL)
    (tmp_path / "median.toml").write_text(MODEL.replace("rounds = 4", 'rounds = 4\nrule = "median"'))

    def rules(*words: object, people: int = 4) -> set[str]:
        out = tmp_path / "c.bin"
        options = [word for member in members[:people] for word in ("--member", member)]
        assert run("charter", "create", "--name", "t", "--out", out, "--json", *options, *words).code == 0
        charter = run("charter", "show", out, "--json").value
        out.unlink()
        return {component["rule"] for component in charter["charter"]["components"]} - {"sum"}  # of statistics

    preset = ("--preset", "digits")
    silent, median = ("--model", tmp_path / "silent.toml"), ("--model", tmp_path / "median.toml")
    assert rules(*silent) == {"clip+nnm+trimmed_mean"}
    assert rules(*silent, people=3) == rules(*silent, "--fault-model", "crash", people=3) == {"mean"}
    assert rules(*silent, "--fault-model", "crash") == rules(*preset, "--fault-model", "crash") == {"random-effects"}
    assert rules(*preset) == {"clip+nnm+trimmed_mean"}
    assert rules(*preset, people=3) == {"mean"}
    assert rules(*median) == {"median"}
    assert rules(*median, "--rule", "multi_krum") == rules(*preset, "--rule", "multi_krum") == {"multi_krum"}


def test_a_robust_rule_that_can_bear_nobody_is_warned_of(run: "Run", tmp_path: Path) -> None:
    members = [node(run, tmp_path, f"n{n}", 4001 + n)["member"] for n in range(4)]
    made = create(run, tmp_path / "n0", *members[:3], rule="median")
    assert "no rule tolerates a liar" in made.err
    assert "no rule" not in create(run, tmp_path / "n1", *members, rule="median").err


def test_model_files_and_presets_are_not_mixed(run: "Run", tmp_path: Path) -> None:
    member = node(run, tmp_path, "a", 4001)["member"]
    (tmp_path / "model.toml").write_text(MODEL)
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
    answer = run(*words, "--preset", "oulad", "--out", tmp_path / "c")
    assert (answer.code, "Give one of them" in answer.err) == (2, True)
    (tmp_path / "model.toml").write_text(MODEL + "colour = 3\n")
    answer = run(*words, "--out", tmp_path / "c")
    assert (answer.code, "[[task]] theme: unknown key 'colour'" in answer.err) == (2, True)
    assert not (tmp_path / "c").exists()


def test_a_model_file_is_printed_from_data_folders(run: "Run", tmp_path: Path) -> None:
    data = prepare_digits(tmp_path / "digits", 2, 1.0, 1)
    printed = run("charter", "model", *data)
    assert printed.code == 0
    assert run("charter", "model", *data, "--json").value == {"model": printed.out}
    (tmp_path / "model.toml").write_text(printed.out)
    member = node(run, tmp_path, "a", 4001)["member"]
    words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
    assert run(*words, "--out", tmp_path / "c").code == 0
    shown = run("charter", "show", tmp_path / "c", "--json").value["charter"]
    assert {c["name"] for c in shown["components"]} == {"encoder/image", "head/digit"}
    assert run("charter", "model", tmp_path).code == 2


@pytest.mark.parametrize("at", [10, 100, 400])
def test_one_changed_byte_is_found(run: "Run", tmp_path: Path, at: int) -> None:
    made = node(run, tmp_path, "a", 4001)
    create(run, tmp_path / "a", made["member"])
    run("charter", "sign", "--yes", "--home", tmp_path / "a")
    path = tmp_path / "a" / "charter.bin"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    answer = run("charter", "verify", "--home", tmp_path / "a")
    assert answer.code == 3
    assert str(path) in answer.err


def test_no_more_of_a_file_is_read_than_a_charter_may_have(run: "Run", tmp_path: Path) -> None:
    """G9: an endless one too, as /dev/zero."""
    node(run, tmp_path, "a", 4001)
    endless = tmp_path / "endless"
    with endless.open("wb") as file:
        file.truncate(1 << 30)
    refused = run("charter", "sign", "--yes", "--home", tmp_path / "a", endless)
    assert (refused.code, "1114113 bytes where at most 1114112 are allowed" in refused.err) == (3, True)
