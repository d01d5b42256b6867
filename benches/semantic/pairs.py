"""Pairs of questions to fit the verifier on, made from our own alone: `questions.txt` and `stories.txt`.

What belongs here: which pairs ask the same and which do not, and the edits that make more of them. What does
not: features and trees (`fit`). The same files give the same pairs, on every machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
SEED = 5


class Pair(NamedTuple):
    one: str
    two: str
    same: bool
    source: str


Block = list[list[str]]


def blocks(name: str) -> list[Block]:
    """The blocks of a file: lists of lists of rewordings."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [
        [line.split(" | ") for line in block.splitlines()]
        for block in text.strip("\n").split("\n\n")
        if block
    ]


# --- what leaves the meaning as it is -----------------------------------------------------------------------

FRAMES = (
    ("How do I ", ("How can I ", "How do you ", "How to ", "How should I ", "How does one ", "How would I ")),
    ("How can I ", ("How do I ", "How could I ", "How can you ", "How can one ", "How might I ")),
    ("How do ", ("How exactly do ", "How do the ")),
    ("How does ", ("How exactly does ",)),
    (
        "What is the best way to ",
        ("What's the best way to ", "Which is the best way to ", "What is a good way to "),
    ),
    ("What is ", ("What's ", "What exactly is ", "What is actually ")),
    ("What are ", ("Which are ", "What are some ", "What're ", "What are the main ")),
    ("Why is ", ("Why exactly is ", "Why's ")),
    ("Why do ", ("Why exactly do ", "Why do some ")),
    ("Which is the best ", ("What is the best ", "What's the best ", "Which one is the best ")),
    ("Is it ", ("Is it really ", "Is it actually ")),
    ("Should I ", ("Should one ", "Would you ")),
    ("Can I ", ("Can you ", "Could I ", "May I ", "Can one ")),
    ("How much ", ("About how much ", "Roughly how much ")),
)
OPENINGS = (
    "Can you tell me: ", "I would like to know: ", "Quick question: ", "Hello! ", "Hi, ",
    "Please help. ", "Does anybody know? ", "I was wondering, ", "Serious question: ",
)  # fmt: skip
CLOSINGS = (" Thanks!", " Please help.", " Thank you in advance.", " Any ideas?", " I am curious.")
SWAPS = (
    ("get rid of", "remove"), ("buy", "purchase"), ("get", "obtain"), ("best", "ideal"),
    ("start", "begin"), ("kids", "children"), ("bad", "harmful"), ("begin", "start"),
    ("movies", "films"), ("hard", "difficult"), ("people", "humans"), ("quickly", "fast"),
    ("phone", "smartphone"), ("job", "position"), ("good", "great"), ("need", "require"),
    ("make", "create"), ("find", "locate"), ("money", "cash"), ("car", "vehicle"), ("reason", "cause"),
    ("doctor", "physician"), ("safe", "secure"), ("picture", "photo"), ("apartment", "flat"),
    ("cost", "price"), ("salary", "pay"), ("learn", "study"), ("happen", "occur"), ("big", "large"),
)  # fmt: skip


def reframed(text: str, chance: random.Random) -> str | None:
    for start, others in FRAMES:
        if text.startswith(start):
            return chance.choice(others) + text[len(start) :]
    return None


def opened(text: str, chance: random.Random) -> str:
    return chance.choice(OPENINGS) + text


def closed(text: str, chance: random.Random) -> str:
    return text + chance.choice(CLOSINGS)


def mistyped(text: str, chance: random.Random) -> str | None:
    """A letter doubled, dropped or changed about in a long word."""
    words = text.split(" ")
    long = [at for at, word in enumerate(words) if at and len(word) > 6 and word.isalpha()]
    if not long:
        return None
    at = chance.choice(long)
    word, cut = words[at], chance.randrange(2, len(words[at]) - 1)
    words[at] = chance.choice(
        (
            word[:cut] + word[cut + 1 :],
            word[:cut] + word[cut] + word[cut:],
            word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :],
        )
    )
    return " ".join(words)


