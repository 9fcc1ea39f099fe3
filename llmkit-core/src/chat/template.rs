use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use chrono::{DateTime, Local, NaiveDateTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Map;

use super::{generation_tag, source};
use crate::checkpoint::gguf::Metadata;
use crate::{Error, Message, Result, ToolCallFormat, jinja};

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
/// time to compare, and the memory to join or concatenate with `~`, a list that holds itself twice, over and over; in Python they are not
/// either. Render templates of strangers where that may be killed.)
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
    /// Those of the templates that have generation tags.
    marking: Arc<BTreeSet<String>>,
}

/// How a conversation is rendered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Whether the text ends with the beginning of an assistant's turn, for the model to continue. Default: no.
    pub add_generation_prompt: bool,
    /// The tools that the model may call, as JSON schemas (`{"type": "function", "function": {..}}`). Default: none.
    pub tools: Vec<serde_json::Value>,
    /// Documents to answer from, for the templates that show them: usually `{"title": .., "text": ..}`. Default: none.
    pub documents: Vec<serde_json::Value>,
    /// Whether the text ends with the last message's own end, without what closes its turn, for the model to continue what it says.
    /// Does not go with `add_generation_prompt`. Default: no.
    pub continue_final_message: bool,
    /// Further variables for the template, such as `enable_thinking`. They win over the standard ones of the same name.
    pub extra: Map<String, serde_json::Value>,
    /// The time that a template's `strftime_now` shows, in UTC; set it where texts must be the same tomorrow. Default: the
    /// present, in local time.
    pub now: Option<SystemTime>,
}

/// A rendered conversation in which the assistant's words are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedText {
    /// The whole text.
    pub text: String,
    /// Where the assistant speaks: ranges of bytes in `text`, in order.
    pub assistant: Vec<Range<usize>>,
}

impl MarkedText {
    /// For each token whether it belongs to the assistant's words, given where each lies in the text, as
    /// [`Tokenizer::encode_with_offsets`](crate::Tokenizer::encode_with_offsets) says. A token that is partly the assistant's counts, as
    /// in transformers' `return_assistant_tokens_mask`.
    pub fn mask(&self, offsets: &[Range<usize>]) -> Vec<bool> {
        let overlaps = |token: &Range<usize>| {
            self.assistant.iter().any(|words| token.start < words.end && words.start < token.end)
        };
        offsets.iter().map(overlaps).collect()
    }
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
        let mut marking = BTreeSet::new();
        for (name, source) in &sources {
            if source.len() > LONGEST {
                let reason = format!("it is {} bytes long; expected at most {LONGEST}", source.len());
                return Err(Error::Template { reason });
            }
            // Jinja reads every line break as `\n`.
            let source = source.replace("\r\n", "\n").replace('\r', "\n");
            let stripped = generation_tag::strip(&source);
            if stripped.tags > 0 {
                marking.insert(name.clone());
            }
            environment.add_template_owned(name.clone(), stripped.source).map_err(describe)?;
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
            marking: Arc::new(marking),
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
        if !options.continue_final_message {
            return self.run(messages, options, ["", ""]);
        }
        let failed = |reason: &str| Error::Template { reason: reason.to_owned() };
        if options.add_generation_prompt {
            return Err(failed(
                "`continue_final_message` and `add_generation_prompt` exclude each other; set one",
            ));
        }
        let Some(last) = messages.last() else {
            return Err(failed("`continue_final_message` is set, but there are no messages"));
        };
        // A mark behind the last words shows where they end; the first one that nobody wrote.
        let mark = unused_mark("continue", messages, options, self.source_for(options))?;
        let mut messages = messages.to_vec();
        if let Some(message) = messages.last_mut() {
            // The blank lets templates that trim be told from those that don't.
            message.content.push_str(&format!("{mark} "));
        }
        let text = self.run(&messages, options, ["", ""])?;
        match text.rsplit_once(&mark) {
            Some((text, _)) if !text.contains(last.content.trim()) => Err(failed(
                "the template changes the last message, so `continue_final_message` can't find where it ends",
            )),
            Some((text, rest)) if rest.starts_with(' ') => Ok(text.to_owned()),
            Some((text, _)) => Ok(text.trim_end().to_owned()),
            None => Err(failed(
                "the template does not show the last message, so there is nothing for `continue_final_message` to continue",
            )),
        }
    }

    /// [`render_with`](Self::render_with), and where the assistant's words are: what the template puts between `{% generation %}` and
    /// `{% endgeneration %}`. Train on those alone.
    ///
    /// # Errors
    /// [`Error::Template`] as from `render_with`, when the template has no such tags (see [`marks_assistant`](Self::marks_assistant)), or
    /// with `continue_final_message`.
    pub fn render_marked(&self, messages: &[Message], options: &RenderOptions) -> Result<MarkedText> {
        let failed = |reason: &str| Error::Template { reason: reason.to_owned() };
        if options.continue_final_message {
            return Err(failed("the assistant's words can't be marked with `continue_final_message`"));
        }
        if !self.marks_assistant(options) {
            return Err(failed(
                "it has no `{% generation %}` tags, so it does not say which words are the assistant's; put them around the \
                 assistant's words, or use the model's training template",
            ));
        }
        let begin = unused_mark("begin", messages, options, self.source_for(options))?;
        let end = begin.replace("begin", "end");
        let text = self.run(messages, options, ["", ""])?;
        let marked = self.run(messages, options, [&begin, &end])?;
        match generation_tag::take_marks(&marked, &begin, &end) {
            Some((found, assistant)) if found == text => Ok(MarkedText { text, assistant }),
            _ => Err(failed(
                "it changes or repeats the text within its `{% generation %}` tags, so where the assistant's words are can't be told",
            )),
        }
    }

