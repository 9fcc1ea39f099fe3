use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use chrono::{DateTime, Local, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Map;

use super::{generation_tag, python, source};
use crate::checkpoint::gguf::Metadata;
use crate::{Error, Message, Result};

/// The name of the template that renders everything but what another one is meant for.
pub(super) const DEFAULT: &str = "default";
/// The name of the template for conversations with tools, where a model has a separate one.
const TOOL_USE: &str = "tool_use";
/// The work that one rendering may take, in minijinja's fuel: about one unit an instruction and one for 64 bytes made. A
/// conversation of 5,000 turns takes less than half; a hostile template ends in a second or two, with at most 256 MB made.
const FUEL: u64 = 4_000_000;
/// The stack of the thread that renders, in bytes of address space (memory is taken as it is used). A template can build a list
/// in a list in a list, one level a unit of fuel, and dropping or comparing that recurses: 100 and 400 bytes a level in an
/// optimised build. On the caller's stack a hostile template could abort the process.
const STACK: usize = if cfg!(target_pointer_width = "64") { 1 << 30 } else { 64 << 20 };
/// The longest template, in bytes. The longest in use have about 30,000.
const LONGEST: usize = 1 << 20;

/// A model's own chat template: it turns a conversation into the text that the model was trained on.
///
/// Templates are Jinja, rendered as transformers' `apply_chat_template` renders them: blocks are trimmed, `tojson` is Python's
/// `json.dumps`, and `raise_exception`, `strftime_now`, `{% generation %}`, `break` and `continue` exist. A template may come from a
/// stranger: it can reach nothing but its input, and one that runs on or eats memory ends in an error. (What is not bounded is the
/// time to compare a value that holds itself twice, over and over; in Python it is not either.)
///
/// ```
/// use llmkit_core::{ChatTemplate, Message};
///
/// # fn main() -> llmkit_core::Result<()> {
/// let source = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}";
/// let template = ChatTemplate::new(source, None, Some("</s>"))?;
/// assert_eq!(template.render(&[Message::user("Hello")], false)?, "<|user|>Hello</s>");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    sources: Arc<BTreeMap<String, String>>,
    special_tokens: Arc<BTreeMap<String, String>>,
}

/// How a conversation is rendered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Whether the text ends with the beginning of an assistant's turn, for the model to continue. Default: no.
    pub add_generation_prompt: bool,
    /// The tools that the model may call, as JSON schemas (`{"type": "function", "function": {..}}`). Default: none.
    pub tools: Vec<serde_json::Value>,
    /// Further variables for the template, such as `enable_thinking`. They win over the standard ones of the same name.
    pub extra: Map<String, serde_json::Value>,
    /// The time that a template's `strftime_now` shows, in UTC; set it where texts must be the same tomorrow. Default: the
    /// present, in local time.
    pub now: Option<SystemTime>,
}

