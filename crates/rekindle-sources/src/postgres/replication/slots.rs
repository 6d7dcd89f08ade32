//! Replication slots: they make the server keep WAL until we have it.

use rekindle_core::wal::{Lsn, SlotName, Timeline};
use rekindle_core::{Fault, Result, codes};

use super::answer::{ServerError, parsed, text};
use super::{Replication, Sql};

/// A physical slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The server keeps WAL from here on; `None`: nothing is reserved, or it was lost.
    pub restart: Option<Lsn>,
    /// The timeline of that position, where the server says it (15 and newer).
    pub timeline: Option<Timeline>,
}

/// A slot with everything `pg_replication_slots` says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    pub name: SlotName,
    pub slot: Slot,
    /// Whether somebody uses it right now.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that may still be written before the slot can be lost; `None`: no limit is set.
    pub safe_wal_bytes: Option<i64>,
    /// Why it was invalidated (18 and newer).
    pub invalidation: Option<String>,
}

fn named(doing: &str, name: &SlotName) -> String {
    format!("{doing} the replication slot `{name}`")
}

impl Replication {
    /// `CREATE_REPLICATION_SLOT … PHYSICAL RESERVE_WAL`: WAL is kept from this moment on.
    pub fn create_slot(&mut self, name: &SlotName) -> Result<()> {
        let what = named("create", name);
        // Read to the end, so that the slot exists when this returns.
        self.wire.answers(&what, &format!("CREATE_REPLICATION_SLOT {name} PHYSICAL RESERVE_WAL")).map(drop)
    }

    /// The same for as long as this session lives: what a base backup on it needs is not removed
    /// meanwhile.
    pub fn keep_wal(&mut self, name: &SlotName) -> Result<()> {
        let what = named("create", name);
        self.wire.answers(&what, &format!("CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL RESERVE_WAL")).map(drop)
    }

    /// `DROP_REPLICATION_SLOT … WAIT`: also when somebody has just stopped using it.
    pub fn drop_slot(&mut self, name: &SlotName) -> Result<()> {
        self.wire.answers(&named("drop", name), &format!("DROP_REPLICATION_SLOT {name} WAIT")).map(drop)
    }

    /// Drops a slot that nobody uses; an error when somebody does.
    pub fn drop_idle_slot(&mut self, name: &SlotName) -> Result<()> {
        self.wire.answers(&named("drop", name), &format!("DROP_REPLICATION_SLOT {name}")).map(drop)
    }

    /// What a slot reserves; `None`: there is no such slot. `READ_REPLICATION_SLOT` from 15 on, a
    /// query over a second connection before.
    pub fn read_slot(&mut self, name: &SlotName) -> Result<Option<Slot>> {
        if self.major() < 15 {
            return Ok(self.slot_state(name)?.map(|state| state.slot));
        }
        let answer = self.wire.answer(&named("read", name), &format!("READ_REPLICATION_SLOT {name}"))?;
        let Some(kind) = answer.first(0)? else {
            return Ok(None);
        };
        if kind != "physical" {
            return Err(logical(name));
        }
        Ok(Some(Slot {
            restart: answer.first(1)?.map(parsed).transpose()?,
            timeline: answer.first(2)?.map(parsed).transpose()?.map(Timeline),
        }))
    }

    /// Everything the server says of a slot, over a second connection; `None`: there is no such
    /// slot.
    pub fn slot_state(&mut self, name: &SlotName) -> Result<Option<SlotState>> {
        let mut sql = Sql::connect(&self.options, &self.cancel)?;
        let invalidation = if self.major() >= 17 { "invalidation_reason" } else { "NULL" };
        // A slot's name has no character that would have to be quoted.
        let query = format!(
            "SELECT slot_type, restart_lsn, active, wal_status, safe_wal_size, {invalidation} \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}'"
        );
        let answer = sql.rows(&named("read", name), &query)?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        if text(row, 0)? != Some("physical") {
            return Err(logical(name));
        }
        Ok(Some(SlotState {
            name: name.clone(),
            slot: Slot { restart: text(row, 1)?.map(parsed).transpose()?, timeline: None },
            active: text(row, 2)? == Some("t"),
            wal_status: text(row, 3)?.map(str::to_owned),
            safe_wal_bytes: text(row, 4)?.map(parsed).transpose()?,
            invalidation: text(row, 5)?.map(str::to_owned),
        }))
    }
}

fn logical(name: &SlotName) -> Fault {
    Fault::new(codes::PG_REPLICATION, named("use", name))
        .because("it is a slot for logical replication, and belongs to somebody else")
        .hint("give the component another `slot`")
}

impl ServerError {
    /// Whether a slot that was to be created is there already.
    pub fn is_duplicate(&self) -> bool {
        self.code == "42710"
    }

    /// Whether every slot of the server is taken (`max_replication_slots`).
    pub fn is_no_slot_free(&self) -> bool {
        matches!(self.code.as_str(), "53400" | "55000")
    }

    /// Whether what was asked for is not there (a slot, mostly).
    pub fn is_absent(&self) -> bool {
        self.code == "42704"
    }

    /// Whether a slot is in use by somebody else.
    pub fn is_in_use(&self) -> bool {
        self.code == "55006"
    }

    /// Whether the server no longer has WAL that was asked for, or lost the slot that kept it.
    pub fn is_wal_removed(&self) -> bool {
        match self.code.as_str() {
            // "requested WAL segment … has already been removed"
            "58P01" => true,
            // "can no longer access replication slot", "cannot read from replication slot"
            "55000" => self.message.contains("replication slot"),
            _ => false,
        }
    }
}
