//! Reading a tar archive while it streams: POSIX ustar with prefixes, pax and GNU extensions for
//! long names, and numbers in base 256 for sizes from 8 GiB on (POSIX.1-2017, `pax`; GNU tar
//! manual, "Basic Tar Format"). PostgreSQL's own archives use the plain part of it.
//!
//! Strict on purpose: anything that is not understood is an error, never a skipped file.

use std::fmt;

use rekindle_core::{Fault, Result, codes};

/// Headers and content come in blocks of this length.
pub(super) const BLOCK_BYTES: usize = 512;
/// Longest extension header that is taken.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Directory,
    Symlink { target: Vec<u8> },
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Without a leading `./` and without a slash at its end.
    pub(super) path: Vec<u8>,
    pub(super) kind: MemberKind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
}

/// Why bytes are no archive that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadTar(pub(super) String);

impl fmt::Display for BadTar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the archive of the server is not understood: {}", self.0)
    }
}

impl std::error::Error for BadTar {}

fn bad(why: impl Into<String>) -> Fault {
    Fault::new(codes::PG_BASE, "read the base backup").because(BadTar(why.into()))
}

/// Where the bytes of an archive come from.
pub(super) trait Bytes {
    /// Some bytes; 0 only at the end of this archive.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
}

/// Where in an archive we are.
#[derive(Debug, Default)]
pub(super) struct Tar {
    /// Bytes of the current member that were not read yet.
    left: u64,
    /// Bytes after them up to the next block.
    padding: u64,
    ended: bool,
}

/// What pax and GNU headers say about the member after them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Tar {
    /// The next member; `None` at the end of the archive. The content of the one before must have
    /// been read.
    pub(super) fn next(&mut self, bytes: &mut dyn Bytes) -> Result<Option<Member>> {
        if self.left > 0 {
            return Err(Fault::new(codes::RUN_BUG, "read the base backup: a member was not read to its end"));
        }
        let mut extension = Extension::default();
        loop {
            self.skip_padding(bytes)?;
            let Some(block) = self.block(bytes)? else {
                return if extension.path.is_some() { Err(bad("it ends after an extension")) } else { Ok(None) };
            };
            let member = header(&block)?;
            let kind = block[156];
            match kind {
                b'L' | b'K' | b'x' | b'g' => {
                    let content = self.extension(bytes, member.size)?;
                    match kind {
                        b'L' => extension.path = Some(until_nul(&content).to_vec()),
                        b'K' => extension.target = Some(until_nul(&content).to_vec()),
                        b'x' => pax(&content, &mut extension)?,
                        // A global header says nothing that is of use here.
                        _ => {}
                    }
                }
                _ => return self.member(member, kind, extension).map(Some),
            }
        }
    }

    fn member(&mut self, mut member: Member, kind: u8, extension: Extension) -> Result<Member> {
        if let Some(path) = extension.path {
            member.path = path;
        }
        if let Some(size) = extension.size {
            member.size = size;
        }
        let slash = member.path.last() == Some(&b'/');
        while let Some(rest) = member.path.strip_prefix(b"./") {
            member.path = rest.to_vec();
        }
        while member.path.last() == Some(&b'/') {
            member.path.pop();
        }
        member.kind = match kind {
            b'5' => MemberKind::Directory,
            b'0' | 0 if slash => MemberKind::Directory,
            b'0' | 0 | b'7' => MemberKind::File,
            b'2' => match (extension.target, member.kind) {
                (Some(target), _) | (None, MemberKind::Symlink { target }) => MemberKind::Symlink { target },
                (None, _) => return Err(bad("a link without a target")),
            },
            other => return Err(bad(format!("a member of type `{}`", char::from(other).escape_debug()))),
        };
        if member.kind != MemberKind::File {
            member.size = 0;
        }
        self.left = member.size;
        self.padding = padding_of(member.size);
        Ok(member)
    }

    /// Some content of the current member; 0 at its end.
    pub(super) fn read(&mut self, bytes: &mut dyn Bytes, buffer: &mut [u8]) -> Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match bytes.read(&mut buffer[..most])? {
            0 => Err(bad("it ends inside a file")),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }

    /// Whether the content of the current member was read to its end.
    pub(super) fn is_drained(&self) -> bool {
        self.left == 0
    }

    fn skip_padding(&mut self, bytes: &mut dyn Bytes) -> Result<()> {
        let mut buffer = [0; BLOCK_BYTES];
        while self.padding > 0 {
            let most = usize::try_from(self.padding).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            match bytes.read(&mut buffer[..most])? {
                0 => return Err(bad("it ends inside the padding of a file")),
                read => self.padding -= read as u64,
            }
        }
        Ok(())
    }

    /// The next header block; `None` at the end: two blocks of zeros, or simply no more bytes, as
    /// servers before 15 end it.
    fn block(&mut self, bytes: &mut dyn Bytes) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        loop {
            let read = fill(bytes, &mut block)?;
            match read {
                0 => {
                    self.ended = true;
                    return Ok(None);
                }
                BLOCK_BYTES if block.iter().all(|b| *b == 0) => self.ended = true,
                BLOCK_BYTES if self.ended => return Err(bad("bytes after its end")),
                BLOCK_BYTES => return Ok(Some(block)),
                _ => return Err(bad("it ends inside a header")),
            }
        }
    }

    fn extension(&mut self, bytes: &mut dyn Bytes, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(bad(format!("an extension of {size} bytes")));
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
        if fill(bytes, &mut content)? < content.len() {
            return Err(bad("it ends inside an extension"));
        }
        self.padding = padding_of(size);
        Ok(content)
    }
}

