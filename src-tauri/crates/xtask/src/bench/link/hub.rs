//! The registry that stands for Docker Hub: serves image layouts over plain HTTP/1.1, ranges included, and counts what it
//! sends. A thread per connection, no cleverness: it shall not be what is measured.

use std::{
    fs::{self, File},
    io::{self, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::unix::{fs::FileExt as _, net::UnixListener},
    path::{Component, Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::counters::{self, Tally};

/// A blob file of this extension holds a number: the blob is the file `base` of the folder above the image's, turned
/// by that many bytes. Many different blobs without their size on disk.
pub(crate) const TURNED: &str = "turned";
/// Unsent bytes a socket takes (net.ipv4.tcp_notsent_lowat). Without a limit a connection that is cut short has counted
/// megabytes that never left.
const UNSENT_MAX: &str = "131072";
const PIECE_BYTES: usize = 64 * 1024;

/// Serves `images` on `listen`, in the network namespace it is started in, and its counters on a Unix socket; for ever.
///
/// # Errors
/// An address is taken.
pub(crate) fn serve(listen: SocketAddr, images: &Path, counters: &Path) -> Result<()> {
    fs::write("/proc/sys/net/ipv4/tcp_notsent_lowat", UNSENT_MAX)?;
    let listener = TcpListener::bind(listen)?;
    let socket = UnixListener::bind(counters)?;
    let tally = Arc::new(Tally::new());
    thread::scope(|scope| {
        scope.spawn(|| counters::answer(&socket, &tally));
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let (tally, images) = (Arc::clone(&tally), images.to_path_buf());
            tally.count(|counters| counters.connections += 1);
            // A connection that breaks is the client's business.
            thread::spawn(move || converse(&stream, &images, &tally));
        }
    });
    Ok(())
}

/// Answers the requests of one connection until it ends.
fn converse(stream: &TcpStream, images: &Path, tally: &Tally) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        tally.count(|counters| counters.requests += 1);
        let answer = Answer::to(&request, images).unwrap_or_else(|_| Answer::Missing);
        send(stream, &request, answer, tally)?;
        if request.close {
            break;
        }
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    head_only: bool,
    path: String,
    range: Option<String>,
    close: bool,
}

impl Request {
    /// The next request, or `None` when the client has closed.
    fn read(reader: &mut impl io::BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Self {
            head_only: method == "HEAD",
            path: target.split('?').next().unwrap_or_default().to_owned(),
            close: line.contains("HTTP/1.0"),
            ..Self::default()
        };
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                return Ok(Some(request));
            }
            let Some((name, value)) = line.trim().split_once(':') else { continue };
            if name.eq_ignore_ascii_case("range") {
                request.range = Some(value.trim().to_owned());
            } else if name.eq_ignore_ascii_case("connection") {
                request.close |= value.trim().eq_ignore_ascii_case("close");
            }
        }
    }
}

#[derive(Debug)]
enum Answer {
    /// `GET /v2/`: a registry that wants no token.
    Here,
    Manifest {
        bytes: Vec<u8>,
        media_type: String,
        digest: String,
    },
    Blob {
        blob: Blob,
        digest: String,
    },
    Missing,
}

impl Answer {
    fn to(request: &Request, images: &Path) -> Result<Self> {
        let Some(path) = request.path.strip_prefix("/v2/library/") else {
            return Ok(if ["/v2/", "/v2"].contains(&request.path.as_str()) {
                Self::Here
            } else {
                Self::Missing
            });
        };
        let (rest, last) = path.rsplit_once('/').context("no reference")?;
        let (name, kind) = rest.rsplit_once('/').context("no repository")?;
        let plain =
            |text: &str| Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain(name) || !plain(last) {
            return Ok(Self::Missing);
        }
        let folder = images.join(name);
        match kind {
            "manifests" => {
                let digest = if last.starts_with("sha256:") {
                    last.to_owned()
                } else {
                    // One image a layout: whatever its tag, this is the one.
                    let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json"))?)?;
                    let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str);
                    digest.context("an index without a manifest")?.to_owned()
                };
                let bytes = fs::read(file_of(&folder, &digest)?)?;
                let manifest: Value = serde_json::from_slice(&bytes)?;
                let media_type =
                    manifest.get("mediaType").and_then(Value::as_str).context("not a manifest")?;
                Ok(Self::Manifest { media_type: media_type.to_owned(), bytes, digest })
            }
            "blobs" => Ok(Self::Blob { blob: Blob::open(&folder, last)?, digest: last.to_owned() }),
            _ => Ok(Self::Missing),
        }
    }
}

fn file_of(folder: &Path, digest: &str) -> Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").ok_or_else(|| anyhow!("not a digest: {digest}"))?;
    Ok(folder.join("blobs/sha256").join(hex))
}

/// Bytes of a file, read from `turn` on and around.
#[derive(Debug)]
struct Blob {
    file: File,
    size: u64,
    turn: u64,
}

