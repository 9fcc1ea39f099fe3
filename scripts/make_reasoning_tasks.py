#!/usr/bin/env python3
"""Writes examples/data/reasoning/: small questions that take a few steps, with their answers.

Two kinds, half each: word problems of two or three operations on small whole numbers, and the last letters of the words of a name, put
together. `questions.jsonl` has the questions, `worked.jsonl` a few more of each kind with the steps that lead to the answer:

    {"kind": "arithmetic", "question": "..", "answer": "17"}
    {"kind": "letters", "question": "..", "rationale": "..", "answer": "nkd"}

Needs Python 3.9 or newer, nothing else. The choice depends on SEED alone, so two runs write the same bytes:

    python3 scripts/make_reasoning_tasks.py [--out DIR]
"""

import argparse
import json
import pathlib
import random

SEED = 5
# Of each kind.
QUESTIONS, WORKED = 30, 4

PEOPLE = ["Ada", "Ben", "Cora", "Dan", "Eva", "Finn", "Greta", "Hugo", "Ida", "Jon", "Kira", "Leo", "Mia", "Nils", "Olga", "Paul"]
THINGS = ["apples", "books", "cards", "coins", "eggs", "marbles", "pears", "pens", "shells", "stamps"]
BOXES = ["bags", "boxes", "baskets", "jars"]
FIRST = ["Anton", "Bruno", "Carla", "Diego", "Edith", "Frank", "Gwen", "Heidi", "Irma", "Jakob", "Karl", "Lars", "Magda", "Norbert"]
MIDDLE = ["Albert", "Beatrix", "Conrad", "Doris", "Emil", "Frieda", "Georg", "Hilda", "Ivan", "Jasper"]
LAST = ["Adler", "Brook", "Carver", "Dahl", "Ekberg", "Fox", "Grant", "Holm", "Irving", "Jung", "Krause", "Lund", "Marsh", "North"]


def give_and_take(rng):
    name, other = rng.sample(PEOPLE, 2)
    thing = rng.choice(THINGS)
    start, gain, loss = rng.randint(5, 30), rng.randint(3, 20), rng.randint(2, 8)
    question = f"{name} has {start} {thing}. {name} finds {gain} more and gives {loss} to {other}. How many {thing} does {name} have now?"
    rationale = f"{name} starts with {start}. {start} + {gain} = {start + gain}. {start + gain} - {loss} = {start + gain - loss}."
    return question, rationale, start + gain - loss


def packed(rng):
    name = rng.choice(PEOPLE)
    thing, box = rng.choice(THINGS), rng.choice(BOXES)
    boxes, each, extra = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    question = f"{name} has {boxes} {box} with {each} {thing} in each, and {extra} loose {thing}. How many {thing} are there in all?"
    rationale = f"The {box} hold {boxes} * {each} = {boxes * each}. {boxes * each} + {extra} = {boxes * each + extra}."
    return question, rationale, boxes * each + extra


def change(rng):
    name = rng.choice(PEOPLE)
    thing = rng.choice(THINGS)
    count, price = rng.randint(2, 6), rng.randint(2, 7)
    paid = count * price + rng.randint(1, 15)
    question = f"{name} buys {count} {thing} for {price} dollars each and pays with {paid} dollars. How many dollars does {name} get back?"
    rationale = f"They cost {count} * {price} = {count * price}. {paid} - {count * price} = {paid - count * price}."
    return question, rationale, paid - count * price


def shared(rng):
    thing, box = rng.choice(THINGS), rng.choice(BOXES)
    boxes, each, gone = rng.randint(2, 6), rng.randint(3, 9), rng.randint(1, 8)
    total = boxes * each + gone
    question = f"Of {total} {thing}, {gone} are lost. The rest go into {boxes} {box}, the same number in each. How many {thing} are in each?"
    rationale = f"{total} - {gone} = {total - gone} are left. {total - gone} / {boxes} = {each}."
    return question, rationale, each


def letters(rng):
    words = [rng.choice(FIRST), rng.choice(MIDDLE), rng.choice(LAST)][: rng.choice([2, 3])]
    name = " ".join(words)
    question = f'Take the last letter of each word in "{name}" and write them together. What do you get?'
    steps = " ".join(f'The last letter of "{word}" is "{word[-1]}".' for word in words)
    answer = "".join(word[-1] for word in words)
    return question, f'{steps} Together they are "{answer}".', answer


def rows(rng, kind, makers, count, seen):
    made = []
    while len(made) < count:
        question, rationale, answer = makers[len(made) % len(makers)](rng)
        if question not in seen:
            seen.add(question)
            made.append({"kind": kind, "question": question, "rationale": rationale, "answer": str(answer)})
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=pathlib.Path, default=root / "examples/data/reasoning")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    seen = set()
    kinds = [("arithmetic", [give_and_take, packed, change, shared]), ("letters", [letters])]
    worked = [row for kind, makers in kinds for row in rows(rng, kind, makers, WORKED, seen)]
    questions = [row for kind, makers in kinds for row in rows(rng, kind, makers, QUESTIONS, seen)]
    for row in questions:
        del row["rationale"]
    for name, made in [("worked.jsonl", worked), ("questions.jsonl", questions)]:
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


if __name__ == "__main__":
    main()
