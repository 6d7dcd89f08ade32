//! The base backups of a repository.

use rekindle_core::point::RecoveryPoint;
use rekindle_core::wal::{BaseBackup, Cluster};
use rekindle_core::{Fault, Result, codes};

/// Every base backup of a cluster among these points with the short id of its point, oldest first.
/// A record that cannot be read is an error: what it needs is not known.
pub fn bases(points: &[&RecoveryPoint], cluster: Cluster) -> Result<Vec<(String, BaseBackup)>> {
    let mut found: Vec<(String, BaseBackup)> = Vec::new();
    for point in points {
        found.extend(of_point(point)?.into_iter().filter(|(_, base)| base.cluster.system == cluster.system));
    }
    found.sort_by_key(|(_, base)| (base.stopped, base.stop));
    Ok(found)
}

/// The base backups of one point.
pub(super) fn of_point(point: &RecoveryPoint) -> Result<Vec<(String, BaseBackup)>> {
    let mut found = Vec::new();
    for record in &point.manifest().components {
        match BaseBackup::of(&record.details) {
            None => {}
            Some(Ok(base)) => found.push((point.id().short().to_owned(), base)),
            Some(Err(error)) => {
                let what = format!("read the base backup `{}` of point {}", record.id, point.id().short());
                return Err(Fault::new(codes::REPO_MANIFEST, what)
                    .because(error)
                    .hint("use a newer version of rekindle"));
            }
        }
    }
    Ok(found)
}