impl Blob {
    fn open(folder: &Path, digest: &str) -> Result<Self> {
        let path = file_of(folder, digest)?;
        let (file, turn) = if let Ok(file) = File::open(&path) {
            (file, 0)
        } else {
            let turn = fs::read_to_string(path.with_extension(TURNED))?.trim().parse()?;
            (File::open(folder.parent().context("no folder above")?.join("base"))?, turn)
        };
        let size = file.metadata()?.len();
        Ok(Self { file, size, turn })
    }

    fn read_at(&self, piece: &mut [u8], at: u64) -> io::Result<usize> {
        let place = (at + self.turn) % self.size;
        let before_the_end = usize::try_from(self.size - place).unwrap_or(usize::MAX).min(piece.len());
        self.file.read_at(piece.get_mut(..before_the_end).unwrap_or_default(), place)
    }
}

fn send(mut stream: &TcpStream, request: &Request, answer: Answer, tally: &Tally) -> io::Result<()> {
    let mut other = |bytes: &[u8]| {
        tally.count(|counters| counters.other_bytes += bytes.len() as u64);
        stream.write_all(bytes)
    };
    match answer {
        Answer::Here => {
            let body = if request.head_only { "" } else { "{}" };
            other(format!("HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{body}").as_bytes())
        }
        Answer::Missing => {
            other(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")
        }
        Answer::Manifest { bytes, media_type, digest } => {
            other(format!(
                "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\nETag: \"{digest}\"\r\nContent-Length: {}\r\n\r\n",
                bytes.len()
            ).as_bytes())?;
            if request.head_only { Ok(()) } else { other(&bytes) }
        }
        Answer::Blob { blob, digest } => {
            let asked = request.range.as_deref().and_then(|range| parse_range(range, blob.size));
            let (status, extra, part) = match asked {
                None => ("200 OK", String::new(), 0..blob.size),
                Some(part) if part.is_empty() => {
                    return other(format!(
                        "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{}\r\nContent-Length: 0\r\n\r\n",
                        blob.size
                    ).as_bytes());
                }
                Some(part) => {
                    let last = part.end - 1;
                    let range = format!("Content-Range: bytes {}-{last}/{}\r\n", part.start, blob.size);
                    ("206 Partial Content", range, part)
                }
            };
            other(format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\nDocker-Content-Digest: {digest}\r\nETag: \"{digest}\"\r\n{extra}Content-Length: {}\r\n\r\n",
                part.end - part.start
            ).as_bytes())?;
            if request.head_only { Ok(()) } else { send_blob(stream, &blob, part, tally) }
        }
    }
}

fn send_blob(mut stream: &TcpStream, blob: &Blob, part: Range<u64>, tally: &Tally) -> io::Result<()> {
    let _sending = tally.stream();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = part.start;
    while at < part.end {
        let wanted = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let read = blob.read_at(piece.get_mut(..wanted).unwrap_or_default(), at)?;
        let mut left = piece.get(..read).unwrap_or_default();
        if left.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Not `write_all`: what was taken before an error is counted too.
        while !left.is_empty() {
            let written = stream.write(left)?;
            tally.count(|counters| counters.body_bytes += written as u64);
            left = left.get(written..).unwrap_or_default();
        }
        at += read as u64;
    }
    Ok(())
}

/// One range (RFC 9110, 14.1.2), cut to the size; empty if nothing of it is there. `None`: not understood, so the whole.
fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some(size.saturating_sub(last.parse().ok()?)..size);
    }
    let first = first.parse::<u64>().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.checked_add(1)?.min(size) };
    Some(first.min(end)..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        for (text, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=10-19", Some(10..20)),
            ("bytes=90-", Some(90..100)),
            ("bytes=90-1000", Some(90..100)),
            ("bytes=-5", Some(95..100)),
            ("bytes=100-", Some(100..100)),
            ("bytes=0-1,5-6", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(parse_range(text, 100), expected, "{text}");
        }
    }

    #[test]
    fn a_request_is_read_and_the_one_behind_it_left() {
        let text = "HEAD /v2/library/x/blobs/sha256:ab?ns=docker.io HTTP/1.1\r\nHost: h\r\nRange: bytes=1-\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let mut reader = io::BufReader::new(text.as_bytes());
        let first = Request::read(&mut reader).unwrap().unwrap();
        assert_eq!(
            first,
            Request {
                head_only: true,
                path: "/v2/library/x/blobs/sha256:ab".into(),
                range: Some("bytes=1-".into()),
                close: true
            }
        );
        assert_eq!(Request::read(&mut reader).unwrap().unwrap().path, "/");
        assert_eq!(Request::read(&mut reader).unwrap(), None);
    }

    #[test]
    fn nobody_walks_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["/v2/library/../../etc/blobs/passwd", "/v2/library/a/manifests/..", "/v2/other"] {
            let request = Request { path: path.into(), ..Request::default() };
            assert!(!matches!(
                Answer::to(&request, folder.path()),
                Ok(Answer::Blob { .. } | Answer::Manifest { .. })
            ));
        }
    }
}
