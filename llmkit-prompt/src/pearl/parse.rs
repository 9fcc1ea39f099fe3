//! Plans as models write them.

use std::collections::HashMap;

use super::action::{Actions, CONCAT, DOCUMENT, shortened};
use super::line::{Cursor, Fault, is_word};
use super::plan::{Argument, Plan, PlanFault, PlanProblem, Step};

/// In bytes.
const MAX_PLAN: usize = 65_536;
/// In characters.
const MAX_LINE: usize = 4_096;
/// In characters.
const MAX_ARGUMENT: usize = 2_000;
const MAX_ARGUMENTS: usize = 16;
const MAX_STEPS: usize = 64;
/// After so many faults the rest is not looked at.
const MAX_PROBLEMS: usize = 100;

/// The plan in `text`, or all that is wrong with it.
pub(super) fn plan(text: &str, actions: &Actions) -> Result<Plan, Vec<PlanProblem>> {
    if text.len() > MAX_PLAN {
        return Err(vec![problem(1, 1, too_long("the plan", MAX_PLAN, "bytes"))]);
    }
    let mut reader = Reader { actions, steps: Vec::new(), lines: HashMap::new(), problems: Vec::new() };
    let mut skipped = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() {
            continue;
        }
        if !is_step(line) {
            skipped.push(number);
            continue;
        }
        if reader.lines.len() >= MAX_STEPS {
            reader.problems.push(problem(number, 1, too_long("the plan", MAX_STEPS, "steps")));
            break;
        }
        reader.step(number, line);
        if reader.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    if reader.lines.is_empty() && reader.problems.is_empty() {
        reader.problems.push(problem(1, 1, PlanFault::NoSteps));
    }
    // Those of a line are found in another order.
    reader.problems.sort_by_key(|problem| (problem.line, problem.column));
    if reader.problems.is_empty() { Ok(Plan { steps: reader.steps, skipped }) } else { Err(reader.problems) }
}

/// Whether a line is meant as a step: it has a number in front, or assigns.
fn is_step(line: &str) -> bool {
    let mut cursor = Cursor::new(line);
    if skip_number(&mut cursor) {
        return true;
    }
    cursor.identifier("").is_ok() && cursor.take('=')
}

/// Passes over the mark of a list and a number; whether there was a number.
fn skip_number(cursor: &mut Cursor<'_>) -> bool {
    cursor.skip_while(|letter| letter.is_whitespace() || matches!(letter, '-' | '*' | '`'));
    let mut ahead = cursor.clone();
    ahead.skip_while(|letter| letter.is_ascii_digit());
    let digits = ahead.column() > cursor.column();
    if digits && (ahead.take('.') || ahead.take(')') || ahead.take(':')) {
        ahead.skip_while(|letter| letter.is_whitespace() || matches!(letter, '*' | '`'));
        *cursor = ahead;
        return true;
    }
    false
}

struct Reader<'a> {
    actions: &'a Actions,
    steps: Vec<Step>,
    /// The line in which each variable is defined, also of steps that are faulty.
    lines: HashMap<String, usize>,
    problems: Vec<PlanProblem>,
}

