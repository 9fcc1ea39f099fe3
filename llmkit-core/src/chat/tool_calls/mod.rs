//! Tool calls as models write them.

mod body;
mod reader;

pub use reader::{AnswerPart, AnswerReader};

use crate::ToolCall;

/// How a model writes the tools that it calls into its text.
///
/// ```
/// use llmkit_core::ToolCallFormat;
///
/// let text = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
/// let (content, calls) = ToolCallFormat::Hermes.parse(text);
/// assert_eq!(content, "Let me see.");
/// assert_eq!(calls[0].name, "weather");
/// assert_eq!(calls[0].arguments["city"], "Oslo");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolCallFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, once for each call; a list of calls in one pair of tags is read too. Hermes,
    /// Qwen 2.5, Qwen 3, SmolLM2 and 3, EXAONE 4, Falcon H1.
    Hermes,
    /// The answer is `{"name": .., "parameters": {..}}`, after `<|python_tag|>` or not; several are separated by `;`. Llama 3.1 to 4.
    Llama3,
    /// `[TOOL_CALLS] [{"name": .., "arguments": {..}}, ..]`. Mistral's tokenizers up to version 7.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{..}`, once for each call. Mistral's tokenizers from version 11.
    MistralNamed,
    /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, once for each call. Qwen 3 Coder, Qwen 3.5,
    /// Nemotron 3.
    QwenCoder,
}

