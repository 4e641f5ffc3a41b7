from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from knowledge.ingestion.chunk import ChunkSpan
from knowledge.ingestion.diff import diff_chunks, embedded_text, hash_chunk


def make_span(ordinal: int, text: str = "words") -> ChunkSpan:
    return ChunkSpan(ordinal, ordinal * 10, ordinal * 10 + 5, None, (), text, 1, "paragraph")


def number(hashes: list[str]):
    return [(make_span(ordinal), digest) for ordinal, digest in enumerate(hashes)]


def test_unchanged_chunks_keep_their_vectors_wherever_they_moved():
    new = number(["b", "x", "a"])
    diff = diff_chunks(old=[(1, "a"), (2, "b"), (3, "c")], new=new)
    assert diff.kept == ((new[0][0], 2), (new[2][0], 1))
    assert diff.added == (new[1][0],)
    assert diff.removed == (3,)


def test_duplicates_pair_up_one_to_one():
    more = diff_chunks(old=[(1, "a")], new=number(["a", "a"]))
    assert (len(more.added), len(more.kept), more.removed) == (1, 1, ())
    fewer = diff_chunks(old=[(1, "a"), (2, "a"), (3, "a")], new=number(["a"]))
    assert (fewer.added, [identifier for _, identifier in fewer.kept], fewer.removed) == ((), [1], (2, 3))


hashes = st.lists(st.sampled_from("abcde"), max_size=12)


@given(old=hashes, new=hashes)
def test_nothing_is_lost_or_doubled(old, new):
    stored = [(f"id{index}", digest) for index, digest in enumerate(old)]
    spans = number(new)
    diff = diff_chunks(old=stored, new=spans)
    kept_ids = [identifier for _, identifier in diff.kept]
    assert sorted(span.ordinal for span in [*diff.added, *(span for span, _ in diff.kept)]) == list(
        range(len(new))
    )
    assert sorted([*kept_ids, *diff.removed]) == sorted(identifier for identifier, _ in stored)
    assert all(dict(stored)[identifier] == new[span.ordinal] for span, identifier in diff.kept)
    assert len(diff.kept) == (Counter(old) & Counter(new)).total()


def test_what_is_embedded_names_its_place_once():
    def embed(title, path, text="words"):
        return embedded_text(title=title, heading_path=path, text=text)

    assert embed("Guide", ("Guide", "Part", "Detail")) == "Guide > Part > Detail\nwords"
    assert embed("Guide", ("Guide", "Part"), "## Part\n\nwords") == "Guide\n## Part\n\nwords"
    assert embed("Guide", ("Guide",), "# Guide\n\nwords") == "# Guide\n\nwords"
    assert embed("", ()) == "words"


def test_long_paths_leave_room_for_the_text():
    path = tuple(f"Section {n} with quite a long heading" for n in range(6))
    prefix, text = embedded_text(title="Guide", heading_path=path, text="words").split("\n")
    assert (len(prefix) <= 100, text) == (True, "words")
    assert prefix.startswith("Guide > ")
    assert prefix.endswith(path[-1])
    prefix = embedded_text(title="T" * 300, heading_path=("h" * 300,), text="words").split("\n")[0]
    assert len(prefix) <= 110
    assert "T > h" in prefix


def test_a_hash_changes_with_title_place_and_text():
    variants = [("a", ("b",), "c"), ("x", ("b",), "c"), ("a", ("x",), "c"), ("a", ("b",), "x")]
    digests = {
        hash_chunk(embedded_text=embedded_text(title=title, heading_path=path, text=text))
        for title, path, text in variants
    }
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)
    assert hash_chunk(embedded_text="é") == hash_chunk(embedded_text="é")