    /// Whether the template that these options pick says which words are the assistant's.
    pub fn marks_assistant(&self, options: &RenderOptions) -> bool {
        self.marking.contains(self.name_for(options))
    }

    /// How the model writes the tools that it calls; none where its template shows no tools, or has calls written in a way that is not
    /// known.
    pub fn tool_calls(&self) -> Option<ToolCallFormat> {
        let source = self.sources.get(TOOL_USE).or_else(|| self.sources.get(DEFAULT))?;
        ToolCallFormat::of_template(source)
    }

    /// Whether the model may think between `<think>` and `</think>` before it speaks.
    pub fn thinks(&self) -> bool {
        self.source().contains("</think>")
    }

    fn arguments_as_text(&self, mut messages: serde_json::Value) -> Result<serde_json::Value> {
        let state = self.environment.empty_state();
        let messages_of = messages.as_array_mut().into_iter().flatten();
        let calls = messages_of.filter_map(|message| message.get_mut("tool_calls")?.as_array_mut()).flatten();
        for call in calls {
            let arguments = &mut call["function"]["arguments"];
            if arguments.is_object() {
                let text = jinja::dumps(&state, &Value::from(Serde(&*arguments))).map_err(describe)?;
                *arguments = text.into();
            }
        }
        Ok(messages)
    }

    fn name_for(&self, options: &RenderOptions) -> &'static str {
        match options.tools.is_empty() {
            false if self.sources.contains_key(TOOL_USE) => TOOL_USE,
            _ => DEFAULT,
        }
    }

    fn source_for(&self, options: &RenderOptions) -> &str {
        self.sources.get(self.name_for(options)).map_or("", String::as_str)
    }

    /// Renders, with the arguments of tool calls as objects and, where the template can't do with those, as JSON inside a text: most
    /// templates expect objects, DeepSeek's a text.
    fn run(&self, messages: &[Message], options: &RenderOptions, marks: [&str; 2]) -> Result<String> {
        let json = as_json(messages)?;
        let calls = || messages.iter().flat_map(|message| &message.tool_calls);
        if !calls().any(|call| call.arguments.is_object()) {
            return self.run_json(json, options, marks);
        }
        self.run_json(json, options, marks).or_else(|error| {
            // What the template says of objects is what its users know.
            let texts = as_json(messages).and_then(|json| self.arguments_as_text(json));
            texts.and_then(|texts| self.run_json(texts, options, marks)).map_err(|_| error)
        })
    }

    fn run_json(
        &self,
        messages: serde_json::Value,
        options: &RenderOptions,
        marks: [&str; 2],
    ) -> Result<String> {
        let template = self.environment.get_template(self.name_for(options)).map_err(describe)?;
        // Templates test `tools is none`, not whether it is defined.
        let some = |values: &Vec<serde_json::Value>| {
            Value::from(Serde(Some(values).filter(|values| !values.is_empty())))
        };
        let now = options
            .now
            .map_or_else(|| Local::now().naive_local(), |now| DateTime::<chrono::Utc>::from(now).naive_utc());
        let mut variables: BTreeMap<String, Value> = BTreeMap::new();
        for (name, token) in &*self.special_tokens {
            variables.insert(name.clone(), Value::from(token.as_str()));
        }
        let standard = [
            ("messages", Value::from(Serde(messages))),
            ("tools", some(&options.tools)),
            ("documents", some(&options.documents)),
            ("add_generation_prompt", Value::from(options.add_generation_prompt)),
            ("strftime_now", Value::from_function(move |format: &str| strftime(now, format))),
        ];
        variables.extend(standard.map(|(name, value)| (name.to_owned(), value)));
        variables.extend(options.extra.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value)))));
        variables.insert(generation_tag::BEGIN.to_owned(), Value::from(marks[0]));
        variables.insert(generation_tag::END.to_owned(), Value::from(marks[1]));
        let variables = Value::from_pairs(variables);
        on_deep_stack(|| template.render(variables)).and_then(|rendered| rendered.map_err(describe))
    }
}

/// The conversation as templates see it: thoughts under the name that gpt-oss reads as well, as transformers has them.
fn as_json(messages: &[Message]) -> Result<serde_json::Value> {
    let failed = |error: serde_json::Error| Error::Template { reason: format!("the messages: {error}") };
    let mut json = serde_json::to_value(messages).map_err(failed)?;
    for (message, json) in messages.iter().zip(json.as_array_mut().into_iter().flatten()) {
        if let Some(reasoning) = &message.reasoning {
            json["thinking"] = reasoning.as_str().into();
        }
    }
    Ok(json)
}

/// A text that neither the conversation nor the template contains.
fn unused_mark(word: &str, messages: &[Message], options: &RenderOptions, source: &str) -> Result<String> {
    let failed = |error: serde_json::Error| Error::Template { reason: format!("the messages: {error}") };
    let written = [
        serde_json::to_string(messages).map_err(failed)?,
        serde_json::to_string(&options.extra).map_err(failed)?,
        serde_json::to_string(&options.tools).map_err(failed)?,
        serde_json::to_string(&options.documents).map_err(failed)?,
    ];
    let mark = |number: usize| format!("\u{f8fe}{word}-{number}\u{f8ff}");
    let taken = |mark: &String| source.contains(mark) || written.iter().any(|text| text.contains(mark));
    (0..).map(mark).find(|mark| !taken(mark)).ok_or_else(|| Error::Template {
        reason: "no mark is left that the conversation does not contain".to_owned(),
    })
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
            .write_str(&jinja::str(state, value)?)
            .map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure)),
    });
    jinja::add_to(&mut environment);
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