def careless(text: str, chance: random.Random) -> str:
    """Without capitals, marks or articles."""
    text = text.lower()
    if chance.random() < 0.6:
        text = re.sub(r"[?.,!']", "", text)
    if chance.random() < 0.4:
        text = re.sub(r"\b(the|a|an) ", "", text)
    return text


def swapped(text: str, chance: random.Random) -> str | None:
    """A word for another that means the same."""
    there = [(one, two) for one, two in SWAPS if re.search(rf"\b{one}\b", text)]
    if not there:
        return None
    one, two = chance.choice(there)
    return re.sub(rf"\b{one}\b", two, text, count=1)


SENTENCE = re.compile(r"(?<=[.?!]) ")


def told_less(text: str, chance: random.Random) -> str | None:
    """The question alone, or with a sentence less of its story."""
    sentences = SENTENCE.split(text)
    told = [at for at, sentence in enumerate(sentences) if not sentence.endswith("?")]
    if len(sentences) < 3 or not told:
        return None
    del sentences[chance.choice(told)]
    return " ".join(sentences)


SAME: tuple[tuple[str, Callable[[str, random.Random], str | None]], ...] = (
    ("frame", reframed),
    ("opening", opened),
    ("closing", closed),
    ("typing", mistyped),
    ("careless", careless),
    ("swap", swapped),
    ("less", told_less),
)

# --- what changes it ----------------------------------------------------------------------------------------

LIMITS = (
    "in Canada", "in India", "in winter", "at home", "for free", "for beginners", "for children",
    "on a budget", "without a degree", "online", "at night", "after surgery", "during pregnancy",
    "in small towns", "as a student", "for a living", "on weekends", "with a disability",
    "for a school project", "under stress", "by law", "in the long run", "from a distance", "on my own",
    "as a woman", "after forty", "abroad", "in general practice",
)  # fmt: skip
MODIFIERS = (
    "cheap", "old", "modern", "professional", "public", "private", "foreign", "local", "homemade",
    "electric", "medical", "commercial", "young", "advanced", "digital", "organic", "temporary",
    "military", "wild", "portable",
)  # fmt: skip
SECOND = (
    " And what does it cost?", " And how long does it take?", " What are the alternatives?",
    " Who invented it?", " And is it worth it?", " What are the risks?", " How is it done elsewhere?",
    " And why?",
)  # fmt: skip
ANOTHER = (
    "What does it cost?", "How long does this last?", "Is it contagious?", "What is the treatment?",
    "Who can help me?", "Which doctor should I see?", "Is it hereditary?", "Can I still go to work?",
    "What are the causes?", "Is it normal?", "What should I eat?", "Should I be worried?",
    "Who has to pay for it?", "Where can I complain?", "Can it come back?",
    "How do I explain it to my family?", "What are my rights?", "Which one should I buy?",
    "How can I prevent it?", "Is there another way?", "What are the risks?", "When will it be over?",
    "Has anybody had the same?",
)  # fmt: skip
ASKING = (
    ("How do I ", "Where do I "), ("How do I ", "Why do I "), ("How do I ", "When should I "),
    ("How can ", "Why can "), ("What is ", "Who is "), ("What is ", "Where is "),
    ("Why do ", "How do "), ("Why is ", "How is "), ("Where do ", "How do "),
    ("How does ", "Why does "), ("When was ", "Where was "), ("What are ", "Where are "),
    ("How long ", "How often "), ("How much ", "How long "), ("What does ", "How does "),
    ("Can I ", "Should I "), ("Why does ", "When does "), ("How do I ", "Should I "),
    ("Is it safe to ", "Is it legal to "),
)  # fmt: skip
VERBS = (
    ("clean", "sell"), ("make", "repair"), ("buy", "sell"), ("get", "cancel"), ("learn", "teach"),
    ("write", "read"), ("fix", "replace"), ("grow", "eat"), ("become", "hire"), ("find", "lose"),
    ("cause", "prevent"), ("treated", "diagnosed"), ("invented", "named"), ("work", "look"),
    ("prepare", "pay"), ("improve", "test"), ("delete", "share"), ("start", "finish"),
    ("remove", "apply"), ("eat", "cook"), ("wear", "bring"),
)  # fmt: skip


