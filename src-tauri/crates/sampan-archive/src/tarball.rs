//! The tar format, as far as an image layout needs it: headers written alike every time, and foreign ones read with
//! suspicion. Nothing is unpacked: a file is a place in the archive.
//!
//! Read as Go's archive/tar does, which skopeo, podman and Docker use: what two programs read differently is left out.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, Header};

use crate::report::{Ending, IgnoredMember};

const BLOCK: u64 = 512;
/// The largest header extension that is read, in bytes: names have 4096 at most.
const EXTENSION_BYTES_MAX: u64 = 64 * 1024;
/// What a header has room for as a name.
const NAME_BYTES_MAX: usize = 100;
/// From this size on, a size has more octal digits than a header has room for.
const OCTAL_SIZE_END: u64 = 1 << 33;

/// A file's bytes within a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// One thing found in a tar file.
#[derive(Debug)]
pub(crate) enum Found {
    File(Member),
    Folder(String),
    Ignored(String, IgnoredMember),
    End(Ending),
}

/// Goes from header to header. Holds one name at a time, and reads no file's content.
#[derive(Debug)]
pub(crate) struct Walk {
    file: File,
    length: u64,
    at: u64,
}

/// What extension headers say of the next file.
#[derive(Debug, Default)]
struct Extension {
    name: Option<String>,
    size: Option<u64>,
    ambiguous: bool,
}

impl Walk {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length, at: 0 })
    }

    /// The next thing. After [`Found::End`] comes nothing more.
    pub(crate) fn next(&mut self) -> io::Result<Found> {
        let mut extension = Extension::default();
        loop {
            let begin = self.at;
            // Also where nothing but the end is missing: a copy that was broken off ends at a block's end.
            if begin + BLOCK > self.length {
                return Ok(Found::End(Ending::CutShort));
            }
            let mut header = Header::new_old();
            self.file.seek(SeekFrom::Start(begin))?;
            self.file.read_exact(header.as_mut_bytes())?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                return Ok(Found::End(Ending::Whole));
            }
            let damaged = Found::End(Ending::Damaged(begin));
            let (true, Ok(size)) = (checksum_fits(&header), header.entry_size()) else { return Ok(damaged) };
            let kind = header.entry_type();
            let is_extension = kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
                || kind.is_gnu_longname()
                || kind.is_gnu_longlink();
            let without_content = matches!(
                kind,
                EntryType::Link
                    | EntryType::Symlink
                    | EntryType::Char
                    | EntryType::Block
                    | EntryType::Directory
                    | EntryType::Fifo
            );
            let size = match extension.size {
                _ if without_content => 0,
                Some(told) if !is_extension => told,
                Some(_) | None => size,
            };
            let offset = begin + BLOCK;
            let padded = size.div_ceil(BLOCK).checked_mul(BLOCK);
            let Some(next) = padded.and_then(|padded| offset.checked_add(padded)) else { return Ok(damaged) };
            let whole = offset.checked_add(size).is_some_and(|end| end <= self.length);
            self.at = next.min(self.length);
            if is_extension {
                if !whole {
                    return Ok(Found::End(Ending::CutShort));
                }
                extension.read(&mut self.file, &header, size)?;
                continue;
            }
            let name = extension.name.take().or_else(|| plain_name(&header));
            let shown = || String::from_utf8_lossy(&header.path_bytes()).into_owned();
            if !whole {
                return Ok(Found::Ignored(name.unwrap_or_else(shown), IgnoredMember::CutShort));
            }
            let Some(name) = name else { return Ok(Found::Ignored(shown(), IgnoredMember::Name)) };
            // Before POSIX, a folder was a file whose name ends so.
            if kind.is_dir() || (kind.is_file() && name.ends_with('/')) {
                return Ok(Found::Folder(name));
            }
            if kind.is_gnu_sparse() || (kind.is_file() && extension.ambiguous) {
                return Ok(Found::Ignored(name, IgnoredMember::Ambiguous));
            }
            if !kind.is_file() {
                return Ok(Found::Ignored(name, IgnoredMember::NotAFile));
            }
            return Ok(Found::File(Member { name, offset, size }));
        }
    }
}

