#!/usr/bin/env python3
"""Writes llmkit-prompt/tests/fixtures/jinja2_templates.json: templates, values, and what Python's Jinja2 renders from them.

The environment is that of transformers' chat templates (sandboxed, `trim_blocks`, `lstrip_blocks`, loop controls, its `tojson`) with undefined values
refused. Templates that Jinja2 itself refuses are recorded with `expected: null`. Needs Jinja2 3.1 (`pip install jinja2`):

    python3 scripts/make_prompt_template_fixtures.py
"""

import itertools
import json
import pathlib

from jinja2 import DictLoader, StrictUndefined
from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

VALUES = {
    "s": "Hello, World",
    "e": "",
    "u": "naïve 数据🦀 ÀÉ",
    "ml": "one\n  two\n\nthree\n",
    "h": "<b>&\"'</b>",
    "n": 7,
    "z": 0,
    "neg": -3,
    "f": 2.5,
    "big": 1e20,
    "t": True,
    "no": False,
    "none": None,
    "xs": [3, 1, 2],
    "ws": ["pear", "Apple", "fig"],
    "mixed": [1, "a", None, True, 2.5, [1, "x"], {"k": "v"}],
    "em": [],
    "d": {"b": 1, "a": "two", "c": [1, 2]},
    "people": [
        {"name": "Ada", "age": 36, "tags": ["math", "code"], "home": {"city": "London"}},
        {"name": "Bob", "age": 20, "tags": [], "home": {"city": "Oslo"}},
        {"name": "Cy", "age": 36, "tags": ["x"], "home": {"city": "Rome"}},
    ],
    "tree": [{"v": "a", "c": [{"v": "b", "c": []}, {"v": "c", "c": [{"v": "d", "c": []}]}]}],
}
PARTIALS = {
    "head": "# {{ s }}\n",
    "item": "- {{ p.name }} ({{ loop_index }})\n",
    "deep/list": "{% for x in xs %}\n{% include 'cell' %}\n{% endfor %}\n",
    "cell": "[{{ x }}]",
    "macros": "{% macro tag(name, text='') %}<{{ name }}>{{ text }}</{{ name }}>{% endmacro %}\n{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}\n",
    "blank": "",
}

# Every value as it is shown, tested and filtered.
shown = ["s", "e", "u", "ml", "h", "n", "z", "neg", "f", "big", "t", "no", "none", "xs", "ws", "mixed", "em", "d", "people"]
text_filters = ["upper", "lower", "title", "capitalize", "trim", "length", "reverse", "first", "last", "list", "escape", "string", "tojson",
                "indent", "indent(2, true)", "replace('o', '0')", "default('x')", "d('x', true)", "wordcount", "urlencode", "int", "float", "center(20)"]
list_filters = ["length", "first", "last", "sort", "reverse | list", "join", "join(', ')", "sum", "min", "max", "list", "unique | list", "tojson", "string",
                "batch(2) | list", "slice(2) | list", "map('string') | join('-')", "select('odd') | list", "reject('odd') | list"]
tests = ["defined", "none", "string", "number", "mapping", "iterable", "sequence", "boolean", "true", "false", "integer", "float"]

