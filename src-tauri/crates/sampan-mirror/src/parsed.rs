//! Manifests read from their bytes, kept as long as there is room: each hit needs what they list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sampan_oci::{Digest, Manifest, MediaType};

/// The most bytes of documents whose reading is kept; beyond it all is forgotten, which costs reading again.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Manifests by their digests.
#[derive(Debug, Default)]
pub(crate) struct Parsed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    manifests: HashMap<Digest, Arc<Manifest>>,
    bytes: usize,
}

impl Parsed {
    /// Reads `bytes`, which `digest` names. `None`: they are no manifest of that type.
    pub(crate) fn manifest(
        &self,
        digest: &Digest,
        media_type: MediaType,
        bytes: &[u8],
    ) -> Option<Arc<Manifest>> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().manifests.get(digest).cloned();
        // Registries disagree on the types of the same bytes; the reading depends on it.
        if let Some(manifest) = known.filter(|manifest| manifest.media_type == media_type) {
            return Some(manifest);
        }
        let manifest = Arc::new(Manifest::parse(bytes, Some(media_type.as_str()), Some(digest)).ok()?);
        if manifest.media_type != media_type || bytes.len() > BYTES_MAX {
            return Some(manifest);
        }
        let mut kept = kept();
        if kept.bytes + bytes.len() > BYTES_MAX {
            *kept = Kept::default();
        }
        if kept.manifests.insert(*digest, manifest.clone()).is_none() {
            kept.bytes += bytes.len();
        }
        Some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(padding: usize) -> Vec<u8> {
        let padding = " ".repeat(padding);
        format!(r#"{{"schemaVersion":2,{padding}"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}}"#)
            .into_bytes()
    }

    #[test]
    fn a_manifest_is_read_once_and_forgotten_when_there_is_no_room() {
        let parsed = Parsed::default();
        let read = |bytes: &[u8]| parsed.manifest(&Digest::of(bytes), MediaType::OciIndex, bytes).unwrap();
        let (small, other) = (index(1), index(2));
        assert!(Arc::ptr_eq(&read(&small), &read(&small)));
        assert!(!Arc::ptr_eq(&read(&small), &read(&other)));
        let first = read(&small);
        for n in 0..5 {
            read(&index(2 * 1024 * 1024 + n));
            assert!(parsed.0.lock().unwrap().bytes <= BYTES_MAX);
        }
        assert!(!Arc::ptr_eq(&first, &read(&small)), "it had to make room");
        assert!(parsed.manifest(&Digest::of(b"x"), MediaType::OciIndex, b"x").is_none());
    }
}
