//! A client that asks one thing over one connection, and knows whether the whole answer came.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest head of an answer in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";

/// An answer that arrived to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Asks for `path`, or for the bytes `range` of it (`bytes=0-9`).
///
/// # Errors
/// The connection ended before the last byte that was promised.
pub(crate) async fn get(address: &str, path: &str, range: Option<&str>) -> io::Result<Answer> {
    let (mut stream, status, length, mut body) = ask(address, path, range).await?;
    body.reserve(length.saturating_sub(body.len()));
    (&mut stream).take((length.saturating_sub(body.len())) as u64).read_to_end(&mut body).await?;
    if body.len() == length { Ok(Answer { status, body }) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Asks for `path`, and leaves after some bytes of the answer.
///
/// # Errors
/// The connection ended before.
pub(crate) async fn leave_early(address: &str, path: &str, bytes: usize) -> io::Result<()> {
    let (mut stream, _, length, mut body) = ask(address, path, None).await?;
    while body.len() < bytes.min(length) {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The connection after the head of the answer, with the status, the length, and the bytes of the body that came along.
async fn ask(address: &str, path: &str, range: Option<&str>) -> io::Result<(TcpStream, u16, usize, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    let range = range.map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: docker/29 kill\r\nAccept: {ACCEPT}\r\n{range}\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::with_capacity(16 * 1024);
    let end = loop {
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let body = bytes.split_off(end + 4);
    let (status, length) = head(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok((stream, status, length, body))
}

/// The status and the `Content-Length` of an answer, which all of a mirror's have.
fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Some((status, length?))
}
