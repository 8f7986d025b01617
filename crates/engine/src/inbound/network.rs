//! Networks of clients.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tulle_api::{inbound as api, net};

use crate::destination::ip_addr;
use crate::invalid::Invalid;

/// A CIDR block, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address with all bits after the prefix at zero.
    base: IpAddr,
    prefix: u8,
}

/// A block with parts left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The whole.
    pub cidr: Cidr,
    /// The parts left out.
    pub except: Vec<Cidr>,
}

impl Cidr {
    /// Every IPv4 address.
    pub const ALL_V4: Self = Self {
        base: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        prefix: 0,
    };
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self {
        base: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        prefix: 0,
    };

    pub(crate) fn new(addr: IpAddr, prefix: u32) -> Result<Self, Invalid> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        match u8::try_from(prefix) {
            Ok(prefix) if prefix <= bits => {
                let base = match addr {
                    IpAddr::V4(addr) => {
                        IpAddr::V4((u32::from(addr) & mask(prefix, 32) as u32).into())
                    }
                    IpAddr::V6(addr) => IpAddr::V6((u128::from(addr) & mask(prefix, 128)).into()),
                };
                Ok(Self { base, prefix })
            }
            _ => Err(Invalid::new(
                "prefix_len",
                format!("is {prefix}, beyond {bits}"),
            )),
        }
    }

    fn compile(field: &str, message: &net::IpNetwork) -> Result<Self, Invalid> {
        let addr = message
            .ip
            .as_ref()
            .and_then(ip_addr)
            .ok_or_else(|| Invalid::missing("ip"));
        addr.and_then(|addr| Self::new(addr, message.prefix_len))
            .map_err(|error| error.under(field))
    }

    /// Whether the address lies in the block. An IPv4 address in IPv6 clothes counts as IPv4.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.base, addr.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(addr)) => {
                u32::from(addr) & mask(self.prefix, 32) as u32 == u32::from(base)
            }
            (IpAddr::V6(base), IpAddr::V6(addr)) => {
                u128::from(addr) & mask(self.prefix, 128) == u128::from(base)
            }
            _ => false,
        }
    }
}

/// The upper `prefix` of `bits` bits.
fn mask(prefix: u8, bits: u8) -> u128 {
    let all = if bits == 128 {
        u128::MAX
    } else {
        (1 << bits) - 1
    };
    all & all
        .checked_shl(u32::from(bits - prefix.min(bits)))
        .unwrap_or(0)
}

impl Network {
    /// Everybody.
    #[must_use]
    pub fn everywhere() -> Vec<Self> {
        vec![Cidr::ALL_V4.into(), Cidr::ALL_V6.into()]
    }

    pub(super) fn compile(message: &api::Network) -> Result<Self, Invalid> {
        let net = message
            .net
            .as_ref()
            .ok_or_else(|| Invalid::missing("net"))?;
        Ok(Self {
            cidr: Cidr::compile("net", net)?,
            except: message
                .except
                .iter()
                .enumerate()
                .map(|(index, except)| Cidr::compile(&format!("except[{index}]"), except))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether the address lies in the network.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.cidr.contains(addr) && !self.except.iter().any(|except| except.contains(addr))
    }
}

impl From<Cidr> for Network {
    fn from(cidr: Cidr) -> Self {
        Self {
            cidr,
            except: Vec::new(),
        }
    }
}

/// `10.0.0.0/8`, or an address for the block of it alone.
impl FromStr for Cidr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new(format!("{text:?}"), "is not a network such as 10.0.0.0/8");
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| refuse())?;
        let prefix = match prefix {
            None if addr.is_ipv4() => 32,
            None => 128,
            Some(prefix) => prefix.parse().map_err(|_| refuse())?,
        };
        Self::new(addr, prefix).map_err(|_| refuse())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cidr.fmt(f)?;
        for (index, except) in self.except.iter().enumerate() {
            write!(f, "{} {except}", if index == 0 { " except" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_their_addresses_and_no_others() {
        for (cidr, addr, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fd00::1", true),
            ("::/0", "::ffff:10.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fd12::", true),
            ("fd00::/8", "fe00::", false),
            ("192.168.1.1", "192.168.1.1", true),
            ("192.168.1.1/32", "192.168.1.2", false),
            ("::1", "::1", true),
        ] {
            let block: Cidr = cidr.parse().unwrap();
            assert_eq!(
                block.contains(addr.parse().unwrap()),
                expected,
                "{cidr} {addr}"
            );
        }
    }

    #[test]
    fn what_is_left_out_is_out() {
        let network = Network {
            cidr: "10.0.0.0/8".parse().unwrap(),
            except: vec![
                "10.1.0.0/16".parse().unwrap(),
                "10.2.0.0/16".parse().unwrap(),
            ],
        };

        assert!(network.contains("10.3.0.1".parse().unwrap()));
        assert!(!network.contains("10.1.0.1".parse().unwrap()));
        assert_eq!(
            network.to_string(),
            "10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16"
        );
    }

    #[test]
    fn texts_that_are_no_network_are_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "a/8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
