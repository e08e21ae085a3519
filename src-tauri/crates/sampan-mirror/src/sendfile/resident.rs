//! Whether a part of a file is in memory, and getting it there: a send must not wait for a disk on an async thread
//! (SECURITY.md R58).

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};
use sampan_store::BlobFile;

/// Where a part is looked at: once in so many bytes. The system reads ahead in such steps, and lets go in smaller ones
/// only by chance. A miss costs a wait, never a wrong byte.
const LOOK_EVERY: u64 = 128 * 1024;
/// How much is read at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// Makes sure that `len` bytes of `file` from `offset` are in memory. `false`: the file ends before they do.
/// # Errors
/// The disk's.
pub(crate) async fn bring(file: &BlobFile, offset: u64, len: u64) -> io::Result<bool> {
    let Some(open) = file.as_file() else { return Err(io::ErrorKind::Unsupported.into()) };
    match look(open, offset, len)? {
        Seen::All => return Ok(true),
        Seen::End => return Ok(false),
        Seen::Missing => {}
    }
    let file = file.clone();
    let read = move || file.as_file().map_or(Ok(false), |file| read_through(file, offset, len));
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    All,
    Missing,
    /// The file ends before the part does.
    End,
}

/// Looks without waiting.
fn look(file: &File, offset: u64, len: u64) -> io::Result<Seen> {
    let end = offset + len;
    let mut at = offset;
    loop {
        let mut byte = [0];
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Ok(Seen::End),
            Ok(_) => {}
            // A file system that cannot tell is one that has to be asked for the bytes.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(Seen::Missing),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if at + 1 >= end {
            return Ok(Seen::All);
        }
        at = (at + LOOK_EVERY).min(end - 1);
    }
}

/// Reads the part once, and has the system read on behind it. Blocks.
fn read_through(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    let ahead = std::num::NonZeroU64::new(len);
    // Advice: nothing depends on its being taken.
    let _ = rustix::fs::fadvise(file, offset + len, ahead, Advice::WillNeed);
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let wanted = usize::try_from(end - at).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        match file.read_at(&mut buffer[..wanted], at) {
            Ok(0) => return Ok(false),
            Ok(read) => at += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_memory_once_it_was_read_and_a_short_file_is_told() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 300_000], 0).unwrap();
        assert!(read_through(&file, 0, 300_000).unwrap());
        assert_eq!(look(&file, 0, 300_000).unwrap(), Seen::All);
        assert_eq!(look(&file, 299_999, 1).unwrap(), Seen::All);
        assert_eq!(look(&file, 0, 300_001).unwrap(), Seen::End);
        assert!(!read_through(&file, 100, 300_000).unwrap());
    }
}
