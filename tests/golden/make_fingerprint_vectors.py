"""Writes `fingerprint_v1.json` with the plain-Python reference.

Run `python -m tests.golden.make_fingerprint_vectors` to add vectors. A vector that is there already never
changes within format version 1: the script refuses to write if one would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.golden.vector_form import revive
from tests.properties import reference_fingerprint as reference

TARGET = Path(__file__).parent / "fingerprint_v1.json"
SHOWN = 2048  # canonical forms up to this many bytes stand in the file

Form = Any
Case = tuple[str, Form, dict[str, Any]]


def scalars() -> list[Case]:
    edges = [
        0,
        1,
        -1,
        2,
        -2,
        63,
        64,
        -64,
        -65,
        127,
        128,
        8191,
        8192,
        -8192,
        -8193,
        2**31,
        -(2**31),
        2**53 - 1,
    ]
    big = [
        2**53,
        2**63 - 1,
        -(2**63),
        2**63,
        -(2**63) - 1,
        2**64,
        2**64 - 1,
        -(2**64),
        10**30,
        -(10**30),
        2**1024,
    ]
    floats = [
        0.5,
        -0.5,
        0.1,
        1.5,
        1e-7,
        5e-324,
        -5e-324,
        2.2250738585072014e-308,
        3.141592653589793,
        0.30000000000000004,
    ]
    whole = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e15,
        9007199254740992.0,
        9.223372036854775807e18,
        -9.223372036854775808e18,
    ]
    huge = [1e19, 1.8446744073709552e19, 1e22, 1e300, -1e300, 1.7976931348623157e308]
    cases: list[Case] = [("null", None, {}), ("true", True, {}), ("false", False, {})]
    cases += [(f"integer {n}", n, {}) for n in edges]
    cases += [(f"integer {n if abs(n) < 2**70 else hex(n)}", {"$int": str(n)}, {}) for n in big]
    cases += [(f"integer of {bits} bits", {"$int": str(2**bits - 1)}, {}) for bits in (2040, 2048, 4096)]
    cases += [(f"float {x!r}", x, {}) for x in floats]
    cases += [(f"whole float {x!r}", x, {}) for x in whole + huge]
    return cases


def strings() -> list[Case]:
    texts = {
        "empty": "",
        "ascii": "hello",
        "letter case counts": "Hello",
        "NUL inside": "a\0b",
        "quotes and backslash": 'a"\\b',
        "NFC e acute": "caf\u00e9",
        "NFD e acute": "cafe\u0301",
        "Hangul composed": "\ud55c",
        "Hangul decomposed": "\u1112\u1161\u11ab",
        "angstrom sign": "\u212b",
        "ligature (kept by NFC)": "\ufb01",
        "astral": "\U0001f600\U00010000",
        "highest code point": "\U0010ffff",
        "byte order mark": "\ufeffx",
        "right to left": "\u05e9\u05dc\u05d5\u05dd",
    }
    cases: list[Case] = [(f"string, {name}", text, {}) for name, text in texts.items()]
    cases += [
        (f"string, {name}, NFC asked", texts[name], {"nfc": True})
        for name in (
            "NFC e acute",
            "NFD e acute",
            "Hangul decomposed",
            "angstrom sign",
            "ligature (kept by NFC)",
        )
    ]
    lengths = (
        1,
        127,
        128,
        255,
        256,
        257,
        511,
        512,
        513,
        1023,
        1024,
        1025,
        2047,
        2048,
        2049,
        8192,
        8193,
        65536,
        65537,
    )
    cases += [(f"string of {n} bytes", {"$repeat": ["x", n]}, {}) for n in lengths]
    cases += [
        ("string of 1 MiB", {"$repeat": ["0123456789abcdef", 65536]}, {}),
        ("string of 1 MiB and one", {"$repeat": ["x", 2**20 + 1]}, {}),
        ("string of 128 letters, 256 bytes", {"$repeat": ["\u00e9", 128]}, {}),
        ("string of 127 letters, 254 bytes", {"$repeat": ["\u00e9", 127]}, {}),
        ("string of 86 letters, 258 bytes", {"$repeat": ["\u20ac", 86]}, {}),
        ("string of 64 astral letters, 256 bytes", {"$repeat": ["\U0001f600", 64]}, {}),
        ("long string ending in NUL", {"a": {"$repeat": ["x\0", 200]}}, {}),
        ("NFD 258 bytes, NFC asked: 172 bytes, so short", {"$repeat": ["e\u0301", 86]}, {"nfc": True}),
        ("NFD 258 bytes as given", {"$repeat": ["e\u0301", 86]}, {}),
    ]
    return cases


def blobs() -> list[Case]:
    cases: list[Case] = [("bytes, empty, in an array", [{"$bytes": ""}], {})]
    cases += [("bytes differ from the same text", [{"$bytes": "68656c6c6f"}], {})]
    for n in (1, 32, 255, 256, 257, 2048, 2049, 65536, 2**20):
        cases.append((f"{n} bytes in an array", [{"$repeat_bytes": ["ff", n]}], {}))
    cases.append(("32 bytes on their own are a ready fingerprint", {"$repeat_bytes": ["a5", 32]}, {}))
    return cases


def containers() -> list[Case]:
    return [
        ("empty array", [], {}),
        ("empty mapping", {}, {}),
        ("empty set", {"$set": []}, {}),
        ("array of one of each", [None, False, True, 0, 0.5, "", {"$bytes": ""}, [], {}, {"$set": []}], {}),
        ("array order counts, one way", [1, 2], {}),
        ("array order counts, the other way", [2, 1], {}),
        ("array of 128 nulls", [None] * 128, {}),
        ("nested arrays", [[], [[]], [[[]]]], {}),
        ("128 levels", {"$nest": [127, []]}, {}),
        ("127 levels around a mapping", {"$nest": [127, {}]}, {}),
        ("keys sorted, given sorted", {"a": 1, "b": 2, "c": 3}, {}),
        ("keys sorted, given reversed", {"c": 3, "b": 2, "a": 1}, {}),
        ("empty key", {"": 1, "a": 2}, {}),
        ("a prefix before the longer key", {"ab": 1, "a": 2, "abc": 3}, {}),
        ("upper case before lower case", {"a": 1, "B": 2, "_": 3}, {}),
        ("keys where UTF-16 order is another", {"\U00010000": 1, "\uffff": 2, "\ue000": 3, "z": 4}, {}),
        (
            "keys where UTF-16 order is another, reversed",
            {"z": 4, "\ue000": 3, "\uffff": 2, "\U00010000": 1},
            {},
        ),
        ("key of 300 bytes stays text", {"k" * 300: 1}, {}),
        ("key in NFD", {"cafe\u0301": 1, "caff": 2}, {}),
        ("key in NFD, NFC asked", {"cafe\u0301": 1, "caff": 2}, {"nfc": True}),
        ("null differs from absent", {"a": None}, {}),
        ("mapping in array in mapping", {"a": [{"b": [{"c": {}}]}]}, {}),
        ("numeric strings are strings", {"1": "1", "2": 2}, {}),
        ("set of strings", {"$set": ["b", "a", "aa"]}, {}),
        ("set of strings, short and long", {"$set": [{"$repeat": ["x", 256]}, "zz", "a"]}, {}),
        ("set of numbers", {"$set": [3, 1, -1, 0.5, {"$int": str(2**64)}]}, {}),
        ("set of bytes", {"$set": [{"$bytes": "ff"}, {"$bytes": "00"}, {"$bytes": "00ff"}]}, {}),
        ("set differs from array", [{"$set": ["a"]}, ["a"]], {}),
        ("130 keys", {f"k{i:03}": i for i in range(130)}, {}),
    ]


def documents() -> list[Case]:
    plain = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    cases: list[Case] = [
        ("a small request", plain, {}),
        ("another namespace", plain, {"namespace": "tenant-7"}),
        ("empty namespace", plain, {"namespace": ""}),
        ("namespace in another script", plain, {"namespace": "\u6771\u4eac"}),
        ("namespace of 256 bytes", plain, {"namespace": "n" * 256}),
        ("NFC leaves the namespace alone", plain, {"namespace": "cafe\u0301", "nfc": True}),
        ("variant 0", plain, {"variant": 0}),
        ("variant 1", plain, {"variant": 1}),
        ("variant as text", plain, {"variant": "1"}),
        ("variant empty", plain, {"variant": ""}),
        ("negative variant", plain, {"variant": -1}),
        ("a request that is text", "hello", {"profile": "openai.chat"}),
    ]
    # The document's own digest: 256 bytes are hashed as they are, 257 go through the tree.
    head = len(b"LCF\x01" + reference.canonical("default") + reference.canonical("generic") + b"\0")
    for total in (255, 256, 257, 512, 513, 8192, 8193):
        request: list[str] = []
        while (left := total - head - len(reference.canonical(request))) > 0:
            request.append("x" * (50 if left > 104 else left - 2))
        cases.append((f"document of {total} bytes", request, {}))
    words = "The quick brown fox jumps over the lazy dog. "
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": {"$repeat": [words, 3 + i]}} for i in range(12)
    ]
    cases.append(("conversation of twelve turns", {"model": "m", "messages": turns}, {}))
    many = [{"role": "user", "content": f"turn {i}"} for i in range(400)]
    cases.append(("conversation of 400 short turns", {"model": "m", "messages": many}, {}))
    return cases


SCHEMA = {
    "type": "object",
    "properties": {"b": {"type": "string"}, "a": {"type": "integer"}},
    "required": ["b"],
}
SCHEMA_OTHER_ORDER = {
    "required": ["b"],
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "type": "object",
}


def profiles() -> list[Case]:
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    message = {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}}
    cases: list[Case] = []
    for profile in reference.PROFILES:
        cases.append((f"{profile}: plain chat request", chat, {"profile": profile}))
        transport = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "timeout": 0.5,
            "max_retries": 7,
        }
        cases.append((f"{profile}: transport fields", chat | transport, {"profile": profile}))
        cases.append((f"{profile}: temperature 1.0", chat | {"temperature": 1.0}, {"profile": profile}))
        cases.append(
            (f"{profile}: temperature true is no number", chat | {"temperature": True}, {"profile": profile})
        )
        cases.append((f"{profile}: temperature null", chat | {"temperature": None}, {"profile": profile}))
        cases.append(
            (
                f"{profile}: user and metadata count",
                chat | {"user": "u", "metadata": {"a": "b"}},
                {"profile": profile},
            )
        )
    on = {"profile": "openai.chat"}
    defaults = {"top_p": 1, "n": 1, "presence_penalty": 0, "frequency_penalty": -0.0, "logprobs": False,
                "parallel_tool_calls": True, "verbosity": "medium", "service_tier": "auto"}  # fmt: skip
    cases.append(("openai.chat: all defaults spelled out", chat | defaults, on))
    cases.append(
        (
            "openai.chat: null where null is absent",
            chat | dict.fromkeys(("stop", "seed", "logit_bias"), None),
            on,
        )
    )
    cases.append(("openai.chat: null where null counts", chat | {"tools": None}, on))
    cases.append(
        (
            "openai.chat: defaults inside a message count",
            {"messages": [{"temperature": 1, "stream": True}]},
            on,
        )
    )
    cases.append(
        (
            "openai.chat: prompt cache hints",
            chat | {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
            on,
        )
    )
    for order, schema in (("one", SCHEMA), ("other", SCHEMA_OTHER_ORDER)):
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        cases.append((f"openai.chat: tool schema, {order} order", chat | {"tools": [tool, tool]}, on))
        cases.append((f"generic: tool schema, {order} order", chat | {"tools": [tool, tool]}, {}))
        style = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        cases.append((f"openai.chat: response schema, {order} order", chat | {"response_format": style}, on))
        flat = {"type": "function", "name": "f", "parameters": schema}
        asked = {
            "model": "m",
            "input": "hi",
            "tools": [flat],
            "text": {"format": {"type": "json_schema", "schema": schema}},
        }
        cases.append((f"openai.responses: schemas, {order} order", asked, {"profile": "openai.responses"}))
        asked_of_claude = message | {"tools": [{"name": "f", "input_schema": schema}]}
        cases.append(
            (
                f"anthropic.messages: tool schema, {order} order",
                asked_of_claude,
                {"profile": "anthropic.messages"},
            )
        )
    cases.append(
        (
            "openai.chat: a key * is not an item",
            chat | {"tools": {"*": {"function": {"parameters": SCHEMA}}}},
            on,
        )
    )
    on = {"profile": "openai.responses"}
    cases.append(
        (
            "openai.responses: defaults",
            {"model": "m", "input": "hi", "store": True, "truncation": "disabled", "background": False},
            on,
        )
    )
    cases.append(("openai.responses: store false counts", {"model": "m", "input": "hi", "store": False}, on))
    on = {"profile": "anthropic.messages"}
    cases.append(
        (
            "anthropic.messages: order of an earlier tool call",
            message | {"messages": [{"role": "assistant", "content": [call]}]},
            on,
        )
    )
    cases.append(
        (
            "anthropic.messages: cache_control counts",
            message | {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
            on,
        )
    )
    return cases


def vector(case: Case) -> dict[str, Any]:
    name, form, options = case
    request = revive(form)
    nfc = options.get("nfc", False)
    out: dict[str, Any] = {"name": name, "request": form} | ({"options": options} if options else {})
    if not isinstance(request, bytes):
        body = reference.canonical_request(request, options.get("profile", "generic"), nfc)
        if len(body) <= SHOWN:
            out["canonical"] = body.hex()
    return out | {"fingerprint": reference.fingerprint(request, **options).hex()}


def main() -> None:
    cases = scalars() + strings() + blobs() + containers() + documents() + profiles()
    vectors = [vector(case) for case in cases]
    assert len({v["name"] for v in vectors}) == len(vectors), "two vectors have one name"
    if TARGET.exists():
        known = {v["name"]: v for v in json.loads(TARGET.read_text())["vectors"]}
        changed = [v["name"] for v in vectors if v["name"] in known and v != known[v["name"]]]
        gone = known.keys() - {v["name"] for v in vectors}
        if changed or gone:
            sys.exit(f"format version 1 is fixed: these vectors would change or go: {changed + sorted(gone)}")
    lines = ",\n".join(json.dumps(v) for v in vectors)
    TARGET.write_text(f'{{"format": 1, "vectors": [\n{lines}\n]}}\n')
    print(f"{len(vectors)} vectors, {TARGET.stat().st_size} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
