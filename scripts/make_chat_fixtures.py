"""Writes llmkit-core/tests/fixtures/chat/expected.json: conversations rendered by transformers through the templates beside it.

The templates in `templates/` are our own, in the shapes that well-known models use. Each case holds the template's name, the
variables, and either `expected`, the text, or `raises`, part of the message of the error.

Run: python scripts/make_chat_fixtures.py
"""

import json
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


def main():
    out = []
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
