"""The removal of students on the page: the same steps as those of `collegium unlearn subject`."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ..crypto.errors import CollegiumError, OperatorError, UsageError
from . import deletion_receipts, near, removal, student

if TYPE_CHECKING:
    from ..node.home import Home
    from ..node.page.source import Look, Receipt

WAIT = 3600.0  # seconds for the hosts' certificate: the page shows the progress meanwhile
MAX_IDS = 200  # at once


class PageStudents:
    """The students of one home (node/page/source.py, `Students`)."""

    def __init__(self, home: "Home") -> None:
        self._home = home

    def similar(self, ids: Sequence[str]) -> list[str]:
        """Return ids in the data that may be other spellings of these."""
        return near.similar(self._home, ids)

    def look(self, ids: Sequence[str]) -> "Look":
        """Return what is known of these students. Raises RefusedError if nobody here has one of them."""
        from ..node.control.client import Client
        from ..node.data.spelling import clean
        from ..node.page.source import Look

        names = list(dict.fromkeys(name for name in map(clean, ids) if name))
        if not names:
            raise UsageError("No student is named", "Give an id as the data have it; several each on a line.")
        if len(names) > MAX_IDS:
            raise UsageError(f"{len(names)} students at once; the page takes {MAX_IDS}", "Use the command.")
        client = Client(self._home)
        looks = {name: student.look_for(client, self._home, name) for name in names}
        known = student.known_ids(looks, names, anyway=False)
        together = looks[known[0]] if len(known) == 1 else student.look_for(client, self._home, *known)
        return Look(
            tuple(known),
            tuple(student.seen_by(looks[name]) for name in known),
            student.question(together, len(known)),
            frozenset(map(bytes.fromhex, together["updates"])),
        )

    def price(self, updates: Collection[bytes]) -> list[str]:
        """Return what the withdrawal of these updates costs, in sentences."""
        return removal.lines(removal.price(self._home, updates, quiet=True))

    def forget(self, ids: Sequence[str], tell: Callable[[str], None], at_most: int | None) -> "list[Receipt]":
        """Leave students out, withdraw what saw them, wait for the certificate, and make a receipt for each."""
        from ..node.control.client import Client

        client, names = Client(self._home), list(ids)
        looks = {name: student.look_for(client, self._home, name) for name in names}
        student.forget(client, self._home, names, looks, WAIT, tell, at_most=at_most)
        return [self._receipt(name, known=bool(looks[name]["in_data"] or looks[name]["drawn"])) for name in names]

    def _receipt(self, name: str, *, known: bool) -> "Receipt":
        from ..node.page.source import Receipt

        try:
            content, answer = deletion_receipts.make(self._home, name, "the receipt", id_known=known)
        except CollegiumError as error:
            text, advice = (error.message, error.advice) if isinstance(error, OperatorError) else (str(error), "")
            return Receipt(name, None, "", f"{text}. {advice}".strip())
        if not answer["verified"]:
            return Receipt(
                name,
                content,
                str(answer["key"]),
                "No update of this institution is in force now, so the receipt shows nothing of this student yet. Ask"
                " for the same once more when a round has counted this node again.",
            )
        return Receipt(name, content, str(answer["key"]), "")
