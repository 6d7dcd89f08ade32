//! Free loopback ports that no other test takes at the same time.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below Linux' range for outgoing connections (32768–60999), so that no client connection
/// can take a port between our looking and the server's binding.
const FIRST: u32 = 10_100;
const COUNT: u32 = 22_000;

/// One TCP port of 127.0.0.1, ours until dropped.
///
/// Other test processes see a file lock; that lock outlives a server that is down for a
/// moment, so a restarted server gets its port back.
#[derive(Debug)]
pub struct Port {
    number: u16,
    lock: File,
    path: PathBuf,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Panics
    /// When none is free.
    pub fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!("rekindle-test-ports-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&dir).expect("make the directory for port locks");
        // Processes begin at different places, so they rarely meet.
        let start = std::process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let offset = start.wrapping_add(step) % COUNT;
            let number = u16::try_from(FIRST + offset).expect("the range ends below 65536");
            if let Some(port) = Self::try_take(number, dir.join(number.to_string())) {
                return port;
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    fn try_take(number: u16, path: PathBuf) -> Option<Self> {
        let lock = File::options().create(true).append(true).open(&path).ok()?;
        lock.try_lock().ok()?;
        // The previous owner may have removed the file between our open and our lock.
        let same = fs::metadata(&path).ok()?.ino() == lock.metadata().ok()?.ino();
        if !same || TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_err() {
            return None;
        }
        Some(Self { number, lock, path })
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // In this order: nobody may lock a file that is about to lose its name.
        let _ = fs::remove_file(&self.path);
        let _ = self.lock.unlock();
    }
}
