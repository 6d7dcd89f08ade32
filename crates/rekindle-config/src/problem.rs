//! What is wrong with a configuration file, and where.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rekindle_core::{ErrorCode, Fault};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: &'static ErrorCode,
    /// Counted from 1; `None` when the problem is about the file as a whole.
    pub line: Option<usize>,
    /// Counted from 1, in characters.
    pub column: Option<usize>,
    /// What is wrong, with the key's full name.
    pub text: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Everything that is wrong with one file, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub file: PathBuf,
    pub list: Vec<Problem>,
}

impl Problem {
    /// This problem as an error of its own.
    pub fn fault(&self, file: &Path) -> Fault {
        let fault = Fault::new(self.code, self.place(file)).because(self.text.clone());
        match &self.hint {
            Some(hint) => fault.hint(hint.clone()),
            None => fault,
        }
    }

    /// `file:line:column`, as editors understand it.
    fn place(&self, file: &Path) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", file.display()),
            _ => file.display().to_string(),
        }
    }
}

impl Problems {
    /// One problem that is not about a line.
    pub(crate) fn of_file(file: &Path, code: &'static ErrorCode, text: String, hint: String) -> Self {
        Self { file: file.to_owned(), list: vec![Problem { code, line: None, column: None, text, hint: Some(hint) }] }
    }

    /// Each problem as an error of its own.
    pub fn faults(&self) -> Vec<Fault> {
        self.list.iter().map(|one| one.fault(&self.file)).collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", problem.place(&self.file), problem.text)?;
            if let Some(hint) = &problem.hint {
                write!(f, " ({hint})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Takes problems while a file is read; knows how to turn a byte offset into a line.
pub(crate) struct Sink<'a> {
    file: &'a Path,
    text: &'a str,
    found: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, found: RefCell::new(Vec::new()) }
    }

    /// The directory that relative paths of this file start from.
    pub(crate) fn directory(&self) -> PathBuf {
        match self.file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// Where a byte offset is, for people.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Where a value stands, as `file:line`.
    pub(crate) fn place(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.file.display(), self.position(span.start).0)
    }

    pub(crate) fn add(
        &self,
        code: &'static ErrorCode,
        span: Range<usize>,
        text: impl Into<String>,
        hint: Option<String>,
    ) {
        let (line, column) = self.position(span.start);
        let problem = Problem { code, line: Some(line), column: Some(column), text: text.into(), hint };
        self.found.borrow_mut().push((span.start, problem));
    }

    /// `Some` value and no problems, or all problems in the order of the lines.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        match value {
            Some(value) if found.is_empty() => Ok(value),
            _ => Err(Problems {
                file: self.file.to_owned(),
                list: found.into_iter().map(|(_, problem)| problem).collect(),
            }),
        }
    }
}
