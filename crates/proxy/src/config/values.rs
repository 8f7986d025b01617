//! Reading one environment value: text in, typed value or the reason out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{Cidr, DefaultPolicy, PortSet, ServiceAddr};

/// The result of reading one value; the error is the part after "because".
pub type Parsed<T> = Result<T, String>;

/// `250ms`, `10s`, `2m`, `1h`, `1d`; a bare number only when it is 0.
pub fn duration(text: &str) -> Parsed<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "it does not begin with a whole number".to_owned())?;
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 1,
        "" => return Err("the unit is missing".to_owned()),
        _ => return Err(format!("`{unit}` is not a unit")),
    };
    number
        .checked_mul(ms_per_unit)
        .map(Duration::from_millis)
        .filter(|length| *length <= LONGEST)
        .ok_or_else(|| "it is longer than 36500d".to_owned())
}

/// A longer time is a slip of the keyboard, and could not be added to a clock.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// `true` or `false`.
pub fn flag(text: &str) -> Parsed<bool> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it is neither".to_owned()),
    }
}

/// `unsafe`, in any case; as Linkerd, which has no other setting.
pub fn authority_labels(text: &str) -> Parsed<()> {
    match text.trim().eq_ignore_ascii_case("unsafe") {
        true => Ok(()),
        false => Err("there is no such setting".to_owned()),
    }
}

/// A whole number that fits `T`.
pub fn number<T: TryFrom<u64>>(text: &str) -> Parsed<T> {
    let wide: u64 = text
        .trim()
        .parse()
        .map_err(|_| "it is not a whole number".to_owned())?;
    T::try_from(wide).map_err(|_| "it is too large".to_owned())
}

/// A decimal number from 0 to 1.
pub fn ratio(text: &str) -> Parsed<f64> {
    match text.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        Ok(_) => Err("it is outside 0 to 1".to_owned()),
        Err(_) => Err("it is not a number".to_owned()),
    }
}

/// `ip:port`.
pub fn address(text: &str) -> Parsed<SocketAddr> {
    text.trim()
        .parse()
        .map_err(|_| "it is not an address with a port".to_owned())
}

/// `ip:port` items separated by commas.
pub fn addresses(text: &str) -> Parsed<Vec<SocketAddr>> {
    items(text).map(address).collect()
}

/// IP addresses separated by commas.
pub fn ips(text: &str) -> Parsed<Vec<IpAddr>> {
    items(text)
        .map(|item| {
            item.parse()
                .map_err(|_| format!("`{item}` is not an IP address"))
        })
        .collect()
}

/// `name:port` or `ip:port`.
pub fn service_addr(text: &str) -> Parsed<ServiceAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(ServiceAddr::Socket(address));
    }
    let (name, port) = text
        .rsplit_once(':')
        .ok_or_else(|| "the port is missing".to_owned())?;
    let port = number::<u16>(port).map_err(|_| format!("`{port}` is not a port"))?;
    dns_name(name)?;
    Ok(ServiceAddr::Name(name.to_ascii_lowercase(), port))
}

/// A DNS name; a trailing dot is allowed.
pub fn dns_name(text: &str) -> Parsed<String> {
    let name = text.trim();
    let labels = name.strip_suffix('.').unwrap_or(name);
    let well_formed = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if labels.len() > 253 || !labels.split('.').all(well_formed) {
        return Err(format!("`{text}` is not a DNS name"));
    }
    Ok(name.to_ascii_lowercase())
}

/// An identity: a DNS name, or a SPIFFE ID.
pub fn identity(text: &str) -> Parsed<String> {
    match text.trim() {
        id if id.starts_with("spiffe://") => crate::identity::spiffe_id(id).map(|()| id.to_owned()),
        name => dns_name(name),
    }
}

/// The path of a unix socket, with or without `unix:` or `unix://` before it.
pub fn unix_socket(text: &str) -> Parsed<PathBuf> {
    let text = text.trim();
    let path = text.strip_prefix("unix:").unwrap_or(text);
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Err("it is not an absolute path".to_owned())
    }
}

/// DNS suffixes separated by commas; `.` is every name.
pub fn suffixes(text: &str) -> Parsed<Vec<String>> {
    items(text)
        .map(|item| {
            if item == "." {
                Ok(".".to_owned())
            } else {
                dns_name(item)
            }
        })
        .collect()
}

