"""Promises about notes: what is remembered about an owner, and how it is found again."""

from __future__ import annotations

from .store_fixtures import StoreFixtures
from .store_scene import Scene

HOSTILE = (
    '"',
    '""" OR "',
    "*",
    "refund*",
    "AND",
    "NOT refund",
    "NEAR(refund berlin)",
    "owner : x",
    "words : refund OR owner:*",
    "^refund",
    "(((",
    "-refund",
    "'; DROP TABLE notes; --",
    "re\x00fund",
    "\ud83d",
    "%",
    "_",
    "\u00bd \u0130",
    "a" * 5_000,
    " ".join(f"word{n}" for n in range(2_000)),
)
"""Queries that mean something to a search engine, or break one."""


class NotePromises(StoreFixtures):
    async def found(self, scene: Scene, query: str | None, owner: str = "customer:42", limit: int = 50) -> list[str]:
        return [note.key for note in await scene.store.notes(owner, query, limit=limit)]

    async def wrote(self, scene: Scene, **texts: str) -> None:
        """Notes of one owner by key, a second apart."""
        for key, text in texts.items():
            await scene.store.note("customer:42", key, text)
            scene.clock.advance("1s")

    async def test_notes_come_back_newest_first_and_only_to_their_owner(self, scene: Scene) -> None:
        at = scene.clock.now()
        first = await scene.store.note("customer:42", "a", "likes \u00e4pfel \U0001f600 \u2028")
        scene.clock.advance("1s")
        await self.wrote(scene, b="second")
        await scene.store.note("customer:4", "a", "somebody else")
        assert (first.owner, first.key, first.text, first.at) == ("customer:42", "a", "likes \u00e4pfel \U0001f600 \u2028", at)
        assert await self.found(scene, None) == ["b", "a"]
        assert (await scene.store.notes("customer:42"))[1] == first
        assert await self.found(scene, None, limit=1) == ["b"]
        assert await self.found(scene, None, owner="customer") == []

    async def test_of_notes_of_one_moment_the_last_written_is_the_newest(self, scene: Scene) -> None:
        for key in "abc":
            await scene.store.note("o", key, "same words")
        await scene.store.note("o", "a", "same words again")
        assert await self.found(scene, None, "o") == ["a", "c", "b"]

    async def test_a_note_with_the_same_key_replaces_the_one_before_in_the_search_too(self, scene: Scene) -> None:
        await self.wrote(scene, tier="pays by invoice", other="lives in Berlin")
        await self.wrote(scene, tier="pays by card")
        assert await self.found(scene, None) == ["tier", "other"]
        assert await self.found(scene, "invoice") == []
        assert await self.found(scene, "card") == ["tier"]

    async def test_what_is_written_again_word_for_word_keeps_its_time(self, scene: Scene) -> None:
        await self.wrote(scene, a="first", b="second", c="third")
        before = await scene.store.notes("customer:42")
        await self.wrote(scene, a="first")
        assert await scene.store.notes("customer:42") == before

    async def test_a_query_finds_any_of_its_words_and_the_beginning_of_words(self, scene: Scene) -> None:
        await self.wrote(scene, a="wants refunds by invoice", b="lives in M\u00fcnchen", c="pays late")
        assert await self.found(scene, "refund") == ["a"]
        assert sorted(await self.found(scene, "refund, or munchen?")) == ["a", "b"]
        assert await self.found(scene, "PAYS") == ["c"]
        assert await self.found(scene, "unds") == []
        assert await self.found(scene, "nothing of it") == []

    async def test_the_best_match_stands_first_and_the_newest_of_equals(self, scene: Scene) -> None:
        await self.wrote(
            scene, both="refund to berlin", one="refund to paris", other="letter to berlin", none="letter to rome", again="refund to paris"
        )
        assert await self.found(scene, "refund berlin", limit=1) == ["both"]
        assert await self.found(scene, "paris") == ["again", "one"]

    async def test_a_search_never_gives_another_owners_notes(self, scene: Scene) -> None:
        for owner in ("customer:4", "customer:42", "customer:421", "customer 42", "CUSTOMER:42", "customer:42*"):
            await scene.store.note(owner, "a", f"refund for {owner}")
        assert [note.owner for note in await scene.store.notes("customer:42", "refund customer 42 421")] == ["customer:42"]

    async def test_nothing_in_a_query_is_an_operator(self, scene: Scene) -> None:
        await self.wrote(scene, a="refund", b="berlin")
        for query in HOSTILE:
            assert set(await self.found(scene, query)) <= {"a", "b"}, query
        assert await self.found(scene, "NOT refund") == ["a"]
        assert await self.found(scene, "refund AND berlin -refund", limit=5) in (["a", "b"], ["b", "a"])
        assert [await self.found(scene, query) for query in ("", "   ", '"', "*", "%", "_")] == [[]] * 6

    async def test_a_text_may_hold_anything_a_person_writes(self, scene: Scene) -> None:
        texts = ['"quoted" AND (odd) * ^ :', "nul \x00 inside", "'; DROP TABLE notes; --", "\u5927\u962a\u306b\u4f4f\u3080", "x" * 200_000, ""]
        for number, text in enumerate(texts):
            await scene.store.note("o", str(number), text)
        assert sorted(note.text for note in await scene.store.notes("o")) == sorted(texts)
        assert await self.found(scene, "drop", "o") == ["2"]
        assert await self.found(scene, "\u5927\u962a", "o") == ["3"]

    async def test_what_is_forgotten_is_found_no_more(self, scene: Scene) -> None:
        await self.wrote(scene, a="refund", b="refund too")
        await scene.store.note("other", "a", "refund")
        assert await scene.store.forget_notes("customer:42", "a") == 1
        assert await scene.store.forget_notes("customer:42", "a") == 0
        assert await self.found(scene, "refund") == ["b"]
        await self.wrote(scene, c="berlin")
        assert await scene.store.forget_notes("customer:42") == 2
        assert (await self.found(scene, None), await self.found(scene, "refund berlin")) == ([], [])
        assert await self.found(scene, "refund", "other") == ["a"]

    async def test_prune_leaves_notes_alone(self, scene: Scene) -> None:
        await self.wrote(scene, a="refund")
        scene.clock.advance("1000d")
        await scene.store.prune(scene.clock.now())
        assert await self.found(scene, "refund") == ["a"]
        assert await scene.store.check() == []
