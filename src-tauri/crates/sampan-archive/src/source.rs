//! A foreign archive: what lies where in it. Only names that an image layout has are kept, and only regular files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sampan_oci::{Algorithm, Digest};

use crate::blocking::CHUNK_BYTES;
use crate::document::{INDEX, LAYOUT};
use crate::error::ArchiveError;
use crate::report::{Ending, Ignored, IgnoredMember, Imported, printable};
use crate::tarball::{Found, Walk};

/// The most files an archive may hold; each costs some memory.
const FILES_MAX: usize = 1_000_000;
/// How many ignored files are named in a report.
const IGNORED_MAX: usize = 100;
/// What other programs put beside a layout: Docker's own lists.
const BYSTANDERS: [&str; 2] = ["manifest.json", "repositories"];

/// An opened archive. Its content may change while it is read: nothing depends on that it does not.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    folder: bool,
    pub(crate) layout: Place,
    pub(crate) index: Place,
    blobs: HashMap<Digest, Place>,
}

/// Where a file's bytes are: in the tar file from `offset` on, or a file of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    offset: u64,
    pub(crate) size: u64,
}

#[derive(Debug, Default)]
struct Finds {
    layout: Option<Place>,
    index: Option<Place>,
    blobs: HashMap<Digest, Place>,
    docker: bool,
    files: usize,
}

impl Source {
    /// Looks through a folder or tar file. Blocks.
    pub(crate) fn open(path: &Path, report: &mut Imported) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Source { path: path.to_owned(), source };
        // The person named this path: it may be a link. Nothing inside may.
        let folder = fs::metadata(path).map_err(failed)?.is_dir();
        let mut finds = Finds::default();
        if folder {
            finds.look_into(path, report).map_err(failed)?;
        } else {
            finds.walk(path, report, failed)?;
        }
        if finds.files > FILES_MAX {
            return Err(ArchiveError::NotALayout("it holds more than a million files"));
        }
        let (Some(layout), Some(index)) = (finds.layout, finds.index) else {
            return Err(match (finds.docker, report.ending) {
                (true, _) => ArchiveError::DockerArchive,
                (false, Ending::Whole) => ArchiveError::NotALayout("`oci-layout` or `index.json` is missing"),
                (false, Ending::CutShort) => ArchiveError::NotALayout("the tar file is cut short"),
                (false, Ending::Damaged(_)) => {
                    ArchiveError::NotALayout("it is no tar file, or a damaged one")
                }
            });
        };
        Ok(Self { path: path.to_owned(), folder, layout, index, blobs: finds.blobs })
    }

    /// Where a blob is, by the size its file has.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<Place> {
        self.blobs.get(digest).copied()
    }

    /// How many blobs of the archive are not among these.
    pub(crate) fn others_than(&self, referred: &std::collections::HashSet<Digest>) -> u64 {
        self.blobs.keys().filter(|digest| !referred.contains(*digest)).count() as u64
    }

    /// How to read one of the archive's files from its beginning.
    pub(crate) fn reading(&self, name: &str, place: Place) -> Reading {
        let path = if self.folder { self.path.join(name) } else { self.path.clone() };
        Reading { path, inside: self.folder, place, open: None }
    }
}

/// A file of the archive, being read. Blocks.
#[derive(Debug)]
pub(crate) struct Reading {
    path: PathBuf,
    inside: bool,
    place: Place,
    open: Option<io::Take<File>>,
}

impl Reading {
    /// The next bytes, at most a mebibyte; none at the end, which comes early where the file was cut since.
    pub(crate) fn next(&mut self) -> io::Result<Bytes> {
        let open = if let Some(open) = &mut self.open {
            open
        } else {
            let mut file = if self.inside { open_plain(&self.path)? } else { File::open(&self.path)? };
            file.seek(SeekFrom::Start(self.place.offset))?;
            self.open.insert(file.take(self.place.size))
        };
        let wanted = usize::try_from(open.limit()).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        let mut bytes = Vec::with_capacity(wanted);
        open.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// All of it; the caller has looked at its size.
    pub(crate) fn all(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let next = self.next()?;
            if next.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&next);
        }
    }
}

/// Opens a file that is not a link, a pipe or a device, and is still the one that was looked at.
fn open_plain(path: &Path) -> io::Result<File> {
    let not_plain = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    // A pipe would be waited for when it is opened, so the look comes first.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(not_plain());
    }
    let file = File::open(path)?;
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    #[cfg(unix)]
    let same = {
        use std::os::unix::fs::MetadataExt;
        (opened.dev(), opened.ino()) == (named.dev(), named.ino())
    };
    #[cfg(not(unix))]
    let same = opened.len() == named.len();
    if named.is_file() && opened.is_file() && same { Ok(file) } else { Err(not_plain()) }
}

