"""The cache of embeddings: it saves work, forgets to the last byte, and never stands in the way."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from collegium.crypto.errors import LocalProtocolError, UsageError
from collegium.crypto.hashing import digest
from collegium.node.learner import cache as module
from collegium.node.learner.adapters import install_private
from collegium.node.learner.cache import EmbeddingCache, Floats, embed_cached
from collegium.node.learner.text import TextEncoder, pretrained_encoder

MODEL, OTHER = bytes(32), b"\1" * 32
TEXTS = ["the cat sat", None, "why", "the cat sat", "hello fraction"]
SUBJECTS = ["ada", "ada", "ada", "bob", "eve"]


class Counting:
    """An encoder that says what it was asked."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.width, self.max_tokens, self.adapted = encoder.width, encoder.max_tokens, False
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Floats:
        self.asked += texts
        return self._encoder.embed(texts, progress)


@pytest.fixture
def encoder(tiny: Path) -> Any:
    return Counting(pretrained_encoder(tiny))


def vectors(count: int, width: int = 384, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def fill(cache: EmbeddingCache, subjects: Sequence[str], model: bytes = MODEL) -> Floats:
    rows = vectors(len(subjects))
    cache.put_many(model, [(b"record %d" % n, who, rows[n]) for n, who in enumerate(subjects)])
    return rows


def everything_on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_a_cache_that_is_read_only_gives_and_takes_nothing(tmp_path: Path, encoder: Any) -> None:
    path = tmp_path / "c"
    with EmbeddingCache(path, read_only=True) as cache:  # no file: none is made
        assert embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache).any()
    assert not any(tmp_path.iterdir())
    with EmbeddingCache(path) as cache:
        cold = embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache)
    before, encoder.asked = everything_on_disk(tmp_path), []
    with EmbeddingCache(path, read_only=True) as cache:
        warm = embed_cached(encoder, MODEL, [*TEXTS, "sat"], [*SUBJECTS, "new"], cache)
        with pytest.raises(LocalProtocolError, match="forgets nobody"):
            cache.forget(["ada"])
    assert encoder.asked == ["sat"]
    assert np.array_equal(warm[:5], cold)
    assert warm[5].any()
    assert everything_on_disk(tmp_path) == before
    for damage in (b"x" * 5000, before[:3000], b""):
        path.write_bytes(damage)
        with EmbeddingCache(path, read_only=True) as cache:
            assert np.allclose(embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache), cold, atol=1e-6)
        assert everything_on_disk(tmp_path) == damage


def test_what_was_put_comes_back_bit_by_bit_also_after_reopening(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c") as cache:
        put = fill(cache, ["ada", "bob"])
        assert cache.get_many(OTHER, [b"record 0"]) == [None]
    with EmbeddingCache(tmp_path / "c") as cache:
        one, none, two = cache.get_many(MODEL, [b"record 1", b"record 7", b"record 0"])
    assert none is None
    assert one is not None
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, put[1])
    np.testing.assert_array_equal(two, put[0])


def test_the_file_is_the_owners_alone_and_has_neither_ids_nor_texts(tmp_path: Path, encoder: Any) -> None:
    path = tmp_path / "c"
    path.touch(mode=0o644)
    subjects = [f"student-{who}" for who in SUBJECTS]
    with EmbeddingCache(path) as cache:
        embed_cached(encoder, MODEL, TEXTS, subjects, cache)
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
        stored = everything_on_disk(tmp_path)
    for secret in (b"student-", b"fraction", digest("text", b"student-ada", b"why")):
        assert secret not in stored


def test_the_folder_is_made_and_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "c"
    with EmbeddingCache(path) as cache:
        fill(cache, ["ada"])
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_two_files_hide_an_id_differently(tmp_path: Path) -> None:
    tags = []
    for name in ("one", "two"):
        with EmbeddingCache(tmp_path / name) as cache:
            fill(cache, ["ada"])
        with sqlite3.connect(tmp_path / name) as connection:
            tags.append(connection.execute("SELECT subject, record FROM rows").fetchone())
        connection.close()
    assert tags[0][0] != tags[1][0]
    assert tags[0][1] != tags[1][1]


