//! A link of a chosen speed, so that a test can look at a pull while it flows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes are let through in steps of this time.
const STEP: Duration = Duration::from_millis(10);

/// Hands connections to a port of loopback on to another, with a limit to the speed of what comes back. Each
/// connection has the whole speed. Serves until the test ends.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    bytes_per_second: Arc<AtomicU64>,
}

impl Relay {
    /// A link to `127.0.0.1:<target>`.
    pub fn to(target: u16, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let bytes_per_second = Arc::new(AtomicU64::new(bytes_per_second));
        let speed = bytes_per_second.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // Refused by the target is ended by the link.
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
                let (up, down) = (Arc::new(AtomicU64::new(u64::MAX)), speed.clone());
                std::thread::spawn(move || carry(near_too, far_too, &up));
                std::thread::spawn(move || carry(far, near, &down));
            }
        });
        Self { port, bytes_per_second }
    }

    /// Its address: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes the speed, of connections that flow too.
    pub fn set_speed(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, bytes_per_second: &AtomicU64) {
    let mut buffer = vec![0; 1 << 20];
    let steps = u64::try_from(Duration::from_secs(1).as_millis() / STEP.as_millis()).unwrap_or(1);
    loop {
        let speed = bytes_per_second.load(Ordering::Relaxed);
        let most = usize::try_from(speed / steps).unwrap_or(usize::MAX).clamp(1, buffer.len());
        let Ok(length) = from.read(&mut buffer[..most]) else { break };
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
        if speed != u64::MAX {
            std::thread::sleep(STEP);
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