impl Reader<'_> {
    fn step(&mut self, number: usize, line: &str) {
        if line.chars().nth(MAX_LINE).is_some() {
            self.problems.push(problem(number, MAX_LINE + 1, too_long("the line", MAX_LINE, "characters")));
            return;
        }
        let before = self.problems.len();
        let mut cursor = Cursor::new(line);
        skip_number(&mut cursor);
        cursor.skip_space();
        let column = cursor.column();
        let variable = match assigned(&mut cursor) {
            Ok(variable) => variable,
            Err(fault) => return self.problems.push(syntax(number, fault)),
        };
        if variable == DOCUMENT || variable == CONCAT {
            let fault = Fault {
                column,
                expected: "a name for what comes out".into(),
                found: format!("`{variable}`"),
            };
            self.problems.push(syntax(number, fault));
        } else if let Some(line) = self.lines.get(&variable) {
            let fault = PlanFault::Redefined { name: variable.clone(), line: *line };
            self.problems.push(problem(number, column, fault));
        }
        let read = self.call(number, &variable, &mut cursor);
        // What the step defines is known from here on, so that one fault is not reported again in each step that uses it.
        let defined = self.lines.contains_key(&variable);
        self.lines.entry(variable.clone()).or_insert(number);
        let (action, arguments, why) = match read {
            Ok(read) => read,
            Err(fault) => return self.problems.push(syntax(number, fault)),
        };
        if let Some(same) =
            self.steps.iter().find(|step| step.action == action && step.arguments == arguments)
        {
            let fault =
                PlanFault::Repeated { variable: same.variable.clone(), line: self.lines[&same.variable] };
            self.problems.push(problem(number, column, fault));
        }
        if !defined && self.problems.len() == before {
            self.steps.push(Step { variable, action, arguments, why });
        }
    }

    /// The call and the reason after it. Faults of grammar end it; others are noted.
    fn call(
        &mut self,
        number: usize,
        variable: &str,
        cursor: &mut Cursor<'_>,
    ) -> Result<(String, Vec<Argument>, String), Fault> {
        cursor.skip_space();
        let column = cursor.column();
        let action = cursor.identifier("an action, written as ACTION(argument, ..)")?;
        cursor.expect('(', "after the name of the action")?;
        let mut arguments = Vec::new();
        if !cursor.take(')') {
            loop {
                cursor.skip_space();
                let column = cursor.column();
                let argument = argument(cursor)?;
                self.check(number, column, variable, &action, &argument);
                arguments.push(argument);
                if cursor.take(')') {
                    break;
                }
                cursor.expect(',', "or `)` after an argument")?;
                if arguments.len() >= MAX_ARGUMENTS {
                    let fault = too_long("the call", MAX_ARGUMENTS, "arguments");
                    self.problems.push(problem(number, cursor.column(), fault));
                    break;
                }
            }
        }
        if let Some(fault) = self.fault_of_call(&action, arguments.len()) {
            self.problems.push(problem(number, column, fault));
        }
        Ok((action, arguments, why(cursor)?))
    }

    fn fault_of_call(&self, action: &str, found: usize) -> Option<PlanFault> {
        if action == CONCAT {
            let signature = format!("{CONCAT}(X, ..)");
            return (found == 0).then_some(PlanFault::Arity { signature, found });
        }
        let Some(known) = self.actions.get(action) else {
            let names = self.actions.iter().map(|action| action.name()).chain([CONCAT]);
            return Some(PlanFault::UnknownAction {
                name: shortened(action),
                suggestion: closest(action, names),
            });
        };
        let signature = format!("{action}({})", known.parameters().join(", "));
        (found != known.parameters().len()).then_some(PlanFault::Arity { signature, found })
    }

    fn check(&mut self, number: usize, column: usize, variable: &str, action: &str, argument: &Argument) {
        let fault = match argument {
            Argument::Document if action == CONCAT => PlanFault::DocumentInConcat,
            Argument::Variable(name) if name == variable && !self.lines.contains_key(name) => {
                PlanFault::SelfReference { name: name.clone() }
            }
            Argument::Variable(name) if !self.lines.contains_key(name) => {
                let suggestion = closest(name, self.lines.keys().map(String::as_str).chain([DOCUMENT]));
                PlanFault::Undefined { name: shortened(name), suggestion }
            }
            Argument::Text(text) if text.chars().nth(MAX_ARGUMENT).is_some() => {
                too_long("the argument", MAX_ARGUMENT, "characters")
            }
            _ => return,
        };
        self.problems.push(problem(number, column, fault));
    }
}

/// `variable =`.
fn assigned(cursor: &mut Cursor<'_>) -> Result<String, Fault> {
    let variable = cursor.identifier("a step, written as `variable = ACTION(argument, ..) : why`")?;
    cursor.expect('=', "after the variable")?;
    Ok(variable)
}

fn argument(cursor: &mut Cursor<'_>) -> Result<Argument, Fault> {
    cursor.skip_space();
    if let Some(closing) = cursor.peek().and_then(closing_quotes) {
        let start = cursor.clone();
        cursor.bump();
        return quoted(cursor, closing).map(Argument::Text).ok_or_else(|| Fault {
            column: start.column(),
            expected: "a text in quotes".to_owned(),
            found: "quotes that are not closed before `,` or `)`".to_owned(),
        });
    }
    let before = cursor.clone();
    let name = cursor.identifier("the document CTX, a variable, or a text in quotes")?;
    cursor.skip_space();
    match cursor.peek() {
        Some('(') => Err(Fault {
            expected: "the document CTX, a variable, or a text in quotes".to_owned(),
            found: format!("a call of `{}`: give it a step of its own", shortened(&name)),
            ..before.fault("")
        }),
        _ if name == DOCUMENT => Ok(Argument::Document),
        _ => Ok(Argument::Variable(name)),
    }
}

