//! Who is asking, in one word.

use sampan_oci::{Event, Failure, Millis, Outcome, RequestKind};

/// The longest name given to a client, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// The client behind a `User-Agent`: its first product name in lowercase (`docker`, `buildkit`, `containerd`,
/// `skopeo` …; RFC 9110, 10.1.5), where podman's library calls itself by its own name. Empty for an empty header.
pub fn client_name(user_agent: &str) -> String {
    let product = user_agent.split(['/', ' ', '(', ';']).find(|word| !word.is_empty()).unwrap_or_default();
    let name: String = product.chars().filter(char::is_ascii_graphic).take(NAME_BYTES_MAX).collect();
    match name.to_ascii_lowercase().as_str() {
        "libpod" => "podman".into(),
        other => other.into(),
    }
}

/// What Docker and its builders call themselves, as [`client_name`] reads it.
const ENGINES: [&str; 3] = ["docker", "moby", "buildkit"];

/// When Docker asked for a manifest and was answered; `None`: this event is something else, or was caused
/// by something else (podman, containerd, a web page, curl).
pub fn engine_asked(event: &Event) -> Option<Millis> {
    let Event::Answered(answer) = event else { return None };
    let refused = matches!(answer.outcome, Outcome::Failed(Failure::Forbidden | Failure::Invalid));
    let asked = answer.kind == RequestKind::Manifest && !refused;
    (asked && ENGINES.contains(&client_name(&answer.user_agent).as_str())).then_some(answer.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_product_of_a_user_agent_names_the_client() {
        let cases = [
            (
                r"docker/20.10.24 go/go1.19 os/linux UpstreamClient(Docker-Client/20.10.24 \(linux\))",
                "docker",
            ),
            ("docker/29.7.2 containerd-client/2.2 storage-driver/overlayfs", "docker"),
            ("containerd/v2.1.4", "containerd"),
            ("buildkit/v0.25", "buildkit"),
            ("libpod/5.4.0", "podman"),
            ("skopeo/1.18.0", "skopeo"),
            ("Go-http-client/1.1", "go-http-client"),
            ("curl", "curl"),
            ("", ""),
            (" / ", ""),
        ];
        for (header, name) in cases {
            assert_eq!(client_name(header), name, "{header:?}");
        }
        assert_eq!(client_name(&"x".repeat(10_000)).len(), NAME_BYTES_MAX, "a name is short");
    }
}
