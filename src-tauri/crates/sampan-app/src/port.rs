//! The mirror's port, and who has it when we cannot.

use std::net::SocketAddr;

/// The program that listens at `address`, as a person would name it: `docker-registry (pid 812)`. `None` where the
/// system does not say (other users' programs, and every system but Linux).
#[cfg(target_os = "linux")]
pub(crate) fn holder(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, address.port()))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        let files = std::fs::read_dir(process.path().join("fd")).ok()?;
        let holds = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok()).any(|target| {
            target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:["))
                .is_some_and(|t| inodes.iter().any(|inode| t.trim_end_matches(']') == inode))
        });
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn holder(_address: SocketAddr) -> Option<String> {
    None
}

/// The socket inodes that listen on `port` in a table of `/proc/net/tcp` (proc(5)): local address in column 1, state in
/// column 3 (`0A` is LISTEN), inode in column 9.
#[cfg(target_os = "linux")]
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let listens = columns.get(1)?.ends_with(&port) && *columns.get(3)? == "0A";
        listens.then(|| columns.get(9).map(ToString::to_string)).flatten()
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder(listener.local_addr().unwrap()).expect("this process listens there");
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }

    #[test]
    fn only_listening_sockets_of_that_very_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1C63 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 x\n\
            1: 0100007F:1C63 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 222 1 x\n\
            2: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 333 1 x\n";
        assert_eq!(listening_inodes(table, 7267), ["111"]);
    }
}
