"""What a model that writes reads and is to write, as tokens: the template with a record's passages, and the answer.

The signs of control that a template may have (`<|im_start|>`) are tokens of their own there; in a student's text they
are plain characters, so no text can end a turn or begin another. No torch: `data check` counts with it, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...crypto.errors import UsageError
from ...protocol.learning import PASSAGE, Modality, Task
from .folder import CONFIG, configuration
from .tokens import TOKENIZER, read_tokenizer

Ids = list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A task's template as tokens: `pieces` are the tokens between passages, or the number of a passage from 0 on.

    At most `read` tokens stand before what is written, which has at most `most`, its `end` included.
    """

    tokenizer: Any
    pieces: tuple[Ids | int, ...]
    read: int
    most: int
    end: int

    def prompt(self, passages: Sequence[str]) -> tuple[Ids, bool]:
        """Return the tokens to read, and whether a passage was cut: the longest one loses its end until all fit."""
        parts = [self._plain(text) for text in passages]
        over = sum(map(len, parts)) + self._fixed - self.read
        cut = over > 0
        while over > 0:
            longest = max(parts, key=len)
            second = max((len(part) for part in parts if part is not longest), default=0)
            less = min(over, max(1, len(longest) - second))
            del longest[len(longest) - less :]
            over -= less
        whole: Ids = []
        for piece in self.pieces:
            whole += parts[piece] if isinstance(piece, int) else piece
        return whole, cut

    def answer(self, text: str) -> tuple[Ids, bool]:
        """Return the tokens to write, and whether they were cut: then the end's sign is not among them."""
        ids = [*self._plain(text.strip()), self.end]
        return ids[: self.most], len(ids) > self.most

    def text(self, ids: Sequence[int]) -> str:
        """Return written tokens as a text, without signs of control."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def _fixed(self) -> int:
        return sum(len(piece) for piece in self.pieces if not isinstance(piece, int))

    def _plain(self, text: str) -> Ids:
        self.tokenizer.encode_special_tokens = True
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def script_of(folder: Path, modality: Modality, task: Task) -> Script:
    """Return the script of a task on the model in `folder`. Raises UsageError where its template leaves no room."""
    (model,) = modality.pretrained
    made = _script(folder, task.template, model.max_tokens, task.classes)
    if made._fixed + len([piece for piece in made.pieces if isinstance(piece, int)]) > made.read:
        raise UsageError(
            f"task {task.name!r}: its template alone has {made._fixed} tokens, and modality {modality.name!r} reads"
            f" {made.read}",
            "Raise max_tokens of the modality in the model file.",
        )
    positions = configuration(folder)[0][configuration(folder)[1].positions]
    if made.read + made.most > positions:
        raise UsageError(
            f"task {task.name!r}: {made.read} tokens to read and {made.most} to write, and the model has {positions}",
            "Lower max_tokens of the modality or of the task.",
        )
    return made


@lru_cache(maxsize=8)
def _script(folder: Path, template: str, read: int, most: int) -> Script:
    tokenizer = read_tokenizer(folder / TOKENIZER, (folder / TOKENIZER).read_bytes())
    end = configuration(folder)[0].get("eos_token_id")
    if not isinstance(end, int):
        raise UsageError(f"{folder / CONFIG} names no sign of the end (eos_token_id)", "Take another model.")
    tokenizer.encode_special_tokens = False
    pieces: list[Ids | int] = []
    for number, piece in enumerate(PASSAGE.split(template)):
        if number % 2:
            pieces.append(int(piece) - 1)
        elif piece:
            pieces.append(list(tokenizer.encode(piece, add_special_tokens=False).ids))
    return Script(tokenizer, tuple(pieces), read, most, end)
