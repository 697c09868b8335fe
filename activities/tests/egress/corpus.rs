//! Spellings of addresses that lead into our own network, or may.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One of each kind that is not everybody's: this machine, private networks, the metadata of clouds, carriers, everybody at once.
const PRIVATE: [Ipv4Addr; 17] = [
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(127, 254, 3, 9),
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(0, 1, 2, 3),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(10, 255, 255, 254),
    Ipv4Addr::new(172, 16, 0, 1),
    Ipv4Addr::new(172, 31, 255, 254),
    Ipv4Addr::new(192, 168, 0, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 64, 0, 1),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(224, 0, 0, 251),
    Ipv4Addr::new(255, 255, 255, 255),
];

const PRIVATE_V6: [&str; 20] = [
    "::",
    "::1",
    "0:0:0:0:0:0:0:1",
    "0000:0000:0000:0000:0000:0000:0000:0001",
    "::0001",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf:ffff::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff:ffff::1",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "2001:db8::1",
    "2001:10::1",
    "3fff::1",
    "5f00::1",
    "64:ff9b:1::1",
];

/// Names of machines that stand beside us, and names of everybody's that lead to them.
const NAMES: [&str; 34] = [
    "localhost",
    "LOCALHOST",
    "LocalHost",
    "localhost.",
    "localhost.localdomain",
    "a.localhost",
    "ip6-localhost",
    "ip6-loopback",
    "metadata",
    "metadata.google.internal",
    "metadata.google.internal.",
    "METADATA.google.INTERNAL",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc.cluster.local",
    "host.docker.internal",
    "gateway.docker.internal",
    "postgres",
    "printer.local",
    "nas.home.arpa",
    "router.lan",
    "intranet",
    "x.onion",
    "a.test",
    "127.0.0.1.nip.example",
    "169-254-169-254.sslip.example",
    "localtest.example",
    "rebind.example",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "ｌｏｃａｌｈｏｓｔ",
    "l%6fcalhost",
];

pub fn all() -> Vec<String> {
    let mut hosts: Vec<String> = PRIVATE.iter().flat_map(|address| spellings(*address)).collect();
    hosts.extend(PRIVATE_V6.iter().map(|address| format!("[{address}]")));
    hosts.extend(NAMES.iter().map(ToString::to_string));
    let mut all: Vec<String> = hosts.iter().map(|host| format!("https://{host}/hook")).collect();
    for host in ["127.0.0.1", "169.254.169.254", "[::1]", "localhost"] {
        all.extend(disguises(host));
    }
    all
}

/// All ways in which somebody reads an IPv4 address, and its places in IPv6.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets().map(u32::from);
    let n = address.to_bits();
    let (high, low) = (n >> 16, n & 0xffff);
    let dotted = address.to_string();
    let digits = |zero: u32| -> String {
        let other = |c: char| c.to_digit(10).and_then(|digit| char::from_u32(zero + digit)).unwrap_or(c);
        dotted.chars().map(other).collect()
    };
    let teredo = Ipv6Addr::from_bits((0x2001_0000_u128 << 96) | u128::from(!n));
    vec![
        dotted.clone(),
        format!("{dotted}."),
        format!("{n}"),
        format!("{n}."),
        format!("{n:#x}"),
        format!("0X{n:X}"),
        format!("0x00000{n:08x}"),
        format!("0{n:o}"),
        format!("0000{n:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("000{a:o}.00{b:o}.{c}.{d:#x}"),
        format!("{a}.{b}.{}", c << 8 | d),
        format!("{a}.{}", n & 0xff_ffff),
        format!("{a:#x}.{:#x}", n & 0xff_ffff),
        format!("0{a:o}.{b}.{:#x}", c << 8 | d),
        digits(0xff10),  // full width
        digits(0x1d7ce), // mathematical bold
        digits(0x1d7f6), // mathematical monospace
        dotted.replace('.', "。"),
        dotted.replace('.', "．"),
        dotted.replace('.', "｡"),
        dotted.replace('.', "%2e"),
        dotted.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        dotted.replace('1', "①").replace('2', "②"),
        format!("[::ffff:{dotted}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:FFFF:{high:X}:{low:X}]"),
        format!("[::ffff:0:{dotted}]"),
        format!("[::{dotted}]"),
        format!("[64:ff9b::{dotted}]"),
        format!("[64:ff9b::{high:x}:{low:x}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[{teredo}]"),
        format!("[fe80::5efe:{dotted}]"),
    ]
}

/// The same behind parts of a URL that hide it from those who look for it in a text.
fn disguises(host: &str) -> Vec<String> {
    let bare = host.trim_matches(['[', ']']);
    vec![
        format!("http://{host}/"),
        format!("https://acme.example@{host}/"),
        format!("https://acme.example:443@{host}/"),
        format!("https://acme.example%2f@{host}/"),
        format!("https://user:pass@{host}/"),
        format!("https://@{host}/"),
        format!("https://{host}#@acme.example/"),
        format!("https://{host}?@acme.example/"),
        format!("https://{host}\\@acme.example/"),
        format!("https:\\\\{host}\\hook"),
        format!("https:/{host}/"),
        format!("https:{host}/"),
        format!("https:///{host}/"),
        format!("https:////{host}/"),
        format!("  https://{host}/  "),
        format!("\u{1}https://{host}/"),
        format!("ht\ttps://{host}/"),
        format!("https://\t{host}/"),
        format!("https://{}/", bare.chars().map(|c| format!("{c}\n")).collect::<String>()),
        format!("https://{}/", bare.chars().map(|c| format!("{c}\u{ad}")).collect::<String>()),
        format!("https://{host}\r\nx-injected: 1/"),
        format!("https://{host}:443/"),
        format!("https://{host}:80/"),
        format!("https://{host}:22/"),
        format!("https://{host}:0443/"),
        format!("HTTPS://{host}"),
        format!("//{host}/"),
        format!("gopher://{host}:70/_x"),
        format!("ftp://{host}/"),
        format!("file://{host}/etc/passwd"),
        format!("dict://{host}:11211/"),
        format!("jar:https://{host}!/"),
        format!("url:https://{host}/"),
    ]
}
