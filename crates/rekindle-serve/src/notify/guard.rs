//! Which addresses a message may be sent to: an alert must not become a way into this network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Failure;

/// Resolves a host and refuses when any of its addresses is forbidden. The connection is made to
/// these addresses and no others, so a second answer of the name server changes nothing.
pub(super) async fn resolve(host: &str, port: u16, allow_private: bool) -> Result<Vec<SocketAddr>, Failure> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((name, port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| Failure::later(format!("resolve {host}: {error}")))?.collect();
    if found.is_empty() {
        return Err(Failure::later(format!("{host} has no address")));
    }
    match found.iter().find_map(|address| is_forbidden(address.ip(), allow_private)) {
        None => Ok(found),
        Some(why) => Err(Failure::never(format!("{host} is {why}"))),
    }
}

/// Why nothing may be sent to this address. Link-local ones (there are the secrets of cloud hosts)
/// are never allowed, those of private networks only when the configuration says so.
pub fn is_forbidden(address: IpAddr, allow_private: bool) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address, allow_private),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => forbidden_v4(inner, allow_private),
            None => forbidden_v6(address, allow_private),
        },
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64, 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            of(high, low)
        }
        _ => None,
    }
}

fn forbidden_v4(address: Ipv4Addr, allow_private: bool) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    if address.is_link_local() {
        return Some("a link-local address, where cloud hosts keep their credentials");
    }
    if address.is_unspecified() || address.is_broadcast() || address.is_multicast() || a == 0 || a >= 240 {
        return Some("no address of one host");
    }
    let carrier = a == 100 && (64..128).contains(&b);
    let special = (a, b, c) == (192, 0, 0) || (a == 198 && (b == 18 || b == 19));
    let private = address.is_loopback() || address.is_private() || carrier || special;
    (private && !allow_private).then_some("an address of a private network (`allow-private = true` allows it)")
}

fn forbidden_v6(address: Ipv6Addr, allow_private: bool) -> Option<&'static str> {
    let first = address.segments()[0];
    let metadata = address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
    if first & 0xffc0 == 0xfe80 || metadata {
        return Some("a link-local address, where cloud hosts keep their credentials");
    }
    if address.is_unspecified() || address.is_multicast() {
        return Some("no address of one host");
    }
    // Unique local, the old site-local, and local NAT64 prefixes.
    let private = address.is_loopback()
        || first & 0xfe00 == 0xfc00
        || first & 0xffc0 == 0xfec0
        || address.segments()[..3] == [0x64, 0xff9b, 1];
    (private && !allow_private).then_some("an address of a private network (`allow-private = true` allows it)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_network_are_refused_in_every_form() {
        let private = [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "64:ff9b:1::1",
            "198.18.0.1",
            "192.0.0.8",
        ];
        for text in private {
            let address = text.parse().unwrap();
            assert!(is_forbidden(address, false).is_some(), "{text}");
            assert!(is_forbidden(address, true).is_none(), "{text} may be allowed");
        }
        let never = [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "240.0.0.1",
            "0.1.2.3",
        ];
        for text in never {
            let address = text.parse().unwrap();
            assert!(is_forbidden(address, true).is_some(), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(is_forbidden(text.parse().unwrap(), false).is_none(), "{text}");
        }
    }
}
