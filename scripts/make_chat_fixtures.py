"""Writes expected.json and known.json in llmkit-core/tests/fixtures/chat: conversations rendered by transformers.

The templates in `templates/` are our own, in the shapes that well-known models use; those in `known/` are the models' own (see
the README there). Each case holds the template's name, the variables, and either `expected`, the text, or `raises`, part of the
message of the error. `known.json` keeps the conversations and options apart, by name, and where a template marks the assistant's
words with `{% generation %}` it has their ranges in characters.

Run: python scripts/make_chat_fixtures.py
"""

import json
import re
from pathlib import Path
from unittest import mock

import datetime as real_datetime
import jinja2
from transformers.utils import chat_template_utils

FOLDER = Path(__file__).resolve().parent.parent / "llmkit-core/tests/fixtures/chat"
# `strftime_now` shows this: 1,750,000,000 seconds after the epoch.
NOW = real_datetime.datetime(2025, 6, 15, 15, 6, 40)


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, id=None):
    head = {} if id is None else {"id": id}
    return {**head, "type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, in °C; <b>not</b> the climate & \"not\" a forecast.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "a city's name: Zürich, 東京"},
                "days": {"type": "integer", "minimum": 0, "default": 1, "enum": [1, 3, 7]},
                "threshold": {"type": "number", "default": 0.5},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}

CONVERSATIONS = {
    "question": [turn("user", "Why is the sky blue?")],
    "system": [turn("system", "Speak like a pirate."), turn("user", "  Hello there!\n")],
    "turns": [
        turn("system", "Be brief. "),
        turn("user", "1 + 1?"),
        turn("assistant", " 2 "),
        turn("user", "{{ not a template }} {% nor this %} <|im_end|>"),
    ],
    "no_system": [
        turn("user", "你好，世界 🌍"),
        turn("assistant", "مرحبا\n\nsecond line"),
        turn("user", "naïve \"quotes\" 'single' \\backslash\\ \ttab"),
    ],
    "answered": [turn("user", "Say yes."), turn("assistant", "<think>\nThey want yes.\n</think>\n\nYes.")],
    "thoughts": [
        turn("user", "First?"),
        turn("assistant", "<think>hm</think>one"),
        turn("user", "<result>4</result>"),
        turn("assistant", "<think>\nlonger\nthought\n</think>\n\ntwo"),
    ],
    "empty": [turn("user", "")],
}
TOOLS = {
    "called": [
        turn("system", "Use the tools."),
        turn("user", "Weather in Zürich?"),
        turn("assistant", "", tool_calls=[call("get_weather", {"city": "Zürich", "days": 3, "exact": True, "limit": None, "ratio": 0.1}, "abcdef012")]),
        turn("tool", '{"temperature": 21.5}', tool_call_id="abcdef012", name="get_weather"),
        turn("assistant", "21.5 °C."),
        turn("user", "Thanks, and in 東京?"),
    ],
    "two_calls": [
        turn("user", "Both, please."),
        turn("assistant", "On it.", tool_calls=[call("now", {}, "000000001"), call("get_weather", {"city": "東京"}, "000000002")]),
        turn("tool", "12:00", tool_call_id="000000001", name="now"),
        turn("tool", "rain", tool_call_id="000000002", name="get_weather"),
    ],
    "short_id": [turn("user", "x"), turn("assistant", "", tool_calls=[call("now", {}, "1")]), turn("tool", "12", tool_call_id="1", name="now")],
}
BROKEN = {
    "two_questions": [turn("user", "a"), turn("user", "b")],
    "starts_with_answer": [turn("assistant", "a"), turn("user", "b")],
}
VALUES = {
    "text": "日本 <&> 'q' \"d\" \u2028 \u007f \U0001f600",
    "list": [1, -2.5, 1e100, 1e-7, True, False, None, [], {}],
    "nested": {"z": 1, "a": {"b": [{"c": "d"}]}},
    "empty": "",
}


def cases():
    for name in sorted(path.stem for path in (FOLDER / "templates").glob("*.jinja")):
        for prompt in (False, True):
            for messages in CONVERSATIONS.values():
                yield dict(template=name, messages=messages, add_generation_prompt=prompt, extra={"values": VALUES} if name == "python" else {})
    for name in ("llama3", "mistral", "qwen2_5"):
        for messages in TOOLS.values():
            for tools in ([WEATHER], [WEATHER, CLOCK], []):
                yield dict(template=name, messages=messages, tools=tools, add_generation_prompt=True, extra={})
    for name in ("llama2", "mistral", "gemma"):
        for messages in BROKEN.values():
            yield dict(template=name, messages=messages, add_generation_prompt=False, extra={})
    for enable in (True, False):
        yield dict(template="thinking", messages=CONVERSATIONS["turns"], add_generation_prompt=True, extra={"enable_thinking": enable})
    yield dict(template="llama3", messages=CONVERSATIONS["turns"], add_generation_prompt=True, extra={"date_string": "26 Jul 2024"})


