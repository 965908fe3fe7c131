//! Addresses on the network that a person's webhook may not have: our own machine, private networks, clouds' metadata.
//!
//! Invariant: whatever is not known to be public is refused; an address that carries another one within it (v4 in v6, NAT64, 6to4) is
//! judged by that one too. Deliberately absent: names. A name is judged by the addresses that it has when we connect, and the one that
//! was judged is the one that is connected to (`http.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, beside public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This machine, or a private network: allowed where an operator says so.
    Private,
    /// Metadata, link-local, multicast, reserved: never.
    Never,
}

/// A network of IPv4.
type Net4 = ([u8; 4], u32, Kind);
/// A network of IPv6.
type Net6 = ([u16; 8], u32, Kind);

const NETS4: &[Net4] = &[
    ([0, 0, 0, 0], 8, Kind::Never),
    ([10, 0, 0, 0], 8, Kind::Private),
    // Alibaba's metadata lies within carriers' NAT, and Azure's and Oracle's in ranges that look public.
    ([100, 100, 100, 200], 32, Kind::Never),
    ([168, 63, 129, 16], 32, Kind::Never),
    ([192, 0, 0, 0], 24, Kind::Never),
    ([100, 64, 0, 0], 10, Kind::Private),
    ([127, 0, 0, 0], 8, Kind::Private),
    ([169, 254, 0, 0], 16, Kind::Never),
    ([172, 16, 0, 0], 12, Kind::Private),
    ([192, 0, 2, 0], 24, Kind::Never),
    ([192, 88, 99, 0], 24, Kind::Never),
    ([192, 168, 0, 0], 16, Kind::Private),
    ([198, 18, 0, 0], 15, Kind::Never),
    ([198, 51, 100, 0], 24, Kind::Never),
    ([203, 0, 113, 0], 24, Kind::Never),
    ([224, 0, 0, 0], 4, Kind::Never),
    ([240, 0, 0, 0], 4, Kind::Never),
];

const NETS6: &[Net6] = &[
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Kind::Private),
    // AWS' metadata lies within unique local addresses.
    ([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254], 128, Kind::Never),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Kind::Private),
    // Of what is global: protocols' own, Teredo, ORCHID, documentation.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Kind::Never),
    ([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32, Kind::Never),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Kind::Never),
];

/// What an address is, if it is not public.
#[must_use]
pub fn kind(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(v4) => kind4(v4),
        IpAddr::V6(v6) => kind6(v6),
    }
}

/// Whether it may be connected to.
#[must_use]
pub fn allowed(address: IpAddr, allow_private: bool) -> bool {
    match kind(address) {
        None => true,
        Some(Kind::Private) => allow_private,
        Some(Kind::Never) => false,
    }
}

fn kind4(address: Ipv4Addr) -> Option<Kind> {
    let bits = address.to_bits();
    let within = |(net, length, _): &&Net4| (bits ^ u32::from_be_bytes(*net)).leading_zeros() >= *length;
    NETS4.iter().find(within).map(|(_, _, kind)| *kind)
}

fn kind6(address: Ipv6Addr) -> Option<Kind> {
    let bits = address.to_bits();
    let within = |(net, length, _): &&Net6| (bits ^ Ipv6Addr::from(*net).to_bits()).leading_zeros() >= *length;
    if let Some((_, _, kind)) = NETS6.iter().find(within) {
        return Some(*kind);
    }
    if let Some(v4) = embedded(address) {
        return kind4(v4);
    }
    // Global unicast is 2000::/3; all else is link-local, site-local, multicast, or nothing yet.
    (bits >> 125 != 0b001).then_some(Kind::Never)
}

/// The IPv4 address that an IPv6 address stands for, or leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff | 0) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        (0x2002, high, low, _, _, _) => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_judged() {
        for (address, expected) in [
            ("1.1.1.1", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("169.253.255.255", None),
            ("223.255.255.255", None),
            ("2606:4700::1111", None),
            ("::ffff:1.1.1.1", None),
            ("64:ff9b::101:101", None),
            ("2002:101:101::", None),
            ("127.0.0.1", Some(Kind::Private)),
            ("127.255.255.254", Some(Kind::Private)),
            ("10.0.0.1", Some(Kind::Private)),
            ("172.16.0.1", Some(Kind::Private)),
            ("172.31.255.255", Some(Kind::Private)),
            ("192.168.1.1", Some(Kind::Private)),
            ("100.64.0.1", Some(Kind::Private)),
            ("100.127.255.255", Some(Kind::Private)),
            ("::1", Some(Kind::Private)),
            ("::ffff:127.0.0.1", Some(Kind::Private)),
            ("::ffff:10.1.2.3", Some(Kind::Private)),
            ("::ffff:0:10.1.2.3", Some(Kind::Private)),
            ("::127.0.0.1", Some(Kind::Private)),
            ("64:ff9b::7f00:1", Some(Kind::Private)),
            ("2002:7f00:1::", Some(Kind::Private)),
            ("fc00::1", Some(Kind::Private)),
            ("fdff::1", Some(Kind::Private)),
            ("0.0.0.0", Some(Kind::Never)),
            ("0.1.2.3", Some(Kind::Never)),
            ("169.254.169.254", Some(Kind::Never)),
            ("::ffff:169.254.169.254", Some(Kind::Never)),
            ("64:ff9b::a9fe:a9fe", Some(Kind::Never)),
            ("2002:a9fe:a9fe::1", Some(Kind::Never)),
            ("100.100.100.200", Some(Kind::Never)),
            ("168.63.129.16", Some(Kind::Never)),
            ("192.0.0.192", Some(Kind::Never)),
            ("192.0.2.1", Some(Kind::Never)),
            ("198.19.0.1", Some(Kind::Never)),
            ("224.0.0.1", Some(Kind::Never)),
            ("255.255.255.255", Some(Kind::Never)),
            ("::", Some(Kind::Never)),
            ("fe80::1", Some(Kind::Never)),
            ("fec0::1", Some(Kind::Never)),
            ("ff02::1", Some(Kind::Never)),
            ("fd00:ec2::254", Some(Kind::Never)),
            ("2001:db8::1", Some(Kind::Never)),
            ("2001:0:1::1", Some(Kind::Never)),
            ("64:ff9b:1::1", Some(Kind::Never)),
            ("100::1", Some(Kind::Never)),
            ("4000::1", Some(Kind::Never)),
        ] {
            assert_eq!(kind(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn private_ones_are_allowed_only_where_that_is_said_and_metadata_never() {
        let local = "127.0.0.1".parse().unwrap();
        assert!(!allowed(local, false) && allowed(local, true));
        assert!(!allowed("169.254.169.254".parse().unwrap(), true));
        assert!(allowed("8.8.8.8".parse().unwrap(), false));
    }
}