impl ToolCallFormat {
    /// The format that a chat template teaches its model; none where the template shows no tools, or has calls written in a way that is not
    /// known.
    pub fn of_template(source: &str) -> Option<Self> {
        let has = |text: &str| source.contains(text);
        if !has("tools") {
            return None;
        }
        if has("[TOOL_CALLS]") {
            return Some(if has("[ARGS]") { Self::MistralNamed } else { Self::Mistral });
        }
        if has("<tool_call>") {
            return match () {
                () if has("<function=") => Some(Self::QwenCoder),
                // GLM's tags are the same, and what is within them is not.
                () if has("<arg_key>") => None,
                () => Some(Self::Hermes),
            };
        }
        (has("<|python_tag|>") || has(r#"{"name": function name, "parameters":"#)).then_some(Self::Llama3)
    }

    /// The text before, between and after the calls, and the calls, in order; calls have an [`id`](ToolCall::id) only where the format has
    /// one.
    ///
    /// What is not a well-formed call stays text, as it is. Blank space around calls is dropped. The model may name a tool that does not
    /// exist; that is for the caller to judge. Takes time proportional to the length of `text`.
    ///
    /// `QwenCoder` writes values without their types: what reads as JSON is taken for it. An [`AnswerReader`] that knows the
    /// tools goes by their schemas.
    pub fn parse(self, text: &str) -> (String, Vec<ToolCall>) {
        let mut reader = AnswerReader::new().with_calls(self, &[]);
        reader.push(text);
        reader.finish();
        let message = reader.into_message();
        (message.content, message.tool_calls)
    }

    /// What begins a call. Of some models it is a special token, which a decoder must not skip.
    pub fn opening(self) -> &'static str {
        match self {
            Self::Hermes | Self::QwenCoder => "<tool_call>",
            Self::Llama3 => "<|python_tag|>",
            Self::Mistral | Self::MistralNamed => "[TOOL_CALLS]",
        }
    }

    /// All that the format's calls are made of that may be special tokens.
    pub fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::QwenCoder => &["<tool_call>", "</tool_call>"],
            Self::Llama3 => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
            Self::MistralNamed => &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
        }
    }

    /// What ends a call, where something does; elsewhere calls are the rest of the answer.
    fn closing(self) -> Option<&'static str> {
        match self {
            Self::Hermes | Self::QwenCoder => Some("</tool_call>"),
            Self::Llama3 | Self::Mistral | Self::MistralNamed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn call(name: &str, arguments: Value) -> ToolCall {
        ToolCall { id: None, name: name.to_owned(), arguments }
    }

    fn parsed(format: ToolCallFormat, text: &str, content: &str, calls: &[ToolCall]) {
        assert_eq!(format.parse(text), (content.to_owned(), calls.to_vec()), "{text}");
    }

    fn stays_text(format: ToolCallFormat, text: &str) {
        parsed(format, text, text, &[]);
    }

    #[test]
    fn hermes() {
        let format = ToolCallFormat::Hermes;
        let one = [call("add", json!({"a": 1, "b": "</tool_call> \"quoted\" \\"}))];
        let written = r#"{"name": "add", "arguments": {"a": 1, "b": "</tool_call> \"quoted\" \\"}}"#;
        parsed(format, &format!("<tool_call>\n{written}\n</tool_call>"), "", &one);
        parsed(format, &format!("So:\n<tool_call>{written}</tool_call>\n"), "So:", &one);
        parsed(format, &format!("  \n<tool_call>{written}</tool_call> and\nmore "), "and\nmore ", &one);
        // The end of the turn may take the place of the closing tag.
        parsed(format, &format!("<tool_call>\n{written}"), "", &one);
        let two = [call("now", json!({})), one[0].clone()];
        let calls =
            format!("<tool_call>\n{{\"name\": \"now\"}}\n</tool_call>\n<tool_call>{written}</tool_call>");
        parsed(format, &calls, "", &two);
        parsed(format, &format!("A\n{calls}\nB"), "A\nB", &two);
        // As SmolLM2 writes them.
        parsed(
            format,
            &format!(r#"<tool_call>[{{"name": "now", "arguments": {{}}}}, {written}]</tool_call>"#),
            "",
            &two,
        );
        // Arguments as OpenAI has them, under Llama's name, and with an id.
        let given = r#"<tool_call>{"id": "7", "name": "f", "parameters": "{\"x\": [1]}"}</tool_call>"#;
        let expected = ToolCall { id: Some("7".to_owned()), ..call("f", json!({"x": [1]})) };
        parsed(format, given, "", &[expected]);
    }

    #[test]
    fn what_is_not_a_call_of_hermes_stays_text() {
        for text in [
            "",
            " \n",
            "Hello <tool_call",
            "<tool_call>",
            "<tool_call></tool_call>",
            "<tool_call>[]</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": </tool_call> so",
            "<tool_call>{\"name\": \"f\", \"arguments\": 3}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": \"{\"}</tool_call>",
            "<tool_call>{\"name\": \"\"}</tool_call>",
            "<tool_call>{\"name\": 7}</tool_call>",
            "<tool_call>{\"name\": \"f\"} or so</tool_call>",
            "<tool_call>\"f\"</tool_call>",
            "a </tool_call> b",
            "<tool_call>\n<function=>\n</function>\n</tool_call>",
            "<tool_call>\n<function=f>\n<parameter=x>1\n</function>\n</tool_call>",
        ] {
            stays_text(ToolCallFormat::Hermes, text);
            stays_text(ToolCallFormat::QwenCoder, text);
        }
        let deep = format!("<tool_call>{}{}</tool_call>", "[".repeat(100_000), "]".repeat(100_000));
        stays_text(ToolCallFormat::Hermes, &deep);
        // One that is broken does not swallow the next.
        let broken = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"y}}\n</tool_call>";
        let good = "<tool_call>\n{\"name\": \"g\"}\n</tool_call>";
        parsed(ToolCallFormat::Hermes, &format!("{broken}\n{good}"), broken, &[call("g", json!({}))]);
        let broken = "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": \"y}}</tool_call>";
        stays_text(ToolCallFormat::Hermes, broken);
    }

    #[test]
    fn llama() {
        let format = ToolCallFormat::Llama3;
        let one = [call("add", json!({"a": {"b": 1}}))];
        let written = r#"{"name": "add", "parameters": {"a": {"b": 1}}}"#;
        parsed(format, written, "", &one);
        parsed(format, &format!("\n<|python_tag|>{written}\n"), "", &one);
        parsed(format, &format!("I add. <|python_tag|>{written}"), "I add.", &one);
        let typed = r#"{"type": "function", "name": "add", "parameters": {"a": {"b": 1}}}"#;
        parsed(format, &format!("{typed}; {written}\n{written}"), "", &[&one[..], &one, &one].concat());
        for text in [
            r#"{"name": "Ada", "age": 36}"#,
            r#"{"name": "add", "parameters": {"a""#,
            r#"{"name": "add", "parameters": {}} is what I call."#,
            "<|python_tag|>search.call(query=\"rust\")",
            "{ not JSON }",
            "Hello {\"name\": \"add\", \"parameters\": {}}",
            ";",
        ] {
            stays_text(format, text);
        }
    }

    #[test]
    fn mistral() {
        let add = call("add", json!({"a": "[TOOL_CALLS]"}));
        let identified = ToolCall { id: Some("abcdefghi".to_owned()), ..add.clone() };
        let list = r#"[{"name": "add", "arguments": {"a": "[TOOL_CALLS]"}, "id": "abcdefghi"}, {"name": "now", "arguments": {}}]"#;
        let named = r#"add[CALL_ID]abcdefghi[ARGS]{"a": "[TOOL_CALLS]"}[TOOL_CALLS]now[ARGS]{} [TOOL_CALLS]add{"a": "[TOOL_CALLS]"}"#;
        let now = call("now", json!({}));
        for format in [ToolCallFormat::Mistral, ToolCallFormat::MistralNamed] {
            parsed(format, &format!("[TOOL_CALLS] {list}"), "", &[identified.clone(), now.clone()]);
            parsed(format, &format!("Yes.[TOOL_CALLS]{list}\n"), "Yes.", &[identified.clone(), now.clone()]);
            parsed(
                format,
                &format!("[TOOL_CALLS]{named}"),
                "",
                &[identified.clone(), now.clone(), add.clone()],
            );
            for text in [
                "[TOOL_CALLS]",
                "[TOOL_CALLS] []",
                "[TOOL_CALLS] [{\"name\": \"add\"",
                "[TOOL_CALLS]add",
                "[TOOL_CALLS][ARGS]{}",
                "[TOOL_CALLS]add[ARGS]{}?",
                "[TOOL_CALLS]add[ARGS][1]",
            ] {
                stays_text(format, text);
            }
        }
    }

    #[test]
    fn qwen_coder_guesses_types_where_it_knows_no_schema() {
        let written = "Now:\n\n<tool_call>\n<function=write>\n<parameter=path>\na.txt\n</parameter>\n<parameter=text>\n\"x\"\n<b>\n\n\
                       </parameter>\n<parameter=times>\n3\n</parameter>\n<parameter=sure>\nTrue\n</parameter>\n<parameter=list>\n[1, 2]\n\
                       </parameter>\n</function>\n</tool_call>";
        let arguments =
            json!({"path": "a.txt", "text": "\"x\"\n<b>\n", "times": 3, "sure": true, "list": [1, 2]});
        parsed(ToolCallFormat::QwenCoder, written, "Now:", &[call("write", arguments)]);
        let empty = "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call><function=now></function></tool_call>";
        parsed(ToolCallFormat::QwenCoder, empty, "", &[call("now", json!({})), call("now", json!({}))]);
    }

    #[test]
    fn templates_tell_their_format() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/known");
        let format = |name: &str| {
            let source = std::fs::read_to_string(format!("{folder}/{name}.jinja")).unwrap();
            ToolCallFormat::of_template(&source)
        };
        for name in ["qwen2_5", "qwen3", "qwen3_instruct_2507", "exaone4", "falcon_h1"] {
            assert_eq!(format(name), Some(ToolCallFormat::Hermes), "{name}");
        }
        for name in ["llama3_1", "llama3_2", "llama4"] {
            assert_eq!(format(name), Some(ToolCallFormat::Llama3), "{name}");
        }
        for name in ["mistral_v2v3", "mistral_v3_tekken"] {
            assert_eq!(format(name), Some(ToolCallFormat::Mistral), "{name}");
        }
        for name in ["qwen3_5_think", "nemotron_3_nano"] {
            assert_eq!(format(name), Some(ToolCallFormat::QwenCoder), "{name}");
        }
        for name in
            ["chatml", "llama2", "llama3", "gemma3", "zephyr", "glm4moe", "mistral_v1", "phi3", "gptoss"]
        {
            assert_eq!(format(name), None, "{name}");
        }
    }
}
