//! Whatever stands in a file: an answer, never a panic.

use std::path::Path;

use proptest::prelude::*;
use rekindle_config::parse;

const EXAMPLE: &str = include_str!("../../../../examples/rekindle.toml");

fn judged(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = parse(Path::new("x.toml"), text) {
        prop_assert!(!problems.list.is_empty());
        let lines = text.matches('\n').count() + 1;
        for problem in &problems.list {
            prop_assert!((1..=lines).contains(&problem.line.unwrap_or(0)), "{problem:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        judged(&text)?;
    }

    #[test]
    fn any_text_of_tomls_alphabet(text in "[a-z\\[\\]{}=\"'.,#\n 0-9:/@_-]{0,200}") {
        judged(&text)?;
    }

    /// The example with one stretch replaced by anything.
    #[test]
    fn a_damaged_example(start in 0..EXAMPLE.len(), length in 0..60usize, with in "\\PC{0,20}") {
        let end = (start + length).min(EXAMPLE.len());
        judged(&format!("{}{with}{}", &EXAMPLE[..start], &EXAMPLE[end..]))?;
    }

    /// One value of the example replaced by a value of any type.
    #[test]
    fn another_value(line in 0..EXAMPLE.lines().count(), value in prop_oneof![
        Just("1"), Just("-1"), Just("1.5"), Just("true"), Just("\"\""), Just("\"x\""), Just("[]"),
        Just("[[]]"), Just("[1]"), Just("{}"), Just("{ a = 1 }"), Just("1979-05-27"),
        Just("99999999999999999999"), Just("0xffffffffffffffff"), Just("\"\\u0000\""),
    ]) {
        let text: String = EXAMPLE
            .lines()
            .enumerate()
            .map(|(n, text)| match text.split_once(" = ") {
                Some((key, _)) if n == line => format!("{key} = {value}\n"),
                _ => format!("{text}\n"),
            })
            .collect();
        judged(&text)?;
    }
}
