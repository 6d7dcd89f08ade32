//! Names and texts inside SQL, connection strings and file names.

/// A name as an SQL identifier.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.name` as SQL identifiers.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A text as an SQL literal, right whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A connection string that names a database. A bare name would be taken for a whole connection
/// string when it holds a `=` or starts like a URL.
pub(super) fn conninfo(database: &str) -> String {
    let escaped = database.replace('\\', "\\\\").replace('\'', "\\'");
    format!("dbname='{escaped}'")
}

/// A database name as a file name: everything but `A-Z a-z 0-9 _ -` and inner dots is
/// percent-encoded, so different names stay different and none is special.
pub(super) fn file_name(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => text.push(char::from(byte)),
            b'.' if at > 0 => text.push('.'),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// `base` with `suffix`, cut so that both fit into an identifier (63 bytes).
pub(super) fn with_suffix(base: &str, suffix: &str) -> String {
    const IDENTIFIER_MAX: usize = 63;
    let mut end = base.len().min(IDENTIFIER_MAX.saturating_sub(suffix.len()));
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_keeps_odd_names_inside() {
        assert_eq!(ident(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
        assert_eq!(conninfo(r"a='b\"), r"dbname='a=\'b\\'");
    }

    #[test]
    fn file_names_are_safe_and_distinct() {
        assert_eq!(file_name("../x"), "%2E.%2Fx");
        assert_eq!(file_name("a b"), "a%20b");
        assert_eq!(file_name("a%20b"), "a%2520b");
        assert_eq!(file_name("karten_ü"), "karten_%C3%BC");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let cut = with_suffix(&"ü".repeat(40), "_restored_01234567");
        assert!(cut.len() <= 63 && cut.ends_with("ü_restored_01234567"), "{cut}");
    }
}
