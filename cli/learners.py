"""A learner worker on this institution's own data, opened as by its daemon; it changes nothing there."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..crypto.errors import RefusedError, UsageError
from .output import say

if TYPE_CHECKING:
    from ..node.home.paths import Home
    from ..node.learner.client import Worker
    from ..node.verify import Model


@contextmanager
def own_learner(home: "Home", model: "Model", advice: str, *, home_layer: bool = False) -> Iterator["Worker"]:
    """Run a worker on the data folder that config.toml names, with the components of `model`.

    Raises UsageError with `advice` if it names none, RefusedError for a home layer where removals are not known.
    """
    from ..node.home import config as settings
    from ..node.home.policies import parts_here
    from ..node.learner.client import worker
    from ..node.learner.messages import LeftOut, PrivateAdapter, opening
    from ..node.unlearning.students import load_excluded

    config = settings.load(home.config)
    if config.data.path is None:
        raise UsageError(f"{home.config} names no data folder", advice)
    charter, learning, excluded = model.report.charter, config.learning, load_excluded(home)
    if home_layer:
        _check_removals(home, excluded.total)
    request = replace(
        opening(charter, config.data.path, tuple(model.components)),
        withheld=tuple(parts_here(config, charter).withheld),
        models={name: str(path) for name, path in config.models.folders},
        cache=str(home.embeddings),
        cache_read_only=True,  # these texts' students may not be in the data: no removal would delete their rows
        excluded=LeftOut(excluded.salt, tuple(sorted(excluded.tags))),
        home_layer=home_layer,
        private=str(home.private) if home_layer and learning.private_adapter else None,
        private_adapter=PrivateAdapter.named(learning.private_adapter, learning.private_rank) if home_layer else None,
    )
    with worker(request, learning.learner) as learner:
        yield learner


def _check_removals(home: "Home", left_out: int) -> None:
    """Raise RefusedError where this home does not know who was removed: the home layer would learn from them."""
    from ..node.core.state import REMOVALS_UNKNOWN
    from ..node.store.database import Store
    from ..node.unlearning.exclusion import LEFT_OUT

    with closing(Store.open_readonly(home.database)) as store:
        flags = store.flags()
    if flags.get(REMOVALS_UNKNOWN, 0) or left_out < flags.get(LEFT_OUT, 0):
        raise RefusedError(
            "it is not known here which students were removed, and the home layer would learn from them",
            "`collegium node status` says what to do. Until then predict by the shared model alone: --shared.",
        )


def try_models(folders: Sequence[Path]) -> None:
    """Try each pretrained model in a learner worker: a charter that names it cannot be changed later.

    Raises UsageError where one does not load, or embeds different texts alike.
    """
    if not folders:
        return
    from ..node.learner.client import process
    from ..node.learner.messages import TryModel

    with process() as learner:
        for folder in folders:
            say(f"trying the model in {folder} …")
            learner.ask(TryModel(str(folder.absolute())))
