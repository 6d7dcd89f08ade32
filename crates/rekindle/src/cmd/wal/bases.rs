//! The base backups of a repository.

use rekindle_core::Result;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::wal::{BaseBackup, Cluster};
use rekindle_core::{Fault, codes};

/// A base backup and the short id of its point.
pub(super) type Base = (String, BaseBackup);

/// Every base backup of a cluster among these points, oldest first. A record that cannot be read
/// is an error: what it needs is not known.
pub(super) fn of(points: &[&RecoveryPoint], cluster: Cluster) -> Result<Vec<Base>> {
    let mut found: Vec<Base> = Vec::new();
    for point in points {
        for record in &point.manifest().components {
            match BaseBackup::of(&record.details) {
                Some(Ok(base)) if base.cluster.system == cluster.system => {
                    found.push((point.id().short().to_owned(), base));
                }
                None | Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let what = format!("read the base backup `{}` of point {}", record.id, point.id().short());
                    return Err(Fault::new(codes::REPO_MANIFEST, what)
                        .because(error)
                        .hint("use a newer version of rekindle"));
                }
            }
        }
    }
    found.sort_by_key(|(_, base)| (base.stopped, base.stop));
    Ok(found)
}
