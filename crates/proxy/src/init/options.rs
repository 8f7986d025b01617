//! The arguments of `tulle-proxy init`: linkerd-init's, as far as they mean something here.

use crate::config::{Cidr, values};

/// `tulle-proxy init --help`.
pub const USAGE: &str = "\
tulle-proxy init: lead a pod's TCP traffic to the sidecar with packet-filter rules

Usage:
  tulle-proxy init [options]

Options:
  --incoming-proxy-port PORT       where inbound connections are led (4143)
  --outgoing-proxy-port PORT       where outbound connections are led (4140)
  --proxy-uid UID                  the sidecar's user, whose connections are left alone (2102)
  --proxy-gid GID                  its group, likewise
  --proxy-mark MARK                connections with this packet mark are left alone, such as 0x7e11
  --inbound-ports-to-ignore LIST   ports and ranges that reach the application directly (4190,4191,4567,4568)
  --outbound-ports-to-ignore LIST  ports and ranges that the application reaches directly (4567,4568)
  --ports-to-redirect LIST         only these inbound ports are led to the sidecar
  --subnets-to-ignore LIST         inbound connections from these networks are left alone
  --ipv6[=BOOL]                    the same rules for IPv6 (false)
  --simulate                       print the rules in nft's language and write nothing
  --timeout-close-wait-secs N, --firewall-bin-path P, --firewall-save-bin-path P, --iptables-mode M, --log-*
                                   accepted for linkerd-init's sake, without effect

Example:
  tulle-proxy init --proxy-uid 2102 --inbound-ports-to-ignore 4190,4191,25

Exit codes: 0 written, 1 could not be written, 2 wrong usage.
";

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Inbound proxy port.
    pub incoming: u16,
    /// Outbound proxy port.
    pub outgoing: u16,
    /// The proxy's user.
    pub uid: u32,
    /// The proxy's group.
    pub gid: Option<u32>,
    /// The proxy's packet mark.
    pub mark: Option<u32>,
    /// Inbound ports and ranges left alone.
    pub inbound_ignored: Vec<(u16, u16)>,
    /// Outbound ports and ranges left alone.
    pub outbound_ignored: Vec<(u16, u16)>,
    /// Only these inbound ports, when there are any.
    pub redirected: Vec<(u16, u16)>,
    /// Networks whose connections are left alone.
    pub subnets: Vec<String>,
    /// IPv6 as well.
    pub ipv6: bool,
    /// Only print.
    pub simulate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            incoming: 4143,
            outgoing: 4140,
            uid: 2102,
            gid: None,
            mark: None,
            inbound_ignored: vec![(4190, 4190), (4191, 4191), (4567, 4567), (4568, 4568)],
            outbound_ignored: vec![(4567, 4567), (4568, 4568)],
            redirected: Vec::new(),
            subnets: Vec::new(),
            ipv6: false,
            simulate: false,
        }
    }
}

const WITHOUT_EFFECT: [&str; 6] = [
    "--timeout-close-wait-secs",
    "--firewall-bin-path",
    "--firewall-save-bin-path",
    "--iptables-mode",
    "--log-format",
    "--log-level",
];

impl Options {
    /// Reads `--name value` and `--name=value`.
    ///
    /// # Errors
    /// The first argument that cannot be used, and why.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument.as_str(), None),
            };
            match (name, inline) {
                ("--simulate", None) => options.simulate = true,
                ("--simulate", Some(value)) => {
                    options.simulate = values::flag(value).map_err(|why| bad(name, value, &why))?
                }
                ("--ipv6", None) => options.ipv6 = true,
                ("--ipv6", Some(value)) => {
                    options.ipv6 = values::flag(value).map_err(|why| bad(name, value, &why))?
                }
                _ => {
                    let value = match inline {
                        Some(value) => value,
                        None if name.starts_with("--") => arguments
                            .next()
                            .ok_or_else(|| format!("{name} lacks its value"))?
                            .as_str(),
                        None => return Err(format!("`{name}` is not an option")),
                    };
                    options.set(name, value)?;
                }
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let explain = |why: String| bad(name, value, &why);
        match name {
            "--incoming-proxy-port" => self.incoming = values::number(value).map_err(explain)?,
            "--outgoing-proxy-port" => self.outgoing = values::number(value).map_err(explain)?,
            "--proxy-uid" => self.uid = values::number(value).map_err(explain)?,
            "--proxy-gid" => self.gid = Some(values::number(value).map_err(explain)?),
            "--proxy-mark" => self.mark = Some(values::mark(value).map_err(explain)?),
            "--inbound-ports-to-ignore" => self.inbound_ignored = ports(value).map_err(explain)?,
            "--outbound-ports-to-ignore" => {
                self.outbound_ignored = ports(value).map_err(explain)?
            }
            "--ports-to-redirect" => self.redirected = ports(value).map_err(explain)?,
            "--subnets-to-ignore" => self.subnets = subnets(value).map_err(explain)?,
            _ if WITHOUT_EFFECT.contains(&name) => {}
            _ => return Err(format!("`{name}` is not an option")),
        }
        Ok(())
    }
}

fn bad(name: &str, value: &str, why: &str) -> String {
    format!("{name} is {value:?}: {why}")
}

fn ports(text: &str) -> Result<Vec<(u16, u16)>, String> {
    values::ports(text).map(|set| set.ranges().to_vec())
}

fn subnets(text: &str) -> Result<Vec<String>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| match item.parse::<Cidr>() {
            Ok(_) => Ok(item.to_owned()),
            Err(_) => Err(format!("`{item}` is not a network")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let arguments: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn linkerds_arguments_are_understood() {
        let options = parse(
            "--ipv6=false --incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid 2102 \
             --inbound-ports-to-ignore 4190,4191,4567,4568,8000-8010 --outbound-ports-to-ignore 4567,4568,443 \
             --timeout-close-wait-secs 0 --log-format plain --proxy-mark 0x7e11 --subnets-to-ignore 10.0.0.0/24",
        )
        .expect("valid");
        assert_eq!(options.inbound_ignored.last(), Some(&(8000, 8010)));
        assert_eq!(
            (options.mark, options.ipv6, options.subnets.len()),
            (Some(0x7e11), false, 1)
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(
            parse("--proxy-uid root").unwrap_err(),
            "--proxy-uid is \"root\": it is not a whole number"
        );
        assert_eq!(
            parse("--proxy-uid").unwrap_err(),
            "--proxy-uid lacks its value"
        );
        assert_eq!(
            parse("--tproxy yes").unwrap_err(),
            "`--tproxy` is not an option"
        );
        assert!(parse("--subnets-to-ignore 10.0.0.0/40").is_err());
    }
}
