//! Templates and files from strangers: no panic, bounded time.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use llmkit_prompt::{Partials, PromptFile, PromptTemplate, builtin};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// What one template may take to be built, checked and rendered three times. An optimised build needs milliseconds; this is for busy machines.
const LIMIT: Duration = Duration::from_secs(10);

const TOKENS: [&str; 40] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{% for x in xs %}",
    "{% endfor %}",
    "{% if x %}",
    "{% else %}",
    "{% endif %}",
    "{% set a = [a, a] %}",
    "{% set ns = namespace(v=[]) %}",
    "{% set ns.v = [ns.v] %}",
    "{% macro m(x) %}",
    "{% endmacro %}",
    "{{ m(m) }}",
    "{% call m() %}",
    "{% endcall %}",
    "{% include 'p' %}",
    "{% include",
    "'",
    "\"",
    "\\",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "| join",
    "* 99999999",
    "~ x",
    "| indent(9999)",
    "range(99999)",
    "{% raw %}",
    "{% endraw %}",
    "é🦀\u{202e}",
    "-",
    "\r\n",
];

fn mutate(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=characters.len());
        let end = (at + rng.random_range(0..20)).min(characters.len());
        match rng.random_range(0..6) {
            0 => drop(characters.drain(at..end)),
            1 => {
                let token = TOKENS.choose(rng).unwrap();
                characters.splice(at..at, token.chars());
            }
            2 => {
                let piece: Vec<char> = characters[at..end].to_vec();
                let count = rng.random_range(1..50);
                characters.splice(at..at, std::iter::repeat_n(piece, count).flatten().collect::<Vec<_>>());
            }
            3 => characters[at..end].shuffle(rng),
            4 => characters[at..end].reverse(),
            _ => {
                if let Some(c) = characters.get_mut(at) {
                    *c = char::from_u32(rng.random_range(0..0x3000)).unwrap_or('\u{fffd}');
                }
            }
        }
    }
    characters.into_iter().take(20_000).collect()
}

#[derive(serde::Deserialize)]
struct Fixture {
    values: Value,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    template: String,
}

#[test]
fn ten_thousand_mutated_templates_neither_panic_nor_hang() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/jinja2_templates.json")).unwrap();
    let mut seeds: Vec<String> = fixture.cases.into_iter().map(|case| case.template).collect();
    let builtin: Vec<&str> = builtin::names().filter_map(builtin::source).collect();
    seeds.extend(builtin.iter().map(|text| (*text).to_owned()));
    let partials = Partials::from([
        ("p", "{{ x }}{% include 'q' ignore missing %}"),
        ("q", "{% for x in xs %}{{ x }}{% endfor %}"),
    ]);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut built, mut rendered, mut slowest) = (0, 0, (Duration::ZERO, String::new()));
    for _ in 0..10_000 {
        let source = mutate(seeds.choose(&mut rng).unwrap(), &mut rng);
        let start = Instant::now();
        // The first attempt says which variables there are.
        let names = match PromptTemplate::new_with(&partials, "t", source.as_str(), [""; 0]) {
            Ok(_) => Vec::new(),
            Err(llmkit_prompt::Error::Variables { problems, .. }) => problems
                .iter()
                .filter_map(|problem| match problem {
                    llmkit_prompt::VariableProblem::Undeclared { name, .. } => Some(name.clone()),
                    _ => None,
                })
                .collect(),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Vec::new()
            }
        };
        let mut names: Vec<String> = names;
        names.sort();
        names.dedup();
        if let Ok(template) = PromptTemplate::new_with(&partials, "t", source.as_str(), names.clone()) {
            built += 1;
            let mut values = fixture.values.clone();
            for name in &names {
                values.as_object_mut().unwrap().entry(name.clone()).or_insert(json!(["a", 1]));
            }
            let plain = template.render(&values);
            if let Ok(explained) = template.explain(&values) {
                rendered += 1;
                assert_eq!(explained.text(), plain.unwrap(), "{source:?}");
                let joined: String =
                    explained.parts().iter().map(|part| &explained.text()[part.range.clone()]).collect();
                assert_eq!(joined, explained.text(), "{source:?}");
            }
            // An error is as good as a text; what counts is that it comes.
            let _ = template.with_untrusted(&names).unwrap().render(&values);
        }
        if start.elapsed() > slowest.0 {
            slowest = (start.elapsed(), source);
        }
        assert!(slowest.0 < LIMIT, "{:?}: {:?}", slowest.0, slowest.1);
    }
    assert!(built > 1_000 && rendered > 500, "{built} were valid, {rendered} rendered");
}

#[test]
fn mutated_files_of_prompts_neither_panic_nor_hang() {
    let seeds: Vec<&str> = builtin::names().filter_map(builtin::source).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut read = 0;
    for _ in 0..3_000 {
        let text = mutate(seeds.choose(&mut rng).unwrap(), &mut rng);
        let start = Instant::now();
        match PromptFile::parse("file.md", &text) {
            Ok(_) => read += 1,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        assert!(start.elapsed() < LIMIT, "{text:?}");
    }
    assert!(read > 50, "{read}");
}

#[test]
fn values_nested_by_a_template_do_not_overflow_the_stack() {
    for source in [
        "{% set ns = namespace(v=[]) %}{% for i in range(99999) %}{% set ns.v = [ns.v] %}{% endfor %}{{ n }}",
        "{% set ns = namespace(v=[]) %}{% for i in range(9999) %}{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v ~ n }}",
        "{% macro m(x, i) %}{{ m([x], i - 1) if i else x }}{% endmacro %}{{ m(1, 99999) }}{{ n }}",
        &format!("{}{{{{ n }}}}", "{% set x = [x or n] %}".replace("x or n", "n").repeat(9_000)),
        &format!("{{% set x = n %}}{}{{{{ x | length }}}}", "{% set x = [x] %}".repeat(9_000)),
    ] {
        let start = Instant::now();
        let template = PromptTemplate::new("t", source, ["n"]).unwrap();
        // Text or error: neither is an abort.
        let _ = template.render(json!({ "n": 1 }));
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    }
    for deep in [
        "(",
        "[",
        "{{",
        "{% if n %}",
        "{% for a in n %}",
        "not ",
        "-",
        "n.",
        "n|e(",
        "{a:",
        "n+",
        "n|e|",
        "n if ",
        "n.a.",
        "n~",
    ] {
        for length in [100, 1_000, 20_000] {
            let chain =
                format!("{{{{ n{} }}}}", format!(" {}n", deep.trim_start_matches('n')).repeat(length));
            let elif = format!("{{% if n %}}{}{{% endif %}}", "{% elif n %}".repeat(length));
            for source in [format!("{{{{ {}n }}}}", deep.repeat(length)), deep.repeat(length), chain, elif] {
                let start = Instant::now();
                let _ = PromptTemplate::new("t", source.as_str(), ["n"]);
                assert!(start.elapsed() < LIMIT, "{:?}: {source:.40} {length}", start.elapsed());
            }
        }
    }
}
