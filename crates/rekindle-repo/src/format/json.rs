//! JSON text as Go's encoder writes it, so that the same directory gives the same tree blob.

/// Appends `text` as a JSON string with Go's escapes (`<`, `>`, `&` and the line separators
/// included).
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                push_unit(out, u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn push_unit(out: &mut String, unit: u32) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from_digit(unit >> shift & 15, 16).unwrap_or('0'));
    }
}

/// Appends a decimal number.
pub fn push_number(out: &mut String, value: u64) {
    use std::fmt::Write as _;
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        push_string(&mut out, "a\"\\<>&\n\u{1}\u{2028}é\u{7f}");
        assert_eq!(out, "\"a\\\"\\\\\\u003c\\u003e\\u0026\\n\\u0001\\u2028é\u{7f}\"");
        let back: String = serde_json::from_str(&out).unwrap();
        assert_eq!(back, "a\"\\<>&\n\u{1}\u{2028}é\u{7f}");
    }
}
