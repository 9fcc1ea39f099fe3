//! The templates of a prompt, compiled.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::thread;

use llmkit_core::jinja;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, OutputSpan, UndefinedBehavior};

use super::analysis::{Analysis, analyse};
use super::shape::Schema;
use super::syntax::{Lines, Token, tags};
use super::{Escape, Partials, filters};
use crate::{Error, Result};

/// How much work one rendering may do, in minijinja's units: about one an instruction and one for 64 bytes of text, so at most about a
/// million steps and 64 MB. A template from elsewhere can then neither hang the program nor exhaust its memory.
pub const FUEL: u64 = 1_000_000;

/// The longest template, in bytes: 256 KiB. Longer ones are data that belong into a variable.
pub const LONGEST_TEMPLATE: usize = 256 * 1024;

/// The most words and signs in one tag: the engine takes time with their square. Long lists belong into a variable.
const LONGEST_TAG: usize = 500;
/// The name of this crate's own escaping to the engine.
const ESCAPING: &str = "prompt";
/// The stack for templates that can nest lists in lists, one level a step: dropping such a value recurses. It is address space; memory is
/// taken as it is used.
const STACK: usize = if cfg!(target_pointer_width = "64") { 1 << 30 } else { 64 << 20 };

/// Templates that belong together, with the partials that they include.
#[derive(Clone)]
pub(crate) struct Engine {
    environment: Arc<Environment<'static>>,
    roots: Vec<(String, Arc<str>)>,
    partials: BTreeMap<String, Arc<str>>,
    analysis: Arc<Analysis>,
    escape: Escape,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("roots", &self.roots)
            .field("partials", &self.partials)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Compiles `roots`, each a name and a text, and the partials that they include.
    pub(crate) fn new(roots: Vec<(String, Arc<str>)>, partials: &Partials, escape: Escape) -> Result<Self> {
        let mut environment = environment(escape);
        for (name, source) in &roots {
            add(&mut environment, name, source)?;
        }
        // The analysis reads only what the engine has accepted.
        let mut valid = BTreeMap::new();
        let mut open: Vec<Arc<str>> = roots.iter().map(|(_, source)| Arc::clone(source)).collect();
        while let Some(source) = open.pop() {
            for name in referenced(&source) {
                let Some((name, partial)) = partials.0.get_key_value(name) else { continue };
                if valid.contains_key(name) {
                    continue;
                }
                match roots.iter().find(|(root, _)| root == name) {
                    Some((_, source)) if source == partial => {}
                    Some((root, _)) => {
                        return Err(Error::Reference {
                            template: root.clone(),
                            line: 1,
                            statement: "include".to_owned(),
                            reason: format!(
                                "a partial has the prompt's own name `{name}`: give one of them another"
                            ),
                        });
                    }
                    None => add(&mut environment, name, partial)?,
                }
                valid.insert(name.clone(), Arc::clone(partial));
                open.push(Arc::clone(partial));
            }
        }
        let globals = globals(&environment);
        let analysis = analyse(&roots, &partials.0, &globals, None)?;
        Ok(Self {
            environment: Arc::new(environment),
            roots,
            partials: valid,
            analysis: Arc::new(analysis),
            escape,
        })
    }

    pub(crate) fn roots(&self) -> &[(String, Arc<str>)] {
        &self.roots
    }

    /// The partials that are included.
    pub(crate) fn partials(&self) -> &BTreeMap<String, Arc<str>> {
        &self.partials
    }

    pub(crate) fn escape(&self) -> Escape {
        self.escape
    }

    pub(crate) fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// The analysis with what a schema knows of the variables.
    pub(super) fn analysis_with(&self, schema: Schema<'_>) -> Result<Analysis> {
        analyse(&self.roots, &self.partials, &globals(&self.environment), Some(schema))
    }

    pub(crate) fn is_global(&self, name: &str) -> bool {
        self.environment.globals().any(|(global, _)| global == name)
    }

    pub(crate) fn with_escape(mut self, escape: Escape) -> Self {
        if escape == self.escape {
            return self;
        }
        let mut environment = environment(escape);
        for (name, source) in self.roots.iter().map(|(name, source)| (name, source)).chain(&self.partials) {
            add(&mut environment, name, source).expect("the constructor compiled the same text");
        }
        self.environment = Arc::new(environment);
        self.escape = escape;
        self
    }

    pub(crate) fn render(&self, root: usize, values: Value) -> Result<String> {
        self.run(root, |template| template.render(values))
    }

