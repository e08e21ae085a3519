//! What an image is made of: the manifests under its root, and which of them are whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;

use sampan_oci::{Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest, ManifestKind, MediaType};

use crate::error::ArchiveError;
use crate::report::{LeftOut, Why};

/// The most manifests one image may have; the largest indexes list some dozens.
const MANIFESTS_MAX: usize = 512;
/// How deep indexes may lie in each other.
const DEPTH_MAX: u8 = 4;

/// What the manifests of one archive may cost together: all that is read of them is in memory until its end.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    descriptors: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 64 * 1024 * 1024, descriptors: 128 * 1024 }
    }
}

impl Budget {
    /// Takes from it; `false`: there is not so much left.
    fn pay(&mut self, bytes: u64, descriptors: usize) -> bool {
        let left = (self.bytes.checked_sub(bytes), self.descriptors.checked_sub(descriptors));
        let (Some(bytes), Some(descriptors)) = left else { return false };
        *self = Self { bytes, descriptors };
        true
    }
}

/// A blob with the size that is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Piece {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Piece {
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        Self { digest: descriptor.digest, size: descriptor.size }
    }
}

/// Pieces that cannot go with an image, and why.
pub(crate) type Wrong = HashMap<Piece, Why>;

/// Where the parts of an image are looked for.
pub(crate) trait Shelf: Sync {
    /// The manifest that a descriptor names, its bytes hashed.
    fn manifest(
        &self,
        descriptor: &Descriptor,
    ) -> impl Future<Output = Result<Result<Manifest, Why>, ArchiveError>> + Send;

    /// Why a blob cannot be had, as far as that shows without reading it.
    fn lacks(&self, piece: Piece) -> impl Future<Output = Result<Option<Why>, ArchiveError>> + Send;
}

/// An image's manifests, as far as they were found.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Piece,
    manifests: HashMap<Piece, Manifest>,
}

/// What of an image goes.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Every blob, each once: whatever a manifest lists before the manifest, the root last.
    pub(crate) pieces: Vec<Piece>,
    /// The manifests among them.
    pub(crate) manifests: Vec<Piece>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Chosen {
    pub(crate) fn size_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }
}

impl Tree {
    /// Reads the root and everything below it. What cannot be had goes to `wrong`.
    pub(crate) async fn read(
        shelf: &impl Shelf,
        root: &Descriptor,
        wrong: &mut Wrong,
        budget: &mut Budget,
    ) -> Result<Result<Self, Why>, ArchiveError> {
        let mut tree = Self { root: Piece::of(root), manifests: HashMap::new() };
        let mut seen: HashSet<Piece> = HashSet::from([tree.root]);
        let mut asked: HashSet<Piece> = HashSet::new();
        let mut open = VecDeque::from([(root.clone(), 0)]);
        while let Some((descriptor, depth)) = open.pop_front() {
            let piece = Piece::of(&descriptor);
            if !budget.pay(piece.size.min(MANIFEST_BYTES_MAX as u64), 0) {
                return Ok(Err(Why::TooMany));
            }
            let manifest = match shelf.manifest(&descriptor).await? {
                Ok(manifest) => manifest,
                Err(why) => {
                    wrong.insert(piece, why);
                    continue;
                }
            };
            if !budget.pay(0, manifest.descriptors().count()) {
                return Ok(Err(Why::TooMany));
            }
            match &manifest.kind {
                ManifestKind::Index(listed) => {
                    if depth == DEPTH_MAX {
                        return Ok(Err(Why::TooMany));
                    }
                    for child in listed {
                        if seen.insert(Piece::of(child)) {
                            open.push_back((child.clone(), depth + 1));
                        }
                    }
                }
                ManifestKind::Image { config, layers } => {
                    for part in needed(config, layers) {
                        if asked.insert(part)
                            && !wrong.contains_key(&part)
                            && let Some(why) = shelf.lacks(part).await?
                        {
                            wrong.insert(part, why);
                        }
                    }
                }
            }
            tree.manifests.insert(piece, manifest);
            if tree.manifests.len() > MANIFESTS_MAX {
                return Ok(Err(Why::TooMany));
            }
        }
        Ok(Ok(tree))
    }

    pub(crate) fn root(&self) -> Piece {
        self.root
    }

    pub(crate) fn manifest(&self, piece: &Piece) -> Option<&Manifest> {
        self.manifests.get(piece)
    }

    /// Every digest that the manifests list.
    pub(crate) fn listed(&self) -> impl Iterator<Item = Digest> {
        self.manifests.values().flat_map(Manifest::descriptors).map(|descriptor| descriptor.digest)
    }

