//! Which variables a template uses, where, and which of them each of its outputs shows.
//!
//! The engine says which names are free, but not on which line, and not what becomes of them. Here every name is followed through
//! loops, assignments, macros and includes. What an output may show is never understated: where the order of things decides (an assignment
//! in a loop, a namespace, the arguments of a macro that stores them), all that may have been stored counts. What only decides whether or how often
//! something is shown, the condition of an `if` and the length of a list, does not count as shown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::names::Names;
use super::shape::{Field, Schema, Shape};
use super::suggest::closest;
use super::syntax::{Kind, Lines, Tag, Token, closing, find_outside, split_commas, tags};
use crate::{Error, Result, VariableProblem};

/// The longest chain of templates that include each other.
const DEEPEST: usize = 16;
/// How many tags all includes together may come to, as often as they are included.
const MOST_TAGS: usize = 200_000;
/// How many different names a template and what it includes may have. What each output shows is a set of them.
const MOST_NAMES: usize = 1_000;
/// After so many rounds without an end everything is taken to depend on everything.
const ROUNDS: usize = 8;

/// What all namespaces hold.
const NAMESPACES: usize = 0;
/// What is given to macros and methods as arguments.
const ARGUMENTS: usize = 1;
/// What the blocks of a template show.
const BLOCKS: usize = 2;

/// What is known of a prompt's templates.
#[derive(Debug, Default, Clone)]
pub(crate) struct Analysis {
    /// The free names: each once a template, where it is first used.
    pub(super) uses: Vec<Use>,
    /// The tags that write something, by template and by the first byte of their content.
    pub(super) outputs: BTreeMap<String, BTreeMap<usize, Output>>,
    /// The partials that are included, each once.
    pub(super) included: Vec<String>,
    /// Fields that the schema does not have.
    pub(super) fields: Vec<VariableProblem>,
    /// Whether rendering can nest lists deeply, so that it needs a deep stack.
    pub(super) nests: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Use {
    pub(super) template: String,
    pub(super) line: usize,
    pub(super) name: String,
}

#[derive(Debug, Clone)]
pub(super) struct Output {
    /// The byte after the tag's content.
    pub(super) end: usize,
    /// The variables that it may show, in the order in which the templates first name them.
    pub(super) variables: Vec<String>,
}

/// Follows the names through `roots`, each a name and a text that the engine has accepted.
///
/// # Errors
/// [`Error::Reference`] for an include that leads nowhere, in a circle, or too far.
pub(crate) fn analyse(
    roots: &[(String, Arc<str>)],
    partials: &BTreeMap<String, Arc<str>>,
    globals: &HashSet<String>,
    schema: Option<Schema<'_>>,
) -> Result<Analysis> {
    let mut analysis = Analysis::default();
    let mut sets = 0;
    for (name, text) in roots {
        let mut walk = Walk::new(partials, globals, schema);
        walk.until_stable(name, text)?;
        if walk.names.len() > MOST_NAMES {
            return Err(Error::ManyNames {
                template: name.to_owned(),
                found: walk.names.len(),
                allowed: MOST_NAMES,
            });
        }
        walk.into_analysis(&mut analysis, &mut sets);
    }
    // A list in a list in a list takes one statement a level.
    analysis.nests |= sets > 200;
    Ok(analysis)
}

#[derive(Debug, Clone)]
struct Binding<'s> {
    shows: Names,
    shape: Shape<'s>,
}

/// The names that are bound for sure within some part of a template.
#[derive(Debug, Default)]
struct Frame<'s>(HashMap<usize, Binding<'s>>);

#[derive(Debug)]
enum Block<'s> {
    /// The names that the branches so far bind, and whether there was an `else`.
    If { branches: Vec<Frame<'s>>, is_complete: bool },
    /// A loop, a `with`, a `block`: one frame.
    Scope,
    /// A part whose text is caught: what is to be done with it.
    Caught(Caught),
    /// Nothing of its own.
    Plain,
}

#[derive(Debug)]
enum Caught {
    Macro { name: usize },
    Call { start: usize, end: usize, shows: Names },
    Filter { start: usize, end: usize, shows: Names },
    Set { targets: Vec<usize>, shows: Names },
}