/// Whether a name ends in one of the suffixes, at a label.
pub fn has_suffix(name: &[u8], suffixes: &[String]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    suffixes.iter().any(|suffix| {
        let suffix = suffix.as_bytes();
        let suffix = suffix.strip_suffix(b".").unwrap_or(suffix);
        let rest = name.len().checked_sub(suffix.len());
        let parts = rest.and_then(|rest| name.split_at_checked(rest));
        parts.is_some_and(|(rest, end)| {
            end.eq_ignore_ascii_case(suffix)
                && (rest.is_empty() || suffix.is_empty() || rest.ends_with(b"."))
        })
    })
}

/// Ports and ranges (`80,8000-8010`).
pub fn ports(text: &str) -> Parsed<PortSet> {
    let mut ranges = Vec::new();
    for item in items(text) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let first =
            number::<u16>(first).map_err(|_| format!("`{item}` is not a port or a range"))?;
        let last = number::<u16>(last).map_err(|_| format!("`{item}` is not a port or a range"))?;
        if first == 0 || first > last {
            return Err(format!("`{item}` is not a port or a range"));
        }
        ranges.push((first, last));
    }
    Ok(PortSet::new(ranges))
}

/// Most ports that a pod may declare: each is watched from the start.
pub const MAX_DECLARED_PORTS: usize = 1_000;

/// Ports and ranges, few enough to be watched each.
pub fn declared_ports(text: &str) -> Parsed<BTreeSet<u16>> {
    let declared = ports(text)?.to_set();
    if declared.len() > MAX_DECLARED_PORTS {
        return Err(format!(
            "it names {} ports; at most {MAX_DECLARED_PORTS} can be watched",
            declared.len()
        ));
    }
    Ok(declared)
}

/// `80=18080` items separated by commas.
pub fn port_map(text: &str) -> Parsed<BTreeMap<u16, u16>> {
    let mut map = BTreeMap::new();
    for item in items(text) {
        let (from, to) = item
            .split_once('=')
            .ok_or_else(|| format!("`{item}` has no `=`"))?;
        let from = number::<u16>(from).map_err(|_| format!("`{from}` is not a port"))?;
        let to = number::<u16>(to).map_err(|_| format!("`{to}` is not a port"))?;
        if map.insert(from, to).is_some_and(|before| before != to) {
            return Err(format!("port {from} is mapped twice"));
        }
    }
    Ok(map)
}

/// `127.1.0.5:30080=80` items separated by commas.
pub fn extra_listeners(text: &str) -> Parsed<Vec<(SocketAddr, u16)>> {
    items(text)
        .map(|item| {
            let (listen, port) = item
                .split_once('=')
                .ok_or_else(|| format!("`{item}` has no `=`"))?;
            let listen =
                address(listen).map_err(|_| format!("`{listen}` is not an address with a port"))?;
            let port = number::<u16>(port).map_err(|_| format!("`{port}` is not a port"))?;
            Ok((listen, port))
        })
        .collect()
}

/// CIDR networks separated by commas; a bare address is a network of one.
pub fn networks(text: &str) -> Parsed<Vec<Cidr>> {
    items(text)
        .map(|item| {
            item.parse()
                .map_err(|_| format!("`{item}` is not a network"))
        })
        .collect()
}

/// A decimal or 0x-hexadecimal packet mark.
pub fn mark(text: &str) -> Parsed<u32> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .map_err(|_| "it is not a 32-bit number".to_owned())
}

/// One of Linkerd's default policies.
pub fn default_policy(text: &str) -> Parsed<DefaultPolicy> {
    text.trim()
        .parse()
        .map_err(|_| "there is no such policy".to_owned())
}

/// One or more PEM certificates.
pub fn pem_certificates(text: &str) -> Parsed<String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(found) if found.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// The one protocol of collectors.
pub fn trace_protocol(text: &str) -> Parsed<()> {
    match text.trim() {
        "opentelemetry" => Ok(()),
        _ => Err("this proxy does not speak it".to_owned()),
    }
}

/// Attributes of one variable, or of the labels, that spans carry beside their own.
const MAX_ATTRIBUTES: usize = 64;
/// Name or value of such an attribute.
const LONGEST_ATTRIBUTE: usize = 256;

