//! What a JSON schema knows of a value's fields.

use std::collections::BTreeSet;

use serde_json::Value;

/// How many references and alternatives are followed for one question. Real types need a handful.
const STEPS: usize = 256;

/// A value as far as the schema knows it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape<'s> {
    /// Nothing is known, so anything goes.
    Any,
    /// A value that this schema describes.
    Of(&'s Value),
}

/// The answer to the question for a field.
#[derive(Debug)]
pub(super) enum Field<'s> {
    Found(Shape<'s>),
    /// No value of this schema has it; these are the fields that there are.
    Missing(Vec<&'s str>),
}

/// The schema of a struct of variables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'s>(pub(super) &'s Value);

impl<'s> Schema<'s> {
    /// The fields of the whole, which are the variables.
    pub(super) fn variables(self) -> Vec<&'s str> {
        let mut names = Vec::new();
        for node in self.alternatives(self.0) {
            for name in
                node.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.keys())
            {
                if !names.contains(&name.as_str()) {
                    names.push(name.as_str());
                }
            }
        }
        names
    }

    /// The value of the variable `name`.
    pub(super) fn variable(self, name: &str) -> Shape<'s> {
        match self.field(Shape::Of(self.0), name) {
            Field::Found(shape) => shape,
            Field::Missing(_) => Shape::Any,
        }
    }

    pub(super) fn field(self, shape: Shape<'s>, name: &str) -> Field<'s> {
        let Shape::Of(node) = shape else { return Field::Found(Shape::Any) };
        let mut found = Vec::new();
        let mut known = BTreeSet::new();
        for node in self.alternatives(node) {
            let Some(map) = node.as_object() else { return Field::Found(Shape::Any) };
            let properties = map.get("properties").and_then(Value::as_object);
            if let Some(child) = properties.and_then(|properties| properties.get(name)) {
                found.push(child);
                continue;
            }
            known.extend(properties.into_iter().flat_map(|map| map.keys()).map(String::as_str));
            match map.get("additionalProperties") {
                Some(Value::Bool(false)) => {}
                // A map from names to values.
                Some(child @ Value::Object(_)) => found.push(child),
                Some(_) => return Field::Found(Shape::Any),
                None if is_typed(node) => {}
                None => return Field::Found(Shape::Any),
            }
        }
        match found[..] {
            [] => Field::Missing(known.into_iter().collect()),
            [child] => Field::Found(Shape::Of(child)),
            _ => Field::Found(Shape::Any),
        }
    }

    /// An item of a list.
    pub(super) fn item(self, shape: Shape<'s>) -> Shape<'s> {
        let Shape::Of(node) = shape else { return Shape::Any };
        let mut found = Shape::Any;
        for node in self.alternatives(node) {
            match node.get("type").and_then(Value::as_str) {
                Some("null") => continue,
                Some("array") | None => {}
                // A list in one case and something else in another.
                Some(_) => return Shape::Any,
            }
            match (node.get("items"), found) {
                (Some(items @ Value::Object(_)), Shape::Any) => found = Shape::Of(items),
                _ => return Shape::Any,
            }
        }
        found
    }

    /// The schemas that a value of `node` has to do with, with references followed and alternatives opened.
    fn alternatives(self, node: &'s Value) -> Vec<&'s Value> {
        let mut found = Vec::new();
        let mut open = vec![node];
        let mut steps = 0;
        while let Some(node) = open.pop() {
            steps += 1;
            if steps > STEPS {
                // Too much to be sure of anything: a value of every kind.
                return vec![&Value::Null];
            }
            if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
                match reference.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer)) {
                    Some(target) => open.push(target),
                    None => found.push(&Value::Null),
                }
            }
            let mut opened = false;
            for word in ["anyOf", "oneOf", "allOf"] {
                if let Some(nodes) = node.get(word).and_then(Value::as_array) {
                    open.extend(nodes.iter().rev());
                    opened = true;
                }
            }
            // What stands beside alternatives and references counts where it says something of fields.
            let says = node.get("properties").is_some() || node.get("type").is_some();
            if says || !(opened || node.get("$ref").is_some()) {
                found.push(node);
            }
        }
        found
    }
}

/// Whether the schema says what kind of value it is, so that what it does not mention is not there.
fn is_typed(node: &Value) -> bool {
    node.get("type").is_some() || node.get("enum").is_some() || node.get("const").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_through_references_options_and_lists() {
        let schema = json!({
            "type": "object",
            "properties": {
                "user": {"anyOf": [{"$ref": "#/$defs/User"}, {"type": "null"}]},
                "notes": {"type": "object", "additionalProperties": {"type": "string"}},
                "any": true,
            },
            "$defs": {"User": {"type": "object", "properties": {"tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}}}},
                      "Tag": {"type": "object", "properties": {"label": {"type": "string"}}}},
        });
        let schema = Schema(&schema);
        assert_eq!(schema.variables(), ["user", "notes", "any"]);
        let user = schema.variable("user");
        let Field::Found(tags) = schema.field(user, "tags") else { panic!("`tags` is there") };
        let tag = schema.item(tags);
        assert!(matches!(schema.field(tag, "label"), Field::Found(Shape::Of(_))));
        assert!(matches!(schema.field(tag, "lable"), Field::Missing(known) if known == ["label"]));
        assert!(matches!(schema.field(user, "name"), Field::Missing(known) if known == ["tags"]));
        assert!(matches!(schema.field(schema.variable("notes"), "whatever"), Field::Found(_)));
        assert!(matches!(schema.field(schema.variable("any"), "whatever"), Field::Found(Shape::Any)));
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema =
            json!({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}});
        assert!(matches!(
            Schema(&schema).field(Schema(&schema).variable("a"), "b"),
            Field::Found(Shape::Any)
        ));
    }
}