@pytest.mark.parametrize("how", ["forget", "keep_only"])
def test_a_forgotten_subject_is_gone_from_the_disk(tmp_path: Path, how: str) -> None:
    path = tmp_path / "c"
    with EmbeddingCache(path) as cache:
        put = fill(cache, ["ada", "bob"] * 20)
        before = everything_on_disk(tmp_path)
        assert all(vector.tobytes()[:64] in before for vector in put)
        deleted = cache.forget(["ada", "nobody"]) if how == "forget" else cache.keep_only(["bob", "nobody"])
        assert deleted == 20
        for stored in (everything_on_disk(tmp_path), path.read_bytes()):
            for number, vector in enumerate(put):
                # Any 16 bytes of it: a page that is freed keeps most of a value, a page reused the rest.
                pieces = [vector.tobytes()[at : at + 16] for at in range(0, 1536, 16)]
                assert any(piece in stored for piece in pieces) == (number % 2 == 1)
        assert path.stat().st_size < 0.8 * len(before)
        assert cache.get_many(MODEL, [b"record 0"]) == [None]
        assert cache.get_many(MODEL, [b"record 1"])[0] is not None
        assert cache.forget(["ada"]) == 0
        assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_nothing_is_ever_written_beside_the_file(tmp_path: Path) -> None:
    """A journal would hold what is deleted, for whoever reads the disk after a crash."""
    seen: set[str] = set()

    def look() -> int:
        seen.update(path.name for path in tmp_path.iterdir())
        return 0

    with EmbeddingCache(tmp_path / "c") as cache:
        fill(cache, ["ada", "bob"] * 200)
        cache._connection.set_progress_handler(look, 50)
        cache.forget(["ada"])
        assert cache._connection.execute("PRAGMA temp_store").fetchone() == (2,)  # in memory, where VACUUM copies to
    assert seen == {"c"}


def test_what_a_cut_off_deletion_left_is_cut_off_by_the_next(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c") as cache:
        put = fill(cache, ["ada"] * 50)
        cache._connection.execute("DELETE FROM rows")
        assert not any(vector.tobytes()[:16] in everything_on_disk(tmp_path) for vector in put)
        size = (tmp_path / "c").stat().st_size
        assert cache.forget(["ada"]) == 0
        assert (tmp_path / "c").stat().st_size < size / 2


def test_only_what_is_missing_is_embedded(tmp_path: Path, encoder: Any) -> None:
    calls: list[tuple[int, int]] = []
    with EmbeddingCache(tmp_path / "c") as cache:
        cold = embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache, lambda *at: calls.append(at))
        # What two students wrote alike is each one's own.
        assert sorted(encoder.asked) == ["hello fraction", "the cat sat", "why"]  # and computed once
        assert calls == [(0, 4), (4, 4), (4, 4)]
        encoder.asked.clear()
        warm = embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache)
        assert encoder.asked == []
        np.testing.assert_array_equal(cold, warm)
        np.testing.assert_allclose(cold, encoder.embed(TEXTS), atol=1e-6)
        assert not cold[1].any()
        encoder.asked.clear()
        cache.forget(["bob"])
        embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache)
        assert encoder.asked == ["the cat sat"]
        embed_cached(encoder, OTHER, ["why"], ["ada"], cache)
        encoder.max_tokens -= 1
        embed_cached(encoder, MODEL, ["why"], ["ada"], cache)
        assert encoder.asked == ["the cat sat", "why", "why"]


def test_a_killed_worker_keeps_what_it_had_embedded(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)

    told: list[tuple[int, int]] = []

    def killed(done: int, total: int) -> None:
        told.append((done, total))
        if told.count((done, total)) == 2:  # embedded, and then stored
            raise KeyboardInterrupt

    with EmbeddingCache(tmp_path / "c") as cache, pytest.raises(KeyboardInterrupt):
        embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache, killed)
    assert told == [(0, 4), (2, 4), (2, 4)], "it is told before, and while a part is embedded"
    encoder.asked.clear()
    with EmbeddingCache(tmp_path / "c") as cache:
        embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache)
    assert len(encoder.asked) == 2


