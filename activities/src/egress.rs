//! Where we may connect to when somebody else says where: only to what everybody can reach.
//!
//! An address is looked at twice. [`target`] reads one that is to be kept; names are resolved when it is used, by [`Egress`], each time
//! anew, and [`is_public`] decides about every address that comes of it.

pub mod client;

pub use client::Egress;

use reqwest::Url;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest address.
const URL_BYTES: usize = 2048;
/// Names that lead to the machine or the network we stand in (RFC 6761, 6762, 8375, 9476; ICANN reserved `internal` in 2024).
const PRIVATE_NAMES: [&str; 8] = ["localhost", "local", "internal", "alt", "home.arpa", "lan", "onion", "test"];
/// What is not for everybody in IPv4, with the bits of its prefix: IANA, Special-Purpose Address Registry, and multicast.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// The same within 2000::/3, the only part of IPv6 that is for everybody: protocols and Teredo, documentation, 6to4.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// How far we go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// HTTPS on its own port, to what everybody can reach.
    #[default]
    Public,
    /// Anywhere, also without TLS. For development, where receivers are on the same machine.
    Anywhere,
}

impl Reach {
    /// As `FLATRENDER_DEV_EGRESS` says: `on` is anywhere, anything else public.
    pub fn from_env() -> Self {
        match std::env::var("FLATRENDER_DEV_EGRESS").as_deref() {
            Ok("on") => Self::Anywhere,
            _ => Self::Public,
        }
    }
}

/// Why an address is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none.
    #[error("this is no address that can be called, or it is longer than 2048 bytes")]
    NotAnAddress,
    /// It does not begin with `https://`.
    #[error("the address has to begin with https://")]
    NotHttps,
    /// It names a port.
    #[error("the address may not name another port than that of https, 443")]
    Port,
    /// It holds a name and password, or a part that no server gets to see.
    #[error("the address may hold neither a user nor what stands behind #")]
    Parts,
    /// It leads into a private network.
    #[error("the address does not lead to a host that everybody can reach")]
    Private,
}

/// Reads an address that is to be called, as it is called: IPv4 in whatever spelling is its address, IDNs are in ASCII.
///
/// # Errors
/// [`Refused`]
pub fn target(text: &str, reach: Reach) -> Result<Url, Refused> {
    let url = Url::parse(text).map_err(|_| Refused::NotAnAddress)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Refused::NotAnAddress)?;
    if url.as_str().len() > URL_BYTES || !matches!(url.scheme(), "https" | "http") {
        return Err(Refused::NotAnAddress);
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(Refused::Parts);
    }
    if reach == Reach::Anywhere {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(Refused::NotHttps);
    }
    // The port of the scheme itself is not kept.
    if url.port().is_some() {
        return Err(Refused::Port);
    }
    if !is_public_host(host) {
        return Err(Refused::Private);
    }
    Ok(url)
}

/// Whether a host is an address for everybody, or a name that could have one.
fn is_public_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return is_public(address);
    }
    let name = host.trim_end_matches('.');
    let below = |top: &&str| name.strip_suffix(*top).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    name.contains('.') && !name.contains("..") && !PRIVATE_NAMES.iter().any(below)
}

/// Whether an address is one that everybody can reach.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => !NOT_PUBLIC_V4.iter().any(|(net, bits)| (a.to_bits() ^ net.to_bits()) >> (32 - bits) == 0),
        IpAddr::V6(a) => {
            let within = |(net, bits): &(Ipv6Addr, u32)| (a.to_bits() ^ net.to_bits()) >> (128 - bits) == 0;
            within(&GLOBAL_V6) && !NOT_PUBLIC_V6.iter().any(within)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_everybodys_is_taken_as_it_is_called() {
        for (text, called) in [
            ("https://hooks.acme.example/flatrender?x=1", "https://hooks.acme.example/flatrender?x=1"),
            ("HTTPS://Hooks.Acme.Example:443", "https://hooks.acme.example/"),
            ("https://93.184.215.14/hook", "https://93.184.215.14/hook"),
            ("https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ] {
            let url = target(text, Reach::Public).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(url.as_str(), called);
        }
    }

    #[test]
    fn no_spelling_leads_into_a_private_network() {
        let hosts = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0.0.0.0",
            "127.0.0.1.",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.254",
            "192.168.1.1",
            "192.168.257",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "100.64.0.1",
            "100.127.255.254",
            "192.0.0.170",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::a00:1]",
            "[2002:7f00:1::]",
            "[2001:0:4136:e378::]",
            "[2001:db8::1]",
            "[3fff::1]",
            "[fc00::1]",
            "[fd12:3456:789a::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[100::1]",
            "[5f00::1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
            "metadata.google.internal.",
            "router.lan",
            "nas.home.arpa",
            "intranet",
            "metadata",
            "①②⑦.0.0.1",
            "127。0。0。1",
            "１２７.0.0.1",
            "a..example",
            "x.onion",
        ];
        for host in hosts {
            let text = format!("https://{host}/hook");
            assert!(target(&text, Reach::Public).is_err(), "{text}");
        }
        for tricky in [
            "https://\t127.0.0.1/",
            "https:\\\\127.0.0.1\\x",
            "https://127.0.0.1\n/",
            "https:127.0.0.1",
            "https:///127.0.0.1",
        ] {
            assert!(target(tricky, Reach::Public).is_err(), "{tricky:?}");
        }
    }

    #[test]
    fn what_else_is_wrong_with_an_address_is_told() {
        let refused = |text: &str| target(text, Reach::Public).unwrap_err();
        assert_eq!(refused("http://acme.example/"), Refused::NotHttps);
        assert_eq!(refused("https://acme.example:8443/"), Refused::Port);
        assert_eq!(refused("https://user@acme.example/"), Refused::Parts);
        assert_eq!(refused("https://acme.example@127.0.0.1/"), Refused::Parts);
        assert_eq!(refused("https://acme.example/#x"), Refused::Parts);
        for none in
            ["", "acme.example", "file:///etc/passwd", "ftp://acme.example/", "gopher://acme.example/", "javascript:1"]
        {
            assert_eq!(refused(none), Refused::NotAnAddress, "{none}");
        }
        assert_eq!(refused(&format!("https://acme.example/{}", "x".repeat(2048))), Refused::NotAnAddress);
    }

    #[test]
    fn development_calls_its_own_machine() {
        assert_eq!(
            target("http://127.0.0.1:9000/hook", Reach::Anywhere).unwrap().as_str(),
            "http://127.0.0.1:9000/hook"
        );
        assert_eq!(target("file:///etc/passwd", Reach::Anywhere), Err(Refused::NotAnAddress));
    }

    #[test]
    fn borders_of_networks_are_where_they_are() {
        for public in [
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:200::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in ["172.16.0.0", "172.31.255.255", "100.64.0.0", "2001:1ff:ffff::", "1fff::", "4000::"] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
