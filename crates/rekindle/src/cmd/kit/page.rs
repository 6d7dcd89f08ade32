//! A printable page: the same content as plain text and as HTML without anything from outside.

use std::fmt::Write as _;

/// Widest line of the plain text.
const WIDTH: usize = 78;

/// A piece of a page.
#[derive(Debug, Clone)]
pub(super) enum Block {
    Text(String),
    /// Numbered steps, each with commands to type.
    Step(String, Vec<String>),
    /// A label and a value that is copied exactly.
    Value(&'static str, String),
    /// A secret, line by line.
    Secret(String),
    /// A label and room to write by hand.
    Blank(String),
}

/// A heading and what stands below it.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) blocks: Vec<Block>,
}

/// A page to print.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// Marks around a share, so that it can be read back out of the file.
pub(super) const BEGIN: &str = "-----BEGIN REKINDLE SHARE-----";
pub(super) const END: &str = "-----END REKINDLE SHARE-----";

// Writing into a `String` cannot fail.
impl Page {
    /// Lines of at most 78 characters, but for what must not be broken.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.title, "=".repeat(self.title.chars().count()));
        for section in &self.sections {
            let _ = write!(text, "\n{}\n{}\n", section.title, "-".repeat(section.title.chars().count()));
            let mut number = 0;
            for block in &section.blocks {
                match block {
                    Block::Text(words) => wrap(words, "", &mut text),
                    Block::Step(words, commands) => {
                        number += 1;
                        text.push('\n');
                        wrap(words, &format!("{number}. "), &mut text);
                        for command in commands {
                            let _ = writeln!(text, "\n       {command}");
                        }
                    }
                    Block::Value(label, value) => {
                        let _ = writeln!(text, "{label:<12} {value}");
                    }
                    Block::Secret(lines) => {
                        text.push('\n');
                        for line in lines.lines() {
                            let _ = writeln!(text, "    {line}");
                        }
                        text.push('\n');
                    }
                    Block::Blank(label) => {
                        let _ = writeln!(text, "{label}: ______________________________");
                    }
                }
            }
        }
        text
    }

    /// One file, for a browser's print.
    pub(super) fn to_html(&self) -> String {
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
            title = escape(&self.title)
        );
        for section in &self.sections {
            let _ = writeln!(html, "<h2>{}</h2>", escape(section.title));
            let mut number = 0;
            for block in &section.blocks {
                match block {
                    Block::Text(words) => {
                        let _ = writeln!(html, "<p>{}</p>", escape(words));
                    }
                    Block::Step(words, commands) => {
                        number += 1;
                        let _ = writeln!(html, "<div class=\"step\"><p>{number}. {}</p>", escape(words));
                        for command in commands {
                            let _ = writeln!(html, "<pre>{}</pre>", escape(command));
                        }
                        html.push_str("</div>\n");
                    }
                    Block::Value(label, value) => {
                        let _ = writeln!(html, "<p><b>{}</b> <code>{}</code></p>", escape(label), escape(value));
                    }
                    Block::Secret(lines) => {
                        let _ = writeln!(html, "<pre class=\"secret\">{}</pre>", escape(lines));
                    }
                    Block::Blank(label) => {
                        let _ = writeln!(html, "<p class=\"blank\">{}:</p>", escape(label));
                    }
                }
            }
        }
        html.push_str("</body>\n</html>\n");
        html
    }
}

const STYLE: &str = "body{font:11pt/1.45 Georgia,serif;max-width:44em;margin:2em auto;padding:0 1em;color:#000;\
background:#fff}h1{font-size:1.6em}h2{font-size:1.15em;border-bottom:1px solid #000;margin-top:1.6em}\
code,pre{font:10pt/1.5 monospace;overflow-wrap:anywhere;white-space:pre-wrap}pre{background:#f2f2f2;padding:.5em .8em}\
.secret{border:2px solid #000;background:#fff;font-size:12pt}.step{break-inside:avoid}\
.blank{border-bottom:1px solid #000;padding-top:.8em}@media print{body{margin:0}pre{background:none;border:1px solid #999}}";

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

fn wrap(words: &str, first: &str, text: &mut String) {
    let indent = " ".repeat(first.chars().count());
    let mut line = first.to_owned();
    for word in words.split_whitespace() {
        if line.chars().count() + word.chars().count() > WIDTH && line.trim() != first.trim() {
            text.push_str(line.trim_end());
            text.push('\n');
            line.clone_from(&indent);
        }
        line.push_str(word);
        line.push(' ');
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_hold_everything_and_html_is_safe() {
        let blocks = vec![
            Block::Text("some words ".repeat(20)),
            Block::Step("do <this>".to_owned(), vec!["rekindle a && b".to_owned()]),
            Block::Value("URL", "s3://b/p?region=\"x\"".to_owned()),
            Block::Secret("AAAAA-BBBBB\nCCCCC".to_owned()),
            Block::Blank("Holder".to_owned()),
        ];
        let page = Page { title: "Kit".to_owned(), sections: vec![Section { title: "One", blocks }] };
        let (text, html) = (page.to_text(), page.to_html());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH + 1), "{text}");
        for part in ["1. do <this>", "rekindle a && b", "AAAAA-BBBBB\n    CCCCC", "Holder: ___"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for part in ["1. do &lt;this&gt;", "a &amp;&amp; b", "region=&quot;x&quot;", "AAAAA-BBBBB\nCCCCC"] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"));
    }
}