    pub(crate) fn render_with_spans(&self, root: usize, values: Value) -> Result<(String, Vec<OutputSpan>)> {
        self.run(root, |template| template.render_with_spans(values))
    }

    fn run<T: Send>(
        &self,
        root: usize,
        work: impl FnOnce(minijinja::Template<'_, '_>) -> Result<T, minijinja::Error> + Send,
    ) -> Result<T> {
        let name = &self.roots[root].0;
        let template = self.environment.get_template(name).expect("the constructor added the roots");
        let result =
            if self.analysis.nests { on_deep_stack(name, || work(template))? } else { work(template) };
        result.map_err(|error| failed(name, error))
    }
}

/// Where and why rendering failed; in an included template it is that one which is named.
fn failed(root: &str, error: minijinja::Error) -> Error {
    let mut template = error.name().unwrap_or(root).to_owned();
    let mut line = error.line().unwrap_or(0);
    let mut reason = reason_of(&error);
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause.and_then(|cause| cause.downcast_ref::<minijinja::Error>()) {
        reason = reason_of(inner);
        if let (Some(name), Some(at)) = (inner.name(), inner.line()) {
            (template, line) = (name.to_owned(), at);
        }
        cause = std::error::Error::source(inner);
    }
    Error::Render { template, line, reason, source: Box::new(error) }
}

fn reason_of(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Jinja reads every line break as `\n`.
pub(crate) fn normalised(source: String) -> String {
    if source.contains('\r') { source.replace("\r\n", "\n").replace('\r', "\n") } else { source }
}

/// The names of other templates that a text mentions.
fn referenced(source: &str) -> Vec<&str> {
    let statements =
        tags(source).into_iter().filter(|tag| matches!(tag.statement, Some("include" | "import" | "from")));
    statements.flat_map(|tag| tag.tokens).filter_map(|token| Token::plain_text(&token)).collect()
}

fn add(environment: &mut Environment<'static>, name: &str, source: &str) -> Result<()> {
    if source.len() > LONGEST_TEMPLATE {
        return Err(Error::Oversized {
            what: format!("the template `{name}`"),
            found: source.len(),
            allowed: LONGEST_TEMPLATE,
        });
    }
    let tags = tags(source);
    if let Some(tag) = tags.iter().find(|tag| tag.tokens.len() > LONGEST_TAG) {
        return Err(Error::LongTag {
            template: name.to_owned(),
            line: Lines::new(source).of(tag.body.start),
            found: tag.tokens.len(),
            allowed: LONGEST_TAG,
        });
    }
    // The engine recurses once a `not`, an operator, a filter or an `elif` in a row.
    let is_long = tags.len() > 200 || tags.iter().any(|tag| tag.tokens.len() > 200);
    let mut compile = || environment.add_template_owned(name.to_owned(), source.to_owned());
    let compiled = if is_long { on_deep_stack(name, compile)? } else { compile() };
    compiled.map_err(|source| Error::Syntax {
        template: name.to_owned(),
        line: source.line().unwrap_or(1),
        reason: reason_of(&source),
        source: Box::new(source),
    })
}

fn globals(environment: &Environment<'_>) -> HashSet<String> {
    environment.globals().map(|(name, _)| name.to_owned()).collect()
}

fn environment(escape: Escape) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(move |_| match escape {
        Escape::None => AutoEscape::None,
        _ => AutoEscape::Custom(Cow::Borrowed(ESCAPING)),
    });
    environment.set_formatter(move |out, state, value| {
        let text = match value.as_str() {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(jinja::str(state, value)?),
        };
        let escape = match state.auto_escape() {
            AutoEscape::None => Escape::None,
            AutoEscape::Custom(name) if name == ESCAPING => escape,
            // `{% autoescape true %}`
            _ => Escape::Xml,
        };
        let text = if value.is_safe() { text } else { Cow::Owned(escape.apply(&text).into_owned()) };
        out.write_str(&text).map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure))
    });
    jinja::add_to(&mut environment);
    filters::add_to(&mut environment);
    environment
}

/// Runs `work` on a thread with [`STACK`].
fn on_deep_stack<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let failed = |reason: String| Error::Stack { template: name.to_owned(), reason };
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("prompt".to_owned()).stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(error.to_string()))?;
        thread
            .join()
            .map_err(|_| failed("the template engine panicked; please report the template".to_owned()))
    })
}
