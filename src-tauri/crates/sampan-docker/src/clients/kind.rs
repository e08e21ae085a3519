//! kind: Kubernetes nodes as containers. Shown, never written: a cluster is made with it, and its nodes have a network of
//! their own.

use sampan_oci::RegistryName;

use super::{ClientId, ClientSeen, Format, Places};
use crate::engine::{Access, FileSeen};

pub(super) const FORMAT: Format = Format { render, registry: |_| None };

/// The cluster's file does not depend on the registries: they are folders in its nodes.
fn render(_registries: &[RegistryName], _port: u16) -> String {
    "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\ncontainerdConfigPatches:\n- |-\n  \
     [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"/etc/containerd/certs.d\"\n"
        .into()
}

pub(super) fn look(places: &Places, port: u16) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Kind);
    seen.look(places, &["kind"], &[]);
    let path = std::path::PathBuf::from("kind-sampan.yaml");
    let (target, access) = (path.clone(), Access::Writable);
    seen.file = Some(FileSeen { path, target, bytes: None, access, problem: None });
    seen.hands_off = Some("A cluster is made with this file: run the commands when you make one.".into());
    seen.notes.push(format!(
        "A node of kind has a network of its own, in which 127.0.0.1 is not this machine: it reaches Sampan only where that \
         listens at the address of kind's network too (`--listen`, port {port}). Everybody on that network can then pull \
         through it."
    ));
    seen.then[0] = vec![
        "kind create cluster --config kind-sampan.yaml".into(),
        "host=$(docker network inspect kind --format '{{(index .IPAM.Config 0).Gateway}}')".into(),
        format!(
            "for node in $(kind get nodes); do docker exec \"$node\" mkdir -p /etc/containerd/certs.d/docker.io; printf \
             '%s\\n' 'server = \"https://registry-1.docker.io\"' '' \"[host.\\\"http://$host:{port}\\\"]\" \
             '  capabilities = [\"pull\", \"resolve\"]' | docker exec -i \"$node\" cp /dev/stdin \
             /etc/containerd/certs.d/docker.io/hosts.toml; done"
        ),
    ];
    seen
}
