use super::{ToolCallFormat, body};
use crate::{Message, ToolCall, ToolDefinition};

const THINK: &str = "<think>";
const THOUGHT: &str = "</think>";

/// Takes an answer apart while it is written: what the model says, what it thinks, which tools it calls.
///
/// Wherever the pieces are cut, the parts are those of the whole text. What has been given out is never taken back: blank space and what may
/// begin a call are held until they are settled.
///
/// ```
/// use llmkit_core::{AnswerPart, AnswerReader, ToolCallFormat};
///
/// let mut reader = AnswerReader::new().with_thinking(false).with_calls(ToolCallFormat::Hermes, &[]);
/// let mut parts = Vec::new();
/// for piece in ["<think>\nThe ti", "me?\n</think>\n\nI look", " it up.\n<tool", "_call>{\"name\": \"now\"}</tool_call>"] {
///     parts.extend(reader.push(piece));
/// }
/// parts.extend(reader.finish());
/// let said: String = parts.iter().filter_map(|part| match part { AnswerPart::Text(text) => Some(&**text), _ => None }).collect();
/// assert_eq!(said, "I look it up.");
/// let message = reader.into_message();
/// assert_eq!(message.reasoning.as_deref(), Some("The time?"));
/// assert_eq!(message.tool_calls[0].name, "now");
/// ```
#[derive(Debug, Clone)]
pub struct AnswerReader {
    format: Option<ToolCallFormat>,
    tools: Vec<ToolDefinition>,
    state: State,
    /// What was not given out yet, behind `taken` bytes that were.
    held: String,
    taken: usize,
    /// Nothing will follow.
    ended: bool,
    reasoning: Option<String>,
    content: String,
    calls: Vec<ToolCall>,
    /// Blank space is passed over where the text begins: after thoughts and calls.
    skip_space: bool,
    /// Nothing was said since the last call.
    after_call: bool,
}

/// What an answer is made of.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AnswerPart {
    /// More of what the model says.
    Text(String),
    /// More of what the model thinks before that.
    Reasoning(String),
    /// A call that is complete.
    Call(ToolCall),
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Thoughts may begin.
    Begin,
    Thoughts,
    Text,
    /// Within a call: what is held begins with it.
    Call(Scan),
    /// The calls are all that is left.
    Rest,
}

impl Default for AnswerReader {
    fn default() -> Self {
        Self::new()
    }
}

impl AnswerReader {
    /// All is text.
    pub fn new() -> Self {
        Self {
            format: None,
            tools: Vec::new(),
            state: State::Text,
            held: String::new(),
            taken: 0,
            ended: false,
            reasoning: None,
            content: String::new(),
            calls: Vec::new(),
            skip_space: false,
            after_call: false,
        }
    }

    /// The answer may begin with thoughts between `<think>` and `</think>`, or is `inside` of them from the start: some templates open them
    /// already.
    pub fn with_thinking(mut self, inside: bool) -> Self {
        self.state = if inside { State::Thoughts } else { State::Begin };
        self
    }

    /// The answer may call `tools`, in `format`. The tools say of what type arguments are where the format does not; a call of another tool is
    /// read as well.
    pub fn with_calls(mut self, format: ToolCallFormat, tools: &[ToolDefinition]) -> Self {
        self.format = Some(format);
        self.tools = tools.to_vec();
        self
    }

    /// Takes the next piece and gives what is settled.
    pub fn push(&mut self, piece: &str) -> Vec<AnswerPart> {
        self.held.push_str(piece);
        let mut parts = Vec::new();
        self.settle(&mut parts);
        parts
    }

    /// Ends the answer and gives what was held. A call that is cut off is text.
    pub fn finish(&mut self) -> Vec<AnswerPart> {
        let mut parts = Vec::new();
        if let (State::Call(_), Some(format)) = (self.state, self.format) {
            // The end of the turn may take the place of the closing mark.
            let inside = self.held.trim_start();
            let inside = inside.strip_prefix(format.opening()).unwrap_or(inside);
            if body::tagged(inside, &self.tools).is_some() {
                self.state = State::Rest;
            }
        }
        // What is broken is not to swallow the calls behind it.
        self.ended = true;
        self.settle(&mut parts);
        let rest = self.take(self.held.len());
        match self.state {
            State::Thoughts => self.think(rest.trim_end(), &mut parts),
            State::Begin | State::Text if self.after_call => self.say(rest.trim_end(), &mut parts),
            State::Begin | State::Text => self.say(&rest, &mut parts),
            State::Call(_) | State::Rest => self.end_call(rest, "", &mut parts),
        }
        parts
    }

