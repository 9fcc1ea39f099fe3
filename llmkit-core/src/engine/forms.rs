//! The grammars of answers that a request wants.

use serde_json::Value;

use crate::generate::{BLANKS, Grammar, ONE_BLANK, prepare_schema};
use crate::{
    ChatRequest, Error, ResponseFormat, Result, Tokenizer, ToolCallFormat, ToolChoice, ToolDefinition,
};

/// The grammar of an answer that must be JSON or must call tools.
pub(super) fn grammar(
    request: &ChatRequest,
    calls: Option<ToolCallFormat>,
    tokenizer: &Tokenizer,
) -> Result<Grammar> {
    let answer = match &request.response_format {
        ResponseFormat::Text => None,
        ResponseFormat::Json => Some(Grammar::json_object()),
        ResponseFormat::JsonSchema { schema, .. } => Some(Grammar::json_schema(schema.clone())),
    };
    let (format, tools, several): (_, Vec<&ToolDefinition>, _) = match (&request.tool_choice, calls, &answer)
    {
        (ToolChoice::Tool(name), Some(format), _) => {
            (format, request.tools.iter().filter(|tool| tool.name == *name).take(1).collect(), false)
        }
        (ToolChoice::Required, Some(format), _) => (format, request.tools.iter().collect(), true),
        (_, Some(format), Some(_)) => (format, request.tools.iter().collect(), true),
        (_, _, Some(_)) => return answer.ok_or_else(nothing),
        _ => return Err(nothing()),
    };
    let mut lark = calls_grammar(format, &tools, several, tokenizer)?;
    match answer {
        Some(Grammar::JsonSchema(schema)) if request.tool_choice == ToolChoice::Auto => {
            lark =
                format!("start: calls | answer\nanswer: %json {}\n{lark}", prepare_schema(&schema, BLANKS)?);
        }
        _ => lark = format!("start: calls\n{lark}"),
    }
    Ok(Grammar::lark(lark))
}

fn nothing() -> Error {
    Error::Grammar { reason: "the request asks for no form".to_owned() }
}

/// The rule `calls` and those that it needs.
fn calls_grammar(
    format: ToolCallFormat,
    tools: &[&ToolDefinition],
    several: bool,
    tokenizer: &Tokenizer,
) -> Result<String> {
    let mark = |mark: &str| match tokenizer.token_to_id(mark) {
        Some(id) if tokenizer.is_special(id) => format!("<[{id}]>"),
        _ => literal(mark),
    };
    let named =
        |before: &str, name: &str, after: &str| literal(&format!("{before}{}{after}", Value::from(name)));
    let open = mark(format.opening());
    let mut rules = String::new();
    for (index, tool) in tools.iter().enumerate() {
        let arguments = format!("arguments_{index}");
        let call = match format {
            ToolCallFormat::Hermes => {
                let name = named("\n{\"name\": ", &tool.name, ", \"arguments\": ");
                format!("{open} {name} {arguments} {} {}", literal("}\n"), mark("</tool_call>"))
            }
            ToolCallFormat::Llama3 => {
                let name = named("{\"name\": ", &tool.name, ", \"parameters\": ");
                format!("{name} {arguments} {}", literal("}"))
            }
            ToolCallFormat::Mistral => {
                let name = named("{\"name\": ", &tool.name, ", \"arguments\": ");
                format!("{name} {arguments} {}", literal("}"))
            }
            ToolCallFormat::MistralNamed => {
                format!("{open} {} {} {arguments}", literal(&tool.name), mark("[ARGS]"))
            }
            ToolCallFormat::QwenCoder => {
                return Err(Error::Generation {
                    setting: "tool_choice",
                    expected: "`auto` for a model that writes arguments without JSON",
                    found: "a form for its calls".to_owned(),
                });
            }
        };
        let schema = prepare_schema(&arguments_schema(&tool.parameters), ONE_BLANK)?;
        rules += &format!("call_{index}: {call}\n{arguments}: %json {schema}\n");
    }
    let any: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
    let any = format!("call: {}\n", any.join(" | "));
    let more = |between: &str| if several { format!(" ({} call)*", literal(between)) } else { String::new() };
    let calls = match format {
        ToolCallFormat::Mistral => format!("{open} {} call{} {}", literal("["), more(", "), literal("]")),
        ToolCallFormat::Hermes => format!("call{}", more("\n")),
        ToolCallFormat::MistralNamed if several => "call+".to_owned(),
        // Llama's templates show a single call at once.
        _ => "call".to_owned(),
    };
    Ok(format!("calls: {calls}\n{any}{rules}"))
}

/// Arguments are an object, whatever their schema says or leaves out.
fn arguments_schema(parameters: &Value) -> Value {
    match parameters {
        Value::Object(fields) if fields.contains_key("type") || fields.contains_key("$ref") => {
            parameters.clone()
        }
        Value::Object(fields) => {
            let mut fields = fields.clone();
            fields.insert("type".to_owned(), "object".into());
            Value::Object(fields)
        }
        _ => serde_json::json!({"type": "object"}),
    }
}

/// A text as Lark writes it.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}
