//! What a command answers, as text or as one JSON object; and errors.

use std::fmt::Write as _;

use std::io::{self, Write};

use rekindle_core::{Fault, codes};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::exit::Reader;

/// Version of the JSON object around every answer.
const JSON_VERSION: u32 = 1;

/// What a command answers.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The `result` of the JSON object.
    result: Value,
    text: String,
    /// The text only tells that something was done: `--quiet` leaves it out.
    words: bool,
    exit_code: u8,
    /// Errors that belong to an answer: a partial point, a restore that lost something.
    faults: Vec<Fault>,
}

impl Answer {
    /// An answer that somebody asked for.
    pub(crate) fn data(result: impl Serialize, text: impl Into<String>) -> Self {
        Self {
            // Only maps with keys that are no texts fail, and our types have none.
            result: serde_json::to_value(result).unwrap_or(Value::Null),
            text: text.into(),
            ..Self::default()
        }
    }

    /// An answer that tells what was done.
    pub(crate) fn words(result: impl Serialize, text: impl Into<String>) -> Self {
        Self { words: true, ..Self::data(result, text) }
    }

    /// With an exit code other than 0.
    pub(crate) fn exit(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }

    /// With one more field of the result (when that is an object), and more text.
    pub(crate) fn adding(mut self, key: &str, value: Value, text: &str) -> Self {
        if let Value::Object(object) = &mut self.result {
            object.insert(key.to_owned(), value);
        }
        self.text.push_str(text);
        self
    }

    /// Its exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The code of its first error, as `RK-RP-003`.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.faults.first().map(|fault| fault.code().id.to_owned())
    }

    /// What it says as data.
    pub(crate) fn result(&self) -> &Value {
        &self.result
    }

    /// With an error; its exit code, unless there is one already.
    pub(crate) fn worse(mut self, fault: Fault) -> Self {
        if self.exit_code == 0 {
            self.exit_code = fault.exit_code();
        }
        self.with_fault(fault)
    }

    /// With an error that says why the answer is not good.
    pub(crate) fn with_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

/// How a command ended.
pub(crate) enum Outcome {
    Answered(Answer),
    /// The command wrote its data to standard output itself.
    Streamed,
    /// One error, or all problems of a configuration.
    Failed(Vec<Fault>),
}

impl From<Result<Answer, Fault>> for Outcome {
    fn from(result: Result<Answer, Fault>) -> Self {
        match result {
            Ok(answer) => Self::Answered(answer),
            Err(fault) => Self::Failed(vec![fault]),
        }
    }
}

/// Prints an outcome and gives the exit code.
pub(crate) fn print(outcome: Outcome, command: &str, as_json: bool, quiet: bool, reader: Reader) -> u8 {
    let (answer, faults, mut exit_code) = match outcome {
        Outcome::Streamed => return 0,
        Outcome::Answered(mut answer) => {
            let faults = std::mem::take(&mut answer.faults);
            let code = reader.answered(answer.exit_code);
            (Some(answer), faults, code)
        }
        Outcome::Failed(faults) => {
            let code = reader.failed(faults.first().map_or(1, Fault::exit_code));
            (None, faults, code)
        }
    };
    let written = if as_json {
        let result = answer.map(|answer| answer.result);
        write_json(&json_object(command, exit_code, result, &faults))
    } else {
        match answer {
            Some(answer) if !(quiet && answer.words) => write_text(&answer.text),
            _ => Ok(()),
        }
    };
    for fault in &faults {
        print_fault(fault);
    }
    if let Err(fault) = written {
        print_fault(&fault);
        exit_code = if exit_code == 0 { reader.failed(fault.exit_code()) } else { exit_code };
    }
    exit_code
}

fn json_object(command: &str, exit_code: u8, result: Option<Value>, faults: &[Fault]) -> Value {
    let mut object = Map::new();
    object.insert("version".to_owned(), json!(JSON_VERSION));
    object.insert("command".to_owned(), json!(command));
    object.insert("exit_code".to_owned(), json!(exit_code));
    if let Some(result) = result {
        object.insert("result".to_owned(), result);
    }
    if let Some(first) = faults.first() {
        object.insert("error".to_owned(), fault_object(first));
    }
    if faults.len() > 1 {
        let all = faults.iter().map(fault_object).collect();
        object.insert("errors".to_owned(), Value::Array(all));
    }
    Value::Object(object)
}

/// An error as data.
pub(crate) fn fault_object(fault: &Fault) -> Value {
    json!({
        "code": fault.code().id,
        "message": fault.chain(),
        "hint": fault.hint_text(),
    })
}

/// The JSON object of a wrong command line.
pub(crate) fn print_usage_fault(fault: &Fault) {
    let object = json_object("", fault.exit_code(), None, std::slice::from_ref(fault));
    // The message stands on standard error already.
    let _ = write_json(&object);
}

fn write_json(object: &Value) -> Result<(), Fault> {
    let mut text = serde_json::to_string_pretty(object)
        .map_err(|error| Fault::new(codes::RUN_BUG, "write the answer").because(error))?;
    text.push('\n');
    write_text(&text)
}

/// Writes to standard output. A reader that has gone away has read enough: no error.
pub(crate) fn write_text(text: &str) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    closed_is_fine(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Turns a failed write to standard output into our error, a closed pipe into success.
pub(crate) fn closed_is_fine(written: io::Result<()>) -> Result<(), Fault> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Fault::new(codes::CLI_OUTPUT, "write to standard output")
            .because(error)
            .hint("write to a file on another disk")),
    }
}

/// `error[CODE]: chain` and `hint: …` on standard error.
pub(crate) fn print_fault(fault: &Fault) {
    let mut text = format!("error[{}]: {}\n", fault.code().id, fault.chain());
    if let Some(hint) = fault.hint_text() {
        let _ = writeln!(text, "hint: {hint}");
    }
    // There is no other place left to complain to.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
