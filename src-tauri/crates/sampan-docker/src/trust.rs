//! What a `hosts.toml` of Sampan's would take from a registry that a person set up: with that file in place Docker and
//! containerd read neither the certificates beside it nor `insecure-registries` for it. Pure.

use std::net::IpAddr;

use crate::choice::Choice;
use crate::engine::HostsSeen;
use crate::plan::PlanError;

/// How the names of files end that are read beside a registry's `hosts.toml` only while there is none.
pub(crate) const ENDINGS: [&str; 3] = ["crt", "cert", "key"];

/// Why the registry must not get a `hosts.toml`, one English sentence, where `insecure` is what the engine asks without
/// TLS: names, and networks as `10.0.0.0/8`.
pub(crate) fn obstacle(seen: &HostsSeen, insecure: &[String]) -> Option<String> {
    let folder = seen.file.path.parent().unwrap_or(&seen.file.path).display();
    if let Some(file) = seen.beside.first() {
        return Some(format!(
            "{folder} holds {file}, which is no longer read once a hosts.toml is beside it."
        ));
    }
    is_insecure(seen.registry.as_str(), insecure).then(|| {
        format!(
            "{} is among the engine's insecure registries, which it is no longer once it has a hosts.toml.",
            seen.registry
        )
    })
}

/// Whether a registry that would lose what a person set up for it is only left out: it was not asked for by name.
///
/// # Errors
/// [`PlanError::OwnTrust`] where it was, or is Docker Hub.
pub(crate) fn allowed(seen: &HostsSeen, choice: &Choice, why: &str) -> Result<(), PlanError> {
    let registry = &seen.registry;
    if registry.is_docker_hub() || choice.named().contains(registry) {
        return Err(PlanError::OwnTrust { registry: registry.clone(), why: why.into() });
    }
    Ok(())
}

/// Whether a registry, as `host` or `host:port`, is among them.
pub(crate) fn is_insecure(name: &str, insecure: &[String]) -> bool {
    let host = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => name,
    };
    let address = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    };
    insecure.iter().any(|known| known == name || address.is_some_and(|address| within(address, known)))
}

/// Whether `network` (`10.0.0.0/8`) holds the address.
fn within(address: IpAddr, network: &str) -> bool {
    let Some((base, length)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let same = |one: u128, other: u128, bits: u32| {
        length <= bits && (length == 0 || (one ^ other) >> (bits - length) == 0)
    };
    match (address, base) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            same(u128::from(u32::from(one)), u128::from(u32::from(other)), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insecure_registry_is_known_by_its_name_or_its_network() {
        let insecure = ["corp:5000", "127.0.0.0/8", "10.1.0.0/16", "::1/128"].map(str::to_owned);
        for (name, expected) in [
            ("corp:5000", true),
            ("corp:5001", false),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("10.1.2.3", true),
            ("10.2.2.3:5000", false),
            ("ghcr.io", false),
        ] {
            assert_eq!(is_insecure(name, &insecure), expected, "{name}");
        }
    }
}