    /// The whole answer so far, as the assistant's turn.
    pub fn into_message(self) -> Message {
        let mut message = Message::assistant(self.content).with_tool_calls(self.calls);
        message.reasoning = self.reasoning;
        message
    }

    fn settle(&mut self, parts: &mut Vec<AnswerPart>) {
        while self.step(parts) {}
        self.held.drain(..self.taken);
        self.taken = 0;
    }

    /// Settles more of what is held; false when more must come first.
    fn step(&mut self, parts: &mut Vec<AnswerPart>) -> bool {
        match (self.state, self.format) {
            (State::Begin, _) => {
                let text = self.held().trim_start();
                if text.starts_with(THINK) {
                    self.taken = self.held.len() - text.len() + THINK.len();
                    self.state = State::Thoughts;
                    return true;
                }
                // Also where nothing but blank space has come.
                if THINK.starts_with(text) {
                    return false;
                }
                self.state = State::Text;
                true
            }
            (State::Thoughts, _) => {
                if let Some(end) = self.held().find(THOUGHT) {
                    let thoughts = self.take(end);
                    self.taken += THOUGHT.len();
                    self.think(thoughts.trim_end(), parts);
                    self.state = State::Text;
                    self.skip_space = true;
                    return true;
                }
                let thoughts = self.take(settled(self.held(), THOUGHT));
                self.think(&thoughts, parts);
                false
            }
            (State::Text, None) => {
                let text = self.take(self.held().len());
                self.say(&text, parts);
                false
            }
            (State::Text, Some(format)) => self.step_text(format, parts),
            (State::Call(mut scan), Some(format)) => {
                let closing = format.closing().unwrap_or_default();
                let held = self.held();
                let start = held.len() - held.trim_start().len() + format.opening().len();
                let found = match self.ended {
                    true => held[start..].find(closing),
                    false => scan.find(&held[start..], closing),
                };
                let Some(end) = found else {
                    self.state = State::Call(scan);
                    return false;
                };
                let written = self.take(start + end + closing.len());
                self.end_call(written, closing, parts);
                true
            }
            (State::Call(_), None) | (State::Rest, _) => false,
        }
    }

    fn step_text(&mut self, format: ToolCallFormat, parts: &mut Vec<AnswerPart>) -> bool {
        let held = self.held();
        if format == ToolCallFormat::Llama3 && self.content.is_empty() && held.trim_start().starts_with('{') {
            self.state = State::Rest;
            return false;
        }
        let opening = format.opening();
        if let Some(at) = held.find(opening) {
            // Blank space before the call is held with it.
            let text = self.take(held[..at].trim_end().len());
            self.say(&text, parts);
            self.state = match format.closing() {
                Some(_) => State::Call(Scan::default()),
                None => State::Rest,
            };
            return true;
        }
        let text = self.take(settled(held, opening));
        self.say(&text, parts);
        false
    }

    fn held(&self) -> &str {
        &self.held[self.taken..]
    }

    /// Takes the first `len` bytes of what is held.
    fn take(&mut self, len: usize) -> String {
        let text = self.held()[..len].to_owned();
        self.taken += len;
        text
    }

    /// Reads a call that is complete, with the blank space before it and the mark that ends it.
    fn end_call(&mut self, written: String, closing: &str, parts: &mut Vec<AnswerPart>) {
        self.state = State::Text;
        let Some(format) = self.format else { return };
        let inside = written.trim_start();
        let inside = inside.strip_prefix(format.opening()).unwrap_or(inside);
        let inside = inside.strip_suffix(closing).unwrap_or(inside);
        let calls = match format {
            ToolCallFormat::Hermes | ToolCallFormat::QwenCoder => body::tagged(inside, &self.tools),
            ToolCallFormat::Llama3 => body::json_calls(inside, true),
            ToolCallFormat::Mistral | ToolCallFormat::MistralNamed => body::mistral(inside, format.opening()),
        };
        match calls {
            None => self.say(&written, parts),
            Some(calls) => {
                self.skip_space = self.content.is_empty();
                self.after_call = true;
                parts.extend(calls.iter().cloned().map(AnswerPart::Call));
                self.calls.extend(calls);
            }
        }
    }

