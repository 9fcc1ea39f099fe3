//! JSON schemas of types, as models should read them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// The JSON schema of `T` as a model should read it: doc comments as descriptions, no references where none are needed, nothing that only a
/// validator wants, and no properties beyond those named.
pub(crate) fn of_type<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    if let Value::Object(schema) = &mut schema {
        // The type's own name and description; those of the tool say more.
        schema.remove("title");
        schema.remove("description");
    }
    schema
}

/// Deep schemas are a type's own, so the depth is bounded by the program's text.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if is_number(object) {
                object.remove("format");
            }
            if has_closed_properties(object) {
                object.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            for (key, value) in object {
                match (key.as_str(), value) {
                    // Here the keys are the user's names, which may be those of keywords.
                    ("properties" | "patternProperties" | "$defs", Value::Object(named)) => {
                        named.values_mut().for_each(tidy);
                    }
                    ("default" | "const" | "enum" | "examples", _) => {}
                    (_, value) => tidy(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// `int32`, `uint8`, `double`: Rust's types, which no validator knows. What they mean stays, as `minimum` and `maximum`.
fn is_number(object: &Map<String, Value>) -> bool {
    let is = |name: &Value| name == "integer" || name == "number";
    match object.get("type") {
        Some(Value::Array(names)) => names.iter().any(is),
        Some(name) => is(name),
        None => false,
    }
}

/// Whether the object's properties are all there are, as far as this object says.
fn has_closed_properties(object: &Map<String, Value>) -> bool {
    let opening = [
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "$ref",
    ];
    object.contains_key("properties") && !opening.iter().any(|key| object.contains_key(*key))
}

/// The top-level names that a closed schema allows; none if it allows others.
pub(crate) fn closed_names(schema: &Value) -> Option<Vec<&str>> {
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return None;
    }
    Some(schema.get("properties")?.as_object()?.keys().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    enum Unit {
        Celsius,
        Fahrenheit,
    }

    /// A place on Earth.
    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Place {
        /// Its name, in English.
        city: String,
        /// The country's code.
        country: Option<String>,
    }

    /// Never shown.
    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Weather {
        /// Where.
        place: Place,
        /// How many days ahead.
        days: u8,
        unit: Option<Unit>,
    }

    #[test]
    fn a_schema_is_inlined_closed_and_described() {
        assert_eq!(
            of_type::<Weather>(),
            json!({
                "type": "object",
                "properties": {
                    "place": {
                        "description": "Where.",
                        "type": "object",
                        "properties": {
                            "city": {"description": "Its name, in English.", "type": "string"},
                            "country": {"description": "The country's code.", "type": ["string", "null"]},
                        },
                        "required": ["city"],
                        "additionalProperties": false,
                    },
                    "days": {
                        "description": "How many days ahead.",
                        "type": "integer",
                        "minimum": 0,
                        "maximum": 255,
                    },
                    "unit": {"type": ["string", "null"], "enum": ["Celsius", "Fahrenheit", null]},
                },
                "required": ["place", "days"],
                "additionalProperties": false,
            })
        );
    }

    #[test]
    fn properties_may_have_the_names_of_keywords() {
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Odd {
            properties: String,
            format: u8,
            r#type: String,
        }
        let schema = of_type::<Odd>();
        assert_eq!(schema["properties"]["format"]["maximum"], 255);
        assert_eq!(closed_names(&schema).unwrap(), ["properties", "format", "type"]);
    }
}
