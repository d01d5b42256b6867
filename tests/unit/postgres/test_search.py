"""Searching by facts: each condition against a plain filter over the same records, page by page."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_fast._entry import NEVER, Facts
from llmcache_fast._errors import ConfigurationError
from llmcache_fast._usage import Usage
from llmcache_fast.tiers.base import FoundRecord, StoredRecord
from llmcache_fast.tiers.postgres import PostgresTier

LABELS = ["a", "a/b", "a/b/c", "a/bc", "a0", "a/é", None]
TAGS: list[tuple[str, ...]] = [(), ("x",), ("y",), ("x", "y"), ('q"\\{,}', "x")]
MODELS = ["gpt-5", "claude", None]


def records() -> list[StoredRecord]:
    made = []
    for number, (label, tags, model) in enumerate(itertools.product(LABELS, TAGS, MODELS)):
        facts = Facts(label=label, tags=tags, model=model)
        made.append(
            StoredRecord(
                bytes([number]) * 32,
                b"x" * number,
                2**64 - 1,
                2**63,
                NEVER,
                number,
                number // 2,
                7,
                "n",
                facts,
            )
        )
    return made


def matches(record: StoredRecord, asked: dict[str, Any]) -> bool:
    facts = record.facts
    assert facts is not None
    label = asked.get("label")
    if label is not None and label.endswith("/*"):
        if facts.label is None or not facts.label.startswith(label[:-1]):
            return False
    elif label is not None and facts.label != label:
        return False
    return (
        set(asked.get("tags", ())) <= set(facts.tags)
        and asked.get("model", facts.model) == facts.model
        and record.created > asked.get("created_after", -1)
        and record.created < asked.get("created_before", 1 << 60)
    )


Asked = st.fixed_dictionaries(
    {},
    optional={
        "label": st.sampled_from(["a", "a/*", "a/b/*", "a/b/c", "none/*"]),
        "tags": st.sampled_from([["x"], ["x", "y"], ['q"\\{,}'], ["z"]]),
        "model": st.sampled_from(["gpt-5", "other"]),
        "created_after": st.integers(0, 60),
        "created_before": st.integers(0, 60),
    },
)


async def test_finds_what_a_plain_filter_finds_newest_first_page_by_page(tier: PostgresTier) -> None:
    own = records()
    hidden = [record._replace(key=b"h" * 31 + record.key[:1], namespace=None) for record in own[:5]]
    foreign = [record._replace(key=b"f" * 31 + record.key[:1], namespace="other") for record in own[:5]]
    gone = [record._replace(key=b"g" * 31 + record.key[:1], stale_until=5) for record in own[:5]]
    await tier.put_many([*own, *hidden, *foreign, *gone])

    async def compare(asked: dict[str, Any], limit: int) -> None:
        wanted = sorted(
            ((record.created, record.key) for record in own if matches(record, asked)), reverse=True
        )
        found: list[FoundRecord] = []
        cursor = None
        while True:
            page = await tier.search("n", **asked, limit=limit, cursor=cursor)
            assert len(page.rows) <= limit
            found += page.rows
            cursor = page.cursor
            if cursor is None:
                break
            assert len(page.rows) == limit
        assert [(row.created, row.key) for row in found] == wanted

    @settings(max_examples=50)
    @given(Asked, st.sampled_from([1, 7, 1000]))
    def search(asked: dict[str, Any], limit: int) -> None:
        anyio.from_thread.run(compare, asked, limit)

    await anyio.to_thread.run_sync(search)


async def test_a_row_has_the_facts_and_not_the_answer(tier: PostgresTier) -> None:
    facts = Facts(("doc:7",), "content/blog/ai", ("prices",), "gpt-5", Usage(10, 2), 1500)
    await tier.put_many([StoredRecord(b"k" * 32, b"answer", 2**64 - 1, 2**63, NEVER, 100, 5, 6, "n", facts)])
    (row,) = (await tier.search("n")).rows
    assert row == FoundRecord(
        key=b"k" * 32,
        namespace="n",
        label="content/blog/ai",
        tags=("doc:7",),
        model="gpt-5",
        created=5,
        fresh_until=6,
        stale_until=NEVER,
        cost=100,
        size=6,
        usage=Usage(10, 2),
        depends_on=("prices",),
        compute_micros=1500,
        epoch=2**64 - 1,
        snap=2**63,
    )
    await tier.delete_many([b"k" * 32], (1, 1))
    assert (await tier.search("n")).rows == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"limit": 0}, "1 to 10000"),
        ({"limit": 10_001}, "1 to 10000"),
        ({"label": "a/*/b"}, "ends with"),
        ({"label": "*"}, "ends with"),
        ({"tags": "doc:7"}, "list of strings"),
        ({"cursor": "abc"}, "earlier page"),
        ({"cursor": "!"}, "earlier page"),
    ],
)
async def test_what_cannot_be_asked_is_told(tier: PostgresTier, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await tier.search("n", **asked)
