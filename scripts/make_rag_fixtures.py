#!/usr/bin/env python3
"""Writes llmkit-rag/tests/fixtures/nearest.json: vectors, queries, and NumPy's scores under each metric, in f64.

Needs NumPy (`pip install numpy`):

    python3 scripts/make_rag_fixtures.py
"""

import json
import pathlib

import numpy as np

ROWS, QUERIES, DIMENSIONS = 40, 3, 19


def main():
    rng = np.random.default_rng(7)
    # Four decimals are short to write, and exact for both sides once read as f32.
    rows = rng.normal(size=(ROWS, DIMENSIONS)).round(4).astype(np.float32)
    queries = rng.normal(size=(QUERIES, DIMENSIONS)).round(4).astype(np.float32)
    a, b = queries.astype(np.float64)[:, None, :], rows.astype(np.float64)[None, :, :]
    dot = (a * b).sum(-1)
    scores = {
        "dot": dot,
        "cosine": dot / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)),
        "euclidean": -np.linalg.norm(a - b, axis=-1),
    }
    as_lists = lambda array: [[round(float(value), 7) for value in row] for row in array]
    fixture = {
        "rows": as_lists(rows),
        "queries": as_lists(queries),
        "scores": {metric: as_lists(table) for metric, table in scores.items()},
        "nearest": {metric: np.argsort(-table, axis=-1)[:, :10].tolist() for metric, table in scores.items()},
    }
    out = pathlib.Path(__file__).parent.parent / "llmkit-rag/tests/fixtures/nearest.json"
    out.write_text(json.dumps(fixture, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"wrote {ROWS} rows and {QUERIES} queries to {out}")


if __name__ == "__main__":
    main()
