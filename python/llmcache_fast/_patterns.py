"""Patterns of labels: which can be, and what of one is plain text.

What belongs here: reading a pattern as the caller wrote it. What does not: matching (the core).
"""

from __future__ import annotations

from typing import Final

from llmcache_fast._errors import ConfigurationError

MAX_PATTERN: Final = 200
"""Characters."""


def pattern_of(value: object) -> str:
    """A pattern of labels, checked.

    `*` is any run of characters within a part of the path, `?` is one character, and `**` as a whole part is
    any number of parts.

    Raises:
        ConfigurationError: it is none, or has nothing literal in it.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_PATTERN:
        raise ConfigurationError(
            f"pattern: must be a pattern of labels of 1 to {MAX_PATTERN} characters, such as "
            "'content/*/2024-*'; nothing was invalidated"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("pattern: holds a lone surrogate, which has no UTF-8 form") from None
    if value.startswith("/") or "//" in value or value.endswith("/"):
        raise ConfigurationError(
            f"pattern: {value!r} must have no leading or closing slash and no empty parts; "
            "for all below a label use label='content/blog/*'"
        )
    if not value.replace("*", "").replace("?", "").replace("/", ""):
        raise ConfigurationError(
            f"pattern: {value!r} has no literal part; to invalidate everything name the namespace instead"
        )
    return value


def literal_prefix(pattern: str) -> str:
    """The parts before the first that is not plain, with a closing slash: all that matches is below it. Empty
    if there are none."""
    plain = []
    for part in pattern.split("/")[:-1]:
        if "*" in part or "?" in part:
            break
        plain.append(part)
    return "/".join([*plain, ""])
