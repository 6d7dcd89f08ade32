//! What a server says about itself with INFO.

use std::collections::BTreeMap;

use rekindle_core::fault::Result;

use super::client::Client;

/// Sections and fields of one INFO answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Facts {
    /// Asks the server.
    pub(crate) fn ask(client: &mut Client) -> Result<Self> {
        let reply = client.call(&[b"INFO"])?;
        Ok(Self::parse(&reply.text().unwrap_or_default()))
    }

    /// Parses `# Section` headings and `name:value` lines.
    pub(crate) fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        let mut section = String::new();
        for line in text.lines() {
            let line = line.trim_end();
            if let Some(title) = line.strip_prefix('#') {
                section = title.trim().to_ascii_lowercase();
            } else if let Some((name, value)) = line.split_once(':') {
                facts.sections.entry(section.clone()).or_default().insert(name.to_owned(), value.to_owned());
            }
        }
        facts
    }

    /// A field of any section.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut sections = self.sections.values();
        sections.find_map(|fields| fields.get(name)).map(String::as_str)
    }

    /// Whether a field is there and is `value`.
    pub(crate) fn says(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    /// `valkey` or `redis`, and its version.
    pub(crate) fn server(&self) -> (String, String) {
        let version = |name| self.get(name).unwrap_or("unknown").to_owned();
        if self.get("valkey_version").is_some() {
            ("valkey".to_owned(), version("valkey_version"))
        } else {
            ("redis".to_owned(), version("redis_version"))
        }
    }

    /// Major and minor number of the server's version.
    pub(crate) fn version(&self) -> Option<(u32, u32)> {
        let (_, version) = self.server();
        let mut numbers = version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// The newest RDB version the server reads, as far as its version tells.
    pub(crate) fn rdb_version(&self) -> Option<u16> {
        let (name, _) = self.server();
        Some(match (name.as_str(), self.version()?) {
            ("valkey", (9.., _)) => 80,
            ("valkey", _) | ("redis", (7, 2..=3)) => 11,
            ("redis", (7, 0..=1)) => 10,
            ("redis", (5..=6, _)) => 9,
            ("redis", (7, 4..) | (8, 0..=3)) => 12,
            ("redis", (8, 4..=5)) => 13,
            _ => return None,
        })
    }

    /// Keys per database.
    pub(crate) fn keyspace(&self) -> BTreeMap<u64, u64> {
        let fields = self.sections.get("keyspace").into_iter().flatten();
        fields
            .filter_map(|(name, value)| {
                let number = name.strip_prefix("db")?.parse().ok()?;
                let keys = value.split(',').find_map(|part| part.strip_prefix("keys="))?;
                Some((number, keys.parse().ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_fields_and_the_keyspace_are_read() {
        let facts = Facts::parse(
            "# Server\r\nredis_version:7.0.15\r\nos:Linux: x\r\n\r\n# Keyspace\r\n\
             db0:keys=3,expires=1,avg_ttl=0\r\ndb12:keys=9,expires=0,avg_ttl=0\r\n",
        );
        assert_eq!(facts.server(), ("redis".to_owned(), "7.0.15".to_owned()));
        assert_eq!(facts.version(), Some((7, 0)));
        assert_eq!(facts.rdb_version(), Some(10));
        assert_eq!(facts.get("os"), Some("Linux: x"));
        assert_eq!(facts.keyspace(), BTreeMap::from([(0, 3), (12, 9)]));
    }

    #[test]
    fn valkey_tells_its_own_version_besides_the_compatible_one() {
        let facts = Facts::parse("# Server\nredis_version:7.2.4\nvalkey_version:9.1.2\n");
        assert_eq!(facts.server(), ("valkey".to_owned(), "9.1.2".to_owned()));
        assert_eq!(facts.rdb_version(), Some(80));
        assert_eq!(Facts::default().rdb_version(), None);
    }
}
