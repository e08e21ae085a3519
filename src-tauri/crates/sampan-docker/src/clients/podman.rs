//! podman, buildah and skopeo: a drop-in for `registries.conf`, read at each command. They send no `ns=`, so each
//! registry is a path of the mirror.

use std::fmt::Write as _;

use sampan_oci::RegistryName;

use super::{ClientId, ClientSeen, Format, Places, look_at, registries_conf};

pub(super) const FORMAT: Format = Format { render, registry };

fn render(registries: &[RegistryName], port: u16) -> String {
    let mut text =
        String::from("# Written by Sampan, which takes it back: `sampan clients disable podman`\n");
    for name in registries {
        let _ = write!(
            text,
            "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n\n[[registry.mirror]]\n\
             location = \"127.0.0.1:{port}/{name}\"\ninsecure = true\n"
        );
    }
    text
}

fn registry(line: &str) -> Option<&str> {
    line.strip_prefix("prefix = \"")?.strip_suffix('"')
}

pub(super) fn look(places: &Places) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Podman);
    seen.look(places, &["podman", "buildah", "skopeo"], &[]);
    // The person's folder is below the home folder whatever XDG_CONFIG_HOME says.
    let folder = if places.uid == 0 { places.etc.clone() } else { places.home.join(".config") };
    let path = folder.join("containers/registries.conf.d/50-sampan.conf");
    let others = registries_conf::read(places).into_iter().filter(|entries| entries.path != path);
    seen.taken = others
        .flat_map(|other| other.names.into_iter().map(move |name| (name, other.path.clone())))
        .collect();
    seen.file = Some(look_at(places, &path));
    seen.notes.push("It is read by each command: nothing restarts.".into());
    if !cfg!(target_os = "linux") {
        seen.hands_off = Some(
            "On this system podman runs in a machine of its own, which does not read this file: put it there by `podman \
             machine ssh`."
                .into(),
        );
    }
    seen
}