    /// Decides what goes: of an index every entry that is whole, if there is one for a platform; an image only whole.
    pub(crate) fn choose(&self, wrong: &Wrong) -> Result<Chosen, Why> {
        let mut choice = Choice { tree: self, wrong, done: HashMap::new(), left_out: Vec::new() };
        choice.judge(self.root)?;
        let (done, left_out) = (choice.done, choice.left_out);
        let mut chosen = Chosen { pieces: Vec::new(), manifests: Vec::new(), left_out };
        let mut taken = HashSet::new();
        self.take(self.root, &done, &mut taken, &mut chosen);
        Ok(chosen)
    }

    fn take(
        &self,
        piece: Piece,
        done: &HashMap<Piece, Option<Why>>,
        taken: &mut HashSet<Piece>,
        to: &mut Chosen,
    ) {
        let Some(manifest) = self.manifests.get(&piece) else { return };
        if done.get(&piece) != Some(&None) || !taken.insert(piece) {
            return;
        }
        match &manifest.kind {
            ManifestKind::Index(listed) => {
                for child in listed {
                    self.take(Piece::of(child), done, taken, to);
                }
            }
            ManifestKind::Image { config, layers } => {
                let parts = needed(config, layers);
                to.pieces.extend(parts.filter(|part| taken.insert(*part)));
            }
        }
        to.pieces.push(piece);
        to.manifests.push(piece);
    }
}

/// The blobs an image cannot do without: layers that are to be fetched from elsewhere are in no archive.
fn needed<'a>(config: &'a Descriptor, layers: &'a [Descriptor]) -> impl Iterator<Item = Piece> + 'a {
    let here = layers.iter().filter(|layer| !layer.is_foreign());
    std::iter::once(config).chain(here).map(Piece::of)
}

struct Choice<'a> {
    tree: &'a Tree,
    wrong: &'a Wrong,
    /// Each manifest that was judged; `None`: it goes.
    done: HashMap<Piece, Option<Why>>,
    left_out: Vec<LeftOut>,
}

impl Choice<'_> {
    fn judge(&mut self, piece: Piece) -> Result<(), Why> {
        if let Some(known) = self.done.get(&piece) {
            return known.clone().map_or(Ok(()), Err);
        }
        let verdict = self.look_at(piece);
        self.done.insert(piece, verdict.clone().err());
        verdict
    }

    /// Goes no deeper than there are manifests: their digests make a circle impossible.
    fn look_at(&mut self, piece: Piece) -> Result<(), Why> {
        if let Some(why) = self.wrong.get(&piece) {
            return Err(why.clone());
        }
        let manifest = self.tree.manifests.get(&piece).ok_or(Why::Missing(piece.digest))?;
        match &manifest.kind {
            ManifestKind::Image { config, layers } => {
                let mut reasons = needed(config, layers).filter_map(|part| self.wrong.get(&part));
                reasons.next().map_or(Ok(()), |why| Err(why.clone()))
            }
            ManifestKind::Index(listed) => {
                let (mut any, mut first) = (false, None);
                for child in listed {
                    match self.judge(Piece::of(child)) {
                        Ok(()) => any |= is_for_a_platform(child),
                        Err(why) => {
                            // The reason of what a person would have run says more than that of an attestation.
                            if is_for_a_platform(child) {
                                first.get_or_insert(why.clone());
                            }
                            let (platform, digest) = (child.platform.clone(), child.digest);
                            self.left_out.push(LeftOut { platform, digest, why });
                        }
                    }
                }
                if any { Ok(()) } else { Err(first.unwrap_or(Why::NoPlatform)) }
            }
        }
    }
}

/// BuildKit lists attestations for the platform `unknown/unknown`.
fn is_for_a_platform(child: &Descriptor) -> bool {
    child.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

/// Reads a manifest as what its own bytes say it is; a descriptor that says otherwise is refused (SECURITY.md R9).
pub(crate) fn parse(bytes: &[u8], descriptor: &Descriptor) -> Result<Manifest, Why> {
    let manifest = Manifest::parse(bytes, None, Some(&descriptor.digest))
        .map_err(|_| Why::InvalidManifest(descriptor.digest))?;
    if manifest.digest != descriptor.digest {
        return Err(Why::WrongBytes(descriptor.digest));
    }
    if MediaType::parse(&descriptor.media_type) != Some(manifest.media_type) {
        return Err(Why::InvalidManifest(descriptor.digest));
    }
    Ok(manifest)
}