#[derive(Debug)]
struct Found<'s> {
    shows: Names,
    shape: Shape<'s>,
}

struct Parsed<'a> {
    text: &'a str,
    tags: Vec<Tag<'a>>,
    lines: Lines,
}

struct Walk<'a, 's> {
    partials: &'a BTreeMap<String, Arc<str>>,
    globals: &'a HashSet<String>,
    schema: Option<Schema<'s>>,
    parsed: HashMap<&'a str, Rc<Parsed<'a>>>,
    ids: HashMap<&'a str, usize>,
    names: Vec<&'a str>,
    /// What was assigned to each name anywhere; grows from round to round.
    assigned: HashMap<usize, Names>,
    has_grown: bool,
    frames: Vec<Frame<'s>>,
    caught: Vec<Names>,
    /// The template being walked, and those that include it.
    path: Vec<&'a str>,
    visited: usize,
    uses: Vec<(&'a str, usize, usize)>,
    seen: HashSet<(&'a str, usize)>,
    outputs: BTreeMap<&'a str, BTreeMap<usize, (usize, Names)>>,
    included: Vec<&'a str>,
    fields: Vec<VariableProblem>,
    sets: usize,
    sets_attributes: bool,
    loops: bool,
    gave_up: bool,
}

impl<'a, 's> Walk<'a, 's> {
    fn new(
        partials: &'a BTreeMap<String, Arc<str>>,
        globals: &'a HashSet<String>,
        schema: Option<Schema<'s>>,
    ) -> Self {
        Self {
            partials,
            globals,
            schema,
            parsed: HashMap::new(),
            ids: HashMap::new(),
            names: vec!["", "", ""],
            assigned: HashMap::new(),
            has_grown: false,
            frames: Vec::new(),
            caught: Vec::new(),
            path: Vec::new(),
            visited: 0,
            uses: Vec::new(),
            seen: HashSet::new(),
            outputs: BTreeMap::new(),
            included: Vec::new(),
            fields: Vec::new(),
            sets: 0,
            sets_attributes: false,
            loops: false,
            gave_up: false,
        }
    }

    /// Walks until nothing new is assigned.
    fn until_stable(&mut self, name: &'a str, text: &'a str) -> Result<()> {
        for _ in 0..ROUNDS {
            self.has_grown = false;
            self.visited = 0;
            self.uses.clear();
            self.seen.clear();
            self.outputs.clear();
            self.included.clear();
            self.fields.clear();
            self.sets = 0;
            self.frames = vec![Frame::default()];
            self.caught.clear();
            self.path.clear();
            self.template(name, text)?;
            if !self.has_grown {
                return Ok(());
            }
        }
        self.gave_up = true;
        Ok(())
    }

    fn into_analysis(self, analysis: &mut Analysis, sets: &mut usize) {
        let order: Vec<usize> = {
            let mut seen = HashSet::new();
            self.uses.iter().map(|(_, _, name)| *name).filter(|name| seen.insert(*name)).collect()
        };
        for (template, outputs) in &self.outputs {
            let known = analysis.outputs.entry((*template).to_owned()).or_default();
            for (start, (end, shows)) in outputs {
                let shows = self.opened(shows.clone());
                let output =
                    known.entry(*start).or_insert_with(|| Output { end: *end, variables: Vec::new() });
                for name in order.iter().filter(|name| self.gave_up || shows.contains(**name)) {
                    let name = self.names[*name];
                    if !output.variables.iter().any(|known| known == name) {
                        output.variables.push(name.to_owned());
                    }
                }
            }
        }
        for (template, line, name) in &self.uses {
            let name = self.names[*name];
            if !analysis.uses.iter().any(|used| used.template == **template && used.name == name) {
                analysis.uses.push(Use {
                    template: (*template).to_owned(),
                    line: *line,
                    name: name.to_owned(),
                });
            }
        }
        for name in &self.included {
            if !analysis.included.iter().any(|known| known == name) {
                analysis.included.push((*name).to_owned());
            }
        }
        for problem in self.fields {
            if !analysis.fields.contains(&problem) {
                analysis.fields.push(problem);
            }
        }
        analysis.nests |= self.sets_attributes && self.loops;
        *sets += self.sets;
    }

    /// The names with those that the catch-alls among them stand for.
    fn opened(&self, mut shows: Names) -> Names {
        for _ in 0..3 {
            for all in [NAMESPACES, ARGUMENTS, BLOCKS] {
                if shows.contains(all)
                    && let Some(held) = self.assigned.get(&all)
                {
                    shows.add(held);
                }
            }
        }
        shows
    }

    fn template(&mut self, name: &'a str, text: &'a str) -> Result<()> {
        let parsed = self
            .parsed
            .entry(name)
            .or_insert_with(|| Rc::new(Parsed { text, tags: tags(text), lines: Lines::new(text) }));
        let parsed = Rc::clone(parsed);
        self.path.push(name);
        let frames = self.frames.len();
        let caught = self.caught.len();
        self.frames.push(Frame::default());
        let mut blocks: Vec<Block<'s>> = Vec::new();
        for tag in &parsed.tags {
            self.visited += 1;
            if self.visited > MOST_TAGS {
                return Err(Error::Reference {
                    template: name.to_owned(),
                    line: parsed.lines.of(tag.body.start),
                    statement: "include".to_owned(),
                    reason: format!("the includes come to more than {MOST_TAGS} tags: include less"),
                });
            }
            match tag.statement {
                None => {
                    let found = self.expression(&parsed, &tag.tokens);
                    self.output(tag.body.start, tag.body.end, &found.shows);
                }
                Some(word) => self.statement(&parsed, word, tag, &mut blocks)?,
            }
        }
        self.frames.truncate(frames);
        self.caught.truncate(caught);
        self.path.pop();
        Ok(())
    }

    fn statement(
        &mut self,
        parsed: &Parsed<'a>,
        word: &str,
        tag: &Tag<'a>,
        blocks: &mut Vec<Block<'s>>,
    ) -> Result<()> {
        let tokens = &tag.tokens[..];
        match word {
            "if" => {
                self.expression(parsed, tokens);
                blocks.push(Block::If { branches: Vec::new(), is_complete: false });
                self.frames.push(Frame::default());
            }
            "elif" | "else" => match blocks.last_mut() {
                Some(Block::If { branches, is_complete }) => {
                    branches.extend(self.frames.pop());
                    *is_complete |= word == "else";
                    self.expression(parsed, tokens);
                    self.frames.push(Frame::default());
                }
                _ => {
                    // The `else` of a loop sees nothing of the loop's.
                    self.frames.pop();
                    self.frames.push(Frame::default());
                }
            },
            "endif" => {
                if let Some(Block::If { mut branches, is_complete }) = blocks.pop() {
                    branches.extend(self.frames.pop());
                    self.join(branches, is_complete);
                }
            }
            "for" => {
                self.for_loop(parsed, tokens);
                blocks.push(Block::Scope);
            }
            "with" => {
                self.frames.push(Frame::default());
                for part in split_commas(tokens) {
                    self.assign(parsed, part);
                }
                blocks.push(Block::Scope);
            }
            "block" => {
                self.frames.push(Frame::default());
                blocks.push(Block::Scope);
            }
            "endfor" | "endwith" | "endblock" => {
                blocks.pop();
                self.frames.pop();
            }
            "autoescape" => {
                self.expression(parsed, tokens);
                blocks.push(Block::Plain);
            }
            "endautoescape" => {
                blocks.pop();
            }
            "set" => {
                self.sets += 1;
                if find_outside(tokens, |token| token.is_sign("=")).is_some() {
                    self.assign(parsed, tokens);
                } else {
                    let end = find_outside(tokens, |token| token.is_sign("|")).unwrap_or(tokens.len());
                    let mut shows = self.expression(parsed, &tokens[end..]).shows;
                    let mut targets = self.targets(&tokens[..end]);
                    if tokens[..end].iter().any(|token| token.is_sign(".")) {
                        self.sets_attributes = true;
                        targets.push(NAMESPACES);
                        if !self.caught.is_empty() {
                            shows.insert(ARGUMENTS);
                        }
                    }
                    self.catch(blocks, Caught::Set { targets, shows });
                }
            }
            "filter" => {
                // `filter a(b) | c` is what follows the bar in `x | a(b) | c`.
                let skipped =
                    tokens.iter().take_while(|token| !token.is_sign("(") && !token.is_sign("|")).count();
                let shows = self.expression(parsed, &tokens[skipped..]).shows;
                self.catch(blocks, Caught::Filter { start: tag.body.start, end: tag.body.end, shows });
            }
            "macro" => {
                let name = self.id(tokens.first().and_then(Token::name).unwrap_or_default());
                let end = closing(tokens, 1);
                // Known within itself, too.
                self.bind(name, Names::default(), Shape::Any);
                self.catch(blocks, Caught::Macro { name });
                self.parameters(parsed, tokens.get(2..end).unwrap_or_default());
            }
            "call" => {
                let (parameters, call) = match tokens.first() {
                    Some(token) if token.is_sign("(") => {
                        let end = closing(tokens, 0);
                        (tokens.get(1..end).unwrap_or_default(), tokens.get(end + 1..).unwrap_or_default())
                    }
                    _ => (&tokens[..0], tokens),
                };
                let shows = self.expression(parsed, call).shows;
                self.catch(blocks, Caught::Call { start: tag.body.start, end: tag.body.end, shows });
                self.parameters(parsed, parameters);
            }
            "endset" | "endfilter" | "endmacro" | "endcall" => {
                if let Some(Block::Caught(what)) = blocks.pop() {
                    self.frames.pop();
                    let inside = self.caught.pop().unwrap_or_default();
                    self.release(what, inside);
                }
            }
            "do" => {
                let found = self.expression(parsed, tokens);
                self.store(ARGUMENTS, &found.shows);
            }
            "include" => self.include(parsed, tag)?,
            "import" | "from" => self.import(parsed, tag, word)?,
            "extends" => {
                return Err(self.refused(
                    parsed,
                    tag,
                    word,
                    "a prompt does not extend another: include the parts",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn catch(&mut self, blocks: &mut Vec<Block<'s>>, what: Caught) {
        self.frames.push(Frame::default());
        self.caught.push(Names::default());
        blocks.push(Block::Caught(what));
    }

    fn release(&mut self, what: Caught, mut inside: Names) {
        match what {
            Caught::Macro { name } => {
                self.store(name, &inside);
                self.bind(name, inside, Shape::Any);
            }
            Caught::Call { start, end, shows } | Caught::Filter { start, end, shows } => {
                inside.add(&shows);
                self.output(start, end, &inside);
            }
            Caught::Set { targets, shows } => {
                inside.add(&shows);
                for name in targets {
                    self.store(name, &inside);
                    self.bind(name, inside.clone(), Shape::Any);
                }
            }
        }
    }

    /// What is bound in all of the branches is bound after them.
    fn join(&mut self, branches: Vec<Frame<'s>>, is_complete: bool) {
        let Some((first, others)) = branches.split_first() else { return };
        for (name, binding) in &first.0 {
            let mut shows = binding.shows.clone();
            let everywhere = others.iter().all(|branch| {
                branch.0.get(name).is_some_and(|binding| {
                    shows.add(&binding.shows);
                    true
                })
            });
            if is_complete && everywhere {
                self.bind(*name, shows, Shape::Any);
            }
        }
        // What a branch may have replaced is known less well.
        for name in branches.iter().flat_map(|branch| branch.0.keys()) {
            if let Some(binding) = self.frames.iter_mut().rev().find_map(|frame| frame.0.get_mut(name)) {
                binding.shape = Shape::Any;
            }
        }
    }

    fn for_loop(&mut self, parsed: &Parsed<'a>, tokens: &[Token<'a>]) {
        self.loops = true;
        let within = find_outside(tokens, |token| token.is_name("in")).unwrap_or(tokens.len());
        let (targets, rest) = (&tokens[..within], tokens.get(within + 1..).unwrap_or_default());
        let is_recursive = rest.last().is_some_and(|token| token.is_name("recursive")) && rest.len() > 1;
        let rest = &rest[..rest.len() - usize::from(is_recursive)];
        let end = find_outside(rest, |token| token.is_name("if")).unwrap_or(rest.len());
        let mut items = self.expression(parsed, &rest[..end]);
        if is_recursive {
            // `loop(children)` walks its argument.
            items.shows.insert(ARGUMENTS);
        }
        self.frames.push(Frame::default());
        let names = self.targets(targets);
        let shape = match (&names[..], self.schema, is_recursive) {
            ([_], Some(schema), false) => schema.item(items.shape),
            _ => Shape::Any,
        };
        for name in names {
            self.bind(name, items.shows.clone(), shape);
        }
        let name = self.id("loop");
        self.bind(name, items.shows, Shape::Any);
        self.expression(parsed, rest.get(end + 1..).unwrap_or_default());
    }

    /// The names in the target of an assignment; of `a.b` it is `a`.
    fn targets(&mut self, tokens: &[Token<'a>]) -> Vec<usize> {
        let mut names = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            if let Some(name) = token.name()
                && !index.checked_sub(1).is_some_and(|before| tokens[before].is_sign("."))
            {
                names.push(self.id(name));
            }
        }
        names
    }

    /// `target = expression`.
    fn assign(&mut self, parsed: &Parsed<'a>, tokens: &[Token<'a>]) {
        let end = find_outside(tokens, |token| token.is_sign("=")).unwrap_or(tokens.len());
        let mut found = self.expression(parsed, tokens.get(end + 1..).unwrap_or_default());
        let names = self.targets(&tokens[..end]);
        if tokens[..end].iter().any(|token| token.is_sign(".")) {
            self.sets_attributes = true;
            if !self.caught.is_empty() {
                // Within a macro the value may be an argument of any call.
                found.shows.insert(ARGUMENTS);
            }
            self.store(NAMESPACES, &found.shows);
            for name in names {
                self.store(name, &found.shows);
            }
            return;
        }
        let shape = if names.len() == 1 { found.shape } else { Shape::Any };
        for name in names {
            self.store(name, &found.shows);
            self.bind(name, found.shows.clone(), shape);
        }
    }

    /// The parameters of a macro: what is given to them counts where the macro is called.
    fn parameters(&mut self, parsed: &Parsed<'a>, tokens: &[Token<'a>]) {
        for part in split_commas(tokens) {
            let shows = self.expression(parsed, part.get(2..).unwrap_or_default()).shows;
            if let Some(name) = part.first().and_then(Token::name) {
                let name = self.id(name);
                self.bind(name, shows, Shape::Any);
            }
        }
        for name in ["caller", "varargs", "kwargs"] {
            let name = self.id(name);
            self.bind(name, Names::default(), Shape::Any);
        }
    }

    fn include(&mut self, parsed: &Parsed<'a>, tag: &Tag<'a>) -> Result<()> {
        let tokens = &tag.tokens[..];
        let ignores = tokens.iter().any(|token| token.is_name("missing"));
        let end = find_outside(tokens, |token| token.is_name("ignore")).unwrap_or(tokens.len());
        let names: Option<Vec<&'a str>> = match &tokens[..end] {
            [one] => one.plain_text().map(|name| vec![name]),
            [open, inside @ .., close] if open.is_sign("[") && close.is_sign("]") => split_commas(inside)
                .into_iter()
                .map(|part| match part {
                    [one] => one.plain_text(),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let Some(names) = names else {
            let reason =
                "the name must stand there in quotes, so that the prompt can be checked when it is built";
            return Err(self.refused(parsed, tag, "include", reason));
        };
        match names.iter().find(|name| self.partials.contains_key(**name)) {
            Some(name) => self.enter(parsed, tag, "include", name),
            None if ignores => Ok(()),
            None => Err(self.missing(parsed, tag, "include", &names.join("` or `"))),
        }
    }

    fn import(&mut self, parsed: &Parsed<'a>, tag: &Tag<'a>, word: &str) -> Result<()> {
        let tokens = &tag.tokens[..];
        let Some(name) = tokens.first().and_then(Token::plain_text) else {
            let reason =
                "the name must stand there in quotes, so that the prompt can be checked when it is built";
            return Err(self.refused(parsed, tag, word, reason));
        };
        if !self.partials.contains_key(name) {
            return Err(self.missing(parsed, tag, word, name));
        }
        self.caught.push(Names::default());
        let before: Names = self.all_assigned();
        self.enter(parsed, tag, word, name)?;
        let mut shows = self.caught.pop().unwrap_or_default();
        shows.add(&before);
        shows.add(&self.all_assigned());
        let names: Vec<&'a str> = if word == "import" {
            tokens.get(2).and_then(Token::name).into_iter().collect()
        } else {
            split_commas(tokens.get(2..).unwrap_or_default())
                .into_iter()
                .filter_map(|part| part.iter().rev().find_map(Token::name))
                .collect()
        };
        for name in names {
            let name = self.id(name);
            self.store(name, &shows);
            self.bind(name, shows.clone(), Shape::Any);
        }
        Ok(())
    }

    fn all_assigned(&self) -> Names {
        let mut all = Names::default();
        for shows in self.assigned.values() {
            all.add(shows);
        }
        all
    }

    fn enter(&mut self, parsed: &Parsed<'a>, tag: &Tag<'a>, word: &str, name: &str) -> Result<()> {
        let Some((name, text)) = self.partials.get_key_value(name) else { return Ok(()) };
        if self.path.contains(&name.as_str()) {
            let circle = self.path.join("` -> `");
            let reason = format!("it includes itself: `{circle}` -> `{name}`");
            return Err(self.refused(parsed, tag, word, &reason));
        }
        if self.path.len() >= DEEPEST {
            let reason = format!("templates include each other more than {DEEPEST} deep");
            return Err(self.refused(parsed, tag, word, &reason));
        }
        if !self.included.contains(&name.as_str()) {
            self.included.push(name);
        }
        self.template(name, text)
    }

    fn missing(&self, parsed: &Parsed<'a>, tag: &Tag<'a>, word: &str, name: &str) -> Error {
        let known: Vec<String> = self.partials.keys().cloned().collect();
        let remedy = match closest(name, &known) {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None if known.is_empty() => ": the prompt was built without partials".to_owned(),
            None => format!("; there are `{}`", known.join("`, `")),
        };
        self.refused(parsed, tag, word, &format!("there is no partial `{name}`{remedy}"))
    }

    fn refused(&self, parsed: &Parsed<'a>, tag: &Tag<'a>, word: &str, reason: &str) -> Error {
        Error::Reference {
            template: self.path.last().copied().unwrap_or_default().to_owned(),
            line: parsed.lines.of(tag.body.start),
            statement: word.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn output(&mut self, start: usize, end: usize, shows: &Names) {
        if let Some(caught) = self.caught.last_mut() {
            caught.add(shows);
        }
        self.store(BLOCKS, shows);
        let template = self.path.last().copied().unwrap_or_default();
        let known =
            self.outputs.entry(template).or_default().entry(start).or_insert_with(|| (end, Names::default()));
        known.1.add(shows);
    }

    fn id(&mut self, name: &'a str) -> usize {
        *self.ids.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }

    fn bind(&mut self, name: usize, shows: Names, shape: Shape<'s>) {
        if let Some(frame) = self.frames.last_mut() {
            frame.0.insert(name, Binding { shows, shape });
        }
    }

    fn store(&mut self, name: usize, shows: &Names) {
        self.has_grown |= self.assigned.entry(name).or_default().add(shows);
    }

    fn look_up(&mut self, parsed: &Parsed<'a>, token: &Token<'a>, name: &'a str) -> Found<'s> {
        let id = self.id(name);
        let mut shows = self.assigned.get(&id).cloned().unwrap_or_default();
        if let Some(binding) = self.frames.iter().rev().find_map(|frame| frame.0.get(&id)) {
            shows.add(&binding.shows);
            return Found { shows, shape: binding.shape };
        }
        if name == "self" {
            shows.insert(BLOCKS);
            return Found { shows, shape: Shape::Any };
        }
        if self.globals.contains(name) {
            return Found { shows, shape: Shape::Any };
        }
        let template = self.path.last().copied().unwrap_or_default();
        if self.seen.insert((template, id)) {
            self.uses.push((template, parsed.lines.of(token.start), id));
        }
        let shape = match self.schema {
            Some(schema) if shows == Names::default() => schema.variable(name),
            _ => Shape::Any,
        };
        shows.add(&Names::one(id));
        Found { shows, shape }
    }

    fn expression(&mut self, parsed: &Parsed<'a>, tokens: &[Token<'a>]) -> Found<'s> {
        let mut all = Found { shows: Names::default(), shape: Shape::Any };
        // `a if condition else b`: the condition decides, and is not shown.
        let mut is_condition = false;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let (found, next) = match token.kind {
                Kind::Name("if") => {
                    is_condition = true;
                    all.shape = Shape::Any;
                    at += 1;
                    continue;
                }
                Kind::Name("else") | Kind::Sign(",") => {
                    is_condition = false;
                    all.shape = Shape::Any;
                    at += 1;
                    continue;
                }
                Kind::Name("is") => {
                    at += 1 + usize::from(tokens.get(at + 1).is_some_and(|token| token.is_name("not")));
                    at = dotted(tokens, at);
                    all.shape = Shape::Any;
                    continue;
                }
                Kind::Name(
                    "and" | "or" | "not" | "in" | "true" | "True" | "false" | "False" | "none" | "None",
                ) => (None, at + 1),
                // The name of an argument.
                Kind::Name(_) if tokens.get(at + 1).is_some_and(|token| token.is_sign("=")) => (None, at + 2),
                Kind::Name(name) => {
                    let (found, next) = self.chain(parsed, tokens, at, name);
                    (Some(found), next)
                }
                Kind::Sign("|") => {
                    let name = tokens.get(at + 1).and_then(Token::name).unwrap_or_default();
                    let mut next = dotted(tokens, at + 1);
                    let mut arguments = &tokens[..0];
                    if tokens.get(next).is_some_and(|token| token.is_sign("(")) {
                        let end = closing(tokens, next);
                        arguments = tokens.get(next + 1..end).unwrap_or_default();
                        next = end + 1;
                    }
                    let given = self.expression(parsed, arguments);
                    if !is_condition {
                        all.shows.add(&given.shows);
                    }
                    all.shape = self.filtered(parsed, all.shape, name, arguments);
                    at = next;
                    continue;
                }
                Kind::Sign("(" | "[" | "{") => {
                    let end = closing(tokens, at);
                    let found = self.expression(parsed, tokens.get(at + 1..end).unwrap_or_default());
                    self.store(ARGUMENTS, &found.shows);
                    (Some(Found { shape: Shape::Any, ..found }), end + 1)
                }
                Kind::Sign(".") => (None, at + 2),
                Kind::Sign(_) | Kind::Number(_) | Kind::Text(_) => (None, at + 1),
            };
            all.shape = match &found {
                Some(found) if at == 0 => found.shape,
                _ => Shape::Any,
            };
            if let Some(found) = found
                && !is_condition
            {
                all.shows.add(&found.shows);
            }
            at = next;
        }
        all
    }

    /// A name and what follows it: `a.b[0](c)`.
    fn chain(
        &mut self,
        parsed: &Parsed<'a>,
        tokens: &[Token<'a>],
        start: usize,
        name: &'a str,
    ) -> (Found<'s>, usize) {
        // The state of a loop is numbers and answers, but for its items.
        let is_counter = name == "loop"
            && tokens.get(start + 1).is_some_and(|token| token.is_sign("."))
            && !tokens.get(start + 2).is_some_and(|token| {
                matches!(token.kind, Kind::Name("previtem" | "nextitem" | "cycle" | "changed"))
            });
        let mut found = self.look_up(parsed, &tokens[start], name);
        if is_counter {
            found.shows = Names::default();
        }
        if name == "namespace" {
            found.shows.insert(NAMESPACES);
        }
        let mut at = start + 1;
        while let Some(token) = tokens.get(at) {
            match token.kind {
                Kind::Sign(".") => {
                    let is_method = tokens.get(at + 2).is_some_and(|token| token.is_sign("("));
                    found.shape = match tokens.get(at + 1).map(|token| token.kind) {
                        Some(Kind::Name(field)) if !is_method => {
                            let end = tokens[at + 1].start + field.len();
                            self.field(parsed, found.shape, field, tokens[start].start, end)
                        }
                        Some(Kind::Number(_)) => self.item(found.shape),
                        _ => Shape::Any,
                    };
                    at += 2;
                }
                Kind::Sign("[") => {
                    let end = closing(tokens, at);
                    let inside = tokens.get(at + 1..end).unwrap_or_default();
                    let given = self.expression(parsed, inside);
                    found.shows.add(&given.shows);
                    found.shape = match inside {
                        [one] if one.plain_text().is_some() => {
                            let field = one.plain_text().unwrap_or_default();
                            let end = tokens.get(end).map_or(parsed.text.len(), |token| token.start + 1);
                            self.field(parsed, found.shape, field, tokens[start].start, end)
                        }
                        _ if find_outside(inside, |token| token.is_sign(":")).is_some() => found.shape,
                        [one] if matches!(one.kind, Kind::Number(_)) => self.item(found.shape),
                        _ => Shape::Any,
                    };
                    at = end + 1;
                }
                Kind::Sign("(") => {
                    let end = closing(tokens, at);
                    let given = self.expression(parsed, tokens.get(at + 1..end).unwrap_or_default());
                    self.store(ARGUMENTS, &given.shows);
                    if name == "namespace" {
                        self.store(NAMESPACES, &given.shows);
                    }
                    found.shows.add(&given.shows);
                    found.shape = Shape::Any;
                    at = end + 1;
                }
                _ => break,
            }
        }
        (found, at)
    }

    fn item(&self, shape: Shape<'s>) -> Shape<'s> {
        self.schema.map_or(Shape::Any, |schema| schema.item(shape))
    }

    fn field(
        &mut self,
        parsed: &Parsed<'a>,
        shape: Shape<'s>,
        field: &str,
        start: usize,
        end: usize,
    ) -> Shape<'s> {
        let Some(schema) = self.schema else { return Shape::Any };
        match schema.field(shape, field) {
            Field::Found(shape) => shape,
            Field::Missing(known) => {
                let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
                self.fields.push(VariableProblem::UnknownField {
                    template: self.path.last().copied().unwrap_or_default().to_owned(),
                    line: parsed.lines.of(start),
                    path: parsed.text.get(start..end).unwrap_or(field).to_owned(),
                    suggestion: closest(field, &known),
                    known,
                });
                Shape::Any
            }
        }
    }

    /// What is known of a value after a filter; fields that the filter names are checked.
    fn filtered(
        &mut self,
        parsed: &Parsed<'a>,
        shape: Shape<'s>,
        name: &str,
        arguments: &[Token<'a>],
    ) -> Shape<'s> {
        if self.schema.is_none() {
            return Shape::Any;
        }
        let named = |token: &&[Token<'a>]| match token {
            [name, sign, value] if name.is_name("attribute") && sign.is_sign("=") => {
                value.plain_text().map(|text| (text, value.start))
            }
            _ => None,
        };
        let parts = split_commas(arguments);
        let attribute = match name {
            "selectattr" | "rejectattr" | "groupby" => parts
                .first()
                .and_then(|part| part.first())
                .and_then(|token| Some((token.plain_text()?, token.start))),
            "map" | "sort" | "unique" | "sum" | "min" | "max" | "join" => parts.iter().find_map(named),
            _ => None,
        };
        if let Some((path, start)) = attribute {
            let mut item = self.item(shape);
            for field in path.split('.') {
                item = self.field(parsed, item, field, start, start + path.len() + 2);
            }
        }
        match name {
            "sort" | "reverse" | "unique" | "list" | "select" | "reject" | "selectattr" | "rejectattr" => {
                shape
            }
            "first" | "last" | "min" | "max" => self.item(shape),
            _ => Shape::Any,
        }
    }
}

/// The index after a dotted name that begins at `at`.
fn dotted(tokens: &[Token<'_>], at: usize) -> usize {
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|token| token.is_sign(".")) {
        end += 2;
    }
    end
}
