"""What the contenders work on: requests, keys and values that every run makes alike."""

from __future__ import annotations

import bisect
import itertools
import random
from typing import Any

Request = dict[str, Any]

WORDS = """
the of and to in that it with for as was on are by this be from or which one had not but what all were when
we there can an your has more if will each about how up out them then she many some so these would other into
order invoice refund customer account delivery warehouse shipment payment contract agreement support ticket
policy please explain summarise document section paragraph answer question context language model response
""".split()


def text(length: int, seed: int) -> str:
    """English-looking ASCII text of exactly `length` characters."""
    rng = random.Random(seed)
    parts: list[str] = []
    size = 0
    while size < length:
        word = rng.choice(WORDS)
        parts.append(word)
        size += len(word) + 1
    return " ".join(parts)[:length]


def parsed(string: str) -> str:
    """An equal string that is another object, as a parser makes it: nothing is remembered of its identity."""
    return string.encode().decode()


_numbers = itertools.count()


def unseen(string: str) -> str:
    """A text of the same length that nobody has met: nothing is remembered of its content either."""
    return f"{next(_numbers):012x}" + string[12:]


# --- a chat request of about 4.3 KB -------------------------------------------------------------------------

SYSTEM = text(1400, 1)
TURNS = [text(size, 10 + size) for size in (80, 600, 140, 520, 110, 370)]


def chat_request(system: str = SYSTEM, turns: list[str] | None = None) -> Request:
    """A chat completion request with six messages after the system prompt and two tools: 4.3 KB of JSON.

    As in a program, field names are literals and every dict and list is new.
    """
    turns = TURNS if turns is None else turns
    return {
        "model": "gpt-5.2",
        "temperature": 0.2,
        "max_tokens": 1024,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": turns[0]},
            {"role": "assistant", "content": turns[1]},
            {"role": "user", "content": turns[2]},
            {"role": "assistant", "content": turns[3]},
            {"role": "user", "content": turns[4]},
            {"role": "user", "content": turns[5]},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "find_orders",
                    "description": "Find the orders of a customer by date, status or product, newest first.",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "customer_id": {"type": "string", "description": "Identifier of the customer."},
                            "status": {
                                "type": "string",
                                "enum": ["open", "shipped", "returned", "cancelled"],
                            },
                            "since": {"type": "string", "format": "date"},
                            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
                        },
                        "required": ["customer_id"],
                    },
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "issue_refund",
                    "description": "Refund an order in part or in full, after the customer agreed to it.",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "order_id": {"type": "string"},
                            "amount": {"type": "number", "minimum": 0},
                            "reason": {"type": "string"},
                        },
                        "required": ["order_id", "amount"],
                    },
                },
            },
        ],
    }


def cold_chat_request() -> Request:
    """A request of the same sizes whose texts were never seen before."""
    return chat_request(unseen(SYSTEM), [unseen(turn) for turn in TURNS])


def parsed_chat_request() -> Request:
    """The same request with the same texts in new objects, as after parsing an incoming HTTP body."""
    return chat_request(parsed(SYSTEM), [parsed(turn) for turn in TURNS])


def asked_chat_request() -> Request:
    """The same strings as before, and a last message that was never seen."""
    return chat_request(turns=[*TURNS[:-1], unseen(TURNS[-1])])


# --- a conversation of about 100 KB that grows by one turn --------------------------------------------------


class Conversation:
    """A long chat: `pairs` of a user's 500 characters and an assistant's `reply` characters.

    Earlier turns stay the same string objects, as in a program that keeps the message list; each call of
    `grown` adds one turn whose texts were never seen.
    """

    def __init__(self, pairs: int = 27, reply: int = 3000) -> None:
        self.reply = text(reply, 77)
        self.question = text(500, 78)
        self.messages = [{"role": "system", "content": text(4000, 79)}]
        for number in range(pairs):
            self.messages.append({"role": "user", "content": text(500, 1000 + number)})
            self.messages.append({"role": "assistant", "content": text(reply, 2000 + number)})

    def grown(self) -> Request:
        return {
            "model": "gpt-5.2",
            "temperature": 0.2,
            "messages": [
                *self.messages,
                {"role": "user", "content": unseen(self.question)},
                {"role": "assistant", "content": unseen(self.reply)},
                {"role": "user", "content": unseen(self.question)},
            ],
        }

    def rebuilt(self) -> Request:
        """The same strings in new dicts, as when a program makes its messages anew from a store of texts."""
        request = self.grown()
        request["messages"] = [dict(message) for message in request["messages"]]
        return request


# --- one prompt of 1 MB -------------------------------------------------------------------------------------

MEGABYTE = text(1_000_000, 3)


def megabyte_request() -> Request:
    return {"model": "gpt-5.2", "messages": [{"role": "user", "content": unseen(MEGABYTE)}]}


# --- keys ---------------------------------------------------------------------------------------------------


def keys(count: int, seed: int = 5) -> list[bytes]:
    """Distinct 32-byte keys."""
    rng = random.Random(seed)
    return [rng.randbytes(32) for _ in range(count)]


def zipf_indices(population: int, count: int, exponent: float = 1.0, seed: int = 9) -> list[int]:
    """`count` draws from `population` items where the item of rank r has weight r ** -exponent; ranks are
    scattered over the items, so that popular items do not lie side by side in memory."""
    rng = random.Random(seed)
    cumulative = list(itertools.accumulate(rank**-exponent for rank in range(1, population + 1)))
    order = list(range(population))
    rng.shuffle(order)
    return [order[bisect.bisect(cumulative, rng.random() * cumulative[-1])] for _ in range(count)]