CASES = [f"{{{{ {name} }}}}" for name in shown]
CASES += [f"a {{{{ {name} }}}}b\n" for name in shown[:6]]
CASES += [f"{{{{ {name} | {filter} }}}}" for filter in text_filters for name in ("s", "e", "u", "ml", "h")]
CASES += [f"{{{{ xs | {filter} }}}}" for filter in list_filters]
CASES += [f"{{{{ ws | {filter} }}}}" for filter in ("sort", "join('; ')", "map('upper') | list", "map('length') | sum", "first | upper", "sort(reverse=true)", "sort(case_sensitive=true)", "tojson(indent=2)", "map('replace', 'a', 'b') | list")]
CASES += [f"{{{{ {name} is {test} }}}}" for test in tests for name in ("s", "n", "f", "t", "none", "xs", "d")]
CASES += [f"{{% if {name} %}}yes{{% else %}}no{{% endif %}}" for name in shown]
CASES += [f"{{{{ {left} {op} {right} }}}}" for (left, right) in [("n", "2"), ("neg", "2"), ("f", "2"), ("n", "f")] for op in ("+", "-", "*", "/", "//", "%", "**", "==", "<", ">=", "!=", "~")]
CASES += [f"{{{{ n | {filter} }}}}" for filter in ("abs", "float", "string", "int", "tojson", "round(1)", "default(1)")]
CASES += [f"{{{{ f | {filter} }}}}" for filter in ("round", "int", "round(1)", "abs", "round(0, 'floor')", "round(0, 'ceil')")]
CASES += [f"{{{{ d | {filter} }}}}" for filter in ("length", "list", "tojson", "dictsort", "items | list", "tojson(indent=4)", "tojson(sort_keys=true)", "string", "first")]
CASES += [f"{{{{ people | {filter} }}}}" for filter in (
    "map(attribute='name') | join(', ')", "map(attribute='home.city') | list", "selectattr('age', 'eq', 36) | map(attribute='name') | list",
    "rejectattr('tags') | map(attribute='name') | first", "sum(attribute='age')", "sort(attribute='age') | map(attribute='name') | join",
    "groupby('age') | length", "selectattr('age', '>', 30) | list | length", "sort(attribute='name', reverse=true) | map(attribute='name') | list",
    "map(attribute='tags') | map('length') | list", "max(attribute='age') | attr('name')", "unique(attribute='age') | map(attribute='name') | list",
    "join(', ', attribute='name')")]
CASES += [f"{{{{ s.{call} }}}}" for call in ("upper()", "split(', ')", "split()", "strip()", "startswith('He')", "replace('l', 'L')", "find('W')", "title()", "lower().capitalize()",
                                          "endswith('x')", "count('l')", "rstrip('d')", "lstrip('H')", "splitlines()", "isdigit()", "removeprefix('Hello')", "partition(', ')", "join(ws)")]