fn padding_of(size: u64) -> u64 {
    size.next_multiple_of(BLOCK_BYTES as u64) - size
}

fn fill(bytes: &mut dyn Bytes, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match bytes.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number: octal digits, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        if first & 0x40 != 0 {
            return Err(bad("a negative number"));
        }
        return rest.iter().try_fold(u64::from(first & 0x3F), |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte)).ok_or_else(|| bad("a number is too large"))
        });
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .map(|value| value | u64::from(digit - b'0'))
            .ok_or_else(|| bad("a number is too large")),
        _ => Err(bad("a number is not octal")),
    })
}

/// The fixed part of a header.
fn header(block: &[u8; BLOCK_BYTES]) -> Result<Member> {
    let sum: u64 =
        block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) }).sum();
    if number(&block[148..156])? != sum {
        return Err(bad("a header's checksum is wrong"));
    }
    let name = until_nul(&block[..100]);
    let ustar = &block[257..263] == b"ustar\0";
    let prefix = if ustar { until_nul(&block[345..500]) } else { &[] };
    let path = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
    let target = until_nul(&block[157..257]);
    let small = |field: &[u8]| number(field).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Ok(Member {
        path,
        kind: if target.is_empty() { MemberKind::File } else { MemberKind::Symlink { target: target.to_vec() } },
        size: number(&block[124..136])?,
        mode: small(&block[100..108])? & 0o7777,
        uid: small(&block[108..116])?,
        gid: small(&block[116..124])?,
        modified: i64::try_from(number(&block[136..148])?).map_err(|_| bad("a time is out of range"))?,
    })
}

