//! Rendering against Python's Jinja2; `scripts/make_prompt_fixtures.py` makes the fixture.

use llmkit_prompt::PromptTemplate;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    template: String,
    values: serde_json::Value,
    variables: Vec<String>,
    expected: String,
}

#[test]
fn templates_render_as_in_jinja2_and_have_the_variables_that_it_finds() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("fixtures/jinja2.json")).expect("the fixture is valid");
    assert_eq!(cases.len(), 11);
    for Case { name, template, values, variables, expected } in cases {
        let template = PromptTemplate::new(name.clone(), template, variables)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let rendered = template.render(values).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(rendered, expected, "{name}");
    }
}
