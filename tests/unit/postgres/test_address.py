"""Addresses: what they say, what they must not, and what no message repeats."""

from __future__ import annotations

import pytest

from llmcache_fast._errors import ConfigurationError
from llmcache_fast.tiers.postgres import PostgresTier
from llmcache_fast.tiers.postgres.address import Settings, parse


def test_the_tiers_own_options_are_taken_out_and_libpqs_are_left() -> None:
    dsn, settings = parse(
        "postgresql://u:p%23w@h1:1,h2:2/db?schema=app_cache&connections=8&budget=0.5&connect_timeout=2"
        "&pooler=transaction&migrate=0&partitions=16&sslmode=require&target_session_attrs=read-write"
    )
    assert dsn == "postgresql://u:p%23w@h1:1,h2:2/db?sslmode=require&target_session_attrs=read-write"
    assert settings == Settings(
        schema="app_cache",
        connections=8,
        budget=0.5,
        connect_timeout=2.0,
        pooler="transaction",
        migrate=False,
        partitions=16,
    )
    assert parse("postgres:///db") == ("postgres:///db", Settings())


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("?max_size=3", "unknown option 'max_size'"),
        ("?statement_timeout=3", "unknown option"),
        ("?schema=Robert'); DROP TABLE", "lower-case"),
        ("?schema=1a", "lower-case"),
        ("?schema=", "lower-case"),
        ("?connections=0", "1 to 1000"),
        ("?connections=many", "whole number"),
        ("?budget=soon", "number of seconds"),
        ("?budget=0", "positive"),
        ("?budget=nan", "positive"),
        ("?connect_timeout=inf", "positive"),
        ("?pooler=session", "pooler=transaction"),
        ("?migrate=perhaps", "0 or 1"),
        ("?partitions=1", "2 to 1024"),
        ("#fragment", "%23"),
    ],
)
def test_what_cannot_work_is_told_without_the_password(rest: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse("postgresql://app:hunter2@db.example/llm" + rest)
    assert "hunter2" not in str(caught.value)


def test_another_scheme_is_refused() -> None:
    for url in ("mysql://app:hunter2@db/llm", "postgresql://app:hunter2@[db/llm"):
        with pytest.raises(ConfigurationError) as caught:
            parse(url)
        assert "hunter2" not in str(caught.value)


def test_a_tier_is_shown_without_user_and_password() -> None:
    tier = PostgresTier.from_url("postgresql://app:hunter2@db.example:5433/llm?schema=x&password=hunter2")
    assert repr(tier) == "PostgresTier('postgresql://db.example:5433/llm', schema='x')"