    fn say(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        let text = if self.skip_space { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        (self.skip_space, self.after_call) = (false, false);
        self.content.push_str(text);
        parts.push(AnswerPart::Text(text.to_owned()));
    }

    fn think(&mut self, text: &str, parts: &mut Vec<AnswerPart>) {
        let reasoning = self.reasoning.get_or_insert_default();
        let text = if reasoning.is_empty() { text.trim_start() } else { text };
        if !text.is_empty() {
            reasoning.push_str(text);
            parts.push(AnswerPart::Reasoning(text.to_owned()));
        }
    }
}

/// How much of `text` comes before what may still turn out to be `mark`, and before the blank space before that.
fn settled(text: &str, mark: &str) -> usize {
    let from = text.ceil_char_boundary(text.len().saturating_sub(mark.len()));
    let mut starts = text[from..].char_indices().map(|(at, _)| from + at);
    let end = starts.find(|at| mark.starts_with(&text[*at..])).unwrap_or(text.len());
    text[..end].trim_end().len()
}

/// Looks for the mark that ends a call, in text that grows, without looking at anything twice.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    looked_at: usize,
    /// Within a text of JSON, where the mark does not count. A line break is in none, so what is broken goes on for a line at most.
    quoted: bool,
    escaped: bool,
    /// Whether the call is JSON, once that is known.
    json: Option<bool>,
}

impl Scan {
    fn find(&mut self, text: &str, mark: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        while let Some(&byte) = bytes.get(self.looked_at) {
            if self.json.is_none() && !byte.is_ascii_whitespace() {
                self.json = Some(byte == b'{' || byte == b'[');
            }
            if !self.quoted && byte == mark.as_bytes()[0] {
                let rest = &bytes[self.looked_at..];
                if rest.starts_with(mark.as_bytes()) {
                    return Some(self.looked_at);
                }
                if mark.as_bytes().starts_with(rest) {
                    return None;
                }
            }
            match byte {
                b'\n' => (self.quoted, self.escaped) = (false, false),
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quoted => self.escaped = true,
                b'"' if self.json == Some(true) => self.quoted = !self.quoted,
                _ => {}
            }
            self.looked_at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(mut reader: AnswerReader, pieces: &[&str]) -> (Vec<AnswerPart>, Message) {
        let mut parts: Vec<_> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
        parts.extend(reader.finish());
        (parts, reader.into_message())
    }

    fn thinking(inside: bool, text: &str) -> (Option<String>, String) {
        let message = read(AnswerReader::new().with_thinking(inside), &[text]).1;
        (message.reasoning, message.content)
    }

    #[test]
    fn thoughts_are_apart_from_what_is_said() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            thinking(false, "<think>\nHm.\n\nYes.\n</think>\n\n Four. "),
            (some("Hm.\n\nYes."), "Four. ".to_owned())
        );
        assert_eq!(thinking(true, "Hm.</think>Four."), (some("Hm."), "Four.".to_owned()));
        assert_eq!(thinking(false, "<think>\n\n</think>\n\nFour."), (some(""), "Four.".to_owned()));
        assert_eq!(thinking(false, " Four."), (None, " Four.".to_owned()));
        assert_eq!(thinking(false, "<thi"), (None, "<thi".to_owned()));
        assert_eq!(thinking(true, "Hm, and then "), (some("Hm, and then"), String::new()));
        // Later tags are text, and so are all of a model that does not think.
        assert_eq!(thinking(false, "No. <think>x</think>"), (None, "No. <think>x</think>".to_owned()));
        assert_eq!(read(AnswerReader::new(), &["<think>x</think>"]).1.content, "<think>x</think>");
    }

