//! A file's bytes on their way to a socket without passing through this process.
//!
//! hyper keeps its say over heads, lengths and keep-alive. The body hands it stand-ins: memory that nobody ever writes
//! or reads, as long as the bytes that are due. Each stand-in is announced here first, with the place in the file that it
//! stands for; the socket below hyper knows a stand-in by its address, and has the kernel send the file's bytes instead.
//!
//! It leans on these of hyper 1.12: with `writev(true)` frames are queued as they are (`proto/h1/io.rs`, `WriteBuf::buffer`
//! under `WriteStrategy::Queue`) and never copied, as they would be with `pipeline_flush`; a frame of a body whose length
//! is known is put in the queue alone (`proto/h1/encode.rs`, `BufKind::Exact`, and `encode_and_end`); what is queued is
//! written by `poll_write_vectored` and advanced by what that returns (`Buffered::poll_flush`); the next frame is asked for
//! once less than `max_buf_size` waits (`can_buffer`), and the next head written once nothing waits (`can_headers_buf`).
//!
//! Whatever does not fit together (bytes where a stand-in is due, a stand-in of another length, one that was never
//! announced) ends the connection before the answer is complete: a stand-in's own zeros are never sent.

#[cfg(target_os = "linux")]
mod resident;
#[cfg(target_os = "linux")]
mod socket;

#[cfg(target_os = "linux")]
pub(crate) use socket::Socket;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sampan_store::BlobFile;

use crate::body::Course;

/// The most bytes sent for one stand-in.
pub(crate) const REGION_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The fewest, above whatever hyper may write between two answers: if it ever copied a stand-in among other bytes, the
/// socket would see more of them than a head can have.
pub(crate) const REGION_BYTES_MIN: usize = 64 * 1024;
/// The most other bytes that may be on their way before an announced stand-in: a head, and no body.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What all connections of a listener share.
#[derive(Clone)]
pub(crate) struct Offload {
    /// What stand-ins are slices of. Zeros that were never touched take no memory.
    blank: Bytes,
    /// Set when the cache's file system turns out not to know `sendfile`.
    unfit: Arc<AtomicBool>,
    /// How many connections are in the middle of a file.
    sending: Arc<AtomicUsize>,
    damaged: Arc<dyn Fn(&BlobFile) + Send + Sync>,
}

impl Offload {
    /// `damaged` is told of a blob whose file ended before its bytes did, or that the disk cannot read. It must not block.
    pub(crate) fn new(damaged: impl Fn(&BlobFile) + Send + Sync + 'static) -> Self {
        let blank = Bytes::from(vec![0; REGION_BYTES_MAX]);
        Self { blank, unfit: Arc::default(), sending: Arc::default(), damaged: Arc::new(damaged) }
    }

    fn is_stand_in(&self, bytes: &[u8]) -> bool {
        let blank = self.blank.as_ptr() as usize;
        (blank..blank + self.blank.len()).contains(&(bytes.as_ptr() as usize))
    }
}

/// A part of a file that is to be sent.
#[derive(Debug)]
struct Region {
    file: BlobFile,
    offset: u64,
    /// How many bytes are still to be sent.
    left: usize,
    begun: bool,
    /// Whether more of the file follows in the same answer.
    more: bool,
    /// The answer it is sent for.
    course: Arc<Course>,
}

/// The way of files to one connection. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Conduit {
    offload: Offload,
    regions: Arc<Mutex<VecDeque<Region>>>,
}

impl Conduit {
    fn new(offload: Offload) -> Self {
        Self { offload, regions: Arc::default() }
    }

    /// How many of the next `rest` bytes of `file` make a region; `None`: they have to be read. What is left for the last
    /// region is enough for one.
    pub(crate) fn fits(&self, file: &BlobFile, rest: u64) -> Option<usize> {
        if file.as_file().is_none() || self.offload.unfit.load(Ordering::Relaxed) {
            return None;
        }
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        match rest {
            0..REGION_BYTES_MIN => None,
            _ if rest < 2 * REGION_BYTES_MIN => Some(rest),
            _ => Some((rest - REGION_BYTES_MIN).min(REGION_BYTES_MAX)),
        }
    }

    /// Announces `len` bytes of `file` from `offset`, as [`fits`](Self::fits) measured them; with `more`, others follow them
    /// in the same answer. What is returned stands for them, and has to be the next that the body yields. `course` is
    /// told what of them was sent.
    pub(crate) fn announce(
        &self,
        file: &BlobFile,
        offset: u64,
        len: usize,
        more: bool,
        course: &Arc<Course>,
    ) -> Bytes {
        course.wait_for(len as u64);
        let (file, course) = (file.clone(), course.clone());
        self.regions().push_back(Region { file, offset, left: len, begun: false, more, course });
        self.offload.blank.slice(..len)
    }

    /// Makes sure that sending these bytes will not wait for a disk. `false`: the file ends before they do.
    /// # Errors
    /// The disk's.
    pub(crate) async fn bring(&self, file: &BlobFile, offset: u64, len: usize) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        return resident::bring(file, offset, len as u64).await;
        #[cfg(not(target_os = "linux"))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    fn regions(&self) -> MutexGuard<'_, VecDeque<Region>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
