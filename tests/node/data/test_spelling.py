"""Which ways to write a key are one person, and which only look alike."""

import unicodedata

from collegium.node.data.spelling import alike, clean


def test_composed_and_decomposed_are_one_and_compatibility_forms_are_not() -> None:
    assert clean(unicodedata.normalize("NFD", " Zoë\u200b")) == "Zoë"
    for one, other in (("x²", "x2"), ("ﬁn", "fin"), ("Ⅳ", "IV")):
        assert clean(one) == one, "NFKC would make one person of two"
        assert alike(one) == alike(other), "and a person should look at them"
