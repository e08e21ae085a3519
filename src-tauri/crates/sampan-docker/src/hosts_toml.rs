//! `certs.d/<registry>/hosts.toml`: Sampan's own file, written whole and recognised whole.
//!
//! Read by Docker from 28.0 on, at each pull, for any registry. Two hosts: Sampan first, then the registry itself,
//! so that Docker's own fallback keeps working. A file that is not exactly one Sampan would write is somebody else's.

use sampan_oci::RegistryName;

/// The content that points `registry` at Sampan on 127.0.0.1 at `port`.
pub fn render(registry: &RegistryName, port: u16) -> String {
    format!(
        "# Written by Sampan, which takes it back on its Set-up page\n\
         server = \"https://{}\"\n\
         \n\
         [host.\"http://127.0.0.1:{port}\"]\n  \
         capabilities = [\"pull\", \"resolve\"]\n",
        server(registry)
    )
}

/// The port a file of Sampan's names; `None`: not a file Sampan wrote, or one that was edited since.
pub fn port_of(registry: &RegistryName, bytes: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("[host.\"http://127.0.0.1:")?;
    let (port, _) = rest.split_once('"')?;
    let port: u16 = port.parse().ok()?;
    (render(registry, port) == text).then_some(port)
}

/// The host that answers for a registry: Docker Hub's differs from its name (moby, `registry/config.go`).
fn server(registry: &RegistryName) -> &str {
    if registry.is_docker_hub() { "registry-1.docker.io" } else { registry.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str) -> RegistryName {
        name.parse().unwrap()
    }

    #[test]
    fn the_file_names_two_hosts_sampan_first_and_the_registry_as_server() {
        let parsed: toml::Table = render(&registry("ghcr.io"), 7267).parse().unwrap();
        assert_eq!(parsed["server"].as_str(), Some("https://ghcr.io"), "the registry stays the last resort");
        let hosts = parsed["host"].as_table().unwrap();
        assert_eq!(hosts.len(), 1, "one mirror beside the server");
        let capabilities: Vec<_> = hosts["http://127.0.0.1:7267"]["capabilities"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c.as_str())
            .collect();
        assert_eq!(capabilities, ["pull", "resolve"], "a mirror is never pushed to");
    }

    #[test]
    fn docker_hub_is_served_by_the_host_docker_itself_uses() {
        let text = render(&RegistryName::docker_hub(), 7267);
        assert!(
            text.contains("server = \"https://registry-1.docker.io\""),
            "docker.io answers no /v2/: {text}"
        );
    }

    #[test]
    fn only_a_file_sampan_would_write_is_recognised() {
        let hub = RegistryName::docker_hub();
        let ours = render(&hub, 5100);
        assert_eq!(port_of(&hub, ours.as_bytes()), Some(5100), "its own file, on another port");
        for (foreign, why) in [
            (String::new(), "an empty file"),
            (ours.replace("resolve", "push"), "an edited file"),
            (format!("{ours}\n"), "a line was added"),
            (ours.replace("5100", "05100"), "another spelling of the port"),
            (ours.replace("5100", "99999"), "not a port"),
            (ours.replace("127.0.0.1", "10.0.0.1"), "another machine"),
            (render(&registry("quay.io"), 5100), "made for another registry"),
        ] {
            assert_eq!(port_of(&hub, foreign.as_bytes()), None, "{why} is somebody else's");
        }
        assert_eq!(port_of(&hub, &[0xff, 0xfe]), None, "not text");
    }
}
