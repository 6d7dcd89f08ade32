//! How the write-ahead log of a component gets into the repository, and under which name the
//! server keeps it for us until it is there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The ways by which WAL reaches the log of a component that is saved by base backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalMode {
    /// `rekindle wal stream` receives it through a replication slot, to the second.
    Stream,
    /// `archive_command` hands over whole segments with `rekindle wal push`.
    Archive,
    /// Both, into the same log.
    Both,
    /// There is no log: every point stands for itself, and nothing between points can be
    /// recovered. The default, because a slot that nobody reads fills the server's disk.
    #[default]
    None,
}

impl WalMode {
    /// Whether a log is kept, so that moments between points can be recovered.
    pub fn keeps_log(self) -> bool {
        self != Self::None
    }

    /// Whether the server has a replication slot for us.
    pub fn uses_slot(self) -> bool {
        matches!(self, Self::Stream | Self::Both)
    }

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Archive => "archive",
            Self::Both => "both",
            Self::None => "none",
        }
    }
}

/// Name of a replication slot: 1 to 63 of `a-z`, `0-9` and `_` (PostgreSQL manual, 27.2.6.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotName(String);

/// Text that is no name of a replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSlotName;

impl fmt::Display for BadSlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a replication slot has 1 to 63 lower-case letters, digits and `_`")
    }
}

impl std::error::Error for BadSlotName {}

/// Bytes that a name may have (`NAMEDATALEN` - 1).
const SLOT_NAME_BYTES_MAX: usize = 63;

impl SlotName {
    /// The name for a component when the configuration gives none: `rekindle_STACK_COMPONENT`.
    /// What a slot's name cannot show is replaced, and then a few digits keep names apart.
    pub fn derived(stack: &str, component: &str) -> Self {
        let whole = format!("rekindle_{stack}_{component}");
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let plain: String = whole.to_ascii_lowercase().chars().map(|c| if allowed(c) { c } else { '_' }).collect();
        if plain == whole && plain.len() <= SLOT_NAME_BYTES_MAX {
            return Self(plain);
        }
        let mark = format!("_{:08x}", xxh3_64(whole.as_bytes()) & 0xFFFF_FFFF);
        let kept: String = plain.chars().take(SLOT_NAME_BYTES_MAX - mark.len()).collect();
        Self(kept + &mark)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SlotName {
    type Err = BadSlotName;
    fn from_str(text: &str) -> Result<Self, BadSlotName> {
        let fits = (1..=SLOT_NAME_BYTES_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if fits && plain { Ok(Self(text.to_owned())) } else { Err(BadSlotName) }
    }
}

impl TryFrom<String> for SlotName {
    type Error = BadSlotName;
    fn try_from(text: String) -> Result<Self, BadSlotName> {
        text.parse()
    }
}

impl From<SlotName> for String {
    fn from(name: SlotName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_are_names_and_stay_apart() {
        assert_eq!(SlotName::derived("shop", "database").as_str(), "rekindle_shop_database");
        let odd = SlotName::derived("Prompt-Card.System", "data-base");
        assert!(odd.as_str().starts_with("rekindle_prompt_card_system_data_base_"), "{odd}");
        assert_ne!(odd, SlotName::derived("prompt-card.system", "data-base"));
        let long = "x".repeat(200);
        for (stack, component) in [("a", long.as_str()), (long.as_str(), "b"), ("ä-ö", "c")] {
            let name = SlotName::derived(stack, component);
            assert_eq!(name.as_str().parse::<SlotName>(), Ok(name.clone()));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for bad in ["", "Slot", "a-b", "a b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad}");
        }
    }
}
