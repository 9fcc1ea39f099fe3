//! Rendering against Python's Jinja2; `scripts/make_prompt_fixtures.py` makes the fixture.

use llmkit_prompt::{Error, Partials, PromptTemplate, VariableProblem};

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

#[derive(serde::Deserialize)]
struct Templates {
    values: serde_json::Map<String, serde_json::Value>,
    partials: std::collections::BTreeMap<String, String>,
    cases: Vec<TemplateCase>,
}

#[derive(serde::Deserialize)]
struct TemplateCase {
    template: String,
    variables: Vec<String>,
    /// `None` where Jinja2 refuses the template.
    expected: Option<String>,
}

/// What is known to differ: the template, and what is rendered here (`None` for a refusal). The guide lists them.
const DIFFERENCES: [(&str, Option<&str>); 8] = [
    // An entry of a map is an attribute for `attr`, too.
    ("{{ people | max(attribute='age') | attr('name') }}", Some("Ada")),
    ("{{ people | last | attr('name') }}", Some("Cy")),
    // There are no tuples to return.
    ("{{ s.partition(', ') }}", Some("['Hello', ', ', 'World']")),
    // There is no sign `+`, and no `cycler`.
    ("{{ +n }}", None),
    ("{{ cycler is defined }}", None),
    // Every variable of a prompt has a value: `null` is none, not undefined.
    ("{{ missing is defined }}{{ missing | default('dflt') }}", Some("TrueNone")),
    ("{% if missing is not defined %}none{% endif %}", Some("")),
    ("{{ missing }}", Some("None")),
];

fn rendered_here(
    fixture: &Templates,
    partials: &Partials,
    case: &TemplateCase,
) -> Result<String, llmkit_prompt::Error> {
    // Jinja2 does not count what includes use, and counts what every branch of an `if` sets: take the names from the complaint.
    let build = |variables: &[String]| {
        PromptTemplate::new_with(partials, "t", case.template.as_str(), variables.iter().cloned())
    };
    let template = build(&case.variables).or_else(|error| match &error {
        Error::Variables { problems, .. } => {
            let mut variables = case.variables.clone();
            for problem in problems {
                match problem {
                    VariableProblem::Undeclared { name, .. } if case.template.contains("include") => {
                        variables.push(name.clone())
                    }
                    VariableProblem::Unused { name } if case.template.contains("{% else %}{% set") => {
                        variables.retain(|known| known != name)
                    }
                    _ => {}
                }
            }
            build(&variables)
        }
        _ => Err(error),
    })?;
    let mut values = fixture.values.clone();
    // Undefined in Python; here every variable has a value.
    values.entry("missing").or_insert(serde_json::Value::Null);
    template.render(&values)
}

#[test]
fn hundreds_of_templates_render_as_in_jinja2() {
    let fixture: Templates =
        serde_json::from_str(include_str!("fixtures/jinja2_templates.json")).expect("the fixture is valid");
    let partials: Partials = fixture.partials.clone().into_iter().collect();
    let mut faults = Vec::new();
    let mut differences = 0;
    for case in &fixture.cases {
        let here = rendered_here(&fixture, &partials, case);
        let known = DIFFERENCES.iter().find(|(template, _)| *template == case.template);
        let expected = match known {
            Some((_, expected)) => {
                differences += 1;
                assert_ne!(
                    expected.map(str::to_owned),
                    case.expected,
                    "{}: is no difference any more",
                    case.template
                );
                expected.map(str::to_owned)
            }
            None => case.expected.clone(),
        };
        if here.as_ref().ok() != expected.as_ref() {
            faults.push(format!("{:?}: expected {expected:?}, found {here:?}", case.template));
        }
    }
    assert!(fixture.cases.len() > 600, "{}", fixture.cases.len());
    assert_eq!(differences, DIFFERENCES.len(), "every difference is in the fixture");
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), fixture.cases.len(), faults.join("\n"));
}
