//! Export: chosen images out of the cache into an OCI image layout.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use sampan_oci::{
    Descriptor, Digest, Hasher, ImageName, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Platform, Reference,
};
use sampan_store::{BlobFile, Store};

use crate::blocking::{CHUNK_BYTES, blocking};
use crate::docker::{self, Listed};
use crate::document::{Entry, Index, LAYOUT, LAYOUT_TEXT};
use crate::error::ArchiveError;
use crate::output::{Mark, Output, told};
use crate::report::{Exported, ExportedImage, Progress, Skipped, Why};
use crate::tree::{self, Budget, Chosen, Piece, Shelf, Tree, Wrong};

/// An image to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportImage {
    /// The repository.
    pub image: ImageName,
    /// The tag, or the digest of a manifest or index.
    pub reference: Reference,
}

/// Writes images into an OCI image layout: a tar file if `target` ends in `.tar` and is not there, else a folder, which
/// must be empty or absent. Each blob is written once and hashed on its way; a damaged one goes into the store's
/// quarantine, and what cannot go without it is left out. Beside the layout's files there is a `manifest.json` for
/// Docker before 25.
///
/// `progress` is called about once for each mebibyte, on the caller's task: it must not wait.
/// # Errors
/// [`ArchiveError`]; nothing is then left of the target.
/// # Cancel safety
/// Dropping the future removes what was written, once the write that runs has ended. A tar file gets its name last; a
/// folder without `index.json`, which a power cut may leave, is no layout.
pub async fn export(
    store: &Store,
    images: &[ExportImage],
    target: &Path,
    mut progress: impl FnMut(&Progress) + Send,
) -> Result<Exported, ArchiveError> {
    let mut report = Exported::default();
    let (mut planned, mut budget) = (Vec::new(), Budget::default());
    for image in chosen_once(images) {
        let name = image.image.with(&image.reference);
        match plan(store, image, &mut budget).await? {
            Ok((tree, wrong, chosen)) => planned.push((name, image, tree, wrong, chosen)),
            Err(why) => report.skipped.push(Skipped { name, why }),
        }
    }
    if planned.is_empty() {
        return Err(ArchiveError::NothingToExport(report.skipped));
    }
    let pieces: HashSet<Piece> = planned.iter().flat_map(|plan| plan.4.pieces.iter().copied()).collect();
    let total_bytes = pieces.iter().map(|piece| piece.size).sum();
    let mut writing = Writing::begin(store, target, Progress { total_bytes, ..Progress::default() }).await?;
    let (mut entries, mut listed) = (Vec::new(), Vec::new());
    for (name, image, tree, mut wrong, mut chosen) in planned {
        writing.progress.image.clone_from(&name);
        let mark = writing.mark();
        // Each turn finds another piece wrong, or ends.
        let written = loop {
            match writing.pieces(&chosen, &mut progress).await? {
                Ok(()) => break Ok(()),
                Err((piece, why)) => {
                    writing.rewind(mark).await?;
                    wrong.insert(piece, why);
                    match tree.choose(&wrong) {
                        Ok(less) => chosen = less,
                        Err(why) => break Err(why),
                    }
                }
            }
        };
        if let Err(why) = written {
            report.skipped.push(Skipped { name, why });
            continue;
        }
        writing.keep();
        let Some(root) = tree.manifest(&tree.root()) else { continue };
        let platform = platform(store, root).await;
        entries.push(Entry::new(root.media_type, &root.digest, tree.root().size, platform, &name));
        let tag = matches!(image.reference, Reference::Tag(_)).then(|| name.clone());
        listed.extend(Listed::of(&tree, &chosen, tag));
        let (digest, size_bytes) = (root.digest, chosen.size_bytes());
        report.images.push(ExportedImage { name, digest, size_bytes, left_out: chosen.left_out });
    }
    if entries.is_empty() {
        return Err(ArchiveError::NothingToExport(report.skipped));
    }
    (report.blobs, report.size_bytes) = writing.totals();
    writing.finish(entries, listed).await?;
    Ok(report)
}

fn chosen_once(images: &[ExportImage]) -> impl Iterator<Item = &ExportImage> {
    images.iter().enumerate().filter(|(at, image)| !images[..*at].contains(image)).map(|(_, image)| image)
}

