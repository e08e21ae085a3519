//! `index.json`: the cache folder seen as an OCI image layout (image-spec, image-layout.md, "index.json file"), so that any
//! tool can read what is held, and so that a lost index has its tags back.

use sampan_oci::{Digest, ImageName, MediaType, Millis, Tag};
use serde_json::{Map, Value, json};

/// The reference of a descriptor, as the image specification calls it (annotations.md). Here the full name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same for containerd's import.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// `repository@digest` of a manifest that has no tag.
const REPOSITORY: &str = "dev.sampan.repository";
/// `true`: a person pinned it. Absent otherwise.
const PINNED: &str = "dev.sampan.pinned";
/// `true`: a person froze the tag there. Absent otherwise.
const FROZEN: &str = "dev.sampan.frozen";
/// `false`: its upstream has not confirmed it yet. Absent otherwise.
const CONFIRMED: &str = "dev.sampan.confirmed";
/// The digests of the manifests below it whose parts its upstream is known to show, with spaces between. Absent: none.
const PROVEN: &str = "dev.sampan.proven";
/// When it was first seen, in milliseconds since 1970.
const FIRST_SEEN: &str = "dev.sampan.first-seen";
/// The SHA-256 of the list of manifests as written here. A list that somebody else has written, or that is damaged, is
/// no proof of anything: a wrong name would show an image to those who may not have it (SECURITY.md R84).
const SEAL: &str = "dev.sampan.seal";

/// What one descriptor of `index.json` says: a tagged manifest, or one held by its digest alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) image: ImageName,
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Digest,
    /// The manifest's size in bytes.
    pub(crate) size: u64,
    pub(crate) media_type: MediaType,
    pub(crate) first_seen: Millis,
    pub(crate) pinned: bool,
    /// Whether the tag is to stay there.
    pub(crate) frozen: bool,
    /// Whether its upstream is known to show it; an imported one may be nobody's.
    pub(crate) confirmed: bool,
    /// The manifests below it whose parts its upstream is known to show too, in the order of their digests.
    pub(crate) proven: Vec<Digest>,
}

/// The document for these roots.
pub(crate) fn encode(roots: &[Root]) -> Vec<u8> {
    let manifests = Value::Array(roots.iter().map(descriptor).collect());
    let seal = seal_of(&manifests);
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OciIndex.as_str(),
        "manifests": manifests,
        "annotations": { SEAL: seal },
    });
    document.to_string().into_bytes()
}

fn descriptor(root: &Root) -> Value {
    let mut annotations = Map::new();
    let mut annotate = |key: &str, text: String| annotations.insert(key.to_owned(), Value::String(text));
    match &root.tag {
        Some(tag) => {
            let name = format!("{}:{tag}", root.image);
            annotate(REF_NAME, name.clone());
            annotate(CONTAINERD_NAME, name);
        }
        None => drop(annotate(REPOSITORY, format!("{}@{}", root.image, root.digest))),
    }
    if root.pinned {
        annotate(PINNED, "true".into());
    }
    if root.frozen {
        annotate(FROZEN, "true".into());
    }
    if !root.confirmed {
        annotate(CONFIRMED, "false".into());
    }
    if !root.proven.is_empty() {
        let digests: Vec<String> = root.proven.iter().map(ToString::to_string).collect();
        annotate(PROVEN, digests.join(" "));
    }
    annotate(FIRST_SEEN, root.first_seen.0.to_string());
    json!({
        "mediaType": root.media_type.as_str(),
        "digest": root.digest.to_string(),
        "size": root.size,
        "annotations": annotations,
    })
}

/// Reads a document that [`encode`] wrote. `None`: it is another one, or damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Root>> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let manifests = document.get("manifests")?;
    if document.get("annotations")?.get(SEAL)?.as_str()? != seal_of(manifests) {
        return None;
    }
    // What a newer Sampan may add and this one cannot read is left out by itself.
    Some(manifests.as_array()?.iter().filter_map(root).collect())
}

fn root(descriptor: &Value) -> Option<Root> {
    let annotation = |key: &str| descriptor.get("annotations")?.get(key)?.as_str();
    let digest = descriptor.get("digest")?.as_str()?.parse().ok()?;
    let (image, tag) = match annotation(REF_NAME) {
        Some(name) => {
            let (image, tag) = name.rsplit_once(':')?;
            (image, Some(tag.parse().ok()?))
        }
        None => (annotation(REPOSITORY)?.rsplit_once('@')?.0, None),
    };
    Some(Root {
        image: image.parse().ok()?,
        tag,
        digest,
        size: descriptor.get("size")?.as_u64()?,
        media_type: MediaType::parse(descriptor.get("mediaType")?.as_str()?)?,
        first_seen: Millis(annotation(FIRST_SEEN)?.parse().ok()?),
        pinned: annotation(PINNED) == Some("true"),
        frozen: annotation(FROZEN) == Some("true"),
        confirmed: annotation(CONFIRMED) != Some("false"),
        proven: annotation(PROVEN)
            .unwrap_or_default()
            .split(' ')
            .filter_map(|text| text.parse().ok())
            .collect(),
    })
}

fn seal_of(manifests: &Value) -> String {
    Digest::of(manifests.to_string().as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roots() -> Vec<Root> {
        let root = Root {
            image: "localhost:5000/team/app".parse().unwrap(),
            tag: Some("v1".parse().unwrap()),
            digest: Digest::of(b"m"),
            size: 1,
            media_type: MediaType::DockerManifest,
            first_seen: Millis(-7),
            pinned: true,
            frozen: true,
            confirmed: false,
            proven: Vec::new(),
        };
        let untagged = Root {
            tag: None,
            pinned: false,
            frozen: false,
            confirmed: true,
            proven: vec![Digest::of(b"a"), Digest::of(b"b")],
            media_type: MediaType::OciIndex,
            ..root.clone()
        };
        vec![root, untagged]
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(decode(&encode(&roots())), Some(roots()));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
    }

    #[test]
    fn other_tools_find_the_names_they_look_for() {
        let document: Value = serde_json::from_slice(&encode(&roots())).unwrap();
        assert_eq!(document["schemaVersion"], 2);
        let first = &document["manifests"][0];
        assert_eq!(first["mediaType"], MediaType::DockerManifest.as_str());
        assert_eq!(first["digest"], Digest::of(b"m").to_string());
        assert_eq!(first["annotations"]["org.opencontainers.image.ref.name"], "localhost:5000/team/app:v1");
        assert_eq!(first["annotations"]["io.containerd.image.name"], "localhost:5000/team/app:v1");
        assert_eq!(document["manifests"][1]["annotations"].get("io.containerd.image.name"), None);
    }

    #[test]
    fn a_document_of_somebody_elses_gives_no_names() {
        let foreign = String::from_utf8(encode(&roots())).unwrap().replace("team/app", "evil/app");
        assert_eq!(decode(foreign.as_bytes()), None);
        assert_eq!(decode(br#"{"schemaVersion":2,"manifests":[]}"#), None);
        assert_eq!(decode(b""), None);
    }

    proptest! {
        #[test]
        fn damage_is_noticed_or_changes_nothing(at in 0_usize..2000, byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = encode(&roots());
            let at = at % bytes.len();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            if let Some(read) = decode(&bytes) {
                prop_assert_eq!(read, roots());
            }
        }
    }
}
