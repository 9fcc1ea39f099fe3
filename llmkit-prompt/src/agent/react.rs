//! What a model writes in the ReAct format (Yao et al. 2022), read tolerantly and in linear time.

use serde_json::{Map, Value};

use crate::parse::{Repaired, json_with_repairs};

/// The most of a reply that is read, in bytes; no step is that long.
const LONGEST: usize = 256 * 1024;

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// What the model thought.
    pub(super) thought: String,
    /// What it wants.
    pub(super) next: Next,
    /// What of the reply was not taken as it stands.
    pub(super) notes: Vec<String>,
}

/// What a step wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// That a tool is run on this input, which is not yet read.
    Action { name: String, input: String },
    /// Nothing: this is the answer.
    Answer(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Thought,
    Action,
    Input,
    Observation,
    Answer,
}

/// The labels, longer ones before those that they begin with.
const LABELS: [(&str, Label); 8] = [
    ("thought", Label::Thought),
    ("action input", Label::Input),
    ("action_input", Label::Input),
    ("action", Label::Action),
    ("observation", Label::Observation),
    ("final answer", Label::Answer),
    ("final_answer", Label::Answer),
    ("answer", Label::Answer),
];

/// Reads a reply.
///
/// # Errors
/// What is wrong with it, for the model to read.
pub(super) fn parse(reply: &str) -> Result<Step, String> {
    let mut notes = Vec::new();
    let mut text = reply;
    if text.len() > LONGEST {
        text = &text[..text.floor_char_boundary(LONGEST)];
        notes.push(format!("of the reply's {} bytes only the first {} were read", reply.len(), text.len()));
    }
    match read(text, &mut notes) {
        Ok(step) => Ok(step),
        Err(reason) => {
            // The labels may stand in the middle of a line.
            let Some(broken) = break_before_labels(text) else { return Err(reason) };
            let mut more = Vec::new();
            let mut step = read(&broken, &mut more).map_err(|_| reason)?;
            notes.push("a label stood in the middle of a line".to_owned());
            notes.append(&mut more);
            step.notes = notes;
            Ok(step)
        }
    }
}

#[derive(Default)]
struct Sections {
    thought: Option<String>,
    action: Option<String>,
    input: Option<String>,
    answer: Option<String>,
}

fn read(text: &str, notes: &mut Vec<String>) -> Result<Step, String> {
    let Sections { thought, action, input, answer } = sections(text, notes)?;
    let thought = thought.unwrap_or_default().trim().to_owned();
    if let Some(answer) = answer {
        let answer = strip_end_marks(answer.trim()).to_owned();
        if answer.is_empty() {
            return Err("after `Final Answer:` there is no answer".to_owned());
        }
        return Ok(Step { thought, next: Next::Answer(answer), notes: std::mem::take(notes) });
    }
    let Some(action) = action else {
        return Err(if thought.is_empty() {
            "there is neither `Action:` nor `Final Answer:`".to_owned()
        } else {
            "after the thought there is neither `Action:` nor `Final Answer:`".to_owned()
        });
    };
    let next = action_of(action.trim(), input.as_deref().map(str::trim), notes)?;
    Ok(Step { thought, next, notes: std::mem::take(notes) })
}

/// The texts under the labels, up to the first complete step.
fn sections(text: &str, notes: &mut Vec<String>) -> Result<Sections, String> {
    let mut found = Sections::default();
    let mut current = Label::Thought;
    for line in text.lines() {
        // What follows the answer belongs to it, whatever it looks like; an observation is always made up.
        let (label, rest) = match label(line) {
            Some((label, rest)) if current != Label::Answer || label == Label::Observation => {
                (Some(label), rest)
            }
            _ => (None, line),
        };
        match label {
            Some(Label::Observation) => {
                notes.push("the reply went on with an observation of its own, which was ignored".to_owned());
                break;
            }
            Some(label) if found.action.is_some() && label != Label::Input => {
                notes.push("what followed the first action was ignored".to_owned());
                break;
            }
            Some(Label::Input) if found.action.is_none() => {
                return Err("there is an `Action Input:` with no `Action:` before it".to_owned());
            }
            Some(Label::Input) if found.input.is_some() => {
                notes.push("what followed the first input was ignored".to_owned());
                break;
            }
            Some(label) => current = label,
            None => {}
        }
        let section = match current {
            Label::Thought => &mut found.thought,
            Label::Action => &mut found.action,
            Label::Input => &mut found.input,
            Label::Answer | Label::Observation => &mut found.answer,
        };
        let section = section.get_or_insert_default();
        if !section.is_empty() {
            section.push('\n');
        }
        section.push_str(rest);
    }
    Ok(found)
}

