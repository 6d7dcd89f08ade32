//! What `global/pg_control` says of a cluster: whose WAL it is, without asking a server.
//!
//! The file is the C structure `ControlFileData` of `pg_control.h`. Its first eight bytes are the
//! system identifier in every version; the sizes are found behind `floatFormat`, a constant that
//! the server writes so that other machines are told apart.

use super::{Cluster, SegmentSize, SystemId};

/// `FLOATFORMAT_VALUE`.
const FLOAT_FORMAT: f64 = 1_234_567.0;
/// The structure is smaller than this, so that one disk sector holds it.
const READ_BYTES: usize = 512;

/// The cluster of a control file; `None` when the bytes are no control file of this machine.
pub fn cluster_of_control(bytes: &[u8]) -> Option<Cluster> {
    let bytes = &bytes[..bytes.len().min(READ_BYTES)];
    let (system, _) = bytes.split_first_chunk::<8>()?;
    let mark = FLOAT_FORMAT.to_le_bytes();
    let at = (8..bytes.len().saturating_sub(mark.len())).step_by(8).find(|at| bytes[*at..].starts_with(&mark))?;
    // Behind it: block size, relation segment size, WAL page size, WAL segment size.
    let size = bytes.get(at + 20..at + 24)?.try_into().ok().map(u32::from_le_bytes)?;
    let segment_size = SegmentSize::try_from(size).ok()?;
    Some(Cluster { system: SystemId(u64::from_le_bytes(*system)), segment_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_stand_behind_the_mark() {
        let mut bytes = vec![0_u8; 8192];
        bytes[..8].copy_from_slice(&7_434_u64.to_le_bytes());
        bytes[200..208].copy_from_slice(&FLOAT_FORMAT.to_le_bytes());
        for (at, value) in [(208, 8192_u32), (212, 131_072), (216, 8192), (220, 64 << 20)] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let cluster = cluster_of_control(&bytes).unwrap();
        assert_eq!((cluster.system, cluster.segment_size.bytes()), (SystemId(7434), 64 << 20));
        bytes[200] = 1;
        assert_eq!(cluster_of_control(&bytes), None);
        assert_eq!(cluster_of_control(&[]), None);
    }
}