/// The marks that close what `opening` opens.
fn closing_quotes(opening: char) -> Option<&'static [char]> {
    match opening {
        '"' => Some(&['"']),
        '\'' => Some(&['\'']),
        '\u{201c}' | '\u{201d}' => Some(&['\u{201d}', '"']),
        '\u{2018}' | '\u{2019}' => Some(&['\u{2019}', '\'']),
        '\u{300c}' => Some(&['\u{300d}']),
        _ => None,
    }
}

/// The text up to a closing mark with `,` or `)` behind it: models write apostrophes and quotes inside of quotes.
fn quoted(cursor: &mut Cursor<'_>, closing: &[char]) -> Option<String> {
    let mut text = String::new();
    while let Some(letter) = cursor.bump() {
        if letter == '\\' {
            match cursor.bump()? {
                'n' => text.push('\n'),
                mark @ ('"' | '\'' | '\\') => text.push(mark),
                other => text.extend(['\\', other]),
            }
            continue;
        }
        if closing.contains(&letter) && matches!(cursor.rest().trim_start().chars().next(), Some(',' | ')')) {
            return Some(text);
        }
        text.push(letter);
    }
    None
}

/// What stands behind the call: nothing, or a mark and a reason.
fn why(cursor: &mut Cursor<'_>) -> Result<String, Fault> {
    cursor.skip_while(|letter| letter.is_whitespace() || matches!(letter, '`' | '*'));
    let fault = cursor.fault("`:` and the reason, or the end of the line, after the call");
    match cursor.peek() {
        None => return Ok(String::new()),
        Some(':' | '\u{ff1a}' | '-' | '\u{2013}' | '\u{2014}' | '#') => cursor.bump(),
        Some(_) => return Err(fault),
    };
    cursor.skip_while(|letter| letter.is_whitespace() || matches!(letter, ':' | '-'));
    Ok(cursor.rest().trim_end().to_owned())
}

/// The name nearest to `name`, within a third of its letters.
fn closest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let length = name.chars().filter(|letter| is_word(*letter)).count();
    if length > 64 {
        return None;
    }
    let allowed = (length / 3).max(1);
    names
        .map(|other| (strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase()), other))
        .filter(|(distance, other)| *distance <= allowed && *distance < other.chars().count())
        .min()
        .map(|(_, other)| other.to_owned())
}

fn problem(line: usize, column: usize, fault: PlanFault) -> PlanProblem {
    PlanProblem { line, column, fault }
}

fn syntax(line: usize, fault: Fault) -> PlanProblem {
    let Fault { column, expected, found } = fault;
    problem(line, column, PlanFault::Syntax { expected, found })
}

