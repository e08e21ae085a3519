//! k3s: `registries.yaml`, which it makes `hosts.toml` of when it starts. Shown, never written: it takes a restart.

use std::fmt::Write as _;

use sampan_oci::RegistryName;

use super::{ClientId, ClientSeen, Format, Places, look_at};

pub(super) const FORMAT: Format = Format { render, registry };

fn render(registries: &[RegistryName], port: u16) -> String {
    let mut text = String::from(
        "# Written by Sampan: `sampan clients plan k3s --disable` shows how it is taken back\nmirrors:\n",
    );
    for name in registries {
        let _ = write!(text, "  \"{name}\":\n    endpoint:\n      - \"http://127.0.0.1:{port}\"\n");
    }
    text
}

fn registry(line: &str) -> Option<&str> {
    line.strip_prefix("  \"")?.strip_suffix("\":")
}

pub(super) fn look(places: &Places) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::K3s);
    let folder = places.etc.join("rancher/k3s");
    seen.look(places, &["k3s"], std::slice::from_ref(&folder));
    seen.file = Some(look_at(places, &folder.join("registries.yaml")));
    seen.hands_off =
        Some("k3s reads this file when it starts: run the commands when a restart suits.".into());
    // An agent's unit has another name.
    let restart = "sudo systemctl restart k3s || sudo systemctl restart k3s-agent".to_owned();
    seen.then = [vec![restart.clone()], vec![restart]];
    seen.notes.push("The registry itself stays the last resort: with Sampan off pulls go as ever.".into());
    seen
}