CASES += [f"{{{{ d.{call} }}}}" for call in ("items() | list", "keys() | list", "values() | list", "get('a')", "get('zz')", "get('zz', 4)", "a", "c[1]", "c[-1]")]
CASES += [f"{{{{ {source} }}}}" for source in (
    "xs[0]", "xs[-1]", "xs[1:]", "xs[:2]", "xs[::-1]", "s[1:4]", "s[-3:]", "u[2:7]", "xs[::2]", "'a' 'b'", "[1, 'a', none]", "(1, 2)", "(1,)", "{'a': 1, 'b': [2]}", "'it''s'",
    "'x' * 3", "[1] + [2]", "1 in xs", "9 not in xs", "'lo' in s", "'a' in d", "not t", "t and no", "e or 'dflt'", "n if t else z", "'only' if no", "1 < n < 9", "n is divisibleby 7", "n is odd",
    "xs is sameas xs", "n is in [7, 8]", "n is not none", "'%s-%d' % (s, n)" if False else "'%s-%s' | format(s, n)", "range(5) | list", "range(2, 9, 3) | list", "-n", "+n", "2 ** 3 ** 1", "7 // 2 * 2", "-7 // 2", "-7 % 3", "1 / 3", "10 / 2",
    "0.1 + 0.2", "1e3", "1_000", "1.0", "100000000000000000000", "3 == 3.0", "'\\n' ~ '\\t|\\\\'", "\"q'q\"", "'\\u00e9'", "true", "True", "none", "None", "[] == em", "dict(a=1, b=2)", "n.__class__" if False else "xs | length * 2", "namespace(a=1).a",
    "cycler is defined", "s | replace('l', 'L', 1)", "ml | indent(4)", "ml | indent(4, first=true)", "ml | indent(2, blank=true)", "ml.splitlines() | length", "s | truncate(5)", "s | truncate(8, true)", "s | truncate(9, true, '..')", "ws | sort | join(' < ')",
    "h | e", "h | safe", "(h | e) | length", "xs | sum / xs | length", "people[0].home.city", "people[1]['name']", "people | last | attr('name')", "'abc' | list | join('.')", "none is none", "[none, true, 1.0] | join(',')", "'a' ~ true ~ none ~ 1.0", "mixed | join('|')",
    "{'x': {'y': [true, none]}}", "'é' | urlencode", "3.0 | int", "'42' | int + 1", "'x' | int(5)", "2.675 | round(2)", "1234567.891 | round", "'a,b,c'.split(',') | last", "d == {'b': 1, 'a': 'two', 'c': [1, 2]}", "[3, 1] < [3, 2]", "'a' < 'b'", "1 == true", "xs == [3, 1, 2]",
)]
# Loops, and what stands in them.
body = ["{{ loop.index }}:{{ x }}", "{{ x }}{{ ',' if not loop.last }}", "{% if loop.first %}^{% endif %}{{ x }}", "{{ loop.revindex0 }}{{ loop.length }}", "{{ loop.cycle('a', 'b') }}", "{% if x == 1 %}{% continue %}{% endif %}{{ x }}", "{% if x == 1 %}{% break %}{% endif %}{{ x }}", "{{ loop.previtem if not loop.first else '-' }}", "{{ loop.nextitem is defined }}", "{{ loop.changed(x > 1) }}", "{% set y = x * 2 %}{{ y }};", "{{ loop.depth }}"]
heads = ["xs", "xs | sort", "xs if x > 1", "em", "range(3)", "[1, 1, 2]"]
CASES += [f"{{% for x in {head} %}}{inside}{{% else %}}none{{% endfor %}}." for head in heads for inside in body]
# White space around tags.
gaps = ["", " ", "\n", "  \n  ", "\n\n"]
for (left, right), a, b in itertools.product([("", ""), ("-", ""), ("", "-"), ("-", "-"), ("+", ""), ("", "+")], gaps, gaps):
    CASES.append(f"x{a}{{%{left} if t {right}%}}{b}y{a}{{%{left} endif {right}%}}{b}z")
    if left != "+" and right != "+":
        CASES.append(f"x{a}{{{{{left} n {right}}}}}{b}y{a}{{#{left} c {right}#}}{b}z")