impl ChatTemplate {
    /// A template from its text. `bos_token` and `eos_token` are variables of that name; without a value they are undefined.
    ///
    /// # Errors
    /// [`Error::Template`] when the text does not parse.
    pub fn new(source: impl Into<String>, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self> {
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token)];
        let tokens =
            tokens.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token?.to_owned())));
        Self::build(BTreeMap::from([(DEFAULT.to_owned(), source.into())]), tokens.collect())
    }

    /// Reads the template of a Hugging Face folder: `chat_template.jinja` (and `additional_chat_templates/`), failing that
    /// `chat_template` in `tokenizer_config.json`, which is one template or a list of named ones.
    ///
    /// # Errors
    /// [`Error::Template`] when the model has none or it does not parse, [`Error::Io`] or [`Error::Json`] when a file is
    /// unusable.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let (sources, tokens) = source::from_folder(folder.as_ref())?;
        Self::build(sources, tokens)
    }

    /// Takes the template that a GGUF file carries.
    ///
    /// # Errors
    /// [`Error::Template`] when the file carries none or it does not parse.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let (sources, tokens) = source::from_gguf(metadata)?;
        Self::build(sources, tokens)
    }

    fn build(sources: BTreeMap<String, String>, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let mut environment = environment()?;
        for (name, source) in &sources {
            if source.len() > LONGEST {
                let reason = format!("it is {} bytes long; expected at most {LONGEST}", source.len());
                return Err(Error::Template { reason });
            }
            environment.add_template_owned(name.clone(), generation_tag::strip(source)).map_err(describe)?;
        }
        if !sources.contains_key(DEFAULT) {
            let found: Vec<_> = sources.keys().map(String::as_str).collect();
            let reason = format!(
                "none is named `{DEFAULT}`, only {}; pick one with `ChatTemplate::new`",
                found.join(", ")
            );
            return Err(Error::Template { reason });
        }
        Ok(Self {
            environment: Arc::new(environment),
            sources: Arc::new(sources),
            special_tokens: Arc::new(special_tokens),
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        self.sources.get(DEFAULT).map_or("", String::as_str)
    }

    /// The conversation as the text that the model was trained on. With `add_generation_prompt` it ends where the model's
    /// answer begins.
    ///
    /// The text holds the model's begin token where it needs one: encode it without adding special tokens.
    ///
    /// # Errors
    /// [`Error::Template`] when the template refuses the conversation or fails; the message has its line.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &RenderOptions { add_generation_prompt, ..RenderOptions::default() })
    }

    /// [`render`](Self::render) with tools and further variables.
    ///
    /// # Errors
    /// [`Error::Template`] when the template refuses the conversation or fails; the message has its line.
    pub fn render_with(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let name = match options.tools.is_empty() {
            false if self.sources.contains_key(TOOL_USE) => TOOL_USE,
            _ => DEFAULT,
        };
        let template = self.environment.get_template(name).map_err(describe)?;
        // Templates test `tools is none`, not whether it is defined.
        let tools = Some(&options.tools).filter(|tools| !tools.is_empty());
        let now = options
            .now
            .map_or_else(|| Local::now().naive_local(), |now| DateTime::<chrono::Utc>::from(now).naive_utc());
        let mut variables: BTreeMap<String, Value> = BTreeMap::new();
        for (name, token) in &*self.special_tokens {
            variables.insert(name.clone(), Value::from(token.as_str()));
        }
        let standard = [
            ("messages", Value::from(Serde(messages))),
            ("tools", Value::from(Serde(tools))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(options.add_generation_prompt)),
            ("strftime_now", Value::from_function(move |format: &str| strftime(now, format))),
        ];
        variables.extend(standard.map(|(name, value)| (name.to_owned(), value)));
        variables.extend(options.extra.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value)))));
        let variables = Value::from_pairs(variables);
        on_deep_stack(|| template.render(variables)).and_then(|rendered| rendered.map_err(describe))
    }
}

/// Runs `work` on a thread with [`STACK`].
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let failed = |reason: String| Error::Template { reason };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work);
        let thread = thread.map_err(|error| {
            failed(format!(
                "no thread with {} MiB of address space for its stack: {error}; raise `ulimit -v`",
                STACK >> 20
            ))
        })?;
        thread
            .join()
            .map_err(|_| failed("the template engine panicked; please report the template".to_owned()))
    })
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(describe)?;
    environment.set_syntax(syntax);
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) => out.write_str(text).map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure)),
        None => out
            .write_str(&python::str(state, value)?)
            .map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure)),
    });
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("string", python::str);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    Ok(environment)
}

fn strftime(now: NaiveDateTime, format: &str) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    // A format that it does not know shows as an error of the formatter.
    write!(text, "{}", now.format(format)).map_err(|_| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("unknown time format `{format}`"))
    })?;
    Ok(text)
}

fn describe(error: minijinja::Error) -> Error {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let place = match (error.name(), error.line()) {
        (Some(DEFAULT) | None, Some(line)) => format!("line {line}: "),
        (Some(name), Some(line)) => format!("template `{name}`, line {line}: "),
        _ => String::new(),
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Error::Template { reason: format!("{place}{what}{cause}") }
}
