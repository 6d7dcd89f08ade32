//! The one shape of every error: a stable code, what failed on what, why, and what to do next.

pub mod codes;

use std::error::Error as StdError;
use std::fmt;

/// Result with the error of this program.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// What an error means for the caller; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Failed, nothing more exact to say.
    Failed,
    /// Wrong command line.
    Usage,
    /// A point was committed but something is missing from it.
    Partial,
    /// Everything ran, but the answer is no (verification failed, objective missed).
    Negative,
    /// The configuration is invalid.
    Config,
    /// There is no repository at that place.
    NoRepository,
    /// Another run holds the repository or the component.
    Locked,
    /// The key does not open the repository.
    WrongKey,
    /// The repository holds damaged or missing objects.
    Damaged,
    /// A source, target or the storage cannot be reached or refuses the credentials.
    Unreachable,
    /// Refused, because going on could destroy data.
    Refused,
    /// A broken invariant of our own.
    Bug,
    /// A hook asked to skip this run without calling it a failure.
    SoftSkip,
    /// Stopped by SIGINT.
    Interrupted,
    /// Stopped by SIGTERM.
    Terminated,
}

impl Class {
    /// The stable exit code of the process for this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Negative => 4,
            Self::Config => 5,
            Self::NoRepository => 10,
            Self::Locked => 11,
            Self::WrongKey => 12,
            Self::Damaged => 13,
            Self::Unreachable => 20,
            Self::Refused => 21,
            Self::Bug => 70,
            Self::SoftSkip => 75,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call fails again.
    Never,
    /// A later call may succeed by itself.
    Backoff,
    /// Somebody has to change something first.
    AfterFix,
}

/// One documented kind of error. `docs/errors/<id>.md` explains each.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// Stable id, as `RK-PG-004`.
    pub id: &'static str,
    /// One line: what this error is.
    pub title: &'static str,
    /// What it means for the caller.
    pub class: Class,
    /// Whether trying again can help.
    pub retry: Retry,
}

/// An error: code, what was being done to what, its cause, and a hint.
///
/// `what` reads as verb and object (`begin backup of postgres `main``), lower-case, without a
/// final stop and without the cause; the cause is the source. Neither may hold a secret.
pub struct Fault {
    code: &'static ErrorCode,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Fault {
    /// An error without a cause below it.
    pub fn new(code: &'static ErrorCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), hint: None, source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do next: an imperative sentence, with a command where one helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts a frame around this error: same code and hint, a wider `what`, this error as the cause.
    #[must_use]
    pub fn during(mut self, what: impl Into<String>) -> Self {
        let hint = self.hint.take();
        Self { code: self.code, what: what.into(), hint, source: Some(Box::new(self)) }
    }

    /// The documented kind.
    pub fn code(&self) -> &'static ErrorCode {
        self.code
    }

    /// Whether this is an error of that kind.
    pub fn is(&self, code: &'static ErrorCode) -> bool {
        self.code.id == code.id
    }

    /// What it means for the caller.
    pub fn class(&self) -> Class {
        self.code.class
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        self.class().exit_code()
    }

    /// What was being done, on what.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do next, if there is something to say. The outermost hint wins.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// `what: cause: cause`, without code and hint.
    pub fn chain(&self) -> String {
        let mut text = self.what.clone();
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(cause) = next {
            let said = cause.to_string();
            // Some libraries repeat their source in their own text; say it once.
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Fault {
    /// Only this frame; use [`Fault::chain`] or `{:#}` for the whole story.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { f.write_str(&self.chain()) } else { f.write_str(&self.what) }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code.id, self.chain())?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl StdError for Fault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_from_the_outside_in() {
        let cause = std::io::Error::other("connection refused");
        let fault = Fault::new(codes::RUN_SIBLING, "connect to 10.0.0.5:5432")
            .because(cause)
            .hint("start the server")
            .during("begin backup of postgres `main`");
        assert_eq!(fault.chain(), "begin backup of postgres `main`: connect to 10.0.0.5:5432: connection refused");
        assert_eq!(fault.hint_text(), Some("start the server"));
        assert_eq!(fault.to_string(), "begin backup of postgres `main`");
    }
}
