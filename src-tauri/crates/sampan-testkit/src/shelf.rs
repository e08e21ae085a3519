//! What the fake registry holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use sampan_oci::{Digest, RepositoryName};
use serde_json::{Value, json};

use crate::image::Image;

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    repositories: HashMap<RepositoryName, Repository>,
    blobs: HashMap<Digest, Bytes>,
}

#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, Digest>,
    /// Texts listed as tags without naming anything: hostile ones, mostly.
    listed: BTreeSet<String>,
    manifests: HashMap<Digest, Document>,
    blobs: HashSet<Digest>,
    referrers: HashMap<Digest, Vec<Value>>,
    private: bool,
}

/// A manifest's bytes with the `Content-Type` it is served under.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: String,
}

impl Shelf {
    fn repository(&mut self, name: &RepositoryName) -> &mut Repository {
        self.repositories.entry(name.clone()).or_default()
    }

    pub(crate) fn put_image(&mut self, image: &Image) {
        for manifest in &image.manifests {
            self.put_manifest(&image.repository, manifest.bytes.clone(), manifest.media_type.as_str());
        }
        for blob in image.blobs() {
            self.put_blob(&image.repository, blob.bytes.clone());
        }
        self.put_manifest(&image.repository, image.bytes.clone(), image.media_type.as_str());
        self.put_tag(&image.repository, image.tag.as_str(), image.digest);
    }

    pub(crate) fn put_manifest(&mut self, name: &RepositoryName, bytes: Bytes, content_type: &str) -> Digest {
        let digest = Digest::of(&bytes);
        let document = Document { bytes, content_type: content_type.into() };
        self.repository(name).manifests.insert(digest, document);
        digest
    }

    pub(crate) fn put_blob(&mut self, name: &RepositoryName, bytes: Bytes) -> Digest {
        let digest = self.hold(bytes);
        self.repository(name).blobs.insert(digest);
        digest
    }

    /// Holds bytes for `/cdn/` alone, in no repository.
    pub(crate) fn hold(&mut self, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// The same two under a digest that is given: one of another algorithm.
    pub(crate) fn put_manifest_as(&mut self, name: &RepositoryName, digest: Digest, document: Document) {
        self.repository(name).manifests.insert(digest, document);
    }

    pub(crate) fn put_blob_as(&mut self, name: &RepositoryName, digest: Digest, bytes: Bytes) {
        self.blobs.insert(digest, bytes);
        self.repository(name).blobs.insert(digest);
    }

    pub(crate) fn put_tag(&mut self, name: &RepositoryName, tag: &str, digest: Digest) {
        self.repository(name).tags.insert(tag.into(), digest);
    }

    pub(crate) fn list_tag(&mut self, name: &RepositoryName, tag: &str) {
        self.repository(name).listed.insert(tag.into());
    }

    pub(crate) fn put_referrer(&mut self, name: &RepositoryName, subject: Digest, descriptor: Value) {
        self.repository(name).referrers.entry(subject).or_default().push(descriptor);
    }

    pub(crate) fn set_private(&mut self, name: &RepositoryName) {
        self.repository(name).private = true;
    }

    pub(crate) fn is_private(&self, name: &str) -> bool {
        self.find(name).is_some_and(|repository| repository.private)
    }

    fn find(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(&name.parse::<RepositoryName>().ok()?)
    }

    pub(crate) fn manifest(&self, name: &str, reference: &str) -> Option<(Digest, Document)> {
        let repository = self.find(name)?;
        let digest = reference.parse().ok().or_else(|| repository.tags.get(reference).copied())?;
        Some((digest, repository.manifests.get(&digest)?.clone()))
    }

    pub(crate) fn blob(&self, name: &str, digest: &str) -> Option<(Digest, Bytes)> {
        let digest = digest.parse().ok()?;
        self.find(name)?
            .blobs
            .contains(&digest)
            .then(|| self.blobs.get(&digest))
            .flatten()
            .map(|b| (digest, b.clone()))
    }

    pub(crate) fn held(&self, digest: &str) -> Option<(Digest, Bytes)> {
        let digest = digest.parse().ok()?;
        self.blobs.get(&digest).map(|bytes| (digest, bytes.clone()))
    }

    /// A page of tags after `last`, and whether more follow (distribution-spec, "Listing Tags").
    pub(crate) fn tags(
        &self,
        name: &str,
        n: Option<usize>,
        last: Option<&str>,
    ) -> Option<(Vec<String>, bool)> {
        let repository = self.find(name)?;
        let all: BTreeSet<&String> = repository.tags.keys().chain(&repository.listed).collect();
        let after: Vec<String> =
            all.into_iter().filter(|tag| last.is_none_or(|last| tag.as_str() > last)).cloned().collect();
        let n = n.unwrap_or(after.len());
        let more = after.len() > n;
        Some((after.into_iter().take(n).collect(), more))
    }

    pub(crate) fn referrers(&self, name: &str, subject: &str, artifact_type: Option<&str>) -> Option<Bytes> {
        let subject: Digest = subject.parse().ok()?;
        let all = self.find(name).and_then(|repository| repository.referrers.get(&subject));
        let of_type = |d: &&Value| artifact_type.is_none_or(|wanted| d["artifactType"] == wanted);
        let manifests: Vec<&Value> = all.into_iter().flatten().filter(of_type).collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        });
        Some(Bytes::from(index.to_string()))
    }
}
