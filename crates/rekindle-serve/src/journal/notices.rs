//! What was told, and messages on their way.

use jiff::Timestamp;
use rekindle_core::Result;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Journal, SET_FACT, failed, from_ms, to_ms};

/// A condition that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub key: String,
    pub event: String,
    pub since: Timestamp,
    /// When it was told last.
    pub told: Timestamp,
    pub text: String,
}

/// A message to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    pub id: i64,
    pub target: String,
    /// The event as JSON.
    pub event: String,
    pub made: Timestamp,
    pub attempts: u32,
}

/// What is told, and remembered, at one moment.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Conditions that are there, or are told again.
    pub open: Vec<Open>,
    /// Keys of conditions that are over.
    pub close: Vec<String>,
    /// Messages to put on their way: receiver and event.
    pub parcels: Vec<(String, String)>,
    /// A fact to remember with them: name and value.
    pub fact: Option<(String, String)>,
}

/// Facts that say of a receiver what it never got begin with this.
const LOST: &str = "lost ";

/// The newest message that a receiver never got: nobody tries any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub receiver: String,
    /// When it was given up.
    pub given_up: Timestamp,
    /// What it would have said.
    pub title: String,
    /// Why it did not arrive; without the URL, which may be a secret.
    pub why: String,
}

impl Journal {
    /// The open condition of this key.
    pub fn notice(&self, key: &str) -> Result<Option<Open>> {
        let sql = "SELECT key, event, since, told, text FROM notice WHERE key = ?1";
        self.db
            .query_row(sql, [key], |row| {
                Ok(Open {
                    key: row.get(0)?,
                    event: row.get(1)?,
                    since: from_ms(row.get(2)?),
                    told: from_ms(row.get(3)?),
                    text: row.get(4)?,
                })
            })
            .optional()
            .map_err(|error| self.failed("read the journal", error))
    }

    /// Writes it all down or, after a crash, nothing.
    pub fn tell(&mut self, news: &News, now: Timestamp) -> Result<()> {
        let mut write = || -> rusqlite::Result<()> {
            let work = self.db.transaction()?;
            for open in &news.open {
                work.execute(
                    "INSERT INTO notice (key, event, since, told, text) VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (key) DO UPDATE SET event = ?2, since = ?3, told = ?4, text = ?5",
                    params![open.key, open.event, to_ms(open.since), to_ms(open.told), open.text],
                )?;
            }
            for key in &news.close {
                work.execute("DELETE FROM notice WHERE key = ?1", [key])?;
            }
            for (target, event) in &news.parcels {
                work.execute(
                    "INSERT INTO parcel (target, event, made, attempts, next) VALUES (?1, ?2, ?3, 0, ?3)",
                    params![target, event, to_ms(now)],
                )?;
            }
            if let Some((name, value)) = &news.fact {
                work.execute(SET_FACT, [name, value])?;
            }
            work.commit()
        };
        let written: rusqlite::Result<()> = write();
        written.map_err(|error| self.failed("write the journal", error))
    }

    /// Messages whose time has come, oldest first.
    pub fn parcels_due(&self, now: Timestamp, most: u32) -> Result<Vec<Parcel>> {
        let list = || -> rusqlite::Result<Vec<Parcel>> {
            self.db
                .prepare("SELECT id, target, event, made, attempts FROM parcel WHERE next <= ?1 ORDER BY id LIMIT ?2")?
                .query_map(params![to_ms(now), most], |row| {
                    Ok(Parcel {
                        id: row.get(0)?,
                        target: row.get(1)?,
                        event: row.get(2)?,
                        made: from_ms(row.get(3)?),
                        attempts: row.get(4)?,
                    })
                })?
                .collect()
        };
        list().map_err(|error| self.failed("read the journal", error))
    }

    /// How many messages wait.
    pub fn parcels_waiting(&self) -> Result<i64> {
        self.db
            .query_row("SELECT count(*) FROM parcel", [], |row| row.get(0))
            .map_err(|error| self.failed("read the journal", error))
    }

    /// A message arrived, or nobody tries any more.
    pub fn parcel_done(&self, id: i64) -> Result<()> {
        self.change("DELETE FROM parcel WHERE id = ?1", [id])
    }

    /// A message is given up. What is remembered of it comes first: after a crash it is tried once more.
    pub fn parcel_lost(&self, id: i64, lost: &Lost) -> Result<()> {
        let text = serde_json::to_string(lost)
            .map_err(|error| failed(&self.path, "remember a message that is given up in").because(error))?;
        self.set_fact(&format!("{LOST}{}", lost.receiver), &text)?;
        self.parcel_done(id)
    }

    /// The newest message of each receiver that was given up since then.
    pub fn lost_since(&self, moment: Timestamp) -> Result<Vec<Lost>> {
        let list = || -> rusqlite::Result<Vec<String>> {
            self.db
                .prepare("SELECT value FROM fact WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name")?
                .query_map([LOST], |row| row.get(0))?
                .collect()
        };
        let texts = list().map_err(|error| self.failed("read the journal", error))?;
        let mut all = Vec::new();
        for text in texts {
            let lost: Lost = serde_json::from_str(&text)
                .map_err(|error| failed(&self.path, "read which messages were given up in").because(error))?;
            all.extend((lost.given_up >= moment).then_some(lost));
        }
        Ok(all)
    }

    /// A message is tried again later.
    pub fn parcel_later(&self, id: i64, next: Timestamp) -> Result<()> {
        self.change("UPDATE parcel SET attempts = attempts + 1, next = ?2 WHERE id = ?1", params![id, to_ms(next)])
    }
}
