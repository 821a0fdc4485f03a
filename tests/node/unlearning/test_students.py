"""What is noted of single students: found again by their id, and by nobody who lacks the salt."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collegium.crypto import sparse
from collegium.crypto.errors import CorruptError
from collegium.node.home import Home
from collegium.node.unlearning.students import Manifest, Manifests, exclude, load_excluded, manifest_root, tag

STUDENTS = [f"student-{n}" for n in range(30)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "node")
    made.make()
    return made


def everything(home: Home) -> bytes:
    return b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())


def test_a_student_is_found_in_the_draws_that_saw_them(home: Home) -> None:
    manifests = Manifests(home)
    first, second, empty = manifests.put(STUDENTS[:20]), manifests.put(STUDENTS[10:]), manifests.put([])
    assert manifests.of("student-3") == {first}
    assert manifests.of("student-15") == {first, second}
    assert manifests.of("nobody") == set()
    assert set(manifests.roots()) == {first, second, empty}
    assert manifests.delete([first, bytes(32)]) == 1
    assert manifests.of("student-15") == {second}
    assert not any(name.encode() in everything(home) for name in STUDENTS), "no id is written down"


def test_the_same_students_have_another_root_and_other_tags_each_time(home: Home) -> None:
    """Nobody who sees two roots can tell whether the same students are behind them."""
    manifests = Manifests(home)
    roots = [manifests.put(STUDENTS), manifests.put(STUDENTS)]
    one, two = (manifests.get(root) for root in roots)
    assert one is not None
    assert two is not None
    assert roots[0] != roots[1]
    assert not set(one.tags) & set(two.tags)
    assert tag(one.salt, "student-1") != tag(two.salt, "student-1")
    assert not set(one.leaves().values()) & set(two.leaves().values())


def test_an_empty_draw_is_not_told_from_another(home: Home) -> None:
    manifests = Manifests(home)
    one, two = manifests.put([]), manifests.put([])
    assert one != two
    manifest = manifests.get(one)
    assert manifest is not None
    assert manifest.root() != Manifest(manifest.salt, manifest.blind, (tag(manifest.salt, "student-1"),)).root()


def test_a_root_holds_to_its_salt_and_hides_its_leaves(home: Home) -> None:
    salt, blind, other = bytes(32), bytes([1]) * 32, bytes([2]) * 32
    tags = tuple(sorted(tag(salt, name) for name in STUDENTS))
    made = Manifest(salt, blind, tags)
    assert made.root() != Manifest(other, blind, tags).root(), "nobody can come with another salt"
    assert made.root() != Manifest(salt, other, tags).root(), "nobody can try who is in a leaf"
    assert made.root() == manifest_root(salt, sparse.root(made.leaves()))


@pytest.mark.parametrize("damage", [b"", b"\x00", b"junk", None])
def test_a_damaged_manifest_is_told(home: Home, damage: bytes | None) -> None:
    manifests = Manifests(home)
    root, other = manifests.put(STUDENTS), manifests.put(STUDENTS[:1])
    path = manifests.folder / root.hex()
    path.write_bytes((manifests.folder / other.hex()).read_bytes() if damage is None else damage)
    with pytest.raises(CorruptError, match="damaged"):
        manifests.of("student-3")


def test_who_is_excluded_stays_excluded(home: Home) -> None:
    assert not load_excluded(home).has("student-3")
    exclude(home, "student-3")
    exclude(home, "student-5")
    exclude(home, "student-3")
    for name in STUDENTS[6:9]:
        exclude(home, name)
    excluded = load_excluded(home)
    assert [name for name in STUDENTS if excluded.has(name)] == [STUDENTS[3], *STUDENTS[5:9]]
    assert len(excluded.tags) == 5
    assert not any(name.encode() in everything(home) for name in STUDENTS)


def test_of_several_who_are_excluded_at_once_none_is_lost(home: Home) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: exclude(home, name), STUDENTS))
    excluded = load_excluded(home)
    assert [name for name in STUDENTS if excluded.has(name)] == STUDENTS


@pytest.mark.parametrize("text", ["", "{", "[]", '{"salt": "00", "tags": []}', '{"salt": 5, "tags": []}'])
def test_a_damaged_list_of_the_excluded_is_told_and_not_taken_for_empty(home: Home, text: str) -> None:
    (home.root / "excluded.json").write_text(text)
    with pytest.raises(CorruptError, match=r"excluded\.json"):
        load_excluded(home)
    with pytest.raises(CorruptError, match=r"excluded\.json"):
        exclude(home, "student-3")


SPELLINGS = ["Zo\u00e9", "Zoe\u0301", " Zo\u00e9\u00a0", "\ufeffZo\u00e9\u200b"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_g7_all_spellings_that_normalise_equal_have_one_tag(home: Home, spelling: str) -> None:
    manifests = Manifests(home)
    root = manifests.put([spelling, "other"])
    manifest = manifests.get(root)
    assert manifest is not None
    assert all(manifest.has(text) for text in SPELLINGS)
    assert not manifest.has("ZO\u00c9")
    assert len(manifest.tags) == 2
    excluded = exclude(home, spelling)
    assert all(excluded.has(text) for text in SPELLINGS)
    assert all(load_excluded(home).has(text) for text in SPELLINGS)
