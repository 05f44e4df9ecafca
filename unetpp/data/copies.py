"""Cases that are copies of each other: what a table of groups may have missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unetpp.data.duplicates import Pair
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding


def copies(
    facts: tuple[CaseFacts, ...], similar: Sequence[Pair], groups: Sequence[str]
) -> list[Finding]:
    """Warnings about images that are there twice, or nearly so in two groups.

    Args:
        facts: of the cases.
        similar: pairs of near-duplicates, by position.
        groups: of the cases.
    """
    group_of = dict(zip((fact.id for fact in facts), groups, strict=True))
    return [*_same_pictures(facts, group_of), *_similar_across_groups(facts, similar, group_of)]


def _same_pictures(facts: tuple[CaseFacts, ...], group_of: dict[str, str]) -> Iterable[Finding]:
    cases_of: dict[str, list[CaseFacts]] = {}
    for fact in facts:
        # Empty slices of a volume are alike and no copies.
        if any(fact.deviation):
            cases_of.setdefault(fact.picture, []).append(fact)
    for same in cases_of.values():
        if len(same) < 2:
            continue
        first = same[0]
        other = next((fact for fact in same if fact.content != first.content), None)
        if other is not None:
            yield _warning(
                "one-image-two-masks",
                f"An image should have one mask, but `{first.id}` and `{other.id}` are the same "
                "image with different masks; keep the right one.",
            )
            continue
        apart = len({group_of[fact.id] for fact in same}) > 1
        more = f" (and {len(same) - 2} more)" if len(same) > 2 else ""
        yield _warning(
            "exact-duplicate",
            f"An image should be there once, but `{first.id}` and `{same[1].id}`{more} are the "
            f"same{' in different groups' if apart else ''}; keep one.",
        )


def _similar_across_groups(
    facts: tuple[CaseFacts, ...], similar: Sequence[Pair], group_of: dict[str, str]
) -> Iterable[Finding]:
    apart = [
        (pair.similarity, facts[pair.first].id, facts[pair.second].id)
        for pair in similar
        if group_of[facts[pair.first].id] != group_of[facts[pair.second].id]
        and facts[pair.first].picture != facts[pair.second].picture
    ]
    if apart:
        similarity, first, second = max(apart)
        yield _warning(
            "near-duplicate-across-groups",
            f"Cases of different groups should differ, but {len(apart)} "
            f"pair{'s' if len(apart) > 1 else ''} may be the "
            f"same scene, most of all `{first}` and `{second}` (correlation {similarity:.3f}); "
            "look at them, and give those that are one group in the table.",
        )


def _warning(code: str, text: str) -> Finding:
    return Finding(weight="warning", code=code, path=None, text=text)
