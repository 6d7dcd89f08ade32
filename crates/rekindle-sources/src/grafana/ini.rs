//! `grafana.ini` and files with environment variables, as Grafana reads them
//! (<https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/>).

use std::collections::BTreeMap;

/// Values by section and key; the unnamed section is "".
#[derive(Debug, Clone, Default)]
pub(super) struct Ini(BTreeMap<(String, String), String>);

impl Ini {
    /// Reads a file. Lines that are nothing are passed over, as Grafana does.
    pub(super) fn parse(text: &str) -> Self {
        let mut values = BTreeMap::new();
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.trim().clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once('=') {
                values.insert((section.clone(), key.trim().to_owned()), unquoted(value.trim()).to_owned());
            }
        }
        Self(values)
    }

    pub(super) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.0.get(&(section.to_owned(), key.to_owned())).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn unquoted(value: &str) -> &str {
    for quote in ["\"\"\"", "\"", "`", "'"] {
        let inner = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner;
        }
    }
    value
}

/// `NAME=value` lines, with or without `export` and quotes.
pub(super) fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            Some((name.trim().to_owned(), unquoted(value.trim()).to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_section() {
        let ini = Ini::parse(
            "app_mode = production\n[database]\n;type = mysql\n# x\ntype = sqlite3\npassword = \"\"\"#a;b\"\"\"\n[security]\nsecret_key=k=v\n",
        );
        assert_eq!(ini.get("", "app_mode"), Some("production"));
        assert_eq!(ini.get("database", "type"), Some("sqlite3"));
        assert_eq!(ini.get("database", "password"), Some("#a;b"));
        assert_eq!(ini.get("security", "secret_key"), Some("k=v"));
        assert_eq!(ini.get("security", "type"), None);
    }

    #[test]
    fn variables_are_read_as_a_shell_writes_them() {
        let found = variables("# c\nexport GF_A=\"x y\"\nGF_B=z\nnothing\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found["GF_A"], "x y");
    }
}