/// The label that the line begins with, and the rest of the line. Case, Markdown's marks and a number (`Action 2:`) don't matter.
fn label(line: &str) -> Option<(Label, &str)> {
    let marks = |c: char| c.is_whitespace() || matches!(c, '*' | '#' | '_' | '>' | '`' | '-');
    let line = line.trim_start_matches(marks);
    let (label, rest) = LABELS.iter().find_map(|(word, label)| {
        let start = line.get(..word.len())?;
        start.eq_ignore_ascii_case(word).then(|| (*label, &line[word.len()..]))
    })?;
    let rest = rest.trim_start_matches(|c: char| c == ' ' || c == '*' || c == '_' || c.is_ascii_digit());
    let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix('：'))?;
    // The end of `**Action:**`.
    let rest = rest.strip_prefix("**").unwrap_or(rest);
    Some((label, rest.trim_start()))
}

/// The text with a line break before each label that stands in a line; none if there is no such label.
fn break_before_labels(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let mut broken = String::with_capacity(text.len() + 64);
    let mut copied = 0;
    for (at, _) in lower.match_indices(':') {
        let before = &lower[..at];
        let word = ["action input", "action_input", "action", "final answer", "final_answer"]
            .into_iter()
            .find(|word| before.ends_with(word));
        let Some(word) = word else { continue };
        let start = at - word.len();
        // Within a word it is no label.
        let is_apart = start > 0 && lower[..start].ends_with([' ', '.', ';', ',', '!', '?', '\t', '*']);
        if is_apart && start >= copied {
            broken.push_str(&text[copied..start]);
            broken.push('\n');
            copied = start;
        }
    }
    if copied == 0 {
        return None;
    }
    broken.push_str(&text[copied..]);
    Some(broken)
}

/// The action as models write it: a name; a name and its input in brackets (the paper's `Search[tureen]`); one JSON object with both.
fn action_of(action: &str, input: Option<&str>, notes: &mut Vec<String>) -> Result<Next, String> {
    if let Some((name, input)) = from_json(action) {
        notes.push("the action was one JSON object".to_owned());
        return Ok(Next::Action { name, input });
    }
    let action = action.trim_matches(['`', '*', '"', '\'']).trim();
    if action.is_empty() {
        return Err("after `Action:` there is no tool's name".to_owned());
    }
    // The first line; models explain themselves on the next ones.
    let (first, more) = action.split_once('\n').unwrap_or((action, ""));
    let first = first.trim();
    if first.eq_ignore_ascii_case("final answer") || first.eq_ignore_ascii_case("finish") {
        let answer = strip_end_marks(input.unwrap_or(more).trim());
        if answer.is_empty() {
            return Err("after `Final Answer` there is no answer".to_owned());
        }
        notes.push("the answer was written as an action".to_owned());
        return Ok(Next::Answer(unquoted(answer)));
    }
    let end = first.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')));
    let (name, rest) = first.split_at(end.unwrap_or(first.len()));
    let name = name.trim_end_matches('.').to_owned();
    if name.is_empty() {
        let shown: String = first.chars().take(80).collect();
        return Err(format!("after `Action:` expected a tool's name, found `{shown}`"));
    }
    if ["none", "null", "n", "nothing"].contains(&name.to_ascii_lowercase().as_str()) {
        return Err("the action is none; if no tool is needed, write `Final Answer:`".to_owned());
    }
    if let Some(input) = input {
        return Ok(Next::Action { name, input: input.to_owned() });
    }
    // No input of its own: it is in brackets, or on the lines below.
    let rest = rest.trim().trim_end_matches(['`', '*', '.']);
    let inner = [('[', ']'), ('(', ')')].into_iter().find_map(|(open, close)| {
        let inner = rest.strip_prefix(open)?;
        Some(inner.strip_suffix(close).unwrap_or(inner))
    });
    let input = match inner {
        Some(inner) => inner,
        None if rest.starts_with('{') => rest,
        None => more,
    };
    Ok(Next::Action { name, input: input.trim().to_owned() })
}

