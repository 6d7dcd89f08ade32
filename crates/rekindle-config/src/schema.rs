//! The JSON Schema of the configuration, for editors.

use serde_json::{Map, Value, json};

use crate::spec::{self, Key, Shape};

/// The schema as JSON (draft 2020-12).
pub fn json_schema() -> Value {
    let mut schema = table(spec::ROOT);
    let head = [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("rekindle.toml")),
        ("description", json!("Configuration of rekindle.")),
    ];
    if let Some(object) = schema.as_object_mut() {
        object.extend(head.map(|(name, value)| (name.to_owned(), value)));
    }
    schema
}

fn table(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut schema = shape(key.shape);
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), json!(key.about));
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn shape(shape: Shape) -> Value {
    match shape {
        Shape::Text | Shape::Path | Shape::TextOrSecret => {
            json!({"type": "string", "minLength": 1})
        }
        Shape::Schedule => json!({"type": "string", "examples": ["*/30 * * * *", "@daily"]}),
        Shape::Secret => json!({"type": "string", "pattern": "^(file|env|command|credential):.+"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Duration => json!({
            "type": "string",
            "pattern": "^\\s*([0-9]+(s|m|min|h|d|w)\\s*)+$",
            "examples": ["90s", "30m", "8d"],
        }),
        Shape::Choice(words) => json!({"enum": words}),
        Shape::TextList => texts(),
        Shape::AllOrTextList => json!({"oneOf": [{"const": "all"}, texts()]}),
        Shape::Commands => json!({
            "type": "array",
            "items": {"oneOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            ]},
        }),
        Shape::Table(keys) => table(keys),
        Shape::Components => kinds(spec::KINDS, 1),
        Shape::Receivers => kinds(spec::NOTIFY_KINDS, 0),
        Shape::Named(keys) => json!({
            "type": "object",
            "propertyNames": {"pattern": NAME_PATTERN},
            "additionalProperties": table(keys),
        }),
        Shape::Groups => json!({
            "type": "object",
            "propertyNames": {"pattern": NAME_PATTERN},
            "additionalProperties": texts(),
        }),
    }
}

/// Names of components and groups.
const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": true})
}

fn kinds(list: &[(&str, &'static [Key])], fewest: u32) -> Value {
    let kinds: Vec<Value> = list
        .iter()
        .map(|(kind, keys)| {
            let mut schema = table(keys);
            if let Some(word) = schema.pointer_mut("/properties/kind") {
                *word = json!({"const": kind});
            }
            schema
        })
        .collect();
    json!({
        "type": "object",
        "minProperties": fewest,
        "propertyNames": {"pattern": NAME_PATTERN},
        "additionalProperties": {"oneOf": kinds},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_schema() {
        let text = json_schema().to_string();
        for keys in [spec::ROOT, spec::STACK, spec::REPOSITORY, spec::POSTGRES, spec::POLICY] {
            for key in keys {
                assert!(text.contains(&format!("\"{}\"", key.name)), "{}", key.name);
                assert!(key.about.ends_with('.'), "{}", key.name);
            }
        }
    }
}
