//! Whose socket listens on a loopback port, by the kernel's tables.
//!
//! Before the token or a prompt goes to the port, it must be certain that no other user of the machine sits there.
//! Source: `/proc/net/tcp` and `tcp6`, proc_pid_net(5); addresses are 32-bit words in the machine's byte order.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address it is bound to; a v4-mapped one is given as v4.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The user who made it.
    pub uid: u32,
    /// Its inode, as in `/proc/<pid>/fd`.
    pub inode: u64,
}

/// Who would answer a connection to `127.0.0.1:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody listens.
    Nobody,
    /// Every socket that could take the connection is this user's.
    User(u32),
}

/// Reads the kernel's tables. A missing `tcp6` (no IPv6) is fine, a missing `tcp` is an error.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let mut all = parse(&std::fs::read_to_string("/proc/net/tcp")?);
    match std::fs::read_to_string("/proc/net/tcp6") {
        Ok(table) => all.extend(parse(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(all)
}

/// Who answers on `127.0.0.1:port`, seen by the user `me`: if any socket that may take the connection is somebody
/// else's, that one is named.
///
/// The kernel prefers a socket bound to the exact address, see [`taking`].
pub fn holder(listeners: &[Listener], port: u16, me: u32) -> Holder {
    let uids: Vec<u32> = taking(listeners, port).iter().map(|one| one.uid).collect();
    match uids.iter().find(|uid| **uid != me).or(uids.first()) {
        None => Holder::Nobody,
        Some(uid) => Holder::User(*uid),
    }
}

/// The sockets that may take a connection to `127.0.0.1:port`: those bound to every address only without one that is
/// bound to that address itself.
pub fn taking(listeners: &[Listener], port: u16) -> Vec<&Listener> {
    let exact = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let bound_to = |addresses: &[IpAddr]| -> Vec<&Listener> {
        listeners.iter().filter(|one| one.port == port && addresses.contains(&one.address)).collect()
    };
    let bound = bound_to(&[exact]);
    if bound.is_empty() { bound_to(&everywhere) } else { bound }
}

/// The listening sockets of one table; lines that are none, or cannot be read, are left out.
pub fn parse(table: &str) -> Vec<Listener> {
    table.lines().filter_map(listener).collect()
}

fn listener(line: &str) -> Option<Listener> {
    let mut columns = line.split_ascii_whitespace();
    let local = columns.nth(1)?;
    let state = columns.nth(1)?;
    // TCP_LISTEN
    if state != "0A" {
        return None;
    }
    let uid = columns.nth(3)?.parse().ok()?;
    let inode = columns.nth(1)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    Some(Listener { address: address_of(address)?, port: u16::from_str_radix(port, 16).ok()?, uid, inode })
}

fn address_of(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0_u8; 16];
    if !hex.is_ascii() || (hex.len() != 8 && hex.len() != 32) {
        return None;
    }
    for (at, word) in hex.as_bytes().chunks(8).enumerate() {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    if hex.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])));
    }
    Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn row(local: &str, state: &str, uid: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid:4}        0 4242 1 0 100 0 0 10 0\n"
        )
    }

    #[test]
    fn a_table_is_read_and_only_its_listeners() {
        let table = [HEAD, &row("0100007F:210B", "0A", 1000), &row("0100007F:210C", "01", 1000), "garbage\n"].concat();
        let expected = Listener { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8459, uid: 1000, inode: 4242 };
        assert_eq!(parse(&table), [expected]);
    }

    #[test]
    fn the_exact_address_wins_over_every_address() {
        let mine = row("0100007F:210B", "0A", 1000);
        let everywhere = row("00000000:210B", "0A", 1001);
        let everywhere6 = row("00000000000000000000000000000000:210B", "0A", 1001);
        let mapped = row("0000000000000000FFFF00000100007F:210B", "0A", 1001);
        let mapped_everywhere = row("0000000000000000FFFF000000000000:210B", "0A", 1001);
        let loopback6 = row("00000000000000000000000001000000:210B", "0A", 1001);
        let who =
            |rows: &[&String]| holder(&parse(&rows.iter().map(|row| row.as_str()).collect::<String>()), 8459, 1000);
        assert_eq!(who(&[]), Holder::Nobody);
        assert_eq!(who(&[&loopback6]), Holder::Nobody, "a connection to 127.0.0.1 does not reach ::1");
        assert_eq!(who(&[&everywhere, &mine]), Holder::User(1000));
        assert_eq!(who(&[&mine, &mapped]), Holder::User(1001), "either could take it");
        for alone in [&everywhere, &everywhere6, &mapped, &mapped_everywhere] {
            assert_eq!(who(&[alone]), Holder::User(1001));
        }
    }

    #[test]
    fn the_running_kernel_agrees() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let me = nix::unistd::geteuid().as_raw();
        assert_eq!(holder(&listeners().unwrap(), port, me), Holder::User(me));
        let socket6 = std::net::TcpListener::bind("[::]:0");
        if let Ok(socket6) = socket6 {
            assert_eq!(holder(&listeners().unwrap(), socket6.local_addr().unwrap().port(), me), Holder::User(me));
        }
    }
}
