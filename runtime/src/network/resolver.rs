//! The name servers that a container is given (resolv.conf(5)).
//!
//! A loopback address means something else inside a container, so it is never passed on: where the
//! host asks a resolver of its own (systemd-resolved on 127.0.0.53), that one's upstreams are taken.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Where the host's name servers may be written, in the order of asking.
const SOURCES: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/resolv.conf"];
/// Bytes read of a source at most.
const SOURCE_BYTES_MAX: u64 = 64 * 1024;
/// Name servers that the C library asks (resolv.conf(5), MAXNS).
const NAMESERVERS_MAX: usize = 3;

/// The text of a container's `/etc/resolv.conf`: the configured servers, else the host's.
pub fn resolv_conf(configured: &[Ipv4Addr]) -> String {
    if !configured.is_empty() {
        let servers: Vec<String> = configured.iter().map(Ipv4Addr::to_string).collect();
        return render(&servers, "");
    }
    for source in SOURCES {
        let Ok(text) = read(Path::new(source)) else { continue };
        let servers = usable_servers(&text);
        if !servers.is_empty() {
            return render(&servers, &search_line(&text));
        }
    }
    // Names cannot be resolved then, and the container's programs say so at once.
    "# this host has no name server that a container can reach\n".to_owned()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SOURCE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The IPv4 servers that are not this host's loopback: containers have no IPv6.
fn usable_servers(text: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else { return None };
        match address.parse() {
            Ok(IpAddr::V4(address)) if !address.is_loopback() && !address.is_unspecified() => {
                Some(address.to_string())
            }
            _ => None,
        }
    };
    text.lines().filter_map(server).take(NAMESERVERS_MAX).collect()
}

/// The host's search domains, if they are plain names.
fn search_line(text: &str) -> String {
    let plain = |word: &&str| {
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let found = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain"))
            .then(|| words.filter(plain).take(6).collect::<Vec<_>>().join(" "))
    });
    match found {
        Some(domains) if !domains.is_empty() => format!("search {domains}\n"),
        _ => String::new(),
    }
}

fn render(servers: &[String], search: &str) -> String {
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    format!("{search}{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_ipv6_servers_are_left_out() {
        let text = "search lab.example\nnameserver 127.0.0.53\n nameserver ::1\nnameserver 0.0.0.0\n\
                    #nameserver 9.9.9.9\nnameserver 192.0.2.1 \nnameserver fe80::1%eth0\n";
        assert_eq!(usable_servers(text), ["192.0.2.1"]);
        assert_eq!(search_line(text), "search lab.example\n");
        assert_eq!(search_line("search ;rm a.b\nnameserver 1.1.1.1"), "search a.b\n");
        assert_eq!(usable_servers("nameserver 127.0.0.53\noptions edns0"), Vec::<String>::new());
    }

    #[test]
    fn configured_servers_win() {
        let text = resolv_conf(&[Ipv4Addr::new(192, 0, 2, 53)]);
        assert_eq!(text, "nameserver 192.0.2.53\n");
    }
}
