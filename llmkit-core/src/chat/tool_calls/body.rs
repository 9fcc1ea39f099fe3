//! What stands within the marks of a call.

use serde_json::{Map, Value};

use crate::{ToolCall, ToolDefinition};

/// The calls in the body of a pair of tags: JSON, or Qwen 3 Coder's elements. None where it is anything else.
pub(super) fn tagged(body: &str, tools: &[ToolDefinition]) -> Option<Vec<ToolCall>> {
    match body.trim_start().starts_with('<') {
        true => elements(body, tools),
        false => json_calls(body, false),
    }
}

/// Calls as JSON objects, or lists of them, one after another, separated by blank space, `;` or `,`. At least one.
pub(super) fn json_calls(body: &str, with_arguments: bool) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (value, after) = json_prefix(rest)?;
        match value {
            Value::Array(values) => {
                for value in values {
                    calls.push(json_call(value, with_arguments)?);
                }
            }
            value => calls.push(json_call(value, with_arguments)?),
        }
        rest = after.trim_start();
        rest = rest.strip_prefix([';', ',']).unwrap_or(rest).trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}

/// Mistral's calls, after the first mark: a list of objects, or a name and an object, once or after several marks.
pub(super) fn mistral(body: &str, mark: &str) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    loop {
        if rest.starts_with('[') && !rest.starts_with("[ARGS]") && !rest.starts_with("[CALL_ID]") {
            let (value, after) = json_prefix(rest)?;
            let Value::Array(values) = value else { return None };
            for value in values {
                calls.push(json_call(value, false)?);
            }
            rest = after;
        } else {
            let (head, _) = rest.split_once('{')?;
            let (value, after) = json_prefix(&rest[head.len()..])?;
            let head = head.trim();
            let head = head.strip_suffix("[ARGS]").unwrap_or(head);
            let (name, id) = match head.split_once("[CALL_ID]") {
                None => (head, None),
                Some((name, id)) => (name, Some(id.trim().to_owned())),
            };
            let name = name.trim();
            // A name with blank space is prose.
            if name.is_empty() || name.contains(char::is_whitespace) || !value.is_object() {
                return None;
            }
            calls.push(ToolCall { id, name: name.to_owned(), arguments: value });
            rest = after;
        }
        rest = rest.trim_start();
        if rest.is_empty() {
            return (!calls.is_empty()).then_some(calls);
        }
        rest = rest.strip_prefix(mark)?.trim_start();
    }
}

/// The JSON value that `text` begins with, and the rest.
fn json_prefix(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// `with_arguments`: they must be there.
fn json_call(value: Value, with_arguments: bool) -> Option<ToolCall> {
    let Value::Object(mut fields) = value else { return None };
    let id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
    if let Some(Value::Object(function)) = fields.get_mut("function") {
        fields = std::mem::take(function);
    }
    let name = fields.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned();
    let arguments = match fields.remove("arguments").or_else(|| fields.remove("parameters")) {
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        None | Some(Value::Null) if !with_arguments => Value::Object(Map::new()),
        other => other?,
    };
    arguments.is_object().then_some(ToolCall { id, name, arguments })
}

/// `<function=name><parameter=key>value</parameter>..</function>`, at least once.
fn elements(body: &str, tools: &[ToolDefinition]) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (name, mut inside) = rest.strip_prefix("<function=")?.split_once('>')?;
        let name = name.trim();
        if name.is_empty() {
            return None;
        }
        let schema = tools.iter().find(|tool| tool.name == name).map(|tool| &tool.parameters);
        let mut arguments = Map::new();
        rest = loop {
            inside = inside.trim_start();
            if let Some(after) = inside.strip_prefix("</function>") {
                break after.trim_start();
            }
            let (key, after) = inside.strip_prefix("<parameter=")?.split_once('>')?;
            let (value, after) = after.split_once("</parameter>")?;
            let value = value.strip_prefix('\n').unwrap_or(value);
            let value = value.strip_suffix('\n').unwrap_or(value);
            let key = key.trim();
            let property = schema.map(|schema| &schema["properties"][key]);
            arguments.insert(key.to_owned(), typed(value, property));
            inside = after;
        };
        calls.push(ToolCall { id: None, name: name.to_owned(), arguments: Value::Object(arguments) });
    }
    (!calls.is_empty()).then_some(calls)
}

/// A value that was written without its type. Where the schema wants a text it is one; elsewhere JSON is, and Python's constants are, what
/// they say.
fn typed(text: &str, schema: Option<&Value>) -> Value {
    let wants = |kind: &str| match schema.map(|schema| &schema["type"]) {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(kinds)) => kinds.iter().any(|each| each == kind),
        _ => false,
    };
    match text {
        "None" | "null" if !wants("string") || wants("null") => return Value::Null,
        "True" if !wants("string") => return Value::Bool(true),
        "False" if !wants("string") => return Value::Bool(false),
        _ => {}
    }
    let as_text = || Value::String(text.to_owned());
    if wants("string") {
        return as_text();
    }
    // A text in quotes that nobody knows the type of is kept with them.
    match serde_json::from_str(text) {
        Ok(Value::String(_)) | Err(_) => as_text(),
        Ok(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_type_what_qwen_coder_writes() {
        let parameters = json!({"properties": {
            "zip": {"type": "string"}, "note": {"type": ["string", "null"]}, "n": {"type": "integer"},
            "flag": {"type": "boolean"}, "any": {}
        }});
        let tools = [ToolDefinition::new("f", "", parameters)];
        let given = [
            ("zip", "01234"),
            ("note", "null"),
            ("n", "5"),
            ("flag", "False"),
            ("any", "01"),
            ("new", "1.5"),
        ];
        let parameters: String =
            given.map(|(key, value)| format!("<parameter={key}>\n{value}\n</parameter>\n")).concat();
        let calls = tagged(&format!("\n<function=f>\n{parameters}</function>\n"), &tools).unwrap();
        let expected = json!({"zip": "01234", "note": null, "n": 5, "flag": false, "any": "01", "new": 1.5});
        assert_eq!(calls[0].arguments, expected);
    }
}