/// `{"action": .., "action_input": ..}` and its kin.
fn from_json(action: &str) -> Option<(String, String)> {
    let Value::Object(object) = json(action)? else { return None };
    let name = ["action", "name", "tool", "function"].iter().find_map(|key| object.get(*key)?.as_str())?;
    let input =
        ["action_input", "arguments", "input", "parameters", "args"].iter().find_map(|key| object.get(*key));
    let input = match input {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    Some((name.to_owned(), input))
}

/// The arguments that `input` stands for, for a tool whose schema is `parameters`, and what was done to it, if anything.
///
/// # Errors
/// What is wrong with it, for the model to read.
pub(super) fn arguments(input: &str, parameters: &Value) -> Result<(Value, Option<String>), String> {
    let text = without_fence(input.trim());
    let properties = parameters.get("properties").and_then(Value::as_object);
    let count = properties.map_or(0, Map::len);
    let is_nothing = ["", "none", "null", "n/a", "{}", "()"].contains(&text.to_ascii_lowercase().as_str());
    if is_nothing {
        return Ok((Value::Object(Map::new()), None));
    }
    let parsed = json(text);
    if let Some(object @ Value::Object(_)) = parsed {
        return Ok((object, None));
    }
    // A tool of one argument is often given it bare, as in the paper.
    let required = parameters.get("required").and_then(Value::as_array);
    let only = match (required.map(Vec::as_slice), properties) {
        (Some([Value::String(only)]), _) => Some(only),
        (_, Some(properties)) if count == 1 => properties.keys().next(),
        _ => None,
    };
    if let Some(only) = only
        && !text.starts_with('{')
    {
        let takes_text = properties.and_then(|all| all.get(only)?.get("type")).is_some_and(|kind| {
            kind == "string" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "string"))
        });
        let text = assignment(text, only).unwrap_or(text);
        let value = match json(text) {
            Some(Value::String(text)) => Value::String(text),
            Some(value) if !takes_text => value,
            _ => Value::String(unquoted(text)),
        };
        let note = format!("the bare input was taken as `{only}`");
        return Ok((Value::Object(Map::from_iter([(only.clone(), value)])), Some(note)));
    }
    if let Ok(Repaired { value: object @ Value::Object(_), .. }) = json_with_repairs::<Value>(text) {
        let note = format!("the input was not quite JSON and was read as {object}");
        return Ok((object, Some(note)));
    }
    let found: String = text.chars().take(80).collect();
    Err(format!("the input must be one JSON object, found `{found}`"))
}

/// The value of `name=value`.
fn assignment<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(name)?.trim_start();
    Some(rest.strip_prefix('=').or_else(|| rest.strip_prefix(':'))?.trim())
}

/// Strict JSON; serde_json bounds its own depth.
fn json(text: &str) -> Option<Value> {
    serde_json::from_str(without_fence(text)).ok()
}

/// What is between the lines of a code fence around the whole text, or else the text.
fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let inner = || {
        let inner = text.strip_prefix("```")?;
        let inner = inner.strip_suffix("```").unwrap_or(inner);
        // The language.
        let start = inner.find(|c: char| !c.is_ascii_alphanumeric())?;
        Some(inner[start..].trim())
    };
    inner().or_else(|| text.strip_prefix('`')?.strip_suffix('`')).unwrap_or(text)
}

/// The text without quotation marks around the whole of it.
fn unquoted(text: &str) -> String {
    let pairs = [('"', '"'), ('\'', '\''), ('“', '”')];
    let inner = pairs.iter().find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close));
    inner.unwrap_or(text).to_owned()
}

