//! A client without a disk: pulls an image over plain HTTP as Docker does, three layers at once, resuming by range what
//! breaks, and checks every digest.

use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::images::blobs;

/// Layers at once, Docker's default.
const LAYERS_AT_ONCE: usize = 3;
/// How often a wait looks whether the client has left.
const GLANCE: Duration = Duration::from_millis(200);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// One client of a mirror.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) mirror: SocketAddr,
    /// The image's name within `library/`.
    pub(crate) image: &'a str,
    /// How long it waits without a byte before it fails.
    pub(crate) patience: Duration,
    /// Set by someone else: the client leaves.
    pub(crate) leave: &'a AtomicBool,
}

/// What a pull met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulled {
    /// Answers that ended too soon, or that were an error.
    pub(crate) breaks: u64,
}

impl Client<'_> {
    /// Pulls the image. `Ok(None)`: it was told to leave.
    ///
    /// # Errors
    /// A digest that is wrong, an answer that makes no sense, or no byte for too long.
    pub(crate) fn pull(&self) -> Result<Option<Pulled>> {
        let breaks = AtomicU64::new(0);
        let Some(manifest) = self.fetch("manifests/bench", None, true, &breaks)? else { return Ok(None) };
        let wanted = Mutex::new(blobs(&serde_json::from_slice(&manifest)?));
        let results: Vec<Result<bool>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..LAYERS_AT_ONCE)
                .map(|_| {
                    scope.spawn(|| -> Result<bool> {
                        while let Some((digest, _)) = next(&wanted) {
                            if self
                                .fetch(&format!("blobs/{digest}"), Some(&digest), false, &breaks)?
                                .is_none()
                            {
                                return Ok(false);
                            }
                        }
                        Ok(true)
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect()
        });
        let mut whole = true;
        for result in results {
            whole &= result?;
        }
        Ok(whole.then(|| Pulled { breaks: breaks.load(Ordering::Relaxed) }))
    }

    /// Fetches until it is whole; the bytes, if they are to be kept. `None`: it was told to leave.
    fn fetch(
        &self,
        path: &str,
        digest: Option<&str>,
        keep: bool,
        breaks: &AtomicU64,
    ) -> Result<Option<Vec<u8>>> {
        let mut held = Held { bytes: Vec::new(), keep, len: 0, hash: Sha256::new() };
        let mut last_byte = Instant::now();
        loop {
            let before = held.len;
            let attempt = self.attempt(path, &mut held, last_byte);
            if self.leave.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if held.len > before {
                last_byte = Instant::now();
            }
            match attempt {
                Ok(()) => break,
                Err(error) if last_byte.elapsed() > self.patience => {
                    return Err(error).with_context(|| format!("no byte of {path} for too long"));
                }
                Err(_) => {
                    breaks.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            }
        }
        let got = format!("sha256:{}", hex::encode(held.hash.finalize()));
        match digest {
            Some(digest) if digest != got => bail!("asked for {digest}, got {got}"),
            Some(_) | None => Ok(Some(held.bytes)),
        }
    }

    /// One request for what is not held yet.
    fn attempt(&self, path: &str, held: &mut Held, last_byte: Instant) -> Result<()> {
        let stream = TcpStream::connect_timeout(&self.mirror, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(GLANCE))?;
        let range = if held.len > 0 { format!("Range: bytes={}-\r\n", held.len) } else { String::new() };
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
        (&stream).write_all(
            format!(
                "GET /v2/library/{}/{path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n{range}Connection: close\r\n\r\n",
                self.image, self.mirror
            )
            .as_bytes(),
        )?;
        let mut reader = BufReader::with_capacity(256 * 1024, &stream);
        let mut waited = Waited { leave: self.leave, patience: self.patience, last_byte };
        let (status, mut left) = head(&mut reader, &mut waited)?;
        match status {
            206 if held.len > 0 => {}
            // The whole although a part was asked for: begin anew.
            200 => *held = Held { bytes: Vec::new(), keep: held.keep, len: 0, hash: Sha256::new() },
            other => bail!("{path}: answered {other}"),
        }
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let read = waited.again(|| reader.read(piece.get_mut(..room).unwrap_or_default()))?;
            let bytes = piece.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                bail!("{path}: ended {left} bytes too soon");
            }
            held.take(bytes);
            left -= read as u64;
        }
        Ok(())
    }
}

fn next(wanted: &Mutex<Vec<(String, u64)>>) -> Option<(String, u64)> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    keep: bool,
    len: u64,
    hash: Sha256,
}

impl Held {
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        if self.keep {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// Waits in glances, so that leaving and losing patience are noticed.
struct Waited<'a> {
    leave: &'a AtomicBool,
    patience: Duration,
    last_byte: Instant,
}

impl Waited<'_> {
    fn again<T>(&mut self, mut read: impl FnMut() -> io::Result<T>) -> Result<T> {
        loop {
            match read() {
                Ok(value) => {
                    self.last_byte = Instant::now();
                    return Ok(value);
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
            if self.leave.load(Ordering::Relaxed) {
                bail!("told to leave");
            }
            if self.last_byte.elapsed() > self.patience {
                bail!("no byte for {} s", self.patience.as_secs());
            }
        }
    }
}

/// Status and length of an answer.
fn head(reader: &mut impl io::BufRead, waited: &mut Waited<'_>) -> Result<(u16, u64)> {
    let (mut status, mut length) = (None, None);
    loop {
        let mut line = Vec::new();
        // A line cut by a glance stays in `line`.
        waited.again(|| reader.read_until(b'\n', &mut line))?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if status.is_none() {
            let word = line.split(' ').nth(1).with_context(|| format!("not HTTP: {line:?}"))?;
            status = Some(word.parse::<u16>()?);
        } else if line.is_empty() {
            return Ok((status.unwrap_or_default(), length.context("an answer without a length")?));
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_up_to_its_body() {
        let leave = AtomicBool::new(false);
        let mut waited = Waited { leave: &leave, patience: PAUSE, last_byte: Instant::now() };
        let mut text = &b"HTTP/1.1 206 Partial Content\r\nCONTENT-LENGTH: 7\r\nETag: x\r\n\r\nbody"[..];
        assert_eq!(head(&mut text, &mut waited).unwrap(), (206, 7));
        assert_eq!(text, b"body");
        assert!(head(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..], &mut waited).is_err(), "no length");
        assert!(head(&mut &b""[..], &mut waited).is_err(), "closed");
    }
}