CASES += [
    "{% for k, v in d.items() %}\n  {{ k }} -> {{ v }}\n{% endfor %}\n",
    "{% for k in d %}{{ k }}{{ d[k] }}{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for p in people %}\n{% if p.tags %}\n* {{ p.name }}: {{ p.tags | join('/') }}\n{% endif %}\n{% endfor %}",
    "{% for age, group in people | groupby('age') %}{{ age }}:{% for p in group %} {{ p.name }}{% endfor %};{% endfor %}",
    "{% for n in tree recursive %}{{ n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}",
    "{% for a in xs %}{% for b in ws %}{{ a }}{{ b[0] }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% set ns = namespace(found=false, n=0) %}{% for x in xs %}{% if x == 1 %}{% set ns.found = true %}{% endif %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.found }} {{ ns.n }}",
    "{% set a, b = 1, 2 %}{{ b }}{{ a }}", "{% set a = xs %}{% set b = a | sort %}{{ b }}{{ a }}", "{% set text %}\n[{{ s }}]\n{% endset %}{{ text | length }}{{ text }}",
    "{% set text | upper %}{{ s }}{% endset %}{{ text }}", "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}", "{% with %}{% set s = 'in' %}{{ s }}{% endwith %}{{ s }}",
    "{% set s = 'new' %}{{ s }}", "{% if t %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% macro f(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=4) }}", "{% macro f(x) %}{{ x if x else 'none' }}{% endmacro %}{{ f('') }}|{{ f('a') | upper }}",
    "{% macro f(n) %}{{ n }}{% if n > 1 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", "{% macro box() %}[{{ caller() }}]{% endmacro %}{% call box() %}{{ s }}{% endcall %}",
    "{% macro each(xs) %}{% for x in xs %}{{ caller(x) }};{% endfor %}{% endmacro %}{% call(v) each(ws) %}<{{ v }}>{% endcall %}",
    "{% filter upper %}a {{ s }}\n b{% endfilter %}", "{% filter trim | replace('a', 'b') %}  banana {% endfilter %}", "{% raw %}{{ s }}{% if %}{% endraw %}{{ s }}", "{% raw -%}\n {{ x }} \n{%- endraw %}",
    "{#- c -#}\n a", "a {#- {{ s }} -#} b", "{{ '{{' }}{{ '}}' }}", "{% if s == 'Hello, World' and n > 3 or no %}1{% elif t %}2{% else %}3{% endif %}", "{% if not e %}{% if em %}a{% elif xs %}b{% endif %}{% endif %}",
    "{% block b %}<{{ s }}>{% endblock %}", "{% block b %}{{ n }}{% endblock %}{{ self.b() }}", "{% autoescape true %}{{ h }}{{ h | safe }}{% endautoescape %}{{ h }}",
    "Line one\n{% if no %}\nhidden\n{% endif %}\nLine two\n", "  {% if t %}\n  in\n  {% endif %}\nout\n\n", "\n\n{{ s }}\n\n\n", "{{ s }}\n", "\t{% for x in xs %}\n\t{{ x }}\n\t{% endfor %}\n", "a\r\nb\r\n{{ n }}\r\n",
    "{% include 'head' %}\nbody", "{% for p in people %}{% set loop_index = loop.index %}{% include 'item' %}{% endfor %}", "{% include 'deep/list' %}", "x{% include 'blank' %}y", "{% include 'nowhere' ignore missing %}.", "{% include ['nowhere', 'head'] %}",
    "{% from 'macros' import tag %}{{ tag('b', s) }}", "{% from 'macros' import tag as t2, twice %}{{ twice(t2('i')) }}", "{% import 'macros' as m %}{{ m.tag('p', m.twice(n)) }}",
    "{{ missing is defined }}{{ missing | default('dflt') }}", "{{ people[0].missing is defined }}", "{{ d.missing | default('-') }}", "{% if missing is not defined %}none{% endif %}",
    "{{ missing }}", "{{ d.missing }}", "{{ xs[9] }}", "{{ s.missing.more }}", "{{ none.x }}", "{{ n + 'a' }}", "{{ 1 / 0 }}", "{{ s | nofilter }}", "{{ xs is notest }}", "{% for x in n %}{% endfor %}", "{{ 'a' + 1 }}", "{% if %}", "{{ }}", "{% endif %}",
]


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, extensions=[loopcontrols], loader=DictLoader(PARTIALS))
    environment.filters["tojson"] = tojson
    cases = []
    for source in dict.fromkeys(CASES):
        try:
            expected = environment.from_string(source).render(VALUES)
        except (TemplateError, TypeError, ZeroDivisionError):
            expected = None
        try:
            variables = sorted(find_undeclared_variables(environment.parse(source)))
        except TemplateError:
            variables = []
        cases.append({"template": source, "variables": variables, "expected": expected})
    out = pathlib.Path(__file__).parent.parent / "llmkit-prompt/tests/fixtures/jinja2_templates.json"
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    head = f'{{"values": {json.dumps(VALUES, ensure_ascii=False)},\n"partials": {json.dumps(PARTIALS, ensure_ascii=False)},\n"cases": [\n'
    out.write_text(f"{head}{lines}\n]}}\n", encoding="utf-8")
    print(f"wrote {len(cases)} cases to {out}")


if __name__ == "__main__":
    main()