    #[test]
    fn text_is_given_as_soon_as_it_is_settled() {
        let mut reader = AnswerReader::new().with_calls(ToolCallFormat::Hermes, &[]);
        let text = |text: &str| vec![AnswerPart::Text(text.to_owned())];
        assert_eq!(reader.push("One two"), text("One two"));
        assert_eq!(reader.push(" <tool"), []);
        assert_eq!(reader.push("s> \n"), text(" <tools>"));
        assert_eq!(reader.push("<tool_call>{\"name\":"), []);
        let call = ToolCall { id: None, name: "f".to_owned(), arguments: json!({}) };
        assert_eq!(reader.push("\"f\"}</tool_call> "), [AnswerPart::Call(call.clone())]);
        assert_eq!(reader.push("three"), text(" three"));
        assert_eq!(reader.finish(), []);
        assert_eq!(
            reader.into_message(),
            Message::assistant("One two <tools> three").with_tool_calls(vec![call])
        );
    }

    #[test]
    fn a_call_within_thoughts_is_a_thought() {
        let text =
            "<think><tool_call>{\"name\": \"f\"}</tool_call></think><tool_call>{\"name\": \"g\"}</tool_call>";
        let reader = AnswerReader::new().with_thinking(false).with_calls(ToolCallFormat::Hermes, &[]);
        let message = read(reader, &[text]).1;
        assert_eq!(message.tool_calls.len(), 1);
        assert_eq!(message.tool_calls[0].name, "g");
        assert_eq!(message.content, "");
    }

    #[test]
    fn a_long_answer_of_marks_takes_time_in_proportion() {
        let start = std::time::Instant::now();
        for unit in [
            "<tool_call>",
            "<tool_call>\"</tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]a[ARGS]{}",
            "{",
            "<think>",
            " \n",
        ] {
            let text = unit.repeat(30_000);
            for format in [ToolCallFormat::Hermes, ToolCallFormat::Llama3, ToolCallFormat::Mistral] {
                let reader = AnswerReader::new().with_thinking(false).with_calls(format, &[]);
                read(reader.clone(), &[&text]);
                let mut reader = reader;
                for piece in text.as_bytes()[..text.len() / 4].chunks(3) {
                    reader.push(std::str::from_utf8(piece).unwrap());
                }
                reader.finish();
            }
        }
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }

    fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
        let pieces = [
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "{\"name\": \"f\"",
            ", \"arguments\": {",
            "\"x\": \"é",
            "\"",
            "}",
            "}",
            "}",
            "\n",
            " ",
            "text",
            "<",
            "[TOOL_CALLS]",
            "[",
            "]",
            "[ARGS]",
            "[CALL_ID]",
            "<|python_tag|>",
            ";",
            "<function=f>",
            "<parameter=x>",
            "</parameter>",
            "</function>",
            "\\",
            "\"parameters\":",
            "→",
            "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
            "{\"name\": \"f\", \"parameters\": {}}",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..16)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_pieces_give_what_the_whole_gives(pieces in pieces(), cuts in prop::collection::vec(1_usize..6, 1..8), inside: bool, kind in 0..5) {
            let format = [
                ToolCallFormat::Hermes, ToolCallFormat::Llama3, ToolCallFormat::Mistral, ToolCallFormat::MistralNamed,
                ToolCallFormat::QwenCoder,
            ][kind as usize];
            let text = pieces.concat();
            let mut cut: Vec<&str> = Vec::new();
            let mut rest = &*text;
            let mut lengths = cuts.iter().cycle();
            while !rest.is_empty() {
                let at = rest.char_indices().map(|(at, _)| at).nth(*lengths.next().unwrap()).unwrap_or(rest.len());
                cut.push(&rest[..at]);
                rest = &rest[at..];
            }
            let reader = AnswerReader::new().with_thinking(inside).with_calls(format, &[]);
            let (parts, message) = read(reader.clone(), &cut);
            let (_, whole) = read(reader, &[&text]);
            prop_assert_eq!(&message, &whole);
            // What was given out on the way is all of it.
            let said: String = parts.iter().map(|part| match part { AnswerPart::Text(text) => &**text, _ => "" }).collect();
            let thought: String = parts.iter().map(|part| match part { AnswerPart::Reasoning(text) => &**text, _ => "" }).collect();
            let calls = parts.iter().filter(|part| matches!(part, AnswerPart::Call(_))).count();
            prop_assert_eq!(said, message.content);
            prop_assert_eq!(thought, message.reasoning.unwrap_or_default());
            prop_assert_eq!(calls, message.tool_calls.len());
        }
    }
}
