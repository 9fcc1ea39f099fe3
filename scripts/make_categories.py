#!/usr/bin/env python3
"""Writes examples/data/wordnet-categories/: a small data set for text classification made from WordNet 3.0's nouns.

Each row is a definition and the kind of thing that it defines, which is WordNet's own: its makers sorted every noun into one of 25
lexicographer files, of which eight are taken here, equally often:

    {"text": "a sheltered port where ships can take on or discharge cargo", "label": "artifact"}

Needs WordNet's database files (Debian: `apt-get install wordnet-base`) and Python 3.9 or newer, nothing else.
The choice depends on the files and on SEED alone, so two runs write the same bytes:

    python3 scripts/make_categories.py [--wordnet DIR] [--out DIR]
"""

import argparse
import hashlib
import json
import pathlib
from collections import defaultdict

from make_dataset import definition_of, license_text

SEED = "llmkit-categories-1"
# Rows of each label.
TRAIN, HELD_OUT = 150, 40
# The number of the lexicographer file (lexnames(5WN)) and the label.
FILES = {
    "04": "act",
    "05": "animal",
    "06": "artifact",
    "08": "body",
    "10": "communication",
    "12": "feeling",
    "13": "food",
    "18": "person",
}


def rank(text):
    return hashlib.sha256(f"{SEED}:{text}".encode()).hexdigest()


def candidates(wordnet):
    """Label -> its definitions; those that stand under two labels are left out."""
    labels = defaultdict(set)
    for line in (wordnet / "data.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the license heads the file, indented
            continue
        head, gloss = line.split("|", 1)
        fields = head.split()
        # A name (`Hungary`) is defined by what happened to it, not by its kind.
        names = [word for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2] if word != word.lower()]
        if fields[1] in FILES and not names and (definition := definition_of(gloss.strip())):
            labels[definition].add(FILES[fields[1]])
    found = defaultdict(list)
    for definition, its in labels.items():
        if len(its) == 1:
            found[its.pop()].append(definition)
    return found


def choose(wordnet):
    """Train and held-out rows. No definition occurs twice, in either."""
    train, held_out = [], []
    for label, definitions in sorted(candidates(wordnet).items()):
        chosen = sorted(definitions, key=rank)[: TRAIN + HELD_OUT]
        assert len(chosen) == TRAIN + HELD_OUT, f"only {len(chosen)} definitions of {label}"
        held_out += [(text, label) for text in chosen[:HELD_OUT]]
        train += [(text, label) for text in chosen[HELD_OUT:]]
    return [sorted(split, key=lambda row: rank(row[0] + row[1])) for split in (train, held_out)]


README = """\
# wordnet-categories

Definitions of nouns and the kind of thing that they define, one JSON object a line (`text`, `label`): {train} rows in `train.jsonl`,
{held_out} in `heldout.jsonl`. The eight labels, {labels}, are equally frequent in both; no definition occurs
twice.

Made from WordNet 3.0 by `scripts/make_categories.py`. The labels are WordNet's own: each is the lexicographer file in which the
noun stands. The examples were cut off, and definitions unfit for a general example were left out, as for `wordnet-definitions`.

The definitions are Princeton University's, under the WordNet license in `LICENSE`, which must go with every copy, changed ones included.

> WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=pathlib.Path, default=pathlib.Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("examples/data/wordnet-categories"))
    arguments = parser.parse_args()

    train, held_out = choose(arguments.wordnet)
    assert not {text for text, _ in train} & {text for text, _ in held_out}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("heldout", held_out)):
        lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows)
        (arguments.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (arguments.out / "LICENSE").write_text(license_text(arguments.wordnet), encoding="utf-8")
    labels = ", ".join(f"`{label}`" for label in sorted(FILES.values()))
    readme = README.format(train=len(train), held_out=len(held_out), labels=labels)
    (arguments.out / "README.md").write_text(readme, encoding="utf-8")
    print(f"wrote {len(train)} + {len(held_out)} rows to {arguments.out}")


if __name__ == "__main__":
    main()
