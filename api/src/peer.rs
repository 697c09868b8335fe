//! From which address a request comes. A header is believed only when a proxy of ours sent it.

use crate::app::App;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName},
    middleware::Next,
    response::Response,
};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Names the networks of trusted proxies.
const VARIABLE: &str = "FLATRENDER_TRUSTED_PROXIES";

/// Who sent the request; none when the server cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

/// Networks of proxies whose `X-Forwarded-For` is believed; none by default.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpNet]>);

/// A network that is none.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} has {0:?}, which is no network: write addresses or networks, with commas between them")]
pub struct BadNetwork(String);

impl Proxies {
    /// The networks in a list with commas, such as `10.0.0.0/8, 192.0.2.7`.
    ///
    /// # Errors
    /// One of them is no network.
    pub fn parse(list: &str) -> Result<Self, BadNetwork> {
        let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| network(name).map_err(|_| BadNetwork(name.to_owned()))).collect::<Result<_, _>>().map(Self)
    }

    /// Those that the environment names in `FLATRENDER_TRUSTED_PROXIES`.
    ///
    /// # Errors
    /// One of them is no network.
    pub fn from_env() -> Result<Self, BadNetwork> {
        Self::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The sender of a request that `peer` connected for: the last one in the chain of proxies that is none of ours.
    fn sender(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut sender = peer.to_canonical();
        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            if !self.trusts(sender) {
                break;
            }
            // What cannot be read was not written by a proxy of ours.
            let Ok(before) = hop.trim().parse::<IpAddr>() else { break };
            sender = before.to_canonical();
        }
        sender
    }
}

/// What is counted as one sender: an address, or of IPv6 the network of 64 bits that it is in, since whoever has one address there has
/// all of them (RFC 6177, RFC 7934).
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Finds out where the request comes from.
pub async fn find(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let sender = peer.map(|peer| app.proxies.sender(peer, request.headers()));
    request.extensions_mut().insert(ClientAddress(sender));
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(proxies: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        Proxies::parse(proxies).unwrap().sender(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_unless_trusted() {
        assert_eq!(sender("", "203.0.113.9", &["192.0.2.1"]), "203.0.113.9");
        assert_eq!(sender("10.0.0.0/8", "203.0.113.9", &["192.0.2.1"]), "203.0.113.9");
    }

    #[test]
    fn the_last_stranger_in_the_chain_is_the_sender() {
        let proxies = "10.0.0.0/8, 2001:db8::/32";
        assert_eq!(sender(proxies, "10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(sender(proxies, "10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.9.9.9"]), "192.0.2.1", "a forged first hop");
        assert_eq!(sender(proxies, "10.0.0.1", &["6.6.6.6", "192.0.2.1", "2001:db8::1"]), "192.0.2.1", "several lines");
        assert_eq!(sender(proxies, "::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1", "a mapped address");
        assert_eq!(sender(proxies, "10.0.0.1", &["192.0.2.1, nonsense"]), "10.0.0.1");
        assert_eq!(sender(proxies, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_network_of_ipv6_is_one_sender() {
        let network = |ip: &str| network_of(ip.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::9"), network("2001:db8:1:3::9"));
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7", "a mapped address is the one of the fourth version");
    }

    #[test]
    fn a_wrong_network_is_told() {
        assert!(Proxies::parse("10.0.0.0/33").unwrap_err().to_string().contains("10.0.0.0/33"));
    }
}
