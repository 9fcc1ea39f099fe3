#!/usr/bin/env python3
"""Writes llmkit-prompt/tests/fixtures/json_repair.json: broken JSON, and what PyPI's json_repair reads from it.

Needs json_repair (`pip install json_repair`):

    python3 scripts/make_prompt_typed_fixtures.py
"""

import json
import pathlib

from json_repair import repair_json

CASES = [
    "{'a': 1, 'b': 'two'}",
    "{a: 1, b: [1, 2,],}",
    '{"a": 1 "b": 2}',
    '["a" "b" "c"]',
    '{"a" 1}',
    '{"a": True, "b": False, "c": None}',
    '{"a": 1, // note\n "b": 2 /* more */}',
    '{"a": "one\ntwo"}',
    '{"a": "x", "b": [1, 2, {"c": 3',
    '{"a": "cut off in the mid',
    "Sure:\n```json\n{\"a\": 1}\n```\nDone.",
    "The answer is {\"a\": [1, 2]} as you see.",
    "“a”",
    '{“a”: “b”}',
    '{"a": .5, "b": [1.5, -2e3]}',
    '{"a": "b", "c": }',
    '{"a": "hello, "b": 2}',
    '{"a": hello", "b": 2}',
    '{"a": "he said "hi" to me", "b": 1}',
    '{"a": [1, 2}',
    '[{"a": 1}, {"b": 2}',
    '{"a":1}{"b":2}',
    '\ufeff{"a": 1}',
    '{"a": {"b": {"c": [true, null]}}, }',
    '[1, 2, 3, ...]',
    '{"a": 1, "b"',
    '{"key": "v1", "key2": "v2", "list": ["x", "y"',
]

out = [{"text": text, "json_repair": repair_json(text, return_objects=True)} for text in CASES]
target = pathlib.Path(__file__).parent.parent / "llmkit-prompt/tests/fixtures/json_repair.json"
target.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")
