use serde_json::{Map, Value, json};

/// How deeply a schema may be nested to be looked through.
const MAX_DEPTH: usize = 64;

/// `schema` as one that OpenAI's servers hold an answer to ("strict"): every object lists all its properties as required and allows no others.
/// A property that was optional is thereby always written; its type must allow `null` if it is to say nothing, as the types of Rust's `Option` do.
///
/// None where it can't be made so: a map (an object with free keys), or an optional property whose type has no `null` and no default.
pub(super) fn strict_schema(schema: &Value) -> Option<Value> {
    let mut schema = schema.clone();
    tighten(&mut schema, 0)?;
    // The root must be an object.
    (schema.get("type") == Some(&json!("object"))).then_some(schema)
}

fn tighten(schema: &mut Value, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    // `true` allows anything, which no strict schema can.
    let schema = schema.as_object_mut()?;
    if is_object(schema) {
        let properties = schema.entry("properties").or_insert_with(|| json!({})).as_object()?;
        let names: Vec<Value> = properties.keys().map(|name| name.as_str().into()).collect();
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let properties = schema.get("properties")?.as_object()?;
        let optional = properties.iter().filter(|(name, _)| !required.iter().any(|other| other == *name));
        if optional.map(|(_, property)| property).any(|property| !allows_null(property)) {
            return None;
        }
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(false)) => {}
            Some(_) => return None,
        }
        if schema.contains_key("patternProperties") || names.is_empty() {
            return None;
        }
        schema.insert("additionalProperties".to_owned(), false.into());
        schema.insert("required".to_owned(), names.into());
    }
    // Strict schemas know `anyOf` only. What is exactly one of several tagged forms is any of them too.
    if let Some(forms) = schema.remove("oneOf") {
        if schema.contains_key("anyOf") {
            return None;
        }
        schema.insert("anyOf".to_owned(), forms);
    }
    let unknown = ["allOf", "not", "prefixItems", "if", "then", "else", "dependentSchemas"];
    if unknown.iter().any(|name| schema.contains_key(*name)) {
        return None;
    }
    if schema.contains_key("$ref") {
        schema.retain(|name, _| matches!(name.as_str(), "$ref" | "$defs" | "definitions"));
    }
    for (name, value) in schema.iter_mut() {
        match (name.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values_mut().try_for_each(|schema| tighten(schema, depth + 1))?;
            }
            ("items", schema) => tighten(schema, depth + 1)?,
            ("anyOf", Value::Array(schemas)) => {
                schemas.iter_mut().try_for_each(|schema| tighten(schema, depth + 1))?;
            }
            _ => {}
        }
    }
    Some(())
}

fn is_object(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == "object",
        Some(Value::Array(names)) => names.iter().any(|name| name == "object"),
        _ => schema.contains_key("properties"),
    }
}

fn allows_null(schema: &Value) -> bool {
    let is_null = |value: &Value| value == "null";
    let by_type = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(is_null),
        Some(name) => is_null(name),
        None => false,
    };
    let any_of = schema.get("anyOf").and_then(Value::as_array);
    by_type
        || any_of.is_some_and(|schemas| schemas.iter().any(|schema| schema.get("type").is_some_and(is_null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Person {
        name: String,
        nickname: Option<String>,
        address: Option<Address>,
        children: Vec<Person>,
    }

    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Address {
        town: String,
    }

    #[test]
    fn a_structs_schema_is_closed_at_every_level() {
        let schema = Value::from(schemars::schema_for!(Person));
        let strict = strict_schema(&schema).unwrap();
        assert_eq!(strict["required"], json!(["name", "nickname", "address", "children"]));
        assert_eq!(strict["additionalProperties"], false);
        assert_eq!(strict["$defs"]["Address"]["additionalProperties"], false);
        assert_eq!(strict_schema(&strict), Some(strict.clone()), "what is strict stays as it is");
    }

    #[test]
    fn one_of_several_forms_becomes_any_of_them() {
        let kinds = json!([{"type": "string", "const": "a"}, {"type": "string", "const": "b"}]);
        let schema =
            json!({"type": "object", "properties": {"kind": {"oneOf": kinds}}, "required": ["kind"]});
        let strict = strict_schema(&schema).unwrap();
        assert_eq!(strict["properties"]["kind"], json!({"anyOf": kinds}));
        let beside = json!({"$ref": "#/$defs/Kind", "description": "Which."});
        let schema = json!({
            "type": "object",
            "properties": {"kind": beside},
            "required": ["kind"],
            "$defs": {"Kind": {"type": "string"}},
        });
        assert_eq!(strict_schema(&schema).unwrap()["properties"]["kind"], json!({"$ref": "#/$defs/Kind"}));
    }

    #[test]
    fn what_would_change_its_meaning_is_left_alone() {
        let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
        for schema in [
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            object(json!({"a": {"type": "string"}}), json!([])),
            object(json!({"a": true}), json!(["a"])),
            object(json!({"a": {"type": "object"}}), json!(["a"])),
            object(json!({"a": {"allOf": [{"type": "string"}]}}), json!(["a"])),
        ] {
            assert_eq!(strict_schema(&schema), None, "{schema}");
        }
        let mut deep = json!({"type": "string"});
        for _ in 0..100 {
            deep = json!({"type": "array", "items": deep});
        }
        assert_eq!(strict_schema(&object(json!({"a": deep}), json!(["a"]))), None);
    }
}