impl Extension {
    fn read(&mut self, file: &mut File, header: &Header, size: u64) -> io::Result<()> {
        let kind = header.entry_type();
        // Those are for all files that follow, and their own readers disagree on them; link names are not needed.
        if kind.is_pax_global_extensions() || kind.is_gnu_longlink() {
            return Ok(());
        }
        if size > EXTENSION_BYTES_MAX {
            self.ambiguous = true;
            return Ok(());
        }
        let mut text = Vec::new();
        Read::by_ref(file).take(size).read_to_end(&mut text)?;
        if kind.is_gnu_longname() {
            while text.last() == Some(&0) {
                text.pop();
            }
            self.set_name(&text);
            return Ok(());
        }
        let mut rest = &text[..];
        while !rest.is_empty() {
            let Some((key, value, after)) = pax_record(rest) else {
                self.ambiguous = true;
                return Ok(());
            };
            rest = after;
            match key {
                b"path" => self.set_name(value),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                    self.ambiguous |= size.is_none() || self.size.is_some();
                    self.size = size;
                }
                _ => self.ambiguous |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }

    fn set_name(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.ambiguous |= self.name.is_some() || name.contains('\0');
        self.name = Some(name);
    }
}

/// One record, `length key=value\n`, where the length counts all of it; and what follows.
fn pax_record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &text[length..]))
}

fn plain_name(header: &Header) -> Option<String> {
    String::from_utf8(header.path_bytes().into_owned()).ok()
}

fn checksum_fits(header: &Header) -> bool {
    let bytes = header.as_bytes();
    // The checksum's own field counts as spaces.
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    header.cksum().is_ok_and(|told| told == sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]))
}

/// The header of a folder or file, in the form of 1988 that everything reads. Before a file of 8 GiB and more, and one
/// with a name of more than 100 bytes (a SHA-512), comes the extension of 2001 (PAX) that says what has no room. The
/// same for the same content, whoever writes it and whenever.
pub(crate) fn header(name: &str, size: u64, folder: bool) -> io::Result<Vec<u8>> {
    let fixed = |kind, size: u64, mode, name: &str| {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        Ok::<_, io::Error>(header.as_bytes().to_vec())
    };
    if folder {
        return fixed(EntryType::Directory, 0, 0o755, name);
    }
    let (mut records, mut short, mut octal) = (Vec::new(), name, size);
    if name.len() > NAME_BYTES_MAX {
        records.extend(record("path", name));
        // What a program sees that knows no extensions; all our names are ASCII.
        short = name.get(..NAME_BYTES_MAX).ok_or(io::ErrorKind::InvalidFilename)?;
    }
    if size >= OCTAL_SIZE_END {
        records.extend(record("size", &size.to_string()));
        octal = 0;
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        bytes = fixed(EntryType::XHeader, records.len() as u64, 0o644, "PaxHeaders/next")?;
        pad(&mut records);
        bytes.extend(records);
    }
    bytes.extend(fixed(EntryType::Regular, octal, 0o644, short)?);
    Ok(bytes)
}

/// The opposite of [`pax_record`]: its length counts its own digits.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let one_more = rest.len() + (rest.len() + 1).to_string().len();
    let length = rest.len() + one_more.to_string().len();
    format!("{length}{rest}").into_bytes()
}

/// Fills up to the next block.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

/// How many zeros follow a file of this size.
pub(crate) fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)
}

/// What ends a tar file.
pub(crate) const END: [u8; 1024] = [0; 1024];

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8], length: Option<u64>) -> Vec<Found> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        std::fs::write(&path, bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        if let Some(length) = length {
            file.set_len(length).unwrap();
        }
        let mut walk = Walk::new(file).unwrap();
        let mut found = Vec::new();
        loop {
            found.push(walk.next().unwrap());
            if matches!(found.last(), Some(Found::End(_))) {
                return found;
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_always_the_same() {
        let name = format!("blobs/sha512/{}", "a".repeat(128));
        let mut tar = header("blobs/", 0, true).unwrap();
        tar.extend(header(&name, 3, false).unwrap());
        tar.extend(b"abc");
        pad(&mut tar);
        tar.extend(END);
        let found = walk(&tar, None);
        assert!(matches!(&found[0], Found::Folder(name) if name == "blobs/"), "{found:?}");
        assert!(matches!(&found[1], Found::File(m) if m.name == name && m.size == 3 && m.offset == 2048));
        assert!(matches!(found[2], Found::End(Ending::Whole)));
    }

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for length in 0..1200 {
            let value = "v".repeat(length);
            let record = record("path", &value);
            assert_eq!(pax_record(&record), Some((&b"path"[..], value.as_bytes(), &b""[..])), "{length}");
        }
    }

    #[test]
    fn a_file_of_nine_gibibytes_is_found_whole_and_so_is_the_next() {
        let size = 9 << 30;
        let mut tar = header("large", size, false).unwrap();
        let after = tar.len() as u64 + size;
        // A hole instead of the content.
        let found = walk(&tar, Some(after));
        assert!(matches!(&found[0], Found::File(m) if m.size == size), "{found:?}");
        assert!(matches!(found[1], Found::End(Ending::CutShort)), "no zeros follow");
        tar.truncate(700);
        assert!(matches!(walk(&tar, None)[0], Found::End(Ending::CutShort)));
    }
}
