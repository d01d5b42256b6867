"""How a golden vector writes down values that JSON cannot: tagged objects of one key that starts with `$`.

| written | value |
|---|---|
| `{"$bytes": "00ff"}` | bytes, in hex |
| `{"$int": "123"}` | an integer beyond 2^53, in decimal |
| `{"$set": [..]}` | a set |
| `{"$repeat": ["ab", 3]}` | the text `ababab`: long strings are a rule, not a megabyte of file |
| `{"$repeat_bytes": ["00ff", 3]}` | the same for bytes |
| `{"$nest": [3, x]}` | `[[[x]]]` |
"""

from __future__ import annotations

from typing import Any


def revive(form: Any) -> Any:
    """The value that a tagged form stands for."""
    if isinstance(form, list):
        return [revive(item) for item in form]
    if not isinstance(form, dict):
        return form
    if len(form) == 1 and next(iter(form)).startswith("$"):
        ((tag, body),) = form.items()
        match tag:
            case "$bytes":
                return bytes.fromhex(body)
            case "$int":
                return int(body)
            case "$set":
                return {revive(item) for item in body}
            case "$repeat":
                return body[0] * body[1]
            case "$repeat_bytes":
                return bytes.fromhex(body[0]) * body[1]
            case "$nest":
                value = revive(body[1])
                for _ in range(body[0]):
                    value = [value]
                return value
            case _:
                raise ValueError(f"unknown tag {tag} in a golden vector")
    return {key: revive(item) for key, item in form.items()}