def _stem(text: str) -> tuple[str, str]:
    body = text.rstrip("?.! ")
    return body, text[len(body) :]


def limited(text: str, chance: random.Random) -> str:
    body, end = _stem(text)
    return f"{body} {chance.choice(LIMITS)}{end}"


def modified(text: str, chance: random.Random) -> str | None:
    """An adjective put before one of the nouns, as far as articles and prepositions tell them."""
    places = [match.end() for match in re.finditer(r"\b(?:a|an|the|of|for|with|about|my) (?=[a-z]{4})", text)]
    if not places:
        return None
    at = chance.choice(places)
    return f"{text[:at]}{chance.choice(MODIFIERS)} {text[at:]}"


def continued(text: str, chance: random.Random) -> str:
    return text + chance.choice(SECOND)


def asked_otherwise(text: str, chance: random.Random) -> str | None:
    fits = [(one, two) for one, two in ASKING if text.startswith(one)]
    if not fits:
        return None
    one, two = chance.choice(fits)
    return two + text[len(one) :]


def done_otherwise(text: str, chance: random.Random) -> str | None:
    fits = [
        pair for one, two in VERBS for pair in ((one, two), (two, one)) if re.search(rf"\b{pair[0]}\b", text)
    ]
    if not fits:
        return None
    one, two = chance.choice(fits)
    return re.sub(rf"\b{one}\b", two, text, count=1)


def told_for_another(text: str, chance: random.Random) -> str | None:
    """The story as it was, and another question at its end."""
    told = [sentence for sentence in SENTENCE.split(text) if not sentence.endswith("?")]
    if not told:
        return None
    return " ".join((*told, chance.choice(ANOTHER)))


OTHER: tuple[tuple[str, Callable[[str, random.Random], str | None]], ...] = (
    ("limit", limited),
    ("modifier", modified),
    ("second", continued),
    ("asking", asked_otherwise),
    ("verb", done_otherwise),
    ("story", told_for_another),
)


NOUN = re.compile(r"\b(?:the|for|of|a|an|my|in) ([a-z]{4,})")


def spliced(text: str, other: str, chance: random.Random) -> str | None:
    """A question with one noun of another in place of its own."""
    mine, theirs = list(NOUN.finditer(text)), NOUN.findall(other)
    theirs = [word for word in theirs if word not in text]
    if not mine or not theirs:
        return None
    place = chance.choice(mine)
    return text[: place.start(1)] + chance.choice(theirs) + text[place.end(1) :]


SHARES = {"limit": 0.25, "second": 0.2, "story": 1.0}
"""How often a question is edited in a way that fits nearly all of them."""

# --- all of them --------------------------------------------------------------------------------------------


def edited(line: list[str], others: list[str], chance: random.Random) -> Iterator[Pair]:
    """Edits of the questions of one line, each beside another rewording or what it was made from."""
    for text in line:
        partner = chance.choice(line)
        for source, edit in SAME:
            if chance.random() < 0.35 and (made := edit(text, chance)):
                yield Pair(made, partner, True, source)
        for source, edit in OTHER:
            if chance.random() < SHARES.get(source, 0.5) and (made := edit(text, chance)):
                yield Pair(made, partner if chance.random() < 0.5 else text, False, source)
        if made := spliced(text, chance.choice(others), chance):
            yield Pair(made, partner if chance.random() < 0.5 else text, False, "splice")


def pairs() -> list[Pair]:
    """All pairs, each once, in an order that does not matter to the fit."""
    chance = random.Random(SEED)
    found: list[Pair] = []
    for name in ("questions.txt", "stories.txt"):
        kind = name.removesuffix(".txt")
        all_blocks = blocks(name)
        everything = [text for block in all_blocks for line in block for text in line]
        for block in all_blocks:
            for line in block:
                found += [Pair(one, two, True, kind) for one, two in combinations(line, 2)]
                found += edited(line, everything, chance)
            for left, right in combinations(block, 2):
                found += [Pair(one, two, False, kind) for one, two in product(left, right)]
    return list(dict.fromkeys(pair for pair in found if pair.one != pair.two))
