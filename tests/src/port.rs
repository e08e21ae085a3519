//! Ports of loopback that nobody listens on.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports tried: below those the system gives to outgoing connections (from 32768 on), so that one stays free
/// while the program that listens on it is stopped and started again.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A free port of 127.0.0.1. Every call of one process gives another; two processes begin at different places.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id().wrapping_mul(37) % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin.wrapping_add(nth)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("none of {COUNT} ports from {FIRST} on is free");
}
