//! What became of a set-up by an update of Docker: noticed, said, and offered to be repaired. Pure.
//!
//! Up to Docker 27 `registry-mirrors` is all there is; from 28 on `hosts.toml` belongs beside it, or replaces it. An
//! engine that was set up before and updated since still has what was right then.

use crate::context::same_endpoint;
use crate::daemon_json::{self, same_mirror};
use crate::engine::{Engine, HostsSeen, mirror_url};
use crate::journal::Change;
use crate::method::Method;
use crate::plan::DEFAULT_PORT;

impl Engine {
    /// Why the set-up for Sampan on `port` is no longer whole, one or two English sentences: enabling again repairs it,
    /// and is never done without being asked. `None`: it is whole, or Sampan was never set up.
    pub fn needs_repair(&self, port: u16) -> Option<String> {
        let method = self.method().ok()?;
        let own = own_mirrors(self, port);
        let is_own = |url: &String| own.iter().any(|our| same_mirror(our, url));
        let file = self.config.as_ref().and_then(|file| file.bytes.as_deref()).unwrap_or_default();
        let in_file = daemon_json::mirrors(file).is_ok_and(|list| list.iter().any(is_own));
        let listed = self.mirrors.iter().any(is_own);
        let hub = self.hosts.iter().find(|seen| seen.registry.is_docker_hub());
        let hosts = hub.and_then(HostsSeen::port).is_some();
        let version = self.version.as_deref().unwrap_or("now");
        match method {
            Method::HostsOnly | Method::HostsAndMirrors if (listed || in_file) && !hosts => {
                let place = hub.map(|seen| seen.file.path.display().to_string());
                let place = place.unwrap_or_else(|| "docker.io's hosts.toml".into());
                Some(if hub.is_some_and(HostsSeen::is_foreign) {
                    format!(
                        "Docker {version} reads hosts.toml beside registry-mirrors, which names Sampan, and {place} was \
                         written by somebody else: both files belong together. Add Sampan there, or disable it."
                    )
                } else {
                    format!(
                        "Docker was set up for Sampan by registry-mirrors alone, and Docker {version} also reads {place}, \
                         which is missing: both files belong together. Enabling Sampan again writes it."
                    )
                })
            }
            Method::HostsAndMirrors if hosts && !listed && !in_file => Some(format!(
                "Docker {version} keeps images in its classic store and pulls by registry-mirrors, where Sampan is not: \
                 only builds ask it. Enabling Sampan again adds it."
            )),
            Method::Mirrors if hosts && !listed && !in_file => Some(format!(
                "Docker {version} does not read hosts.toml, where Sampan is, and pulls without Sampan. Enabling Sampan \
                 again adds it to registry-mirrors."
            )),
            Method::HostsOnly | Method::HostsAndMirrors | Method::Mirrors | Method::Desktop => None,
        }
    }
}

/// The URLs that are Sampan's, of whichever instance: this port's, and those of [`own_ports`].
pub(crate) fn own_mirrors(engine: &Engine, port: u16) -> Vec<String> {
    let ports = std::iter::once(port).chain(own_ports(engine));
    let mut urls: Vec<String> = ports.map(|port| mirror_url(&engine.kind, port)).collect();
    urls.sort();
    urls.dedup();
    urls
}

/// The ports that are Sampan's: the default one, those in its own `hosts.toml` files, and those the journal knows of files
/// of this engine, whoever else has edited them since: an entry that Sampan wrote stays Sampan's when its port changes.
pub(crate) fn own_ports(engine: &Engine) -> Vec<u16> {
    let of_this = |change: &&Change| {
        let mut seen = engine.config.iter().chain(engine.hosts.iter().map(|hosts| &hosts.file));
        change.after.is_some()
            && same_endpoint(&change.endpoint, &engine.endpoint)
            && seen.any(|file| file.target == change.target)
    };
    let mut ports = vec![DEFAULT_PORT];
    ports.extend(engine.hosts.iter().filter_map(HostsSeen::port));
    let remembered = engine.remembered.iter().map(|known| &known.change);
    ports.extend(remembered.filter(of_this).map(|change| change.port));
    ports.sort_unstable();
    ports.dedup();
    ports
}
