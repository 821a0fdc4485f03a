"""Numbers with their nouns, for people."""


def counted(number: int, one: str, more: str = "") -> str:
    """Return a number and what is counted: "1 file", "2 files". `more` is the plural that takes more than an s."""
    return f"{number} {one if number == 1 else more or one + 's'}"
