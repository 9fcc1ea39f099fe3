//! What is wrong with a prompt, and where it is reported.
#![allow(clippy::unwrap_used)]

use llmkit_prompt::{ChatPrompt, Error, PromptTemplate, Role, VariableProblem};
use serde_json::json;

fn problems(source: &str, declared: &[&str]) -> Vec<VariableProblem> {
    match PromptTemplate::new("t", source, declared.iter().copied()) {
        Err(Error::Variables { prompt, problems }) => {
            assert_eq!(prompt, "t");
            problems
        }
        other => panic!("expected Error::Variables, found {other:?}"),
    }
}

fn undeclared(line: usize, name: &str, suggestion: Option<&str>) -> VariableProblem {
    // Built through its message: the variant is not exhaustive for users.
    match suggestion {
        Some(meant) => {
            problems(&format!("{}{{{{ {name} }}}}{{{{ {meant} }}}}", "\n".repeat(line - 1)), &[meant])
        }
        None => problems(&format!("{}{{{{ {name} }}}}", "\n".repeat(line - 1)), &[]),
    }
    .remove(0)
}

#[test]
fn undeclared_unused_and_misspelt_variables_are_all_reported_with_their_lines() {
    let found = problems(
        "About {{ topic }}.\n{# questoin #}\n{% if questoin %}{{ \"stray\" }}\n{{ stray }}{% endif %}",
        &["topic", "question", "length"],
    );
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "t:3: `questoin` is not declared; did you mean `question`?",
            "t:4: `stray` is not declared: declare it or remove it",
            "`length` is declared and never used: use it or do not declare it",
        ]
    );
    assert_eq!(found[0], undeclared(3, "questoin", Some("question")));
    assert_eq!(found[1], undeclared(4, "stray", None));
}

#[test]
fn what_the_template_sets_itself_needs_no_declaration() {
    let source =
        "{% set n = xs | length %}{% for x in xs %}{{ loop.index }}{{ x }}{{ n }}{{ range(n) }}{% endfor %}";
    PromptTemplate::new("t", source, ["xs"]).unwrap();
    // Outside the loop its variable is another one.
    let found = problems(&format!("{source}\n{{{{ x }}}}"), &["xs"]);
    assert!(matches!(&found[..], [VariableProblem::Undeclared { name, .. }] if name == "x"), "{found:?}");
}

#[test]
fn attributes_are_no_variables() {
    PromptTemplate::new("t", "{{ user.name }}{{ user['mail'] }}", ["user"]).unwrap();
}

#[test]
fn repeated_and_reserved_names_are_refused() {
    let shown: Vec<String> =
        problems("{{ x }}{{ range(3) }}", &["x", "x", "range"]).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["`x` is declared more than once", "`range` is a function of the engine: choose another name"]
    );
}

#[test]
fn syntax_errors_carry_their_line() {
    let error = PromptTemplate::new("t", "one\ntwo {% if x %}\nthree {{ }}", ["x"]).unwrap_err();
    assert!(matches!(error, Error::Syntax { line: 3, .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn references_to_other_templates_are_refused() {
    for statement in ["include", "extends"] {
        let error = PromptTemplate::new("t", format!("\n{{%- {statement} 'x' %}}"), [""; 0]).unwrap_err();
        assert!(
            matches!(&error, Error::Reference { line: 2, statement: found, .. } if found == statement),
            "{error:?}"
        );
    }
}

#[test]
fn all_missing_values_are_named_and_further_ones_ignored() {
    let template = PromptTemplate::new("t", "{{ a }}{{ b }}{{ c }}", ["a", "b", "c"]).unwrap();
    let error = template.render(json!({ "b": 1, "d": 2 })).unwrap_err();
    assert_eq!(error.to_string(), "`t` lacks values for `a`, `c`; given: `b`, `d`");
    assert_eq!(template.render(json!({ "a": 1, "b": 2, "c": 3, "d": 4 })).unwrap(), "123");
    let error = template.render(["a", "b", "c"]).unwrap_err();
    assert!(matches!(&error, Error::NotAMap { .. }), "{error:?}");
}

#[test]
fn values_may_be_a_struct() {
    #[derive(serde::Serialize)]
    struct Values<'a> {
        word: &'a str,
        n: Option<u32>,
    }
    let template = PromptTemplate::new("t", "{{ word }}{{ '!' if n is none }}", ["word", "n"]).unwrap();
    assert_eq!(template.render(Values { word: "hi", n: None }).unwrap(), "hi!");
}

#[test]
fn an_attribute_that_is_not_there_is_an_error_with_its_line() {
    let template = PromptTemplate::new("t", "\n\n{{ user.name }}", ["user"]).unwrap();
    let error = template.render(json!({ "user": { "nmae": "Ada" } })).unwrap_err();
    assert!(matches!(error, Error::Render { line: 3, .. }), "{error:?}");
}

#[test]
fn a_template_cannot_hang_the_program_or_fill_its_memory() {
    for bomb in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ n }}{% endfor %}{% endfor %}",
        "{{ 'x' * 9000000000 * n }}",
    ] {
        let template = PromptTemplate::new("t", bomb, ["n"]).unwrap();
        let error = template.render(json!({ "n": 1 })).unwrap_err();
        assert!(matches!(&error, Error::Render { .. }), "{error:?}");
    }
}

#[test]
fn nothing_is_escaped_whatever_the_name() {
    let template = PromptTemplate::new("page.html", "{{ x }}", ["x"]).unwrap();
    assert_eq!(template.render(json!({ "x": "<b>&\"" })).unwrap(), "<b>&\"");
}

#[test]
fn maps_keep_the_order_of_their_entries() {
    let template = PromptTemplate::new("t", "{% for k in m %}{{ k }}{% endfor %}", ["m"]).unwrap();
    assert_eq!(template.render(json!({ "m": { "z": 1, "a": 2, "m": 3 } })).unwrap(), "zam");
}

#[test]
fn a_chat_prompts_variables_are_those_of_all_turns_and_errors_name_the_turn() {
    let turns =
        [(Role::System, "Be {{ tone }}."), (Role::User, "{{ text }}\n{{ tone }}"), (Role::Assistant, "So:")];
    let prompt = ChatPrompt::new("p", turns, ["tone", "text"]).unwrap();
    let messages = prompt.render(json!({ "tone": "brief", "text": "Why?" })).unwrap();
    let shown: Vec<(Role, &str)> =
        messages.iter().map(|message| (message.role, message.content.as_str())).collect();
    assert_eq!(shown, [(Role::System, "Be brief."), (Role::User, "Why?\nbrief"), (Role::Assistant, "So:")]);

    let error = ChatPrompt::new("p", turns, ["text", "more"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the variables of `p` and their declaration disagree:\n  \
         p[0]:1: `tone` is not declared: declare it or remove it\n  \
         p[1]:2: `tone` is not declared: declare it or remove it\n  \
         `more` is declared and never used: use it or do not declare it"
    );
}

#[test]
fn prompts_can_be_shared_between_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<PromptTemplate>();
    check::<ChatPrompt>();
}

#[test]
fn a_template_of_thousands_of_names_is_refused_at_once() {
    let names: String = (0..2_000).map(|number| format!("{{{{ a{number} }}}}")).collect();
    let source = format!("{{% set v %}}{names}{{% endset %}}{}", "{{ v }}".repeat(20_000));
    let started = std::time::Instant::now();
    let error = PromptTemplate::new("t", source, Vec::<String>::new()).unwrap_err();
    assert!(matches!(&error, Error::ManyNames { allowed: 1_000, .. }), "{error}");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
