//! Names in trees: bytes of any kind as text, as Go's `strconv.Quote` and `Unquote` do it, without
//! the quotes around.

use std::fmt::Write as _;

use super::BadFormat;

/// Appends the quoted form of `name`.
pub fn quote(name: &[u8], out: &mut String) {
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            quote_char(character, out);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

fn quote_char(character: char, out: &mut String) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        ' '..='~' => out.push(character),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        _ if printable(character) => out.push(character),
        _ => {
            let code = u32::from(character);
            let _ = match code {
                0..=0x1f | 0x7f => write!(out, "\\x{code:02x}"),
                0x80..=0xffff => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

/// Go prints letters, marks, numbers, punctuation, symbols and the ASCII space as they are. Rust's
/// debug escaping draws the same line, except that it also escapes a combining mark at the start
/// of a text; hence the letter before it.
fn printable(character: char) -> bool {
    let mut utf8 = [0; 5];
    utf8[0] = b'a';
    let length = character.encode_utf8(&mut utf8[1..]).len();
    std::str::from_utf8(&utf8[..=length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

/// The bytes behind a quoted name.
pub fn unquote(text: &str) -> Result<Vec<u8>, BadFormat> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        name.extend_from_slice(&rest.as_bytes()[..at]);
        rest = unescape(&rest[at + 1..], &mut name)?;
    }
    name.extend_from_slice(rest.as_bytes());
    Ok(name)
}

fn unescape<'a>(text: &'a str, name: &mut Vec<u8>) -> Result<&'a str, BadFormat> {
    let bad = || BadFormat::new("a name has an escape that is not valid");
    let letter = *text.as_bytes().first().ok_or_else(bad)?;
    let simple = match letter {
        b'a' => Some(7),
        b'b' => Some(8),
        b'f' => Some(0xc),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(0xb),
        b'\\' | b'"' | b'\'' => Some(letter),
        _ => None,
    };
    if let Some(byte) = simple {
        name.push(byte);
        return Ok(&text[1..]);
    }
    let (start, digits, radix) = match letter {
        b'x' => (1, 2, 16),
        b'u' => (1, 4, 16),
        b'U' => (1, 8, 16),
        b'0'..=b'7' => (0, 3, 8),
        _ => return Err(bad()),
    };
    let number = text.get(start..start + digits).ok_or_else(bad)?;
    if !number.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let code = u32::from_str_radix(number, radix).map_err(|_| bad())?;
    if matches!(letter, b'u' | b'U') {
        let character = char::from_u32(code).ok_or_else(bad)?;
        name.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        name.push(u8::try_from(code).map_err(|_| bad())?);
    }
    Ok(&text[start + digits..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(name: &[u8]) -> String {
        let mut out = String::new();
        quote(name, &mut out);
        out
    }

    #[test]
    fn as_go_quotes() {
        // By the rules of Go's strconv.Quote.
        for (name, expected) in [
            (&b"plain.txt"[..], "plain.txt"),
            (b"a\"b\\c", "a\\\"b\\\\c"),
            (b"tab\tnl\nbell\x07esc\x1bdel\x7f", "tab\\tnl\\nbell\\aesc\\x1bdel\\x7f"),
            (b"\xff\xfeok", "\\xff\\xfeok"),
            (b"caf\xc3", "caf\\xc3"),
            ("Übergröße 日本 🎉".as_bytes(), "Übergröße 日本 🎉"),
            ("\u{a0}|\u{200b}|\u{ad}".as_bytes(), "\\u00a0|\\u200b|\\u00ad"),
            ("\u{301}e\u{301}".as_bytes(), "\u{301}e\u{301}"),
            ("\u{e0001}".as_bytes(), "\\U000e0001"),
            ("\u{fffd}".as_bytes(), "\u{fffd}"),
            (b"'single'", "'single'"),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn broken_escapes_are_errors() {
        for bad in
            ["\\", "\\x", "\\x1", "\\xzz", "\\u12", "\\ud800", "\\U00110000", "\\q", "\\9", "\\777", "\\x+1", "\\é"]
        {
            assert!(unquote(bad).is_err(), "{bad}");
        }
        assert_eq!(unquote("\\101\\'"), Ok(b"A'".to_vec()));
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unquote(&quoted(&name)), Ok(name));
        }

        #[test]
        fn hostile_text_does_not_panic(text in "[\\\\xuU0-9a-f\"é]*") {
            let _ = unquote(&text);
        }
    }
}
