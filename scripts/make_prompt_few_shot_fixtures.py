"""Makes llmkit-prompt/tests/fixtures/few_shot: what NLTK and LangChain choose.

    pip install nltk==3.10.4 numpy==2.* langchain-core==1.8.3
    python scripts/make_prompt_few_shot_fixtures.py

bleu.json: sentence BLEU of a query against an example, both as lists of words, with the smoothing and the weights that LangChain's
n-gram selector asks NLTK for. mmr.json: what LangChain's maximal marginal relevance chooses of random vectors. length.json: what
LangChain's length-based selector chooses where a word counts as one token.
"""

import json
import random
from pathlib import Path

import numpy as np
from langchain_core.example_selectors import LengthBasedExampleSelector
from langchain_core.prompts import PromptTemplate
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

OUT = Path(__file__).parent.parent / "llmkit-prompt/tests/fixtures/few_shot"
WORDS = "a the small large bird fish of prey that sings in water".split()


def bleu(chance):
    method = SmoothingFunction().method1
    cases = []
    for _ in range(150):
        example = [chance.choice(WORDS) for _ in range(chance.randint(1, 12))]
        query = [word for word in example if chance.random() < 0.8]
        query += [chance.choice(WORDS) for _ in range(chance.randint(0, 5))]
        if chance.random() < 0.2:
            query = [chance.choice(WORDS) for _ in range(chance.randint(1, 8))]
        if query:
            score = sentence_bleu([example], query, smoothing_function=method, auto_reweigh=True)
            cases.append({"query": query, "example": example, "score": float(score)})
    return cases


def mmr(seed):
    numbers = np.random.default_rng(seed)
    cases = []
    for count, size, k, weight in [(12, 4, 5, 0.5), (30, 8, 8, 0.3), (30, 8, 8, 0.7), (20, 3, 20, 0.5), (9, 5, 4, 1.0), (9, 5, 4, 0.0)]:
        vectors = numbers.normal(size=(count, size)).round(3)
        query = numbers.normal(size=size).round(3)
        chosen = maximal_marginal_relevance(query, list(vectors), lambda_mult=weight, k=k)
        cases.append(
            {"query": query.tolist(), "vectors": vectors.tolist(), "count": k, "lambda": weight, "chosen": [int(i) for i in chosen]}
        )
    return cases


def length(chance):
    template = PromptTemplate.from_template("{text} {label}")
    cases = []
    for _ in range(40):
        rows = [
            {"text": " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 9))), "label": chance.choice("xyz")}
            for _ in range(chance.randint(1, 8))
        ]
        query = " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 9)))
        limit = chance.randint(5, 50)
        selector = LengthBasedExampleSelector(examples=rows, example_prompt=template, max_length=limit)
        cases.append({"rows": rows, "query": query, "limit": limit, "chosen": len(selector.select_examples({"text": query}))})
    return cases


OUT.mkdir(parents=True, exist_ok=True)
for name, cases in [("bleu", bleu(random.Random(1))), ("mmr", mmr(2)), ("length", length(random.Random(3)))]:
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / f"{name}.json").write_text(f"[\n{lines}\n]\n")
