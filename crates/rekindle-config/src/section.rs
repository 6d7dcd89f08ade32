//! Takes typed values out of one TOML table and reports what does not fit.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use rekindle_core::{ErrorCode, codes};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::model::{Command, Value};
use crate::problem::Sink;
use crate::secret_ref::SecretRef;
use crate::spec::{self, Key, Shape};
use crate::value;
use rekindle_core::schedule::Schedule;

/// A value with the place it stands at.
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl<T> At<T> {
    fn map<U>(self, with: impl FnOnce(T) -> U) -> At<U> {
        At { value: with(self.value), span: self.span }
    }
}

/// One table, with the keys it may hold.
pub(crate) struct Section<'a> {
    /// Its dotted name; empty for the top of the file.
    name: String,
    table: &'a DeTable<'a>,
    /// Where the table begins.
    pub(crate) span: Range<usize>,
    keys: &'static [Key],
    pub(crate) sink: &'a Sink<'a>,
}

impl<'a> Section<'a> {
    /// Looks at the table's keys: unknown ones and missing ones are reported here.
    pub(crate) fn new(
        name: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        keys: &'static [Key],
        sink: &'a Sink<'a>,
    ) -> Self {
        let section = Self { name, table, span, keys, sink };
        for key in table.keys() {
            if !keys.iter().any(|known| known.name == key.get_ref()) {
                section.unknown(key);
            }
        }
        for key in keys.iter().filter(|key| key.required && !table.contains_key(key.name)) {
            // A required table that is not there has no line; the first one stands for it.
            let example = match key.shape {
                Shape::Table(_) => format!("add a table `[{}]`", key.name),
                Shape::Components => "add a table such as `[component.files]`".to_owned(),
                _ => format!("add `{} = …`: {}", key.name, key.about),
            };
            let text = format!("`{}` is missing", section.key(key.name));
            sink.add(codes::CONFIG_VALUE, section.span.clone(), text, Some(example));
        }
        section
    }

