//! Import: images out of an OCI image layout into the cache. Nothing in the archive is believed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use sampan_oci::{Descriptor, Digest, MANIFEST_BYTES_MAX, Manifest};
use sampan_store::{ImportedImage, ImportedTag, Store, StoreError};

use crate::blocking::blocking;
use crate::document::{self, Entry, Index, blob_name};
use crate::error::ArchiveError;
use crate::export::quarantine;
use crate::naming::ArchiveName;
use crate::report::{Imported, ImportedEntry, Progress, Skipped, Why, printable};
use crate::source::{Place, Reading, Source};
use crate::tree::{self, Budget, Chosen, Piece, Shelf, Tree, Wrong};

/// How often pieces that made way for others are brought in again.
const ROUNDS_MAX: u32 = 4;

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Whether the person vouches for the names in the archive. An archive proves bytes, not names: without this an
    /// image is listed, and nothing of it is served under its name before its upstream was heard (SECURITY.md R84).
    pub trust_names: bool,
    /// The name for the one image of an archive, whatever the archive calls it.
    pub name: Option<ArchiveName>,
}

/// Reads images from an OCI image layout, a folder or a tar file. Only `oci-layout`, `index.json` and the blobs that
/// can be reached from there are read; every blob is hashed, and gets into the cache only if it has the digest and the
/// size that its descriptor says. A blob that the cache has is hashed there, not read from the archive. Of an image
/// whose parts are missing or wrong nothing is recorded; of an index what is whole comes in. What was not used for the
/// longest makes way, unless the images cannot fit whatever does: then nothing is changed.
///
/// `progress` is called about once for each mebibyte, on the caller's task: it must not wait.
/// # Errors
/// [`ArchiveError`]. Images that were imported until then stay, and are told where the cache is the reason.
/// # Cancel safety
/// Dropping the future leaves whole blobs and whole images; the image that was being read is not recorded.
pub async fn import(
    store: &Store,
    source: &Path,
    options: ImportOptions,
    progress: impl FnMut(&Progress) + Send,
) -> Result<Imported, ArchiveError> {
    if store.is_read_only() {
        return Err(StoreError::ReadOnly.into());
    }
    let path = source.to_owned();
    let opened = blocking(move || {
        let mut report = Imported::default();
        Ok(open(&path, &mut report).map(|(source, index)| (source, index, report)))
    });
    let failed = |error| ArchiveError::Source { path: source.to_owned(), source: error };
    let (source, index, mut report) = opened.await.map_err(failed)??;
    let source = Arc::new(source);
    let mut reader = Reader {
        store,
        source: &source,
        done: HashMap::new(),
        progress: Progress::default(),
        tell: progress,
    };
    let done = reader.run(index, &options, &mut report).await;
    for (piece, came) in &reader.done {
        match came {
            Came::Held => report.held_blobs += 1,
            Came::New => {
                report.new_blobs += 1;
                report.new_bytes += piece.size;
            }
        }
    }
    match done {
        Ok(()) => Ok(report),
        Err(error) => Err(error.after(report)),
    }
}

/// Opens an archive and reads its list. Blocks.
fn open(path: &Path, report: &mut Imported) -> Result<(Source, Index), ArchiveError> {
    let source = Source::open(path, report)?;
    let read = |name: &str, place: Place| {
        let failed = |error| ArchiveError::Source { path: path.to_owned(), source: error };
        source.reading(name, place).all().map_err(failed)
    };
    if source.layout.size > document::LAYOUT_BYTES_MAX
        || !document::is_layout(&read(document::LAYOUT, source.layout)?)
    {
        return Err(ArchiveError::NotALayout("its `oci-layout` is not of version 1"));
    }
    if source.index.size > MANIFEST_BYTES_MAX as u64 {
        return Err(ArchiveError::NotALayout("its index.json is larger than 4 MiB"));
    }
    let index = Index::parse(&read(document::INDEX, source.index)?)?;
    Ok((source, index))
}

/// An image of the list, before its blobs are read.
struct Planned {
    shown: String,
    name: ArchiveName,
    tree: Tree,
    wrong: Wrong,
    chosen: Chosen,
}