impl Finds {
    fn look_into(&mut self, root: &Path, report: &mut Imported) -> io::Result<()> {
        for (name, place) in [(LAYOUT, &mut self.layout), (INDEX, &mut self.index)] {
            match fs::symlink_metadata(root.join(name)) {
                Ok(metadata) if metadata.is_file() => {
                    *place = Some(Place { offset: 0, size: metadata.len() });
                }
                Ok(_) => report.ignore(name, IgnoredMember::NotAFile),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.docker = root.join(BYSTANDERS[0]).is_file();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512].map(Algorithm::as_str) {
            let folder = root.join("blobs").join(algorithm);
            let is_folder = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.is_dir());
            match is_folder(&root.join("blobs")).and_then(|above| Ok(above && is_folder(&folder)?)) {
                Ok(true) => self.look_into_blobs(algorithm, &folder, report)?,
                Ok(false) => report.ignore(&format!("blobs/{algorithm}"), IgnoredMember::NotAFile),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn look_into_blobs(&mut self, algorithm: &str, folder: &Path, report: &mut Imported) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            self.files += 1;
            if self.files > FILES_MAX {
                return Ok(());
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let shown = format!("blobs/{algorithm}/{name}");
            let metadata = fs::symlink_metadata(entry.path())?;
            if !metadata.is_file() {
                report.ignore(&shown, IgnoredMember::NotAFile);
            } else if let Ok(digest) = format!("{algorithm}:{name}").parse() {
                self.blobs.insert(digest, Place { offset: 0, size: metadata.len() });
            } else {
                report.ignore(&shown, IgnoredMember::Name);
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        path: &Path,
        report: &mut Imported,
        failed: impl Fn(io::Error) -> ArchiveError,
    ) -> Result<(), ArchiveError> {
        let mut file = File::open(path).map_err(&failed)?;
        if !file.metadata().map_err(&failed)?.is_file() {
            return Err(ArchiveError::NotALayout("it is neither a folder nor a file"));
        }
        if let Some(program) = compressed(&mut file).map_err(&failed)? {
            return Err(ArchiveError::Compressed(program));
        }
        let mut walk = Walk::new(file).map_err(&failed)?;
        loop {
            self.files += 1;
            if self.files > FILES_MAX {
                return Ok(());
            }
            match walk.next().map_err(&failed)? {
                Found::End(ending) => {
                    report.ending = ending;
                    return Ok(());
                }
                Found::Ignored(name, why) => report.ignore(&name, why),
                Found::Folder(name) => {
                    let plain = without_dots(&name).trim_end_matches('/');
                    if !["", ".", "blobs", "blobs/sha256", "blobs/sha512"].contains(&plain) {
                        report.ignore(&name, IgnoredMember::NotAFile);
                    }
                }
                Found::File(member) => {
                    let place = Place { offset: member.offset, size: member.size };
                    self.keep(&member.name, place, report)?;
                }
            }
        }
    }

    fn keep(&mut self, name: &str, place: Place, report: &mut Imported) -> Result<(), ArchiveError> {
        let plain = without_dots(name);
        let document = match plain {
            LAYOUT => Some(&mut self.layout),
            INDEX => Some(&mut self.index),
            _ => None,
        };
        if let Some(document) = document {
            // Which of two is meant, programs do not agree on.
            return match document.replace(place) {
                None => Ok(()),
                Some(_) => Err(ArchiveError::NotALayout("`oci-layout` or `index.json` is in it twice")),
            };
        }
        if BYSTANDERS.contains(&plain) {
            self.docker = true;
            return Ok(());
        }
        let digest = plain.strip_prefix("blobs/").and_then(|rest| rest.split_once('/'));
        match digest.and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse().ok()) {
            None => report.ignore(name, IgnoredMember::Name),
            Some(digest) if self.blobs.contains_key(&digest) => report.ignore(name, IgnoredMember::Twice),
            Some(digest) => drop(self.blobs.insert(digest, place)),
        }
        Ok(())
    }
}

/// `tar -c .` writes every name so.
fn without_dots(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

/// What unpacks a file that is compressed as a whole, by its first bytes.
fn compressed(file: &mut File) -> io::Result<Option<&'static str>> {
    const KNOWN: [(&[u8], &str); 5] = [
        (&[0x1f, 0x8b], "gunzip FILE"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "unzstd FILE"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "unxz FILE"),
        (b"BZh", "bunzip2 FILE"),
        (b"PK\x03\x04", "unzip FILE"),
    ];
    let mut start = Vec::new();
    Read::by_ref(file).take(6).read_to_end(&mut start)?;
    Ok(KNOWN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, program)| *program))
}

impl Imported {
    fn ignore(&mut self, name: &str, why: IgnoredMember) {
        self.ignored_count += 1;
        if self.ignored.len() < IGNORED_MAX {
            self.ignored.push(Ignored { name: printable(name), why });
        }
    }
}
