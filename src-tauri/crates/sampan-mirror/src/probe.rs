//! The probe: a tiny image of Sampan's own, served only while someone wants to know whether an engine asks Sampan.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use sampan_oci::{Digest, ImageName, MediaType, Millis, Reference};
use tokio::sync::oneshot;

/// The repository the probe is pulled under. While no probe is armed it is asked of Docker Hub like any other.
const REPOSITORY: &str = "docker.io/sampan/probe";

/// A gzip of a tar without entries: the reference registry's empty layer, 32 bytes.
const EMPTY_LAYER: [u8; 32] = [
    31, 139, 8, 0, 0, 9, 110, 136, 0, 255, 98, 24, 5, 163, 96, 20, 140, 88, 0, 8, 0, 0, 255, 255, 46, 175,
    181, 239, 0, 4, 0, 0,
];
/// The digest of that layer unpacked, which an image configuration names.
const EMPTY_TAR: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// A probe that waits for an engine to ask for it.
#[derive(Debug)]
pub struct ProbeTicket {
    /// What the engine is told to pull: `sampan/probe:<nonce>`.
    pub reference: String,
    /// Resolves with the time when the engine's manifest request arrived.
    pub arrived: oneshot::Receiver<Millis>,
}

/// The one probe that can be armed.
#[derive(Debug, Default)]
pub(crate) struct Probe(Mutex<Option<Armed>>);

#[derive(Debug)]
struct Armed {
    tag: String,
    manifest: Bytes,
    digest: Digest,
    config: Bytes,
    tell: Option<oneshot::Sender<Millis>>,
}

/// What a probe answers a request with.
pub(crate) enum Answer {
    Manifest { bytes: Bytes, digest: Digest },
    Blob(Bytes),
}

impl Probe {
    /// Makes an image that no registry has and no engine has seen. An earlier probe that still waited is given up.
    pub(crate) fn arm(&self, now: Millis) -> ProbeTicket {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = armed.as_ref().map(|armed| armed.digest.hex()).unwrap_or_default();
        let tag = Digest::of(format!("{}{before}", now.0).as_bytes()).hex()[..32].to_owned();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Labels":{{"dev.sampan.probe":"{tag}"}}}},"rootfs":{{"type":"layers","diff_ids":["{EMPTY_TAR}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"{}","size":{}}}]}}"#,
            MediaType::DockerManifest,
            Digest::of(config.as_bytes()),
            config.len(),
            Digest::of(&EMPTY_LAYER),
            EMPTY_LAYER.len(),
        );
        let (tell, arrived) = oneshot::channel();
        let digest = Digest::of(manifest.as_bytes());
        let reference = format!("sampan/probe:{tag}");
        *armed =
            Some(Armed { tag, manifest: manifest.into(), digest, config: config.into(), tell: Some(tell) });
        ProbeTicket { reference, arrived }
    }

    /// Ends the probe.
    pub(crate) fn disarm(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The probe's manifest, if this request is for it.
    pub(crate) fn manifest(&self, image: &ImageName, reference: &Reference, now: Millis) -> Option<Answer> {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let armed = armed.as_mut().filter(|_| image.to_string() == REPOSITORY)?;
        let asked = match reference {
            Reference::Tag(tag) => tag.as_str() == armed.tag,
            Reference::Digest(digest) => *digest == armed.digest,
        };
        if !asked {
            return None;
        }
        if let Some(tell) = armed.tell.take() {
            // Nobody may be waiting any more; the pull is answered all the same.
            let _ = tell.send(now);
        }
        Some(Answer::Manifest { bytes: armed.manifest.clone(), digest: armed.digest })
    }

    /// The probe's blob, if this request is for one.
    pub(crate) fn blob(&self, image: &ImageName, digest: &Digest) -> Option<Answer> {
        let armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let armed = armed.as_ref().filter(|_| image.to_string() == REPOSITORY)?;
        let layer = Bytes::from_static(&EMPTY_LAYER);
        [armed.config.clone(), layer].into_iter().find(|bytes| digest.names(bytes)).map(Answer::Blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_probe_is_a_correct_image_and_tells_when_it_is_asked_for() {
        let probe = Probe::default();
        let image: ImageName = REPOSITORY.parse().unwrap();
        let mut ticket = probe.arm(Millis(1));
        let tag: Reference = ticket.reference.rsplit_once(':').unwrap().1.parse().unwrap();
        let other: ImageName = "docker.io/library/alpine".parse().unwrap();
        assert!(probe.manifest(&other, &tag, Millis(2)).is_none());
        assert!(ticket.arrived.try_recv().is_err(), "nobody asked yet");
        let Some(Answer::Manifest { bytes, digest }) = probe.manifest(&image, &tag, Millis(3)) else {
            panic!()
        };
        assert_eq!(ticket.arrived.try_recv(), Ok(Millis(3)));
        let manifest = sampan_oci::Manifest::parse(&bytes, None, None).unwrap();
        assert_eq!(manifest.digest, digest);
        for descriptor in manifest.descriptors() {
            let Some(Answer::Blob(blob)) = probe.blob(&image, &descriptor.digest) else { panic!() };
            assert_eq!(blob.len() as u64, descriptor.size);
        }
        probe.disarm();
        assert!(probe.manifest(&image, &tag, Millis(4)).is_none(), "afterwards the name is the Hub's again");
    }

    #[test]
    fn the_empty_layer_is_the_one_the_reference_registry_serves() {
        assert_eq!(
            Digest::of(&EMPTY_LAYER).to_string(),
            "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
        );
    }
}