async fn plan(
    store: &Store,
    wanted: &ExportImage,
    budget: &mut Budget,
) -> Result<Result<(Tree, Wrong, Chosen), Why>, ArchiveError> {
    let Some(digest) = resolve(store, wanted).await? else { return Ok(Err(Why::NotHeld)) };
    let shelf = Held { store };
    let (bytes, size) = match shelf.document(digest, None).await? {
        Ok(bytes) => (bytes.clone(), bytes.len() as u64),
        Err(why) => return Ok(Err(why)),
    };
    let Ok(root) = Manifest::parse(&bytes, None, Some(&digest)) else {
        return Ok(Err(Why::InvalidManifest(digest)));
    };
    let media_type = root.media_type.as_str().to_owned();
    let mut wrong = Wrong::new();
    let root = Descriptor { media_type, digest, size, platform: None, attests: None };
    let tree = Tree::read(&shelf, &root, &mut wrong, budget).await?;
    Ok(tree.and_then(|tree| {
        let chosen = tree.choose(&wrong)?;
        Ok((tree, wrong, chosen))
    }))
}

/// The digest of what was asked for, if the cache knows it under that name.
async fn resolve(store: &Store, wanted: &ExportImage) -> Result<Option<Digest>, ArchiveError> {
    let entries = store.images().await?;
    let mut entries = entries.iter().filter(|entry| entry.image == wanted.image);
    Ok(match &wanted.reference {
        Reference::Tag(tag) => {
            entries.find(|entry| entry.tag.as_ref() == Some(tag)).map(|entry| entry.digest)
        }
        Reference::Digest(digest) => {
            let listed = entries.any(|entry| entry.digest == *digest);
            (listed || store.link(&wanted.image, digest).await?.is_some()).then_some(*digest)
        }
    })
}

/// The platform of a plain image, by its configuration; an index tells those of its entries itself.
async fn platform(store: &Store, manifest: &Manifest) -> Option<Platform> {
    let ManifestKind::Image { config, .. } = &manifest.kind else { return None };
    let bytes = Held { store }.document(config.digest, Some(config.size)).await.ok()?.ok()?;
    let platform: Platform = serde_json::from_slice(&bytes).ok()?;
    (!platform.os.is_empty() && !platform.architecture.is_empty()).then_some(platform)
}

/// What the cache holds.
struct Held<'a> {
    store: &'a Store,
}

impl Held<'_> {
    /// A small blob, hashed. A damaged one goes into quarantine.
    async fn document(
        &self,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Result<bytes::Bytes, Why>, ArchiveError> {
        let Some(blob) = self.store.open_blob(&digest).await? else { return Ok(Err(Why::Missing(digest))) };
        let Some(length) = usize::try_from(blob.size()).ok().filter(|size| *size <= MANIFEST_BYTES_MAX)
        else {
            return Ok(Err(Why::InvalidManifest(digest)));
        };
        let Ok(bytes) = blob.read_at(0, length).await else { return Ok(Err(Why::Unreadable(digest))) };
        if !digest.names(&bytes) {
            quarantine(self.store, &blob).await;
            return Ok(Err(Why::WrongBytes(digest)));
        }
        let fits = size.is_none_or(|size| size == bytes.len() as u64);
        Ok(if fits { Ok(bytes) } else { Err(Why::WrongSize(digest)) })
    }
}

impl Shelf for Held<'_> {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Result<Manifest, Why>, ArchiveError> {
        let bytes = self.document(descriptor.digest, Some(descriptor.size)).await?;
        Ok(bytes.and_then(|bytes| tree::parse(&bytes, descriptor)))
    }

    async fn lacks(&self, piece: Piece) -> Result<Option<Why>, ArchiveError> {
        let Piece { digest, size } = piece;
        let Some(blob) = self.store.open_blob(&digest).await? else { return Ok(Some(Why::Missing(digest))) };
        if blob.size() == size {
            return Ok(None);
        }
        // Either the file is damaged, or the manifest tells another size than its blob has.
        match blob.verify().await {
            Ok(true) => Ok(Some(Why::WrongSize(digest))),
            Ok(false) => {
                quarantine(self.store, &blob).await;
                Ok(Some(Why::WrongBytes(digest)))
            }
            Err(_) => Ok(Some(Why::Unreadable(digest))),
        }
    }
}

/// Damaged bytes go nowhere, whether or not a read-only disk lets them be set aside.
pub(crate) async fn quarantine(store: &Store, damaged: &BlobFile) {
    if let Err(error) = store.quarantine_file(damaged).await {
        tracing::warn!(digest = %damaged.digest(), %error, "a damaged blob could not be set aside");
    }
}

/// A layout that is being written.
struct Writing<'a> {
    store: &'a Store,
    target: &'a Path,
    /// `None` only while a thread writes with it.
    output: Option<Output>,
    /// Blobs of the images that are in.
    written: HashSet<Piece>,
    /// Blobs of the image that is being written, beyond those.
    fresh: Vec<Piece>,
    progress: Progress,
}

