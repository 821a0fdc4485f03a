"""Layouts: what is told of a difference when only a digest is known of the other side."""

from dataclasses import replace

import pytest

from collegium.node.data import layout
from collegium.node.data.entries import ModalityEntry
from collegium.node.data.layout import Layout, described, difference, guess, layout_digest, modality_layout

TABLE: Layout = {
    "kind": "tabular",
    "columns": [{"name": "a", "low": "0.0", "high": "1.0", "missing": 0}, {"name": "b", "levels": ["x", "y", "z"]}],
}


def with_levels(*levels: str) -> Layout:
    return {**TABLE, "columns": [TABLE["columns"][0], {"name": "b", "levels": list(levels)}]}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (with_levels("z", "x", "y"), "columns 'b' levels: x, y, z; z, x, y"),
        ({**TABLE, "columns": TABLE["columns"][::-1]}, "columns: a, b; b, a"),
    ],
)
def test_another_order_is_found_from_its_digest_alone(other: Layout, message: str) -> None:
    assert layout_digest(other) != layout_digest(TABLE)
    assert guess(TABLE, layout_digest(other)) == other
    assert difference(TABLE, other) == message
    assert difference(TABLE, TABLE) == ""


def test_two_exchanged_of_many_are_found() -> None:
    names = [f"class {number}" for number in range(40)]
    turned = [*names[:7], names[31], *names[8:31], names[7], *names[32:]]
    own, other = {"kind": "multiclass", "classes": turned}, {"kind": "multiclass", "classes": names}
    assert guess(own, layout_digest(other)) == other


def test_what_is_no_order_is_not_guessed_and_few_guesses_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guess(TABLE, layout_digest(with_levels("x", "y"))) is None
    assert guess(TABLE, b"") is None
    many: Layout = {"kind": "multiclass", "classes": [f"class {number}" for number in range(20_000)]}
    guesses = 0

    def digest_of(value: Layout) -> bytes:
        nonlocal guesses
        guesses += 1
        return layout_digest(value)

    monkeypatch.setattr(layout, "layout_digest", digest_of)
    assert guess(many, bytes(32)) is None
    assert guesses < 10  # all pairs would be 200 million
    guesses = 0
    names = [f"level {number}" for number in range(60)]
    wide: Layout = {"kind": "tabular", "columns": [{"name": f"c{n}", "levels": names} for n in range(9)]}
    assert guess(wide, bytes(32)) is None
    assert guesses == layout.GUESSES


def test_a_difference_of_numbers_and_of_length_is_told() -> None:
    bounds = {**TABLE, "columns": [{**TABLE["columns"][0], "high": "2.0"}, TABLE["columns"][1]]}
    assert described(TABLE) == "kind: tabular; columns: a (low 0.0, high 1.0, missing 0), b (levels x, y, z)"
    assert "{" not in difference(TABLE, {**TABLE, "columns": TABLE})
    assert difference(TABLE, bounds) == "columns 'a' high: 1.0; 2.0"
    assert difference(TABLE, {**TABLE, "columns": TABLE["columns"][:1]}) == "columns: a, b; a"
    assert difference({"kind": "text", "columns": ["q"]}, {"kind": "text", "columns": []}) == "columns: q; "


def test_members_that_read_several_texts_otherwise_have_other_layouts() -> None:
    one = ModalityEntry("essays", "text", "essays", segments=("essay",))
    several = replace(one, order="written", texts=4)
    entries = (one, several, replace(several, texts=3), replace(several, separator=" "), replace(several, order="no"))
    assert len({layout_digest(modality_layout(entry)) for entry in entries}) == len(entries)
    assert modality_layout(one) == {"kind": "text", "columns": ["essay"]}, "as in charters that are signed already"