/// Where a blob came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Held,
    New,
}

struct Reader<'a, F> {
    store: &'a Store,
    source: &'a Arc<Source>,
    /// Blobs that came in, or were found right.
    done: HashMap<Piece, Came>,
    progress: Progress,
    tell: F,
}

impl<F: FnMut(&Progress) + Send> Reader<'_, F> {
    async fn run(
        &mut self,
        index: Index,
        options: &ImportOptions,
        report: &mut Imported,
    ) -> Result<(), ArchiveError> {
        if options.name.is_some() && index.manifests.len() > 1 {
            return Err(ArchiveError::NameForMany(index.manifests.len()));
        }
        let both = Shelved { store: self.store, source: self.source };
        let mut seen = Seen::default();
        let mut planned = Vec::new();
        for entry in index.manifests {
            let shown = printable(entry.names().next().unwrap_or_default());
            match plan(&both, &entry, options, &mut seen).await? {
                Ok((name, tree, wrong, chosen)) => {
                    planned.push(Planned { shown, name, tree, wrong, chosen });
                }
                Err(Some(why)) => report.skipped.push(Skipped { name: shown, why }),
                // Listed twice, under the same name.
                Err(None) => {}
            }
        }
        report.unreferred_blobs = self.source.others_than(&seen.referred);
        self.look_for_room(&planned).await?;
        for image in planned {
            self.image(image, options.trust_names, report).await?;
        }
        Ok(())
    }

    /// Says before anything is written or makes way that there cannot be enough room. What has none by other rules, or
    /// because of what runs at the same time, is refused by the store, blob by blob.
    async fn look_for_room(&mut self, planned: &[Planned]) -> Result<(), ArchiveError> {
        let pieces: HashSet<Piece> =
            planned.iter().flat_map(|image| image.chosen.pieces.iter().copied()).collect();
        self.progress.total_bytes = pieces.iter().map(|piece| piece.size).sum();
        let (mut needed, mut kept) = (0_u64, 0_u64);
        for piece in pieces {
            let held = self.store.open_blob(&piece.digest).await?;
            let part =
                if held.is_some_and(|blob| blob.size() == piece.size) { &mut kept } else { &mut needed };
            *part = part.saturating_add(piece.size);
        }
        if needed == 0 {
            return Ok(());
        }
        // What these images have there already stays as well.
        let ceiling = self.store.ceiling(kept).await?;
        if let Some(available_bytes) = ceiling.quota_bytes.filter(|available| *available < needed) {
            return Err(ArchiveError::QuotaTooSmall { needed_bytes: needed, available_bytes });
        }
        if ceiling.disk_bytes.is_some_and(|available| available < needed) {
            return Err(ArchiveError::Full { needed_bytes: Some(needed), imported: Box::default() });
        }
        Ok(())
    }

    async fn image(
        &mut self,
        image: Planned,
        trusted: bool,
        report: &mut Imported,
    ) -> Result<(), ArchiveError> {
        let Planned { shown, name, tree, mut wrong, mut chosen } = image;
        let root = tree.root();
        self.progress.image = name.full(&root.digest);
        let mut rounds = 0;
        loop {
            // Each turn finds another piece wrong, or ends.
            while let Err((piece, why)) = self.pieces(&chosen).await? {
                wrong.insert(piece, why);
                match tree.choose(&wrong) {
                    Ok(less) => chosen = less,
                    Err(why) => {
                        report.skipped.push(Skipped { name: shown, why });
                        return Ok(());
                    }
                }
            }
            // What was there first, with an image unused for long, may have made way for what came in last.
            if self.all_held(&chosen).await? {
                break;
            }
            rounds += 1;
            if rounds == ROUNDS_MAX {
                return Err(StoreError::Full.into());
            }
        }
        let manifests = chosen.manifests.iter();
        let manifests = manifests.filter_map(|piece| Some((tree.manifest(piece)?.clone(), piece.size)));
        let size_bytes = chosen.size_bytes();
        let ArchiveName { image, tag } = name;
        let recorded = ImportedImage {
            image: image.clone(),
            tag: tag.clone(),
            digest: root.digest,
            manifests: manifests.collect(),
            trusted,
        };
        let tag_elsewhere = match self.store.import_image(recorded).await? {
            ImportedTag::Untagged | ImportedTag::Points => None,
            ImportedTag::Kept { digest } => Some(digest),
        };
        let (digest, left_out) = (root.digest, chosen.left_out);
        report.images.push(ImportedEntry { image, tag, tag_elsewhere, digest, size_bytes, left_out });
        Ok(())
    }

    /// Whether the cache holds all of it still. What it does not is no longer done.
    async fn all_held(&mut self, chosen: &Chosen) -> Result<bool, ArchiveError> {
        let mut all = true;
        for piece in &chosen.pieces {
            if self.store.open_blob(&piece.digest).await?.is_none() {
                all = false;
                if self.done.remove(piece).is_some() {
                    self.progress.done_bytes = self.progress.done_bytes.saturating_sub(piece.size);
                }
            }
        }
        Ok(all)
    }

    /// Brings in what an image is made of. The inner error: the piece that is wrong, and why.
    async fn pieces(&mut self, chosen: &Chosen) -> Result<Result<(), (Piece, Why)>, ArchiveError> {
        for piece in &chosen.pieces {
            if self.done.contains_key(piece) {
                continue;
            }
            let before = self.progress.done_bytes;
            let came = if self.holds(*piece).await? {
                self.went_on(piece.size);
                Came::Held
            } else if let Err(why) = self.bring(*piece).await? {
                self.progress.done_bytes = before;
                return Ok(Err((*piece, why)));
            } else {
                Came::New
            };
            self.done.insert(*piece, came);
        }
        Ok(Ok(()))
    }

    fn went_on(&mut self, bytes: u64) {
        self.progress.done_bytes += bytes;
        (self.tell)(&self.progress);
    }

    /// Whether the cache has the blob, and right. A damaged one is set aside, so that the archive's may heal it.
    async fn holds(&self, piece: Piece) -> Result<bool, ArchiveError> {
        let Some(blob) = self.store.open_blob(&piece.digest).await? else { return Ok(false) };
        if blob.size() == piece.size && blob.verified() {
            return Ok(true);
        }
        match blob.verify().await {
            // The manifest may tell another size than its blob has.
            Ok(true) => Ok(blob.size() == piece.size),
            Ok(false) => {
                self.store.quarantine_file(&blob).await?;
                Ok(false)
            }
            // What cannot be read is replaced by the archive's.
            Err(_) => Ok(false),
        }
    }

    /// Reads a blob from the archive into the cache.
    async fn bring(&mut self, piece: Piece) -> Result<Result<(), Why>, ArchiveError> {
        let Piece { digest, size } = piece;
        let Some(place) = self.source.blob(&digest) else { return Ok(Err(Why::Missing(digest))) };
        if place.size != size {
            return Ok(Err(Why::WrongSize(digest)));
        }
        let mut reading = self.source.reading(&blob_name(&digest), place);
        let mut stage = self.store.stage(&digest, size).await?;
        loop {
            let read = blocking(move || {
                let bytes = reading.next()?;
                Ok((reading, bytes))
            });
            let Ok((back, bytes)): Result<(Reading, _), _> = read.await else {
                return Ok(Err(Why::Unreadable(digest)));
            };
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len() as u64;
            stage.append(bytes).await?;
            self.went_on(length);
            reading = back;
        }
        match stage.publish_imported().await {
            Ok(()) => Ok(Ok(())),
            Err(StoreError::Mismatch { .. }) => Ok(Err(Why::WrongBytes(digest))),
            Err(StoreError::Size { .. }) => Ok(Err(Why::WrongSize(digest))),
            Err(error) => Err(error.into()),
        }
    }
}

