"""Makes `rust/core/src/guard/lexicon.txt` from WordNet 3.0: which words may stand for each other, and which
are opposites.

    python -m benches.semantic.lexicon /usr/share/wordnet

Of each synset the single words for which it is one of their first senses (a rare sense makes anything a
synonym of anything), and all antonym pairs, with those that an adjective inherits from the head of its
cluster. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parents[2] / "rust" / "core" / "src" / "guard" / "lexicon.txt"
KINDS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
SENSES = {"n": 2, "v": 2, "a": 3, "r": 2}
"""How many first senses of a word count, by part of speech."""
NOTICE = """\
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Provided "as is", without
# warranties; licence: LICENSES/WordNet-3.0.txt. Made by benches/semantic/lexicon.py.
# One line for words that may stand for each other; words around "!" are opposites.
"""


class Synset(NamedTuple):
    words: tuple[str, ...]
    pointers: tuple[tuple[str, str, str, int, int], ...]
    """`(kind of pointer, part of speech, offset, word here, word there)`; words from 1, 0 for all."""


def synsets(path: Path) -> Iterator[tuple[str, Synset]]:
    """By their offsets in the file: wndb(5WN)."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split("|")[0].split()
        count = int(fields[3], 16)
        words = tuple(fields[4 + 2 * at].split("(")[0].lower() for at in range(count))
        rest = fields[4 + 2 * count :]
        pointers = []
        for at in range(int(rest[0])):
            kind, offset, part, ends = rest[1 + 4 * at : 5 + 4 * at]
            pointers.append((kind, part, offset, int(ends[:2], 16), int(ends[-2:], 16)))
        yield fields[0], Synset(words, tuple(pointers))


def ranks(path: Path) -> dict[tuple[str, str], int]:
    """How frequent a sense is among those of its word: 1 is the most frequent. Words that WordNet's own
    corpus does not have are left out: three in four, and nobody asks with them."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        senses, tagged = int(fields[2]), int(fields[-int(fields[2]) - 1])
        if not tagged:
            continue
        for rank, offset in enumerate(fields[-senses:], 1):
            found[fields[0], offset] = rank
    return found


def simple(word: str) -> bool:
    """A single word of plain letters."""
    return word.isascii() and word.isalpha() and len(word) > 2


def lexicon(folder: Path) -> str:
    """The text of the file."""
    groups: set[tuple[str, ...]] = set()
    opposites: set[tuple[str, str]] = set()
    for name, part in KINDS.items():
        rank = ranks(folder / f"index.{name}")
        sets = dict(synsets(folder / f"data.{name}"))
        usual = {
            offset: tuple(
                word for word in synset.words if simple(word) and rank.get((word, offset), 99) <= SENSES[part]
            )
            for offset, synset in sets.items()
        }
        heads: dict[str, set[str]] = defaultdict(set)
        for offset, synset in sets.items():
            group = set(usual[offset])
            if len(group) > 1:
                groups.add(tuple(sorted(group)))
            for kind, there_part, there, here, other in synset.pointers:
                if kind == "!" and there_part.replace("s", "a") == part:
                    one, two = synset.words[here - 1], sets[there].words[other - 1]
                    usual_pair = (one, offset) in rank and (two, there) in rank
                    if simple(one) and simple(two) and usual_pair:
                        opposites.add((min(one, two), max(one, two)))
                        heads[offset].add(two)
        for offset, synset in sets.items() if part == "a" else ():
            # A satellite is opposite to what its head is opposite to: huge, as large is, to small.
            for kind, _, there, _, _ in synset.pointers:
                if kind == "&":
                    opposites |= {
                        (min(word, two), max(word, two))
                        for word in usual[offset]
                        for two in heads[there]
                        if rank.get((word, offset)) == 1
                    }
    lines = [" ".join(group) for group in sorted(groups)]
    lines += [f"{one} ! {two}" for one, two in sorted(opposites) if one != two]
    return NOTICE + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="of WordNet's dict files, such as Debian's wordnet-base brings"
    )
    TARGET.write_text(lexicon(parser.parse_args().folder), encoding="utf-8")


if __name__ == "__main__":
    main()