class FixedDatetime(real_datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def render(case):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    source = (FOLDER / "templates" / f"{case['template']}.jinja").read_text()
    rendered, _ = chat_template_utils.render_jinja_template(
        conversations=[case["messages"]],
        tools=case.get("tools") or None,
        chat_template=source,
        add_generation_prompt=case["add_generation_prompt"],
        **{**tokens, **case["extra"]},
    )
    return rendered[0]


DOCUMENTS = [
    {"title": "Tall penguins", "text": "Emperor penguins are the tallest."},
    {"title": "Where", "text": "They live in 'Antarctica' & \"nowhere\" else."},
]
LAST = [
    turn("system", "Be kind."),
    turn("user", "Begin a list."),
    turn("assistant", "Sure:\n1. one "),
]
REASONED = [
    turn("user", "2 + 2?"),
    turn("assistant", "4", reasoning_content="Two and two\nmake four."),
    turn("user", "And 3 + 3?"),
    turn("assistant", "6", reasoning_content="Six."),
]
KNOWN_CONVERSATIONS = {
    "turns": CONVERSATIONS["turns"],
    "no_system": CONVERSATIONS["no_system"],
    "thoughts": CONVERSATIONS["thoughts"],
    "reasoned": REASONED,
    "last": LAST,
    **TOOLS,
    **BROKEN,
}
# gpt-oss's template shows defaults that are texts only.
KNOWN_TOOLS = {
    "none": [],
    "both": [json.loads(json.dumps(WEATHER).replace('"default": 1', '"default": "1"').replace('"default": 0.5', '"default": "0.5"')), CLOCK],
}


def arguments_as_text(messages):
    """The tool calls as DeepSeek's templates expect them: with their arguments as JSON inside a text."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        for made in message.get("tool_calls", []):
            made["function"]["arguments"] = json.dumps(made["function"]["arguments"], ensure_ascii=False)
    return messages


def known_cases():
    for name in sorted(path.stem for path in (FOLDER / "known").glob("*.jinja")):
        for messages in ("turns", "no_system", "thoughts", "reasoned", "two_questions", "starts_with_answer"):
            yield dict(template=name, messages=messages, tools="none", add_generation_prompt=messages != "reasoned", extra={})
        for messages in ("called", "two_calls"):
            yield dict(template=name, messages=messages, tools="both", add_generation_prompt=True, extra={})
        yield dict(template=name, messages="no_system", tools="both", add_generation_prompt=True, extra={})
        yield dict(template=name, messages="last", tools="none", add_generation_prompt=False, continue_final_message=True, extra={})
        source = (FOLDER / "known" / f"{name}.jinja").read_text(encoding="utf-8")
        if "documents" in source:
            yield dict(template=name, messages="no_system", tools="none", documents=DOCUMENTS, add_generation_prompt=True, extra={})
        for variable, values in {
            "enable_thinking": (True, False),
            "reasoning_effort": ("high",),
            "date_string": ("1 Jan 2020",),
            "tools_in_user_message": (False,),
            "builtin_tools": (["browser", "python"],),
        }.items():
            for value in values if variable in source else ():
                tools = "both" if "tools" in variable else "none"
                yield dict(template=name, messages="turns", tools=tools, add_generation_prompt=True, extra={variable: value})


def write_known():
    out = []
    for case in known_cases():
        source = (FOLDER / "known" / f"{case['template']}.jinja").read_text(encoding="utf-8")
        messages = KNOWN_CONVERSATIONS[case["messages"]]
        if case["template"].startswith("deepseek"):
            messages = arguments_as_text(messages)
        arguments = dict(
            conversations=[messages],
            tools=KNOWN_TOOLS[case["tools"]] or None,
            documents=case.get("documents"),
            chat_template=source,
            add_generation_prompt=case["add_generation_prompt"],
            continue_final_message=case.get("continue_final_message", False),
            bos_token="<s>",
            eos_token="</s>",
            **case["extra"],
        )
        try:
            case["expected"] = chat_template_utils.render_jinja_template(**arguments)[0][0]
            if re.search(r"\{%-?\s*generation\s*-?%\}", source) and not case.get("continue_final_message"):
                marked, ranges = chat_template_utils.render_jinja_template(**arguments, return_assistant_tokens_mask=True)
                assert marked[0] == case["expected"]
                case["assistant"] = ranges[0]
        except (TypeError, ValueError, jinja2.exceptions.UndefinedError) as error:
            if "iterable" in str(error):
                continue  # A loop over None is an empty one here.
            # Python's own refusals, worded otherwise here.
            case["raises"] = ""
        except jinja2.exceptions.TemplateError as error:
            case["raises"] = str(error)
        out.append(case)
    document = {"now": 1_750_000_000, "conversations": KNOWN_CONVERSATIONS, "tools": KNOWN_TOOLS, "cases": out}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace('{"template":', '\n{"template":')
    (FOLDER / "known.json").write_text(text + "\n", encoding="utf-8")
    marked = sum("assistant" in case for case in out)
    print(len(out), "cases of known templates,", sum("raises" in case for case in out), "of them errors,", marked, "with masks")


def main():
    out = []
    with mock.patch.object(chat_template_utils, "datetime", FixedDatetime):
        write_known()
    with mock.patch.object(chat_template_utils, "datetime", FixedDatetime):
        for case in cases():
            try:
                out.append({**case, "expected": render(case)})
            except jinja2.exceptions.TemplateError as error:
                out.append({**case, "raises": str(error)})
    text = json.dumps({"now": 1_750_000_000, "cases": out}, ensure_ascii=False, indent=1)
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")
    print(len(out), "cases,", sum("raises" in case for case in out), "of them errors")


if __name__ == "__main__":
    main()