/// What was met in an archive so far.
#[derive(Debug, Default)]
struct Seen {
    names: HashMap<(ArchiveName, Option<Digest>), Digest>,
    referred: HashSet<Digest>,
    budget: Budget,
}

/// Decides about an image of the list. `Err(None)`: it is in the list already.
async fn plan(
    shelf: &Shelved<'_>,
    entry: &Entry,
    options: &ImportOptions,
    seen: &mut Seen,
) -> Result<Result<(ArchiveName, Tree, Wrong, Chosen), Option<Why>>, ArchiveError> {
    let Ok(digest) = entry.digest.parse::<Digest>() else { return Ok(Err(Some(Why::InvalidDigest))) };
    seen.referred.insert(digest);
    let name = options.name.clone().or_else(|| entry.names().find_map(ArchiveName::parse));
    let root = Descriptor {
        media_type: entry.media_type.clone(),
        digest,
        size: entry.size,
        platform: entry.platform.clone(),
        attests: None,
    };
    let mut wrong = Wrong::new();
    let tree = match Tree::read(shelf, &root, &mut wrong, &mut seen.budget).await? {
        Ok(tree) => tree,
        Err(why) => return Ok(Err(Some(why))),
    };
    seen.referred.extend(tree.listed());
    // The reason that a person can do something about comes first.
    let Some(name) = name else { return Ok(Err(Some(Why::NoName))) };
    let chosen = match tree.choose(&wrong) {
        Ok(chosen) => chosen,
        Err(why) => return Ok(Err(Some(why))),
    };
    // By digest alone, many images may share a repository.
    let key = (name.clone(), name.tag.is_none().then_some(digest));
    match seen.names.insert(key.clone(), digest) {
        None => Ok(Ok((name, tree, wrong, chosen))),
        Some(first) => {
            seen.names.insert(key, first);
            Ok(Err((first != digest).then_some(Why::NameTaken)))
        }
    }
}

