"""Whether bytes that are declared as an encoding of one byte a letter are UTF-8: then a word with an ü reads "Ã¼".

Letters beyond ASCII are two bytes or more in UTF-8, of kinds that hardly ever follow one another in other encodings.
"""

import re

ONE_BYTE = frozenset({"windows-1252", "iso-8859-1", "iso-8859-15", "windows-1250", "windows-1251"})
_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_LONGEST = 4  # bytes of one letter
MOST = 4  # letters for each byte that belongs to none, from which a file is UTF-8 with some damage


class Utf8Count:
    """Counts in a file, read in pieces, letters of UTF-8 beyond ASCII, and bytes that are part of none."""

    def __init__(self) -> None:
        self.letters = self.strays = 0
        self._left = b""

    def feed(self, piece: bytes) -> None:
        """Count in the next piece of the file; an empty one is its end."""
        data = self._left + piece
        end = len(data) - (_begun(data) if piece else 0)
        data, self._left = data[:end], data[end:]
        letters = _SEQUENCE.findall(data)
        self.letters += len(letters)
        self.strays += len(_HIGH.findall(data)) - sum(map(len, letters))

    @property
    def is_utf8(self) -> bool:
        """Whether there are letters beyond ASCII, and nearly all of them are of UTF-8."""
        return self.letters > 0 and self.letters >= MOST * self.strays


def _begun(data: bytes) -> int:
    """Return how many bytes at the end begin a letter that goes on."""
    for back, byte in enumerate(reversed(data[1 - _LONGEST :]), 1):
        if byte >= 0xC0:
            return back if back < 2 + (byte >= 0xE0) + (byte >= 0xF0) else 0
        if byte < 0x80:
            break
    return 0


def misread(text: str, encoding: str) -> str:
    """Return how a text in UTF-8 reads in another encoding."""
    return text.encode().decode(encoding, "replace")
