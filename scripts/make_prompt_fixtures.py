#!/usr/bin/env python3
"""Writes llmkit-prompt/tests/fixtures/jinja2.json: templates, values, and what Python's Jinja2 renders from them.

Needs Jinja2 3.1 (`pip install jinja2`):

    python3 scripts/make_prompt_fixtures.py
"""

import json
import pathlib

from jinja2 import Environment, StrictUndefined
from jinja2.meta import find_undeclared_variables

CASES = [
    ("plain", "No holes, and a brace: {.", {}),
    ("values", "{{ a }} and {{ b.c[1] }}: {{ 名 }}", {"a": "<&>", "b": {"c": [1, 2.5]}, "名": "数据🦀"}),
    (
        "passages",
        "{% for passage in passages %}\n  [{{ loop.index }}] {{ passage.text | trim }}\n{% endfor %}\nQ: {{ question }}\n",
        {"passages": [{"text": " one "}, {"text": "two"}], "question": "why?"},
    ),
    (
        "conditions",
        "{% if hint %}\nHint: {{ hint }}\n{% elif strict is true %}\nNo hints.\n{% else %}\nGuess.\n{% endif %}\nGo.",
        {"hint": None, "strict": True},
    ),
    ("set", "{% set n = words | length %}{{ n }} words: {{ words | join(', ') | upper }}", {"words": ["a", "b"]}),
    ("dashes", "a\n{{- x -}}\n b\n{%- if y %} c\n{%- endif %}", {"x": "|", "y": True}),
    ("defined", "{% if x is defined and x is not none %}{{ x }}{% else %}-{% endif %}", {"x": None}),
    ("raw", "{% raw %}{{ not_mine }}{% endraw %} {{ mine }}{# {{ nor_mine }} #}", {"mine": 1}),
    ("filtered", "{% for x in xs if x % 2 %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}", {"xs": [1, 2, 3, 5]}),
    ("macro", "{% macro bold(t) %}**{{ t }}**{% endmacro %}{{ bold(word) }}, {{ bold('x') }}", {"word": "w"}),
    ("arithmetic", "{{ n * 2 + 1 }} {{ n / 4 }} {{ 7 // 2 }} {{ 'ab' ~ n }} {{ n in [3] }}", {"n": 3}),
]


def main():
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    cases = [
        {
            "name": name,
            "template": template,
            "values": values,
            "variables": sorted(find_undeclared_variables(environment.parse(template))),
            "expected": environment.from_string(template).render(values),
        }
        for name, template, values in CASES
    ]
    out = pathlib.Path(__file__).parent.parent / "llmkit-prompt/tests/fixtures/jinja2.json"
    out.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {len(cases)} cases to {out}")


if __name__ == "__main__":
    main()