/// `name=value` items, one on a line (as the downward API writes labels, values in quotes) or separated by commas
/// (as OpenTelemetry's own variable has them). What is no pair says nothing; further ones than 64 are left out.
pub fn attributes(text: &str) -> BTreeMap<String, String> {
    let fits = |text: &str| text.len() <= LONGEST_ATTRIBUTE;
    text.lines()
        .flat_map(|line| line.split(','))
        .filter_map(|item| item.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
        .filter(|(name, value)| !name.is_empty() && fits(name) && fits(value))
        .take(MAX_ATTRIBUTES)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Any text.
pub fn text(text: &str) -> Parsed<String> {
    Ok(text.trim().to_owned())
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_ends_at_a_label() {
        let suffixes = ["svc.cluster.local.".to_owned(), "example.org".to_owned()];
        for (name, expected) in [
            ("web.emojivoto.svc.cluster.local", true),
            ("Web.Emojivoto.SVC.cluster.local.", true),
            ("svc.cluster.local", true),
            ("web.example.org", true),
            ("webexample.org", false),
            ("web.example.com", false),
            ("", false),
        ] {
            assert_eq!(has_suffix(name.as_bytes(), &suffixes), expected, "{name}");
        }
        assert!(has_suffix(b"anything", &[".".to_owned()]) && !has_suffix(b"anything", &[]));
    }

    #[test]
    fn durations_need_a_unit_unless_zero() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration(" 0 "), Ok(Duration::ZERO));
        for bad in [
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "5w",
            "99999999999999d",
            "",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn service_addresses_are_names_or_sockets() {
        assert_eq!(
            service_addr("localhost.:8080"),
            Ok(ServiceAddr::Name("localhost.".into(), 8080))
        );
        assert_eq!(
            service_addr("127.0.0.1:8080"),
            Ok(ServiceAddr::Socket(
                "127.0.0.1:8080".parse().expect("address")
            ))
        );
        for bad in ["localhost", "a b:80", "x:99999", ":80", "a..b:80"] {
            assert!(service_addr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        let set = ports("25, 8000-8002").expect("ports");
        assert!(set.contains(25) && set.contains(8001) && !set.contains(8003));
        for bad in ["0", "9-8", "http", "70000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
        assert_eq!(
            declared_ports("80,80,81-82").map(|ports| ports.len()),
            Ok(3)
        );
        assert!(
            declared_ports("1-65535").is_err(),
            "every one of them would be watched"
        );
    }

    #[test]
    fn networks_are_prefixes_or_single_addresses() {
        let found = networks("10.0.0.0/8,fd00::1").expect("networks");
        assert!(found[0].contains("10.9.9.9".parse().expect("ip")));
        assert!(!found[0].contains("11.0.0.1".parse().expect("ip")));
        assert!(found[1].contains("fd00::1".parse().expect("ip")));
        assert!(networks("10.0.0.0/33").is_err());
    }

    #[test]
    fn attributes_are_lines_of_labels_or_lists() {
        let found = attributes(
            "app=\"web\"\nlinkerd.io/workload-ns=\"x\"\nempty=\"\"\nno pair\n=nameless\nk==v",
        );
        let expected = [
            ("app", "web"),
            ("empty", ""),
            ("k", "=v"),
            ("linkerd.io/workload-ns", "x"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        assert_eq!(attributes("a=1, b=2").len(), 2);
        let many: String = (0..100).map(|number| format!("k{number}=v\n")).collect();
        assert_eq!(attributes(&many).len(), MAX_ATTRIBUTES);
        assert!(attributes(&format!("a={}", "x".repeat(257))).is_empty());
    }

    #[test]
    fn ours_are_read_too() {
        assert_eq!(port_map("80=18080"), Ok(BTreeMap::from([(80, 18080)])));
        assert!(port_map("80=1,80=2").is_err());
        assert_eq!(
            extra_listeners("127.1.0.5:30080=80"),
            Ok(vec![("127.1.0.5:30080".parse().expect("address"), 80)])
        );
        assert_eq!(mark("0x7e11"), Ok(0x7e11));
        assert!(mark("0xzz").is_err());
    }
}
