"""The name of a component: its kind, and what it belongs to."""

import pytest

from collegium.crypto.errors import UsageError
from collegium.protocol.component_names import ComponentKind, ComponentName, names_statistic, of_kind, parse_name

OWNERS = {
    "encoder": "modality",
    "adapter": "modality",
    "prompt": "modality",
    "backbone": "model",
    "head": "task",
    "skip": "task",
    "statistic": "task",
    "groups": "task",
}


@pytest.mark.parametrize("kind", ComponentKind)
def test_a_name_is_read_as_it_is_written(kind: ComponentKind) -> None:
    owner = OWNERS[kind.value]
    text = kind.value if owner == "model" else f"{kind.value}/pass-2"
    name = parse_name(text)
    assert (name.kind, str(name), kind.owner) == (kind, text, owner)
    assert (name.modality, name.task) == tuple("pass-2" if owner == which else None for which in ("modality", "task"))
    assert kind.named(name.of) == text
    assert names_statistic(text) is (text in ("statistic/pass-2", "groups/pass-2"))


@pytest.mark.parametrize(
    "text", ["", "/", "head", "head/", "head/a/b", "head/a.b", "backbone/", "backbone/a", "tail/a"]
)
def test_other_texts_are_refused_with_the_kinds_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="no name of a component") as caught:
        parse_name(text)
    assert all(kind.value in caught.value.advice for kind in ComponentKind)
    assert not names_statistic(text)


def test_what_has_a_component_of_a_kind_keeps_its_order() -> None:
    names = ["skip/b", "head/b", "backbone", "head/a", "encoder/head"]
    assert of_kind(ComponentKind.HEAD, names) == ["b", "a"]
    assert parse_name("encoder/head") == ComponentName(ComponentKind.ENCODER, "head")
