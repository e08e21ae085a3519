//! Which network addresses an upstream may lead us to. Those it was configured with are not judged here.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Hosts remembered as foreign. Registries use a handful; more means that somebody plays with us.
const FOREIGN_MAX: usize = 1024;

/// Whether an address is one of the public internet (SECURITY R28). 198.18.0.0/15 passes: local proxies that many
/// people on filtered links run answer every name with an address from it.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let carrier_grade_nat = a == 100 && (64..128).contains(&b);
    let protocol_assignments = a == 192 && b == 0 && c == 0;
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || carrier_grade_nat
        || protocol_assignments
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only 2000::/3 is assigned as global unicast; everything else is loopback, local, multicast or nothing.
    address.segments()[0] & 0xe000 == 0x2000
}

/// The IPv4 address inside `::ffff:a.b.c.d`, `::a.b.c.d`, NAT64 (64:ff9b::/96, RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// A name an upstream led us to resolved to an address that is not public.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a private address")]
pub(crate) struct PrivateAddress;

/// Resolves names, and lets those that came from an upstream's mouth resolve to public addresses alone. Checking in
/// the resolver checks the very address that is connected to: an earlier look-up could be answered differently
/// (DNS rebinding). Behind an HTTP proxy the proxy resolves, and nothing can be checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard(Arc<Mutex<Hosts>>);

#[derive(Debug, Default)]
struct Hosts {
    configured: HashSet<String>,
    foreign: HashSet<String>,
}

impl Guard {
    /// Trusts a host a person configured, wherever it resolves to.
    pub(crate) fn trust(&self, host: &str) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.foreign.remove(host);
        hosts.configured.insert(host.to_owned());
    }

    /// Takes note of a host that an upstream named; whether there was room for it.
    pub(crate) fn watch(&self, host: &str) -> bool {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.configured.contains(host) || hosts.foreign.contains(host) {
            return true;
        }
        hosts.foreign.len() < FOREIGN_MAX && hosts.foreign.insert(host.to_owned())
    }

    fn watches(&self, host: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).foreign.contains(host)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let public_only = self.watches(name.as_str());
        Box::pin(async move {
            let all = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = all.filter(|a| !public_only || is_public(a.ip())).collect();
            if allowed.is_empty() {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "fec0::1",
            "100::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private} is not public");
        }
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "198.18.0.7",
            "223.255.255.255",
            "2606:4700::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public} is public");
        }
    }

    #[tokio::test]
    async fn a_name_from_an_upstream_must_not_resolve_to_this_machine() {
        let guard = Guard::default();
        let resolve = |guard: &Guard| guard.resolve("localhost".parse().unwrap());
        assert!(resolve(&guard).await.is_ok(), "a name nobody suspects resolves as it likes");
        assert!(guard.watch("localhost"));
        let error = resolve(&guard).await.err().expect("a foreign name may not");
        assert!(error.is::<PrivateAddress>());
        guard.trust("localhost");
        assert!(resolve(&guard).await.is_ok(), "a configured name may again");
    }

    #[test]
    fn an_upstream_cannot_fill_the_memory_with_names() {
        let guard = Guard::default();
        assert!((0..FOREIGN_MAX).all(|n| guard.watch(&format!("{n}.example"))));
        assert!(!guard.watch("one-too-many.example"));
        assert!(guard.watch("7.example"), "known ones still pass");
    }
}