/// What the archive and the cache have together.
struct Shelved<'a> {
    store: &'a Store,
    source: &'a Arc<Source>,
}

impl Shelved<'_> {
    /// A manifest's bytes from the archive, not hashed yet, or else from the cache.
    async fn document(&self, piece: Piece) -> Result<Result<bytes::Bytes, Why>, ArchiveError> {
        let Piece { digest, size } = piece;
        let Some(length) = usize::try_from(size).ok().filter(|size| *size <= MANIFEST_BYTES_MAX) else {
            return Ok(Err(Why::InvalidManifest(digest)));
        };
        let Some(place) = self.source.blob(&digest) else {
            let held = self.store.open_blob(&digest).await?;
            let Some(blob) = held.filter(|blob| blob.size() == size) else {
                return Ok(Err(Why::Missing(digest)));
            };
            let Ok(bytes) = blob.read_at(0, length).await else { return Ok(Err(Why::Unreadable(digest))) };
            if !digest.names(&bytes) {
                quarantine(self.store, &blob).await;
            }
            return Ok(Ok(bytes));
        };
        if place.size != size {
            return Ok(Err(Why::WrongSize(digest)));
        }
        let reading = self.source.reading(&blob_name(&digest), place);
        let bytes = blocking(move || reading.all()).await;
        Ok(bytes.map(Into::into).map_err(|_| Why::Unreadable(digest)))
    }
}

impl Shelf for Shelved<'_> {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Result<Manifest, Why>, ArchiveError> {
        let bytes = self.document(Piece::of(descriptor)).await?;
        Ok(bytes.and_then(|bytes| {
            if !descriptor.digest.names(&bytes) {
                return Err(Why::WrongBytes(descriptor.digest));
            }
            tree::parse(&bytes, descriptor)
        }))
    }

    async fn lacks(&self, piece: Piece) -> Result<Option<Why>, ArchiveError> {
        if self.store.open_blob(&piece.digest).await?.is_some_and(|blob| blob.size() == piece.size) {
            return Ok(None);
        }
        Ok(match self.source.blob(&piece.digest) {
            None => Some(Why::Missing(piece.digest)),
            Some(place) if place.size != piece.size => Some(Why::WrongSize(piece.digest)),
            Some(_) => None,
        })
    }
}
