//! Answers to simple queries, and errors of the server.

use std::fmt;

use rekindle_core::{Fault, Result, codes};

use super::wire::{Wire, garbled, tag};

/// An error as the server put it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, …, never translated.
    pub severity: String,
    /// SQLSTATE: five letters or digits.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// SQLSTATE of a page whose checksum is wrong.
pub(super) const DATA_CORRUPTED: &str = "XX001";

impl ServerError {
    /// Reads the body of `ErrorResponse` or `NoticeResponse`: fields, each a letter and text.
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let mut error = Self::default();
        for field in body.split(|b| *b == 0) {
            let [kind, text @ ..] = field else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                b'S' if error.severity.is_empty() => error.severity = text,
                b'V' => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                _ => {}
            }
        }
        if error.message.is_empty() && error.code.is_empty() {
            return Err(garbled("an error without code and text"));
        }
        Ok(error)
    }

    /// As an error of ours; `what` was being done.
    pub(super) fn into_fault(self, what: impl Into<String>) -> Fault {
        let code = match self.code.as_str() {
            "28000" | "28P01" => codes::PG_AUTH,
            "42501" => codes::PG_PRIVILEGE,
            "57P01" | "57P02" | "57P03" => codes::PG_RESTARTED,
            // Too many walsenders or slots, `wal_level` too low.
            "53300" | "53400" => codes::PG_REPLICATION,
            "0A000" => codes::PG_VERSION,
            _ => codes::PG_QUERY,
        };
        let hint = self.hint.clone().or_else(|| match self.code.as_str() {
            "28000" => Some(
                "add a line to the server's pg_hba.conf (`all` does not mean replication): \
                 host replication USER ADDRESS scram-sha-256; then SELECT pg_reload_conf()"
                    .to_owned(),
            ),
            "28P01" => Some("correct `password` of the component".to_owned()),
            "42501" => Some("ALTER ROLE … REPLICATION; `rekindle doctor` prints the exact statements".to_owned()),
            "53300" => Some("raise `max_wal_senders` (and `max_connections`) of the server".to_owned()),
            _ => None,
        });
        let fault = Fault::new(code, what).because(self);
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ServerError {}

/// The server's own error behind one of ours, if there is one.
pub fn server_error(fault: &Fault) -> Option<&ServerError> {
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<ServerError>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Rows as text, each value absent for NULL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

impl Rows {
    /// Text of a value of the first row; an error when there is no such row or column.
    pub(super) fn first(&self, column: usize) -> Result<Option<&str>> {
        let row = self.rows.first().ok_or_else(|| garbled("an answer without rows"))?;
        text(row, column)
    }

    /// The same for a value that is never NULL.
    pub(super) fn required(&self, column: usize) -> Result<&str> {
        self.first(column)?.ok_or_else(|| garbled("a value is NULL that never is"))
    }
}

/// Text of a value.
pub(super) fn text(row: &[Option<Vec<u8>>], column: usize) -> Result<Option<&str>> {
    let value = row.get(column).ok_or_else(|| garbled("an answer with too few columns"))?;
    let text = value.as_ref().map(|bytes| std::str::from_utf8(bytes));
    text.transpose().map_err(|_| garbled("a value that is not UTF-8"))
}

/// Reads a value that has a text form of its own.
pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| garbled(format!("`{}` stands where it makes no sense", text.escape_debug())))
}

/// Takes numbers and bytes off the front of a body.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes).ok_or_else(|| garbled("a message is cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// Bytes up to a NUL.
    pub(super) fn text(&mut self) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0).ok_or_else(|| garbled("a text without end"))?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }
}

/// Names of the columns.
pub(super) fn columns(body: &[u8]) -> Result<Vec<String>> {
    let mut body = Body(body);
    let count = body.u16()?;
    (0..count)
        .map(|_| {
            let name = String::from_utf8_lossy(body.text()?).into_owned();
            // Table, column, type, length, modifier, format.
            body.take(18)?;
            Ok(name)
        })
        .collect()
}

/// Values of a row.
pub(super) fn row(body: &[u8]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut body = Body(body);
    let count = body.u16()?;
    (0..count)
        .map(|_| match body.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| garbled("a value of negative length"))?;
                body.take(length).map(|value| Some(value.to_vec()))
            }
        })
        .collect()
}

impl Wire {
    /// Runs a command that answers with rows, to `ReadyForQuery`; every result in order.
    pub(super) fn answers(&mut self, what: &str, command: &str) -> Result<Vec<Rows>> {
        self.query(command)?;
        let mut results: Vec<Rows> = Vec::new();
        let mut failed = None;
        loop {
            let frame = self.frame()?;
            match frame.tag {
                tag::ROW_DESCRIPTION => {
                    results.push(Rows { columns: columns(frame.body)?, rows: Vec::new() });
                }
                tag::DATA_ROW => match results.last_mut() {
                    Some(result) => result.rows.push(row(frame.body)?),
                    None => return Err(garbled("a row before its description")),
                },
                tag::ERROR => {
                    failed.get_or_insert(ServerError::parse(frame.body)?);
                }
                tag::COMMAND_COMPLETE | tag::EMPTY_QUERY => {}
                tag::READY => break,
                other => return Err(unexpected(other)),
            }
        }
        match failed {
            Some(error) => Err(error.into_fault(what)),
            None => Ok(results),
        }
    }

    /// The same for a command with exactly one result.
    pub(super) fn answer(&mut self, what: &str, command: &str) -> Result<Rows> {
        self.answers(what, command)?.pop().ok_or_else(|| garbled("no rows where there should be some"))
    }

    /// Reads on to `ReadyForQuery`; gives the first error on the way.
    pub(super) fn until_ready(&mut self) -> Result<Option<ServerError>> {
        let mut failed = None;
        loop {
            let frame = self.frame()?;
            match frame.tag {
                tag::READY => return Ok(failed),
                tag::ERROR => {
                    failed.get_or_insert(ServerError::parse(frame.body)?);
                }
                _ => {}
            }
        }
    }
}

/// A message that has no place here.
pub(super) fn unexpected(tag: u8) -> Fault {
    garbled(format!("an unexpected message `{}`", char::from(tag).escape_debug()))
}