def test_an_encoder_with_something_on_it_is_not_cached(tmp_path: Path, tiny: Path) -> None:
    encoder = pretrained_encoder(tiny)
    install_private(encoder, "lora", 2)
    with EmbeddingCache(tmp_path / "c") as cache, pytest.raises(LocalProtocolError):
        embed_cached(encoder, MODEL, TEXTS, SUBJECTS, cache)


def test_a_row_that_fails_its_check_is_computed_again(tmp_path: Path, encoder: Any) -> None:
    with EmbeddingCache(tmp_path / "c") as cache:
        cold = embed_cached(encoder, MODEL, ["why"], ["ada"], cache)
        cache._connection.execute("UPDATE rows SET value = zeroblob(length(value))")
        encoder.asked.clear()
        with structlog.testing.capture_logs() as logs:
            np.testing.assert_array_equal(embed_cached(encoder, MODEL, ["why"], ["ada"], cache), cold)
            embed_cached(encoder, MODEL, ["why"], ["ada"], cache)
    assert encoder.asked == ["why"]
    assert [line["event"] for line in logs] == ["a cached embedding fails its check"]


def other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rows (x)")
    connection.close()


def later_format(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()


DAMAGE = {
    "random bytes": lambda path: path.write_bytes(vectors(4, seed=3).tobytes()),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:20_000]),
    "a page overwritten": lambda path: path.write_bytes(
        path.read_bytes()[:8192] + b"\xa5" * 8192 + path.read_bytes()[16384:]
    ),
    "another database": other_database,
    "a later format": later_format,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_starts_anew_and_nothing_of_it_stays(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c"
    with EmbeddingCache(path) as cache:
        put = fill(cache, ["ada"] * 50)
    DAMAGE[damage](path)
    with structlog.testing.capture_logs() as logs, EmbeddingCache(path) as cache:
        assert len(logs) == 1  # on opening: an index that points astray would hide rows from `forget`
        assert cache.get_many(MODEL, [b"record 0"]) == [None]
        assert not any(vector.tobytes()[:16] in everything_on_disk(tmp_path) for vector in put)
        fill(cache, ["bob"])
        assert cache.forget(["bob"]) == 1
    assert [line["event"] for line in logs] == ["the cache of embeddings is damaged and starts anew"]
    assert [file.name for file in tmp_path.iterdir()] == ["c"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("operation", ["get", "put", "forget", "keep"])
def test_damage_that_shows_later_is_mended_too(tmp_path: Path, operation: str) -> None:
    path = tmp_path / "c"
    with EmbeddingCache(path) as cache:
        fill(cache, ["ada"] * 50)
        cache._connection.execute("DROP TABLE rows")
        with structlog.testing.capture_logs() as logs:
            if operation == "get":
                assert cache.get_many(MODEL, [b"record 0"]) == [None]
            elif operation == "put":
                put = fill(cache, ["bob"])
                np.testing.assert_array_equal(cache.get_many(MODEL, [b"record 0"])[0], put[0])
            elif operation == "forget":
                assert cache.forget(["ada"]) == 0
            else:
                assert cache.keep_only(["bob"]) == 0
    assert len(logs) == 1


def test_a_file_that_cannot_be_used_is_an_error_not_damage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot use the cache"):
        EmbeddingCache(tmp_path / "no" / "such" / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot use the cache"):
        EmbeddingCache(tmp_path / "link")
    path = tmp_path / "c"
    with EmbeddingCache(path) as cache:
        fill(cache, ["ada"])
        cache._connection.execute("PRAGMA busy_timeout = 10")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError, match="locked"):
            cache.forget(["ada"])
        holder.close()
        assert cache.get_many(MODEL, [b"record 0"])[0] is not None
