//! What a storage really does, as found by trying.

use std::fmt;

/// The answer to one question about a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Support {
    /// Not tried.
    #[default]
    Unknown,
    /// Tried, and kept.
    Kept,
    /// Tried, and not kept. Some servers answer "done" and do something else.
    Broken,
}

impl Support {
    /// The answer of a trial.
    pub fn of(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Broken }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Kept => "yes",
            Self::Broken => "no",
        })
    }
}

/// What [`probe`](crate::probe) found out. Nothing here is assumed from the name of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities {
    /// A second put-if-absent with other bytes is refused and changes nothing.
    pub put_if_absent: Support,
    /// A fresh object can be read at once.
    pub read_after_write: Support,
    /// A range gives exactly its bytes.
    pub range: Support,
    /// A fresh object is in the listing at once.
    pub list_after_write: Support,
    /// A deleted object is gone at once.
    pub delete: Support,
}

impl Capabilities {
    /// Whether everything a repository cannot live without was tried and kept. `put_if_absent` is
    /// not among it: single-writer use is safe without it.
    pub fn is_usable(&self) -> bool {
        [self.read_after_write, self.range, self.list_after_write, self.delete].iter().all(|s| *s == Support::Kept)
    }
}
