//! What a service tells systemd (sd_notify(3)): datagrams to the socket in `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the manager; does nothing when there is none.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants to hear from us.
    pub watchdog: Option<Duration>,
}

impl Manager {
    /// From the values of `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub fn new(notify_socket: Option<&OsStr>, watchdog_usec: Option<&str>) -> Self {
        let socket = notify_socket.and_then(|path| {
            let address = match path.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(path),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        let watchdog = watchdog_usec.and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Self { socket, watchdog: watchdog.filter(|length| !length.is_zero()) }
    }

    /// Sends a state such as `READY=1`. A manager that does not listen is no error of ours.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(Some(path.as_os_str()), Some("30000000"));
        assert_eq!(manager.watchdog, Some(Duration::from_secs(30)));
        manager.tell("READY=1");
        let mut heard = [0; 32];
        let length = ear.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        Manager::new(None, None).tell("READY=1");
    }
}