    fn unknown(&self, key: &Spanned<std::borrow::Cow<'a, str>>) {
        let given = key.get_ref();
        let known = || self.keys.iter().map(|known| known.name);
        let hint = match (value::nearest(given, known()), spec::elsewhere(given)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(table)) => format!("`{given}` belongs into {table}"),
            (None, None) => format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
        };
        let text = format!("unknown key `{}`", self.key(given));
        self.sink.add(codes::CONFIG_UNKNOWN_KEY, key.span(), text, Some(hint));
    }

    /// The dotted name of a key of this table.
    pub(crate) fn key(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.name.is_empty() { key.to_string() } else { format!("{}.{key}", self.name) }
    }

    /// Reports a value.
    pub(crate) fn bad(&self, key: &str, span: &Range<usize>, why: &str, hint: impl Into<String>) {
        self.wrong(codes::CONFIG_VALUE, key, span, why, hint);
    }

    /// Reports a value with a code of its own.
    pub(crate) fn wrong(
        &self,
        code: &'static ErrorCode,
        key: &str,
        span: &Range<usize>,
        why: &str,
        hint: impl Into<String>,
    ) {
        let text = format!("`{}`: {why}", self.key(key));
        self.sink.add(code, span.clone(), text, Some(hint.into()));
    }

    /// Reports the table as a whole.
    pub(crate) fn bad_self(&self, why: &str, hint: &str) {
        let text = format!("`{}`: {why}", self.name);
        self.sink.add(codes::CONFIG_VALUE, self.span.clone(), text, Some(hint.to_owned()));
    }

    /// Where the value of a key stands, if the key is there.
    pub(crate) fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.value(key).map(Spanned::span)
    }

    /// Whether a key is there and not `false`.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| !matches!(value.get_ref(), DeValue::Boolean(false)))
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(self.keys.iter().any(|known| known.name == key), "{key} is in no table");
        self.table.get(key)
    }

    fn shape_fault(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, example: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let why = format!("it must be {wanted}, not {found}");
        self.bad(key, &value.span(), &why, format!("write for example `{key} = {example}`"));
    }

    fn text_of(&self, key: &str, value: &'a Spanned<DeValue<'a>>, example: &str) -> Option<At<&'a str>> {
        let span = value.span();
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                self.bad(key, &span, "it holds a NUL character", "remove it");
                None
            }
            DeValue::String(text) if text.trim().is_empty() => {
                self.bad(key, &span, "it is empty", "give a value or remove the key");
                None
            }
            DeValue::String(text) => Some(At { value: text.as_ref(), span }),
            _ => {
                self.shape_fault(key, value, "a text", example);
                None
            }
        }
    }

    /// Any text that is not empty.
    pub(crate) fn text(&self, key: &str) -> Option<At<&'a str>> {
        self.text_of(key, self.value(key)?, "\"…\"")
    }

    /// The name of a container: engines know no other characters in it.
    pub(crate) fn container(&self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !text.value.chars().all(good) || text.value.starts_with(['.', '-']) {
            self.bad(
                key,
                &text.span,
                "it is no name of a container",
                "write it as `docker ps` shows it, for example `prompt-postgres`",
            );
            return None;
        }
        Some(text.value.to_owned())
    }

    /// A path; a relative one starts from the file's directory.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        let text = self.text_of(key, self.value(key)?, "\"/path\"")?;
        Some(self.sink.directory().join(text.value))
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        self.shape_fault(key, value, "true or false", "true");
        None
    }

    /// A whole number within the bounds of the table of keys.
    pub(crate) fn integer<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        let value = self.value(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.shape_fault(key, value, "a whole number", "3");
            return None;
        };
        let (min, max) =
            self.keys.iter().find(|known| known.name == key).map_or((i64::MIN, i64::MAX), |known| match known.shape {
                Shape::Integer { min, max } => (min, max),
                _ => (i64::MIN, i64::MAX),
            });
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let fits = parsed.filter(|n| (min..=max).contains(n)).and_then(|n| T::try_from(n).ok());
        if fits.is_none() {
            let why = format!("it must be between {min} and {max}");
            self.bad(key, &value.span(), &why, "change the number or remove the key");
        }
        fits
    }

    pub(crate) fn duration(&self, key: &str) -> Option<At<Duration>> {
        let text = self.text_of(key, self.value(key)?, "\"30m\"")?;
        match value::duration(text.value) {
            Ok(duration) => Some(text.map(|_| duration)),
            Err(why) => {
                self.bad(key, &text.span, &why, "write for example `90s`, `30m`, `1h30m` or `8d`");
                None
            }
        }
    }

    pub(crate) fn schedule(&self, key: &str) -> Option<At<Schedule>> {
        let text = self.text_of(key, self.value(key)?, "\"*/30 * * * *\"")?;
        match Schedule::parse(text.value) {
            Ok(schedule) => Some(text.map(|_| schedule)),
            Err(why) => {
                let hint = "write minute, hour, day, month and weekday, for example `*/30 * * * *`";
                let why = why.trim_end_matches('.');
                self.bad(key, &text.span, &format!("not a schedule: {why}"), hint);
                None
            }
        }
    }

    /// One of the words the table of keys allows.
    pub(crate) fn choice(&self, key: &str) -> Option<At<&'static str>> {
        let allowed = self.keys.iter().find(|known| known.name == key).map_or(&[][..], |known| match known.shape {
            Shape::Choice(words) => words,
            _ => &[],
        });
        let example = format!("\"{}\"", allowed.first().unwrap_or(&""));
        let text = self.text_of(key, self.value(key)?, &example)?;
        if let Some(word) = allowed.iter().find(|word| **word == text.value) {
            return Some(text.map(|_| *word));
        }
        let list = || format!("write one of `{}`", allowed.join("`, `"));
        let hint = value::nearest(text.value, allowed.iter().copied())
            .map_or_else(list, |near| format!("did you mean `{near}`?"));
        let why = format!("`{}` is not known", text.value.escape_debug());
        self.bad(key, &text.span, &why, hint);
        None
    }

    /// A reference to a secret.
    pub(crate) fn secret(&self, key: &str) -> Option<SecretRef> {
        let text = self.text_of(key, self.value(key)?, "\"file:/etc/rekindle/secret\"")?;
        let place = format!("{}: {}", self.sink.place(&text.span), self.key(key));
        match SecretRef::parse(text.value, place, &self.sink.directory()) {
            Ok(reference) => Some(reference),
            Err((why, hint)) => {
                self.bad(key, &text.span, &why, hint);
                None
            }
        }
    }

    /// A literal, or a reference when it looks like one.
    pub(crate) fn text_or_secret(&self, key: &str) -> Option<Value> {
        let text = self.text_of(key, self.value(key)?, "\"…\"")?;
        let is_reference = ["file:", "env:", "command:", "credential:"].iter().any(|form| text.value.starts_with(form));
        if is_reference { self.secret(key).map(Value::Reference) } else { Some(Value::Literal(text.value.to_owned())) }
    }

    fn list(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Vec<At<&'a str>>> {
        let DeValue::Array(items) = value.get_ref() else {
            self.shape_fault(key, value, "a list of texts", "[\"…\"]");
            return None;
        };
        let mut list: Vec<At<&str>> = Vec::new();
        for item in items {
            let Some(text) = self.text_of(key, item, "[\"…\"]") else {
                continue;
            };
            if list.iter().any(|before| before.value == text.value) {
                let why = format!("`{}` stands twice", text.value.escape_debug());
                self.bad(key, &text.span, &why, "remove one");
                continue;
            }
            list.push(text);
        }
        (list.len() == items.len()).then_some(list)
    }

    /// A list of different texts; empty when the key is not there.
    pub(crate) fn texts(&self, key: &str) -> Option<At<Vec<At<&'a str>>>> {
        let value = self.value(key)?;
        Some(At { value: self.list(key, value)?, span: value.span() })
    }

    /// `"all"` (`None` inside) or a list of different texts.
    pub(crate) fn all_or_texts(&self, key: &str) -> Option<At<Option<Vec<String>>>> {
        let value = self.value(key)?;
        let span = value.span();
        if let DeValue::String(text) = value.get_ref() {
            if text == "all" {
                return Some(At { value: None, span });
            }
            let hint = format!("write `{key} = [\"{}\"]` or `\"all\"`", text.escape_debug());
            self.bad(key, &span, "it must be a list, or the word \"all\"", hint);
            return None;
        }
        let list = self.list(key, value)?;
        if list.is_empty() {
            self.bad(key, &span, "the list is empty", "name at least one, or write \"all\"");
            return None;
        }
        let names = list.into_iter().map(|at| at.value.to_owned()).collect();
        Some(At { value: Some(names), span })
    }

    /// Commands: texts for the shell, or programs with arguments.
    pub(crate) fn commands(&self, key: &str) -> Vec<Command> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let example = "[[\"systemctl\", \"reload\", \"app\"]]";
        let DeValue::Array(items) = value.get_ref() else {
            self.shape_fault(key, value, "a list of commands", example);
            return Vec::new();
        };
        let mut list = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(_) => {
                    let line = self.text_of(key, item, example);
                    list.extend(
                        line.map(|line| Command { argv: vec!["/bin/sh".into(), "-c".into(), line.value.into()] }),
                    );
                }
                DeValue::Array(words) if words.is_empty() => {
                    self.bad(key, &item.span(), "a command is empty", "name a program");
                }
                DeValue::Array(words) => {
                    let argv: Vec<String> = words
                        .iter()
                        .filter_map(|word| self.text_of(key, word, example))
                        .map(|word| word.value.to_owned())
                        .collect();
                    list.extend((argv.len() == words.len()).then_some(Command { argv }));
                }
                _ => self.shape_fault(key, item, "a text or a list of texts", example),
            }
        }
        list
    }

    /// A table below this one.
    pub(crate) fn table(&self, key: &str, keys: &'static [Key]) -> Option<Section<'a>> {
        let (table, span) = self.raw_table(key)?;
        Some(Section::new(self.key(key), table, span, keys, self.sink))
    }

    /// A table below this one whose keys are not known yet.
    pub(crate) fn raw_table(&self, key: &str) -> Option<(&'a DeTable<'a>, Range<usize>)> {
        let value = self.table.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            // The span of a table made by dotted keys or sub-tables only is empty at its start.
            let span = self.table.get_key_value(key).map_or_else(|| value.span(), |(name, _)| name.span());
            return Some((table, span));
        }
        self.shape_fault(key, value, "a table", "{ … }");
        None
    }
}