/// The answer without Markdown's marks left over from the label.
fn strip_end_marks(text: &str) -> &str {
    match text.strip_suffix("**") {
        Some(inner) if !inner.contains("**") => inner.trim_end(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn action(reply: &str) -> (String, String) {
        match parse(reply) {
            Ok(Step { next: Next::Action { name, input }, .. }) => (name, input),
            other => panic!("{reply}: {other:?}"),
        }
    }

    fn answer(reply: &str) -> String {
        match parse(reply) {
            Ok(Step { next: Next::Answer(answer), .. }) => answer,
            other => panic!("{reply}: {other:?}"),
        }
    }

    #[test]
    fn actions_are_read_however_they_are_written() {
        for reply in [
            "Thought: I look.\nAction: search\nAction Input: {\"q\": \"tureen\"}",
            "thought: I look.\naction: search\naction input: {\"q\": \"tureen\"}\n",
            "**Thought:** I look.\n**Action:** search\n**Action Input:** {\"q\": \"tureen\"}",
            "Thought 1: I look.\nAction 1: search\nAction Input 1: {\"q\": \"tureen\"}",
            "I look.\n\nAction: `search`\nAction_Input:\n{\"q\": \"tureen\"}",
            "Action: search\n{\"q\": \"tureen\"}",
            "Action: search {\"q\": \"tureen\"}",
            "Action: search({\"q\": \"tureen\"})",
            "Action: search.\nAction Input: {\"q\": \"tureen\"}\nObservation: a dish\nThought: x\nFinal Answer: y",
            "Action: search\nAction Input: {\"q\": \"tureen\"}\nAction: search\nAction Input: {\"q\": \"bowl\"}",
            "Action: search\nAction Input: {\"q\": \"tureen\"}\nAction Input: {\"q\": \"bowl\"}",
            "Thought: I look. Action: search Action Input: {\"q\": \"tureen\"}",
            "Action:\n\nsearch\nAction Input: {\"q\": \"tureen\"}",
            "Action：search\nAction Input：{\"q\": \"tureen\"}",
        ] {
            assert_eq!(action(reply), ("search".to_owned(), "{\"q\": \"tureen\"}".to_owned()), "{reply}");
        }
        for reply in [
            "Action: {\"action\": \"search\", \"action_input\": {\"q\": \"tureen\"}}",
            "Action:\n```json\n{\"name\": \"search\", \"arguments\": {\"q\": \"tureen\"}}\n```",
        ] {
            assert_eq!(action(reply), ("search".to_owned(), "{\"q\":\"tureen\"}".to_owned()), "{reply}");
        }
        assert_eq!(action("Action: search[deep dish]").1, "deep dish");
        assert_eq!(action("Action: now").1, "");
    }

    #[test]
    fn answers_are_read_to_their_end() {
        assert_eq!(answer("Thought: I know.\nFinal Answer: 42"), "42");
        assert_eq!(answer("**Final Answer:** 42"), "42");
        assert_eq!(answer("**Final Answer: 42**"), "42");
        assert_eq!(
            answer("Final Answer:\nTwo steps:\nAction: stir\nThought: none\n"),
            "Two steps:\nAction: stir\nThought: none"
        );
        assert_eq!(answer("Final Answer: 42\nObservation: made up"), "42");
        assert_eq!(answer("I know it now. Final Answer: 42"), "42");
        assert_eq!(answer("Answer: 42"), "42");
        assert_eq!(answer("Action: Final Answer\nAction Input: \"42\""), "42");
        assert_eq!(answer("Action: Finish\n42"), "42");
    }

    #[test]
    fn thoughts_are_kept() {
        let step = parse("Thought: one\ntwo\nAction: now\nAction Input: {}").unwrap();
        assert_eq!((step.thought.as_str(), step.notes.len()), ("one\ntwo", 0));
        assert_eq!(parse("no label\nFinal Answer: 1").unwrap().thought, "no label");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (reply, reason) in [
            ("", "there is neither `Action:` nor `Final Answer:`"),
            ("Hello!", "after the thought there is neither `Action:` nor `Final Answer:`"),
            ("Thought: hm\nThought: hm", "after the thought there is neither `Action:` nor `Final Answer:`"),
            ("Action:", "after `Action:` there is no tool's name"),
            ("Action: ???", "after `Action:` expected a tool's name, found `???`"),
            ("Action: ..", "after `Action:` expected a tool's name, found `..`"),
            ("Action: None", "the action is none; if no tool is needed, write `Final Answer:`"),
            ("Final Answer:  ", "after `Final Answer:` there is no answer"),
            ("Action Input: {}", "there is an `Action Input:` with no `Action:` before it"),
            ("Observation: 4", "there is neither `Action:` nor `Final Answer:`"),
        ] {
            assert_eq!(parse(reply).unwrap_err(), reason, "{reply}");
        }
    }

    #[test]
    fn an_observation_of_the_models_own_is_not_believed() {
        let step = parse("Action: now\nAction Input: {}\nObservation: noon\nFinal Answer: noon").unwrap();
        assert_eq!(step.next, Next::Action { name: "now".to_owned(), input: "{}".to_owned() });
        assert!(step.notes[0].contains("an observation of its own"), "{:?}", step.notes);
    }

    #[test]
    fn inputs_become_arguments() {
        let one = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
        let number = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let two = json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]});
        let read = |input, schema: &Value| arguments(input, schema).map(|(arguments, _)| arguments);
        assert_eq!(read("{\"q\": \"x\"}", &one), Ok(json!({"q": "x"})));
        assert_eq!(read("```json\n{\"q\": \"x\"}\n```", &one), Ok(json!({"q": "x"})));
        assert_eq!(read("`{\"q\": \"x\"}`", &one), Ok(json!({"q": "x"})));
        assert_eq!(read("deep dish", &one), Ok(json!({"q": "deep dish"})));
        assert_eq!(read("\"deep dish\"", &one), Ok(json!({"q": "deep dish"})));
        assert_eq!(read("q = 'deep dish'", &one), Ok(json!({"q": "deep dish"})));
        assert_eq!(read("2 + 2", &one), Ok(json!({"q": "2 + 2"})));
        assert_eq!(read("42", &one), Ok(json!({"q": "42"})));
        assert_eq!(read("42", &number), Ok(json!({"n": 42})));
        assert_eq!(read("{q: 'deep dish',}", &one), Ok(json!({"q": "deep dish"})));
        assert!(arguments("{q: 'x'}", &one).unwrap().1.unwrap().contains("not quite JSON"));
        for nothing in ["", "None", "{}", "null"] {
            assert_eq!(read(nothing, &two), Ok(json!({})), "{nothing}");
        }
        assert_eq!(read("x, y", &two).unwrap_err(), "the input must be one JSON object, found `x, y`");
    }

    #[test]
    fn hostile_replies_take_little_time() {
        let started = std::time::Instant::now();
        for part in
            ["Action: ", "Thought: x Action: ", "*", "Action Input:\n", "{\"a\":", "[", "```", "：", "é\n"]
        {
            let reply = part.repeat(4_000_000 / part.len());
            let _ = parse(&reply);
            let _ = parse(&format!("Action: x\nAction Input: {reply}"));
            let _ = arguments(&reply, &json!({}));
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(reply in any::<String>()) {
            let _ = parse(&reply);
            let _ = arguments(&reply, &json!({"properties": {"a": {"type": "string"}}}));
        }

        #[test]
        fn no_mixture_of_labels_makes_it_panic(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "Thought:", "Action:", "Action Input:", "Observation:", "Final Answer:", "**", "```", "{\"a\": 1}",
                    "search", "[x]", "(", ")", "\n", " ", "1", "é", "：", ".", "\"", "none",
                ]),
                0..40,
            )
        ) {
            let reply = parts.concat();
            if let Ok(Step { next: Next::Action { name, input }, .. }) = parse(&reply) {
                prop_assert!(!name.is_empty() && name.len() <= reply.len());
                let _ = arguments(&input, &json!({"required": ["a"]}));
            }
        }

        #[test]
        fn a_well_formed_step_is_read_as_it_is(thought in "[a-z ]{1,30}", name in "[a-z_]{5,12}", value in "[^\\p{C}]{0,30}") {
            prop_assume!(name != "finish" && name != "nothing");
            let input = json!({ "value": value }).to_string();
            let step = parse(&format!("Thought: {thought}\nAction: {name}\nAction Input: {input}")).unwrap();
            prop_assert_eq!(step.thought, thought.trim());
            prop_assert_eq!(step.next, Next::Action { name, input });
            prop_assert_eq!(step.notes, Vec::<String>::new());
        }
    }
}
