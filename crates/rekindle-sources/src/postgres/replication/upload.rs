//! `UPLOAD_MANIFEST` (17 and newer): tells the server which base backup the next one builds on.

use postgres_protocol::message::frontend::{self, CopyData};
use rekindle_core::Result;

use super::Replication;
use super::answer::{ServerError, unexpected};
use super::wire::tag;

/// Bytes of one message.
const PIECE_BYTES: usize = 64 << 10;

impl Replication {
    /// Sends the manifest of an earlier backup. The server checks it, and this session's next
    /// `BASE_BACKUP` may be incremental.
    pub fn upload_manifest(&mut self, manifest: &[u8]) -> Result<()> {
        const WHAT: &str = "send the manifest of the earlier base backup";
        self.wire.query("UPLOAD_MANIFEST")?;
        let frame = self.wire.frame()?;
        match frame.tag {
            tag::COPY_IN => {}
            tag::ERROR => {
                let error = ServerError::parse(frame.body)?;
                self.wire.until_ready()?;
                return Err(error.into_fault(WHAT));
            }
            other => return Err(unexpected(other)),
        }
        for piece in manifest.chunks(PIECE_BYTES) {
            self.wire.send(|out| {
                CopyData::new(piece)?.write(out);
                Ok(())
            })?;
        }
        self.wire.send(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        match self.wire.until_ready()? {
            None => Ok(()),
            Some(error) => Err(error.into_fault(WHAT)),
        }
    }
}
