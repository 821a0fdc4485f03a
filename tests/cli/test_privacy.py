"""`collegium privacy` on a real home: what is in force, who spent what, what a plan costs."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collegium.node import views
from collegium.node.core.events import Noised, PutReservation
from collegium.node.home import Home, jurisdiction
from collegium.node.privacy.policy import in_force
from collegium.node.store import Store
from collegium.node.verify import read_charter
from collegium.protocol.claims import DpEvents
from collegium.protocol.learning import PrivacyFloor
from collegium.sims.simulator.cluster import Cluster

if TYPE_CHECKING:
    from .conftest import Run

WORKED = ("privacy", "plan", "--steps", "400", "--sample-rate", "0.05", "--delta", "1e-5", "--json")


def test_show_says_which_source_set_what(run: "Run", home: Home) -> None:
    text = home.config.read_text().replace('jurisdiction = ""', 'jurisdiction = "gdpr-general"')
    home.config.write_text(text + "\n" if "[privacy.modalities" in text else text)
    shown = run("privacy", "show", "--home", home.root, "--json").value
    assert shown["jurisdiction"] == "gdpr-general"
    (line,) = shown["modalities"]
    assert (line["policy"], line["policy_from"], line["epsilon_from"]) == ("dp", "jurisdiction", "jurisdiction")
    assert "no noise" in line["withheld"], "the charter of these tests has none"
    assert shown["forecast"]["modalities"] == {"made-up": {**shown["forecast"]["modalities"]["made-up"]}}
    people = run("privacy", "show", "--home", home.root)
    assert "withheld" in people.out
    assert "gdpr-general" in people.out


def test_show_names_each_component_once_whatever_the_number_of_draws(run: "Run", home: Home) -> None:
    shown = run("privacy", "show", "--home", home.root, "--json").value
    assert len(shown["reservations"]) > 1
    (name,) = {name for draw in shown["reservations"] for name in draw["rounds"]}
    lines = run("privacy", "show", "--home", home.root).out.splitlines()
    (line,) = [line for line in lines if name in line and not line.startswith("note:")]
    assert re.fullmatch(rf"{name} +1 to \d+ +1 to 4 +0 *", line), line


def test_show_says_which_draws_came_back_and_that_their_components_are_not_known(
    run: "Run", home: Home, cluster: Cluster
) -> None:
    before = run("privacy", "show", "--no-forecast", "--home", home.root, "--json").value["reservations"]
    name = next(iter(before[0]["rounds"]))
    lost = PutReservation(
        99,
        (Noised(name, 77, 1_500_000),),
        100_000,
        0,
        (("made-up", 900),),
        (("made-up", DpEvents(100_000, 1_500_000, 4)),),
    )
    with Store.open(home.database, cluster.charter.federation) as store:
        store.apply([lost])
    text = run("privacy", "show", "--no-forecast", "--home", home.root).out
    assert "not computed without the forecast" in text
    (line,) = [line for line in text.splitlines() if line.startswith("99 ")]
    assert re.search(r"77 +not known +0\.1 +not known +made-up 0\.9 +yes; recalled from its update", line), line
    assert not [line for line in text.splitlines() if line.startswith(name) and "77" in line], "not its alone"
    logged = run("privacy", "log", "--home", home.root, "--json").value
    assert not [line for line in logged if line["rounds"].get(name) == 77], "its line is that of its update"


def test_a_jurisdiction_of_ones_own_and_an_override(run: "Run", home: Home) -> None:
    own = home.root / "mine.toml"
    own.write_text(run("privacy", "presets", "gdpr-general").out.replace("epsilon = 8.0", "epsilon = 0.5"))
    text = home.config.read_text().replace('jurisdiction = ""', 'jurisdiction = "mine.toml"')
    home.config.write_text(text)
    (line,) = run("privacy", "show", "--no-forecast", "--home", home.root, "--json").value["modalities"]
    assert line["epsilon_budget"] == 0.5
    text = text.replace("[log]", '[privacy.modalities.made-up]\npolicy = "never"\n\n[log]')
    home.config.write_text(text)
    (line,) = run("privacy", "show", "--no-forecast", "--home", home.root, "--json").value["modalities"]
    assert (line["policy"], line["policy_from"]) == ("never", "institution")
    home.config.write_text(text.replace("modalities.made-up", "modalities.maid-up"))
    answer = run("privacy", "show", "--home", home.root)
    assert (answer.code, "maid-up" in answer.err) == (2, True)


def test_log_names_every_member_or_one(run: "Run", home: Home, cluster: Cluster) -> None:
    lines = run("privacy", "log", "--home", home.root, "--json").value
    assert {line["member"]["name"] for line in lines} == {f"member {n}" for n in range(4)}
    assert {line["modality"] for line in lines} == {"made-up"}
    assert all(line["epsilon"] is None for line in lines), "without noise there is no bound"
    one = run("privacy", "log", "--member", "member 2", "--home", home.root, "--json").value
    assert {line["member"]["name"] for line in one} == {"member 2"}
    assert "no bound" in run("privacy", "log", "--home", home.root).out
    assert run("privacy", "log", "--member", "nobody", "--home", home.root).code == 2


def test_a_plan_needs_no_home(run: "Run", home: Home) -> None:
    """design.md section 6: 11.78 is true for the three together."""
    plan = run(*WORKED, "--noise", "1,1.5,2").value
    (line,) = plan["modalities"]
    assert abs(line["epsilon"] - 11.78) < 0.01
    fits = run(*WORKED, "--epsilon", "4", "--rounds", "2").value["modalities"][0]
    assert 3.99 <= fits["epsilon"] <= 4.0
    for wrong in (("--noise", "1", "--epsilon", "2"), ("--noise", "x"), ("--noise", "0,1"), ("--noise", "nan")):
        assert run(*WORKED, *wrong).code == 2
    for none in ("--rounds", "--steps", "--delta"):  # 0 is no plan; the default is to leave the option out
        answer = run(*WORKED[:-1], "--noise", "1", none, "0")
        assert (answer.code, none in answer.err) == (2, True), answer.err
    assert run("privacy", "plan", "--noise", "1").code == 2
    assert run("privacy", "plan").code == 2


def test_a_plan_of_this_home(run: "Run", home: Home) -> None:
    plan = run("privacy", "plan", "--home", home.root, "--rounds", "5", "--json").value
    (line,) = plan["modalities"]
    assert (line["modality"], line["epsilon"]) == ("made-up", None)
    plan = run("privacy", "plan", "--home", home.root, "--epsilon", "2", "--delta", "1e-6", "--json").value
    (line,) = plan["modalities"]
    assert 1.98 <= line["epsilon_of_plan"] <= 2.0
    assert (line["epsilon_spent"], line["epsilon"]) == (None, None), "what was spent without noise has no bound"
    assert plan["rounds"] == 100 - 4, "those that are still planned"
    assert list(plan["noise_multipliers"]) == ["head/task0"]


def test_a_plan_stands_on_what_is_spent_and_says_whether_it_fits(run: "Run", home: Home, tmp_path: Path) -> None:
    charter = read_charter(home.charter)[0]
    spec = replace(charter.components[0], noise_multiplier=1_500_000)
    floor = PrivacyFloor("made-up", "dp", 4000, 10_000)
    learning = replace(charter.learning, floors=(floor,), recovery_share=250_000)
    policy = in_force(floor, None, None)
    put = PutReservation(1, (Noised(spec.name, 1, 1_500_000),), 100_000, 10, (("made-up", 900),))

    def plan(rounds: int, spent: list[PutReservation]) -> dict[str, Any]:
        facts = {"rounds": rounds, "steps": 10, "sample_rate": 100_000, "noises": {spec.name: 1_500_000}}
        noised = replace(charter, components=(spec,), learning=learning)
        (line,) = views.privacy_plan(noised, (policy,), spent=spent, **facts)["modalities"]  # type: ignore[arg-type]
        return dict(line)

    alone, more = plan(2, []), plan(2, [put])
    assert (alone["epsilon_spent"], alone["fits"], alone["epsilon_before_recovery"]) == (0.0, True, 3.0)
    assert alone["epsilon"] == alone["epsilon_of_plan"] == more["epsilon_of_plan"] < more["epsilon"]
    assert more["epsilon_spent"] == plan(1, [])["epsilon"]
    long = plan(9, [])
    assert 3.0 < long["epsilon"] < 4.0, "the recovery share is not for planned rounds"
    assert not long["fits"]
    for wrong in (("--sample-rate", "0.0000001"), ("--epsilon", "0"), ("--rounds", "100000", "--steps", "1000")):
        assert run("privacy", "plan", "--home", home.root, *wrong).code == 2


def test_g6_a_second_accountant_agrees(run: "Run") -> None:
    """PLD and PRV: neither may be the only one that says so. More cases are where both of them live."""
    (line,) = run(*WORKED, "--noise", "1,1.5,2", "--check").value["modalities"]
    both = line["cross_check"]
    assert 11.77 <= both["pld"] <= 11.80
    assert both["pld"] - 0.01 <= both["prv"] <= both["pld"] + 2 * both["error"]


def test_presets_are_listed_and_printed_as_they_are(run: "Run") -> None:
    names = [line["name"] for line in run("privacy", "presets", "--json").value]
    assert names == ["ferpa", "gdpr-biometric", "gdpr-general", "open-research"]
    for name in names:
        assert run("privacy", "presets", name).out == jurisdiction.text(name)
        assert tomllib.loads(run("privacy", "presets", name).out)["name"] == name
    assert run("privacy", "presets", "gdpr-biometric", "--json").value["kinds"]["image"]["bound"]["policy"] == "never"
    assert run("privacy", "presets", "nowhere").code == 2
