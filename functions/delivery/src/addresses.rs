//! Addresses of targets: public ones only, checked when a connection is made.
//!
//! An entry names a host, and its name may resolve to an address inside of a private network or to the metadata of a machine.
//! The check is at the connection, since a name may resolve to another address a moment later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tokio::net::lookup_host;
use url::{Host, Url};

/// The addresses to which messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedAddresses {
    /// Public addresses.
    Public,
    /// Public addresses and those of this machine, for tests.
    PublicAndLoopback,
}

/// An address is not used. The error has no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}", self.as_str())]
pub(crate) enum AddressError {
    NotFound,
    NotPublic,
}

impl AddressError {
    /// Returns its text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "the host of the address is not known",
            Self::NotPublic => "the address is not public",
        }
    }
}

impl AllowedAddresses {
    /// Whether a message may be sent to an address.
    pub fn allows(self, address: IpAddr) -> bool {
        is_public(address) || (self == Self::PublicAndLoopback && address.is_loopback())
    }

    /// Checks an address that has no name to resolve.
    pub(crate) fn check_literal(self, url: &Url) -> Result<(), AddressError> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
            Some(Host::Domain(_)) => Ok(()),
            None => Err(AddressError::NotFound),
        }
    }

    fn check(self, address: IpAddr) -> Result<(), AddressError> {
        if self.allows(address) { Ok(()) } else { Err(AddressError::NotPublic) }
    }

    /// Checks all addresses of a name. A name with one that is not allowed is not used at all.
    fn check_all(self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, AddressError> {
        if addresses.is_empty() {
            return Err(AddressError::NotFound);
        }
        addresses.iter().try_for_each(|address| self.check(address.ip()))?;
        Ok(addresses)
    }
}

/// Resolves names with the system, and refuses addresses that are not allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckingResolver(pub(crate) AllowedAddresses);

impl Resolve for CheckingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(allowed) = *self;
        Box::pin(async move {
            let addresses = lookup_host((name.as_str(), 0)).await.map_err(|_| AddressError::NotFound)?.collect();
            let addresses: Addrs = Box::new(allowed.check_all(addresses)?.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address is reachable from everywhere (IANA's special-purpose address registries, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // This network, private use, loopback.
        (0 | 10 | 127, ..) => true,
        // Addresses that carriers share.
        (100, 64..=127, _) => true,
        // Link-local, with the metadata of machines.
        (169, 254, _) => true,
        // Private use.
        (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, relays to IPv6, documentation.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113) => true,
        // Measurements.
        (198, 18 | 19, _) => true,
        // Multicast, reserved, broadcast.
        (224.., ..) => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    match (a, b) {
        // Protocol assignments such as Teredo, and documentation.
        (0x2001, 0..=0x1ff | 0xdb8) => false,
        // 6to4, which has an IPv4 address inside.
        (0x2002, _) => false,
        // Documentation.
        (0x3fff, 0..=0xfff) => false,
        // Global unicast. Outside of it are loopback, unique-local, link-local and multicast addresses, and IPv4 addresses that
        // are mapped or translated.
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: [&str; 12] = [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80b::200e",
    ];

    const NOT_PUBLIC: [&str; 42] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:1.1.1.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_public_addresses_are_allowed() {
        for address in PUBLIC {
            assert!(AllowedAddresses::Public.allows(ip(address)), "{address}");
        }
        for address in NOT_PUBLIC {
            assert!(!AllowedAddresses::Public.allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn the_switch_for_tests_adds_loopback_addresses_and_no_others() {
        for address in NOT_PUBLIC {
            let is_loopback = address.starts_with("127.") || address == "::1";
            assert_eq!(AllowedAddresses::PublicAndLoopback.allows(ip(address)), is_loopback, "{address}");
        }
    }

    #[test]
    fn an_address_in_any_notation_is_checked() {
        for (url, expected) in [
            ("https://127.0.0.1/hook", Err(AddressError::NotPublic)),
            ("https://0x7f.1/hook", Err(AddressError::NotPublic)),
            ("https://2130706433/hook", Err(AddressError::NotPublic)),
            ("https://0251.0376.0251.0376/latest/meta-data", Err(AddressError::NotPublic)),
            ("https://[::ffff:169.254.169.254]/", Err(AddressError::NotPublic)),
            ("https://[fd00:ec2::254]/", Err(AddressError::NotPublic)),
            ("https://1.1.1.1/hook", Ok(())),
            ("https://target.example/hook", Ok(())),
        ] {
            assert_eq!(AllowedAddresses::Public.check_literal(&url.parse().expect("an address")), expected, "{url}");
        }
    }

    #[test]
    fn a_name_with_one_address_that_is_not_public_is_refused() {
        let check = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| SocketAddr::new(ip(address), 0));
            AllowedAddresses::Public.check_all(addresses.collect())
        };
        assert_eq!(check(&["1.1.1.1", "2606:4700:4700::1111"]).map(|addresses| addresses.len()), Ok(2));
        assert_eq!(check(&["1.1.1.1", "10.0.0.1"]), Err(AddressError::NotPublic));
        assert_eq!(check(&[]), Err(AddressError::NotFound));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_refused_without_the_switch() {
        let resolve = async |allowed| {
            let name = "localhost".parse().expect("a name");
            CheckingResolver(allowed)
                .resolve(name)
                .await
                .map(|addresses| addresses.count() > 0)
                .map_err(|it| it.to_string())
        };
        assert_eq!(resolve(AllowedAddresses::Public).await, Err("the address is not public".to_owned()));
        assert_eq!(resolve(AllowedAddresses::PublicAndLoopback).await, Ok(true));
    }
}