impl<'a> Writing<'a> {
    async fn begin(store: &'a Store, target: &'a Path, progress: Progress) -> Result<Self, ArchiveError> {
        let path = target.to_owned();
        let begun = blocking(move || {
            Ok(Output::begin(&path).and_then(|mut output| {
                let marked = output.document(LAYOUT, LAYOUT_TEXT.as_bytes());
                marked.map_err(|error| told(&path, error)).map(|()| output)
            }))
        });
        let output = begun.await.map_err(|error| told(target, error))??;
        let (written, fresh) = (HashSet::new(), Vec::new());
        Ok(Self { store, target, output: Some(output), written, fresh, progress })
    }

    /// Lends the output to a thread that may block.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Output) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let output = self.output.take().ok_or(io::ErrorKind::BrokenPipe);
        let done = blocking(move || {
            let mut output = output?;
            let done = work(&mut output);
            Ok((output, done))
        });
        let (output, done) = done.await.map_err(|error| told(self.target, error))?;
        self.output = Some(output);
        done.map_err(|error| told(self.target, error))
    }

    fn mark(&self) -> Option<Mark> {
        self.output.as_ref().map(Output::mark)
    }

    async fn rewind(&mut self, mark: Option<Mark>) -> Result<(), ArchiveError> {
        self.progress.done_bytes -= self.fresh.drain(..).map(|piece| piece.size).sum::<u64>();
        match mark {
            Some(mark) => self.with(move |output| output.rewind(mark)).await,
            None => Ok(()),
        }
    }

    /// What was written of this image stays.
    fn keep(&mut self) {
        self.written.extend(self.fresh.drain(..));
    }

    /// Writes what an image is made of and is not in yet. The inner error: the piece that could not go, and why.
    async fn pieces(
        &mut self,
        chosen: &Chosen,
        progress: &mut (impl FnMut(&Progress) + Send),
    ) -> Result<Result<(), (Piece, Why)>, ArchiveError> {
        for piece in &chosen.pieces {
            if !self.written.contains(piece) {
                if let Err(why) = self.piece(*piece, progress).await? {
                    return Ok(Err((*piece, why)));
                }
                self.fresh.push(*piece);
            }
        }
        Ok(Ok(()))
    }

    async fn piece(
        &mut self,
        piece: Piece,
        progress: &mut (impl FnMut(&Progress) + Send),
    ) -> Result<Result<(), Why>, ArchiveError> {
        let Piece { digest, size } = piece;
        let Some(blob) = self.store.open_blob(&digest).await? else { return Ok(Err(Why::Missing(digest))) };
        let before = self.progress.done_bytes;
        self.with(move |output| output.begin_blob(&digest, size)).await?;
        let copied = self.copy(&blob, size, progress).await?;
        self.with(Output::end_file).await?;
        let why = match copied {
            Ok(actual) if actual == digest => return Ok(Ok(())),
            Ok(_) => {
                quarantine(self.store, &blob).await;
                Why::WrongBytes(digest)
            }
            Err(_) => Why::Unreadable(digest),
        };
        self.progress.done_bytes = before;
        Ok(Err(why))
    }

    /// Copies a blob, and tells what its bytes hash to. Bytes that are missing are written as nothing: the caller
    /// takes it all back.
    async fn copy(
        &mut self,
        blob: &BlobFile,
        size: u64,
        progress: &mut (impl FnMut(&Progress) + Send),
    ) -> Result<io::Result<Digest>, ArchiveError> {
        let mut hasher: Hasher = blob.digest().hasher();
        let mut offset = 0;
        while offset < size {
            let wanted = usize::try_from(size - offset).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
            let bytes = match blob.read_at(offset, wanted).await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            let length = bytes.len() as u64;
            let write = move |output: &mut Output| {
                hasher.update(&bytes);
                output.write(&bytes).map(|()| hasher)
            };
            hasher = self.with(write).await?;
            offset += length;
            self.progress.done_bytes += length;
            progress(&self.progress);
        }
        Ok(Ok(hasher.finish()))
    }

    /// How many blobs were written, and their bytes.
    fn totals(&self) -> (u64, u64) {
        (self.written.len() as u64, self.written.iter().map(|piece| piece.size).sum())
    }

    async fn finish(mut self, entries: Vec<Entry>, listed: Vec<Listed>) -> Result<(), ArchiveError> {
        let output = self.output.take().ok_or(io::ErrorKind::BrokenPipe);
        let done = blocking(move || {
            let mut output = output?;
            output.document(docker::LIST, &serde_json::to_vec(&listed)?)?;
            output.finish(&serde_json::to_vec(&Index::new(entries))?)
        });
        done.await.map_err(|error| told(self.target, error))
    }
}
