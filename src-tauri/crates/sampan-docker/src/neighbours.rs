//! Several Sampans on one machine, each with a port and folders of its own, and one Docker: which of its entries is whose.
//! An entry that names a port at which another Sampan answers now is that one's.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::daemon_json::{self, same_mirror};
use crate::engine::{Engine, HostsSeen, mirror_url};
use crate::repair::{own_mirrors, own_ports};

/// A Sampan on this machine answers at once; one that hangs serves nobody.
const ANSWERS: Duration = Duration::from_millis(500);
/// Its head is shorter than that.
const HEAD_MAX: u64 = 2048;

/// Those of Sampan's ports that the engine's configuration names, and at which a Sampan answers.
pub(crate) async fn running(engine: &Engine) -> Vec<u16> {
    let file = engine.config.as_ref().and_then(|file| file.bytes.as_deref()).unwrap_or_default();
    let in_file = daemon_json::mirrors(file).unwrap_or_default();
    let in_hosts: Vec<u16> = engine.hosts.iter().filter_map(HostsSeen::port).collect();
    let is_named = |port: &u16| {
        let url = mirror_url(&engine.kind, *port);
        in_hosts.contains(port) || engine.mirrors.iter().chain(&in_file).any(|named| same_mirror(named, &url))
    };
    let named: Vec<u16> = own_ports(engine).into_iter().filter(is_named).collect();
    let asked = named.iter().map(|port| async { is_sampan(*port).await.then_some(*port) });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whether what listens at `port` answers as Sampan does.
async fn is_sampan(port: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let head = format!("GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(HEAD_MAX).read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        Some(text.lines().any(|line| line.starts_with("x-sampan:")))
    };
    matches!(tokio::time::timeout(ANSWERS, asked).await, Ok(Some(true)))
}

impl Engine {
    /// Whether an entry for `port` is another Sampan's than the one that listens on `own`: one answers there now.
    pub(crate) fn is_anothers(&self, port: u16, own: u16) -> bool {
        port != own && self.running.contains(&port)
    }

    /// The ports of other Sampans that this engine is set up for, where this one listens on `own`.
    pub fn others(&self, own: u16) -> Vec<u16> {
        self.running.iter().copied().filter(|port| self.is_anothers(*port, own)).collect()
    }
}

/// What taking Sampan out of `engine` takes out: [`own_mirrors`] without those of other Sampans that run.
pub(crate) fn taken_out(engine: &Engine, port: u16) -> Vec<String> {
    let others: Vec<String> =
        engine.others(port).into_iter().map(|other| mirror_url(&engine.kind, other)).collect();
    let mut own = own_mirrors(engine, port);
    own.retain(|url| !others.iter().any(|other| same_mirror(url, other)));
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};

    /// Answers one connection with `head`, and says where.
    fn answers(head: &'static str) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut line).is_ok_and(|length| length > 2) {}
            let _ = stream.write_all(head.as_bytes());
        });
        port
    }

    #[tokio::test]
    async fn a_sampan_is_known_by_its_answer_and_nothing_else_is_taken_for_one() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\nX-Sampan: hit\r\nContent-Length: 2\r\n\r\n{}", true),
            ("HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n{}", false),
            ("SSH-2.0-OpenSSH\r\n", false),
            ("", false),
        ] {
            assert_eq!(is_sampan(answers(head)).await, expected, "{head:?}");
        }
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(!is_sampan(nobody).await, "nobody listens");
    }

    #[tokio::test]
    async fn only_ports_that_the_configuration_names_are_asked() {
        let port = answers("HTTP/1.1 200 OK\r\nX-Sampan: hit\r\n\r\n");
        let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
        engine.mirrors = vec![format!("http://127.0.0.1:{port}/")];
        assert!(running(&engine).await.is_empty(), "a mirror of somebody else's, as far as is known");
    }
}