/// Records of a pax header: `LENGTH KEY=VALUE\n`, the length counting itself.
fn pax(mut content: &[u8], extension: &mut Extension) -> Result<()> {
    while !content.is_empty() {
        let wrong = || bad("a pax header is malformed");
        let space = content.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
        let digits = std::str::from_utf8(&content[..space]).map_err(|_| wrong())?;
        let length: usize = digits.parse().map_err(|_| wrong())?;
        let record = content.get(space + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extension.path = Some(value.to_vec()),
            b"linkpath" => extension.target = Some(value.to_vec()),
            b"size" => {
                let text = std::str::from_utf8(value).map_err(|_| wrong())?;
                extension.size = Some(text.parse().map_err(|_| wrong())?);
            }
            _ => {}
        }
        content = &content[length..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Slice<'a>(&'a [u8], usize);

    impl Bytes for Slice<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let read = buffer.len().min(self.0.len()).min(self.1);
            buffer[..read].copy_from_slice(&self.0[..read]);
            self.0 = &self.0[read..];
            Ok(read)
        }
    }

    fn block(path: &[u8], kind: u8, size: &[u8], target: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        block[..path.len()].copy_from_slice(path);
        block[100..107].copy_from_slice(b"0000600");
        block[124..124 + size.len()].copy_from_slice(size);
        block[136..147].copy_from_slice(b"14000000000");
        block[156] = kind;
        block[157..157 + target.len()].copy_from_slice(target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        sign(&mut block);
        block
    }

    fn sign(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    fn all(archive: &[u8], step: usize) -> Result<Vec<(Member, Vec<u8>)>> {
        let mut bytes = Slice(archive, step);
        let mut tar = Tar::default();
        let mut members = Vec::new();
        while let Some(member) = tar.next(&mut bytes)? {
            let mut content = Vec::new();
            let mut buffer = [0; 100];
            loop {
                match tar.read(&mut bytes, &mut buffer)? {
                    0 => break,
                    read => content.extend_from_slice(&buffer[..read]),
                }
            }
            members.push((member, content));
        }
        Ok(members)
    }

    #[test]
    fn names_links_and_extensions() {
        let long = vec![b'n'; 300];
        let mut archive = block(b"./base/", b'5', b"00000000000", b"");
        archive.extend(block(b"base/\xff\xfe", b'0', b"00000000003", b""));
        archive.extend(padded(b"abc".to_vec()));
        archive.extend(block(b"pg_tblspc/1/", b'2', b"00000000000", b"/mnt/t"));
        archive.extend(block(b"././@LongLink", b'L', b"00000000455", b""));
        archive.extend(padded([long.as_slice(), b"\0"].concat()));
        archive.extend(block(b"short", b'0', b"00000000000", b""));
        let record = b"18 path=pax/named\n";
        archive.extend(block(b"pax", b'x', b"00000000022", b""));
        archive.extend(padded(record.to_vec()));
        archive.extend(block(b"short", b'0', b"00000000001", b""));
        archive.extend(padded(b"x".to_vec()));
        let mut prefixed = block(b"name", b'0', b"00000000000", b"");
        prefixed[345..348].copy_from_slice(b"pre");
        sign(&mut prefixed);
        archive.extend(prefixed);
        archive.extend([0; 2 * BLOCK_BYTES]);
        for step in [1, 7, 512, 100_000] {
            let members = all(&archive, step).unwrap();
            let paths: Vec<&[u8]> = members.iter().map(|(member, _)| member.path.as_slice()).collect();
            assert_eq!(paths, [&b"base"[..], b"base/\xff\xfe", b"pg_tblspc/1", &long, b"pax/named", b"pre/name"]);
            assert_eq!(members[0].0.kind, MemberKind::Directory);
            assert_eq!(members[1].1, b"abc");
            assert_eq!(members[2].0.kind, MemberKind::Symlink { target: b"/mnt/t".to_vec() });
            assert_eq!(members[4].1, b"x");
        }
    }

    #[test]
    fn sizes_from_8_gib_on_are_in_base_256() {
        let mut size = [0; 12];
        size[0] = 0x80;
        size[4..].copy_from_slice(&(9_u64 << 30).to_be_bytes());
        let archive = block(b"base/5/1", b'0', &size, b"");
        let member = Tar::default().next(&mut Slice(&archive, 512)).unwrap().unwrap();
        assert_eq!(member.size, 9 << 30);
    }

    #[test]
    fn what_is_cut_or_wrong_is_refused() {
        let mut whole = block(b"a", b'0', b"00000000003", b"");
        whole.extend(padded(b"abc".to_vec()));
        assert_eq!(all(&whole, 512).unwrap().len(), 1, "an archive may end without blocks of zeros");
        for cut in [1, 511, 513, 700, 1023] {
            assert!(all(&whole[..cut], 512).is_err(), "{cut}");
        }
        let mut flipped = whole.clone();
        flipped[3] ^= 1;
        assert!(all(&flipped, 512).is_err(), "a checksum");
        assert!(all(&block(b"dev", b'3', b"0", b""), 512).is_err(), "a device");
        let mut after = vec![0; BLOCK_BYTES];
        after.extend(&whole);
        assert!(all(&after, 512).is_err(), "bytes after the end");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), step in 1_usize..600) {
            let _ = all(&bytes, step);
        }

        #[test]
        fn a_damaged_archive_is_an_error_or_says_the_same(at in 0_usize..1024, flip in 1_u8..) {
            let mut archive = block(b"a", b'0', b"00000000003", b"");
            archive.extend(padded(b"abc".to_vec()));
            let whole = all(&archive, 512).unwrap();
            archive[at] ^= flip;
            match all(&archive, 512) {
                // The content itself has no checksum here; the manifest has.
                Ok(members) => prop_assert!(at >= BLOCK_BYTES || members[0].0 == whole[0].0),
                Err(fault) => prop_assert!(fault.is(codes::PG_BASE)),
            }
        }
    }
}