fn too_long(what: &str, limit: usize, unit: &str) -> PlanFault {
    PlanFault::TooLong { what: what.to_owned(), limit: format!("{limit} {unit}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn actions() -> Actions {
        let text = "- {name: FIND, parameters: [CTX, X], definition: Find X in CTX.}\n\
                    - {name: SUMMARIZE, parameters: [CTX], definition: Summarize CTX.}\n\
                    - {name: COMPARE, parameters: [CTX, X, Y], definition: Compare X and Y.}";
        Actions::from_yaml(text).unwrap()
    }

    fn shown(text: &str) -> Vec<String> {
        plan(text, &actions()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn plans_are_read_as_models_write_them() {
        let text = "Here is my plan:\n```\n\
                    1. a = FIND(CTX, \"Anna's \"first\" words\") : what she says, first\n\
                    2) b = FIND( CTX , 'the man's hat' ) - the hat\n\
                    - 3. **c = COMPARE(CTX, a, b)**\n\
                    d = CONCAT(a, \u{201c}and\u{201d}, c) # all\n```\nThat is all.";
        let plan = plan(text, &actions()).unwrap();
        assert_eq!(plan.skipped_lines(), [1, 2, 7, 8]);
        let calls: Vec<String> = plan.steps().iter().map(Step::call).collect();
        assert_eq!(
            calls,
            [
                "FIND(CTX, \"Anna's \\\"first\\\" words\")",
                "FIND(CTX, \"the man's hat\")",
                "COMPARE(CTX, a, b)",
                "CONCAT(a, \"and\", c)",
            ]
        );
        let why: Vec<&str> = plan.steps().iter().map(|step| step.why.as_str()).collect();
        assert_eq!(why, ["what she says, first", "the hat", "", "all"]);
        assert_eq!(plan.levels(), [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(plan.answers(), [3]);
    }

    #[test]
    fn all_faults_are_reported_with_their_places() {
        let text = "1. a = FIND(CTX)\n\
                    2. b = FIDN(CTX, \"x\")\n\
                    3. c = COMPARE(CTX, c, aa)\n\
                    4. a = SUMMARIZE(CTX)\n\
                    5. d = FIND(CTX, \"open)\n\
                    6. e = FIND(CTX, SUMMARIZE(CTX))\n\
                    7. SUMMARIZE(CTX)\n\
                    8. f = CONCAT(CTX, d)\n\
                    9. g = SUMMARIZE(CTX) and so on\n\
                    10. CTX = SUMMARIZE(a)\n\
                    11. h = CONCAT()";
        assert_eq!(
            shown(text),
            [
                "line 1, column 8: `FIND(CTX, X)` is given 1 argument",
                "line 2, column 8: there is no action `FIDN`; did you mean `FIND`?",
                "line 3, column 21: `c` is what this step defines, so it cannot use it",
                "line 3, column 24: `aa` is no variable of an earlier step; put quotes around a text",
                "line 4, column 4: `a` is defined in line 1 already: choose another name",
                "line 5, column 18: expected a text in quotes, found quotes that are not closed before `,` or `)`",
                "line 6, column 18: expected the document CTX, a variable, or a text in quotes, found a call of `SUMMARIZE`: give it a step of its own",
                "line 7, column 13: expected `=` after the variable, found `(`",
                "line 8, column 15: CONCAT joins texts and outcomes; the document itself is no part of an answer",
                "line 9, column 23: expected `:` and the reason, or the end of the line, after the call, found `and`",
                "line 10, column 5: expected a name for what comes out, found `CTX`",
                "line 11, column 9: `CONCAT(X, ..)` is given 0 arguments",
            ]
        );
        assert_eq!(
            shown("1. a = SUMMARIZE(CTX)\n2. b = SUMMARIZE(CTX)"),
            ["line 2, column 4: line 1 does the same: use its variable `a`"]
        );
        assert_eq!(
            shown("No."),
            ["line 1, column 1: there is no step; write each as `variable = ACTION(argument, ..) : why`"]
        );
    }

    #[test]
    fn hostile_plans_are_bounded() {
        let many: String = (0..1000).map(|k| format!("v{k} = FIND(CTX, \"{k}\")\n")).collect();
        assert_eq!(shown(&many), ["line 65, column 1: the plan has more than 64 steps"]);
        assert_eq!(
            shown(&"x".repeat(MAX_PLAN + 1)),
            ["line 1, column 1: the plan has more than 65536 bytes"]
        );
        let deep = format!("1. a = FIND(CTX, {}", "FIND(".repeat(800));
        assert_eq!(shown(&deep).len(), 1);
        let long = format!("1. a = FIND(CTX, \"{}\")", "y".repeat(MAX_ARGUMENT + 1));
        assert_eq!(shown(&long), ["line 1, column 18: the argument has more than 2000 characters"]);
        let wide = format!("1. a = CONCAT({})", vec!["\"z\""; 30].join(","));
        assert!(shown(&wide)[0].ends_with("the call has more than 16 arguments"), "{:?}", shown(&wide));
        // One opening quote after another, none of which closes: no quadratic scan to speak of.
        let quotes = format!("1. a = FIND(CTX, {})", "\" ".repeat(900));
        assert_eq!(plan(&quotes, &actions()).unwrap().steps().len(), 1);
    }

    fn text() -> impl Strategy<Value = String> {
        "(\\PC|[\"'\\\\,()]|\n){0,20}"
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "(\\PC|[0-9]\\. |a = |FIND\\(|CTX|, |\"|'|\\)| : |\n){0,200}") {
            match plan(&text, &actions()) {
                Ok(plan) => prop_assert!(!plan.steps().is_empty()),
                Err(problems) => {
                    prop_assert!(!problems.is_empty());
                    for problem in problems {
                        let line = text.lines().nth(problem.line - 1).unwrap_or_default();
                        prop_assert!(problem.column >= 1 && problem.column <= line.chars().count() + 1, "{}", problem);
                    }
                }
            }
        }

        #[test]
        fn a_plan_is_read_as_it_is_written(texts in prop::collection::vec(text(), 1..10)) {
            let steps = texts.iter().enumerate().map(|(index, text)| Step {
                variable: format!("v{index}"),
                action: CONCAT.to_owned(),
                arguments: (0..index).map(|k| Argument::Variable(format!("v{k}"))).chain([Argument::Text(text.clone())]).collect(),
                why: String::new(),
            });
            let written = Plan { steps: steps.collect(), skipped: Vec::new() };
            prop_assert_eq!(plan(&written.to_string(), &Actions::new()), Ok(written));
        }
    }
}
