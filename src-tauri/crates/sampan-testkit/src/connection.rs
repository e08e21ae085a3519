//! One client's connection: reads requests, writes answers exactly as badly as the faults say.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::answer::{Answer, End, Length, at};
use crate::record::Kind;
use crate::registry::Shared;
use crate::wire::{head, read_request};

/// Bodies go out in pieces, so that counts and cuts are fine-grained.
const PIECE: usize = 16 * 1024;

/// Serves one connection until either side is done with it. Errors of the client's side end it silently.
pub(crate) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    cut.mark_unchanged();
    tokio::select! {
        _ = cut.changed() => {}
        _ = answer_all(&mut stream, &shared) => {}
    }
}

async fn answer_all(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer).await? {
        let (kind, is_head) = (request.kind, request.method == "HEAD");
        // Subscribed before the faults are read: healing right after that must still be seen.
        let heals = shared.heals.subscribe();
        let Some(answer) = shared.answer(request) else { return Ok(()) };
        if !write(stream, shared, kind, is_head, answer, heals).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes an answer; whether the connection can carry another one.
async fn write(
    stream: &mut TcpStream,
    shared: &Shared,
    kind: Kind,
    is_head: bool,
    mut answer: Answer,
    mut heals: watch::Receiver<()>,
) -> io::Result<bool> {
    if answer.stalls_before_headers {
        // An error means that the registry is gone, and this connection with it.
        let _ = heals.changed().await;
    }
    let size = answer.body.len();
    match answer.length {
        Length::Told => answer.headers.push(("content-length".into(), size.to_string())),
        Length::Twice => {
            answer.headers.push(("content-length".into(), size.to_string()));
            answer.headers.push(("content-length".into(), (size + 1).to_string()));
        }
        Length::Untold | Length::Endless => answer.headers.push(("connection".into(), "close".into())),
    }
    stream.write_all(&head(answer.status, &answer.headers)).await?;
    if is_head {
        return Ok(answer.length == Length::Told);
    }
    match answer.end {
        End::Whole => body(stream, shared, kind, &answer, 0..size).await?,
        End::Stall(after) => {
            let after = at(after).min(size);
            body(stream, shared, kind, &answer, 0..after).await?;
            let _ = heals.changed().await;
            body(stream, shared, kind, &answer, after..size).await?;
        }
        End::Fin(after) => {
            body(stream, shared, kind, &answer, 0..at(after).min(size)).await?;
            stream.shutdown().await?;
            return Ok(false);
        }
        End::Reset(after) => {
            body(stream, shared, kind, &answer, 0..at(after).min(size)).await?;
            // The client must have taken the bytes before the reset throws the rest away; closing with SO_LINGER 0
            // sends RST instead of FIN.
            stream.set_zero_linger()?;
            return Ok(false);
        }
    }
    if answer.length == Length::Endless {
        // An honest beginning is no help against a client that reads for ever.
        let filler = Bytes::from(vec![b' '; PIECE]);
        loop {
            piece(stream, shared, kind, &filler).await?;
        }
    }
    if answer.length == Length::Told {
        return Ok(true);
    }
    stream.shutdown().await?;
    Ok(false)
}

async fn body(
    stream: &mut TcpStream,
    shared: &Shared,
    kind: Kind,
    answer: &Answer,
    range: std::ops::Range<usize>,
) -> io::Result<()> {
    let mut rest = answer.body.slice(range);
    while !rest.is_empty() {
        let size = if answer.drip.is_some() { 1 } else { PIECE.min(rest.len()) };
        if let Some(every) = answer.drip {
            tokio::time::sleep(every).await;
        }
        piece(stream, shared, kind, &rest.split_to(size)).await?;
    }
    Ok(())
}

async fn piece(stream: &mut TcpStream, shared: &Shared, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    shared.wrote(kind, bytes.len());
    Ok(())
}
