//! Ranges of addresses: who may publish, who may send to a configured session.

use core::fmt;
use core::net::IpAddr;

/// A range of addresses: "10.0.0.0/8", "2001:db8::/32", "192.0.2.7".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    address: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// Reads an address, with or without the number of its leading bits that count.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(AddressRange { address, bits })
    }

    /// Whether `ip` lies in the range. IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let drop = 32 - u32::from(self.bits);
                u32::from(a).checked_shr(drop) == u32::from(b).checked_shr(drop)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let drop = 128 - u32::from(self.bits);
                u128::from(a).checked_shr(drop) == u128::from(b).checked_shr(drop)
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for AddressRange {
    /// The range of that address alone.
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        AddressRange { address, bits }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_ranges_contain_what_they_say() {
        let private = AddressRange::parse("10.0.0.0/8").unwrap();
        assert!(private.contains("10.200.1.1".parse().unwrap()));
        assert!(private.contains("::ffff:10.1.1.1".parse().unwrap()));
        assert!(!private.contains("11.0.0.1".parse().unwrap()));
        let all = AddressRange::parse("0.0.0.0/0").unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()));
        let v6 = AddressRange::parse("2001:db8::/32").unwrap();
        assert!(v6.contains("2001:db8::1".parse().unwrap()));
        assert!(AddressRange::parse("10.0.0.0/33").is_none());
        let one = AddressRange::from("::ffff:192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(one.to_string(), "192.0.2.7/32");
        assert!(one.contains("192.0.2.7".parse().unwrap()));
    }
}
