#!/usr/bin/env python3
"""Writes examples/data/wordnet-definitions/: a small instruction data set made from WordNet 3.0's glosses.

Every answer has one form, which a small model can visibly learn within minutes:

    {"instruction": "Define the word \"harbor\".", "input": "", "output": "harbor (noun): a sheltered port ..."}

Needs WordNet's database files (Debian: `apt-get install wordnet-base`) and Python 3.9 or newer, nothing else.
The choice depends on the files and on SEED alone, so two runs write the same bytes:

    python3 scripts/make_dataset.py [--wordnet DIR] [--out DIR]
"""

import argparse
import hashlib
import json
import pathlib
import re
from collections import defaultdict

SEED = "llmkit-1"
TRAIN, HELD_OUT = 1000, 100
# Parts of speech: WordNet's file, the name in the answers, and the share of the rows.
PARTS = {"n": ("noun", "noun", 0.5), "v": ("verb", "verb", 0.25), "a": ("adj", "adjective", 0.25)}
# A word must have been met this often in the texts that WordNet's makers tagged: rarer ones teach a small model only
# to make things up.
MIN_FREQUENCY = 4
MIN_WORDS, MAX_WORDS = 4, 25
UNSUITABLE = re.compile(
    r"\b(offensive|obscene|vulgar|derogatory|disparag\w+|slur|ethnic|racial|sexual\w*|sex|coitus|copulat\w+|genital\w*|"
    r"penis|vagina|prostitut\w+|feces|excre\w+|urine|suicide|nazi|jew\w*|negro\w*|black person)\b"
)
WORD = re.compile(r"[a-z]{3,}")


def definition_of(gloss):
    """The gloss without its examples and cross-references, or None where what is left does not stand on its own."""
    text = re.split(r'[;:,]?\s*"', gloss, maxsplit=1)[0].strip().rstrip(";:., ")
    text = re.sub(r"\s+", " ", text)
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
        return None
    # A leading parenthesis is a label of the field, a backquote or an unbalanced parenthesis a cut-off remark.
    if text.startswith("(") or "`" in text or text.count("(") != text.count(")"):
        return None
    return None if UNSUITABLE.search(text.lower()) else text


def read_synsets(path):
    """Offset of a synset -> its words, spelt as in running text, and its gloss."""
    synsets = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):  # the license heads each file, indented
            head, gloss = line.split("|", 1)
            fields = head.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            # Adjectives may carry their place in the sentence: `galore(ip)`.
            synsets[fields[0]] = ({word.split("(")[0] for word in words}, gloss.strip())
    return synsets


def read_first_senses(path):
    """Lemma -> offset of its most frequent sense."""
    senses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split()
            senses[fields[0]] = fields[-int(fields[2])]
    return senses


def read_frequencies(path):
    """(lemma, part of speech) -> how often it was tagged, over all its senses."""
    parts = {"1": "n", "2": "v", "3": "a", "5": "a"}
    counts = defaultdict(int)
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, count = line.split()
        lemma, sense = key.split("%")
        if sense[0] in parts:
            counts[lemma, parts[sense[0]]] += int(count)
    return counts


def rank(word):
    return hashlib.sha256(f"{SEED}:{word}".encode()).hexdigest()


def candidates(wordnet):
    """Part of speech -> [(word, definition)]; each word once, under its most frequent part of speech."""
    counts = read_frequencies(wordnet / "cntlist.rev")
    best = {}
    for (lemma, part), count in counts.items():
        if WORD.fullmatch(lemma) and count >= MIN_FREQUENCY:
            best[lemma] = max(best.get(lemma, (0, "")), (count, part))
    found = defaultdict(list)
    for part, (suffix, _, _) in PARTS.items():
        synsets = read_synsets(wordnet / f"data.{suffix}")
        senses = read_first_senses(wordnet / f"index.{suffix}")
        for word in sorted(word for word, (_, its_part) in best.items() if its_part == part):
            spellings, gloss = synsets[senses[word]] if word in senses else (set(), "")
            definition = definition_of(gloss)
            # The index is all lower case; the synset tells a name (`Hungary`) from a word.
            if definition and word in spellings:
                found[part].append((word, definition))
    return found


def choose(wordnet):
    """Train and held-out rows. No word and no definition occurs twice, in either."""
    splits, definitions = ([], []), set()
    for part, words in candidates(wordnet).items():
        _, name, share = PARTS[part]
        wanted_held_out = round(HELD_OUT * share)
        wanted = round(TRAIN * share) + wanted_held_out
        chosen = []
        for word, definition in sorted(words, key=lambda pair: rank(pair[0])):
            if len(chosen) < wanted and definition not in definitions:
                definitions.add(definition)
                chosen.append((word, name, definition))
        assert len(chosen) == wanted, f"only {len(chosen)} of {wanted} {name}s"
        splits[1].extend(chosen[:wanted_held_out])
        splits[0].extend(chosen[wanted_held_out:])
    return [sorted(split, key=lambda row: rank(row[0])) for split in splits]


def row(word, part, definition):
    return {"instruction": f'Define the word "{word}".', "input": "", "output": f"{word} ({part}): {definition}."}


def license_text(wordnet):
    """The license as it heads each database file, without the line numbers."""
    lines = (wordnet / "data.noun").read_text(encoding="utf-8").splitlines()
    head = [line for line in lines[:60] if line.startswith("  ")]
    return "\n".join(re.sub(r"^\s*\d+ ?", "", line).rstrip() for line in head).strip() + "\n"


README = """\
# wordnet-definitions

Short definitions in Alpaca's format (`instruction`, `input`, `output`), one JSON object a line: {train} rows in
`train.jsonl`, {held_out} in `heldout.jsonl`. Half are nouns, a quarter verbs, a quarter adjectives. No word that is defined in one
file is defined in the other, and no definition occurs twice. Every answer has the form `word (part of speech): definition.`

Made from WordNet 3.0 by `scripts/make_dataset.py`, which documents how words were chosen: single lower-case words that occur in WordNet's
tagged texts, each with the definition of its most frequent sense ({min_words} to {max_words} words); the examples were cut off, and definitions
unfit for a general example were left out.

The definitions are Princeton University's, under the WordNet license in `LICENSE`, which must go with every copy, changed ones included.

> WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=pathlib.Path, default=pathlib.Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("examples/data/wordnet-definitions"))
    arguments = parser.parse_args()

    train, held_out = choose(arguments.wordnet)
    assert not {word for word, _, _ in train} & {word for word, _, _ in held_out}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("heldout", held_out)):
        lines = (json.dumps(row(*fields), ensure_ascii=False) for fields in rows)
        (arguments.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (arguments.out / "LICENSE").write_text(license_text(arguments.wordnet), encoding="utf-8")
    readme = README.format(train=len(train), held_out=len(held_out), min_words=MIN_WORDS, max_words=MAX_WORDS)
    (arguments.out / "README.md").write_text(readme, encoding="utf-8")
    print(f"wrote {len(train)} + {len(held_out)} rows to {arguments.out}")


if __name__ == "__main__":
    main()
