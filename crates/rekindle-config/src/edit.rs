//! Secrets of a configuration text by their keys, and replacing values in it: for a host that has
//! nothing but the text.

use std::ops::Range;
use std::path::Path;

use rekindle_core::{Fault, Result, Secret, codes};
use toml::de::{DeTable, DeValue};

use crate::secret_ref::SecretRef;
use crate::spec::{self, Key, Shape};

/// A reference to a secret in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// As `component.database.password`.
    pub key: String,
    /// As it is written, `file:…` and so on.
    pub text: String,
}

impl Reference {
    /// Gets the secret now; relative paths start from `directory`.
    pub fn resolve(&self, directory: &Path) -> Result<Secret<String>> {
        let read = SecretRef::parse(&self.text, self.key.clone(), directory);
        read.map_err(|(why, hint)| Fault::new(codes::CONFIG_SECRET, format!("read `{}`: {why}", self.key)).hint(hint))?
            .resolve()
    }
}

/// Every reference to a secret in a text, in the order of the text. A text that is no TOML has none.
pub fn references(text: &str) -> Vec<Reference> {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    collect(root.get_ref(), spec::ROOT, "", &mut found);
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, reference)| reference).collect()
}

fn collect(table: &DeTable<'_>, keys: &[Key], above: &str, found: &mut Vec<(usize, Reference)>) {
    for key in keys {
        let Some(value) = table.get(key.name) else { continue };
        let dotted = join(above, key.name);
        match (key.shape, value.get_ref()) {
            (Shape::Secret | Shape::TextOrSecret, DeValue::String(text)) if is_reference(text) => {
                found.push((value.span().start, Reference { key: dotted, text: text.to_string() }));
            }
            (Shape::Table(inner), DeValue::Table(table)) => collect(table, inner, &dotted, found),
            (Shape::Components, DeValue::Table(components)) => {
                for (name, component) in components {
                    let DeValue::Table(component) = component.get_ref() else { continue };
                    let kind = component.get("kind").and_then(|kind| kind.get_ref().as_str());
                    let Some(keys) = kind.and_then(spec::of_kind) else { continue };
                    collect(component, keys, &join(&dotted, name.get_ref()), found);
                }
            }
            _ => {}
        }
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

fn is_reference(text: &str) -> bool {
    ["file:", "env:", "command:", "credential:"].iter().any(|form| text.starts_with(form))
}

/// The text with another value at a dotted key that stands in it as a text; `None` when there is
/// no such key. Everything else, comments included, stays as it is.
pub fn set(text: &str, key: &str, value: &str) -> Option<String> {
    let span = span_of(text, key)?;
    let mut changed = String::with_capacity(text.len() + value.len());
    changed.push_str(&text[..span.start]);
    changed.push_str(&quoted(value));
    changed.push_str(&text[span.end..]);
    Some(changed)
}

fn span_of(text: &str, key: &str) -> Option<Range<usize>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return None;
    }
    let mut names = key.split('.').peekable();
    let mut table = root.get_ref();
    loop {
        let value = table.get(names.next()?)?;
        match (names.peek(), value.get_ref()) {
            (None, DeValue::String(_)) => return Some(value.span()),
            (Some(_), DeValue::Table(inner)) => table = inner,
            _ => return None,
        }
    }
}

/// A basic string of TOML.
fn quoted(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                // Writing into a `String` cannot fail.
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# kept\n[stack]\nname = 's'\n[repository]\nurl = '/r' # the place\npassword = 'file:/key'\naccess-key-id = 'AKIA'\n[component.db]\nkind = 'postgres'\nurl = 'postgres://u@h/d'\npassword = \"env:PG\"\n[component.'boards']\nkind = 'grafana'\nsecret-key = 'command:show x'\n";

    #[test]
    fn secrets_are_found_by_key_and_literals_are_not() {
        let found: Vec<_> = references(TEXT).into_iter().map(|one| format!("{}={}", one.key, one.text)).collect();
        assert_eq!(
            found,
            [
                "repository.password=file:/key",
                "component.db.password=env:PG",
                "component.boards.secret-key=command:show x"
            ]
        );
        assert_eq!(references("[["), []);
    }

    #[test]
    fn a_value_is_replaced_and_everything_else_stays() {
        let changed = set(TEXT, "component.db.password", "file:/a \"b\"\\").unwrap();
        assert!(changed.contains("password = \"file:/a \\\"b\\\"\\\\\"\n"), "{changed}");
        assert_eq!(references(&changed)[1].text, "file:/a \"b\"\\");
        assert_eq!(changed.len(), TEXT.len() - "\"env:PG\"".len() + "\"file:/a \\\"b\\\"\\\\\"".len());
        assert!(set(TEXT, "repository.url", "/other").unwrap().contains("url = \"/other\" # the place"));
        for absent in ["component.db.nothing", "component.db", "", "stack", "component.db.password.x"] {
            assert_eq!(set(TEXT, absent, "x"), None, "{absent}");
        }
    }
}
