//! Things worth saying about single entries: nothing is silently skipped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteClass {
    /// It was listed, but gone when it was to be read.
    Vanished,
    /// It changed while it was read, also at the last try; stored as last read.
    ChangedWhileRead,
    /// It could not be read; it is not in the point.
    Unreadable,
    /// A FIFO, socket or device: recorded, content not read (there is none).
    Special,
    /// Some attribute (xattr, ACL, owner name) could not be read; the content is there.
    AttributeUnreadable,
    /// Another file system or a path excluded by a rule that is not the user's own.
    NotEntered,
    /// Something of the component's surroundings (configuration, ACL file, counts) was not to be had.
    Incomplete,
    /// Its content was damaged at the source already; it is stored as it is there.
    Damaged,
    /// Worth knowing, nothing is missing.
    Information,
}

impl NoteClass {
    /// What a note of this class does to the point unless the configuration says otherwise.
    pub fn usual_severity(self) -> Severity {
        match self {
            Self::Unreadable | Self::Damaged => Severity::Partial,
            _ => Severity::Note,
        }
    }

    /// The word used in manifests and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vanished => "vanished",
            Self::ChangedWhileRead => "changed-while-read",
            Self::Unreadable => "unreadable",
            Self::Special => "special",
            Self::AttributeUnreadable => "attribute-unreadable",
            Self::NotEntered => "not-entered",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
            Self::Information => "information",
        }
    }
}

/// What a note does to the point. The third choice of a policy, failing the component, is an
/// error and not a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is listed; the point is complete.
    Note,
    /// Something that was asked for is missing: the point is partial.
    Partial,
}

/// One such thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub class: NoteClass,
    /// The path or object, escaped for reading; empty when it is about the component.
    pub subject: String,
    pub text: String,
}

/// Notes kept in full per class; beyond it they are only counted.
pub const NOTES_PER_CLASS_MAX: u64 = 10_000;

/// All notes of one component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Notes {
    /// How many there were of each class.
    pub counts: BTreeMap<NoteClass, u64>,
    /// How many of them make the point partial.
    #[serde(default)]
    pub partial: u64,
    /// The notes themselves, at most [`NOTES_PER_CLASS_MAX`] of each class.
    pub listed: Vec<Note>,
}

impl Notes {
    /// Counts and keeps a note of the usual severity.
    pub fn add(&mut self, class: NoteClass, subject: impl Into<String>, text: impl Into<String>) {
        self.add_as(class.usual_severity(), class, subject, text);
    }

    /// Counts and keeps a note of the severity that the configuration gives it.
    pub fn add_as(
        &mut self,
        severity: Severity,
        class: NoteClass,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) {
        self.partial += u64::from(severity == Severity::Partial);
        let count = self.counts.entry(class).or_default();
        *count += 1;
        if *count <= NOTES_PER_CLASS_MAX {
            self.listed.push(Note { class, subject: subject.into(), text: text.into() });
        }
    }

    /// Takes over what was noted elsewhere about the same component.
    pub fn merge(&mut self, other: Self) {
        self.partial += other.partial;
        self.listed.extend(other.listed);
        for (class, count) in other.counts {
            *self.counts.entry(class).or_default() += count;
        }
    }

    /// How many there were of a class.
    pub fn count(&self, class: NoteClass) -> u64 {
        self.counts.get(&class).copied().unwrap_or(0)
    }

    /// Whether any of them makes the point partial.
    pub fn make_partial(&self) -> bool {
        self.partial > 0
    }
}

/// Notes collected from several threads.
#[derive(Debug, Clone, Default)]
pub struct Notebook(Arc<Mutex<Notes>>);

impl Notebook {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and keeps a note.
    pub fn add(&self, class: NoteClass, subject: impl Into<String>, text: impl Into<String>) {
        self.lock().add(class, subject, text);
    }

    /// Counts and keeps a note of the severity that the configuration gives it.
    pub fn add_as(&self, severity: Severity, class: NoteClass, subject: impl Into<String>, text: impl Into<String>) {
        self.lock().add_as(severity, class, subject, text);
    }

    /// What was noted so far.
    pub fn notes(&self) -> Notes {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_counted_beyond_the_list() {
        let mut notes = Notes::default();
        for n in 0..NOTES_PER_CLASS_MAX + 5 {
            notes.add(NoteClass::Vanished, n.to_string(), "gone");
        }
        assert_eq!(notes.count(NoteClass::Vanished), NOTES_PER_CLASS_MAX + 5);
        assert_eq!(notes.listed.len() as u64, NOTES_PER_CLASS_MAX);
        assert!(!notes.make_partial());
        notes.add(NoteClass::Unreadable, "x", "permission denied");
        assert!(notes.make_partial());
    }
}
