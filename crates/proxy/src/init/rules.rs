//! The capture rules as text, for nft and for iptables-restore. Pure.
//!
//! Both say the same, in linkerd-init's order. In: leave alone ignored ports and networks, lead the rest of TCP to
//! the inbound port. Out: leave alone the proxy's own connections, loopback and ignored ports, lead the rest of TCP
//! to the outbound port.

use std::fmt::Write as _;

use super::options::Options;

const TABLE: &str = "tulle-init";
const REDIRECT: &str = "PROXY_INIT_REDIRECT";
const OUTPUT: &str = "PROXY_INIT_OUTPUT";

/// One nft transaction: the table is made if it is not there, removed, and written anew.
pub fn nft(options: &Options) -> String {
    let mut text = String::new();
    let families: &[&str] = if options.ipv6 {
        &["ip", "ip6"]
    } else {
        &["ip"]
    };
    for family in families {
        let _ = writeln!(text, "table {family} {TABLE} {{}}");
        let _ = writeln!(text, "delete table {family} {TABLE}");
        let _ = writeln!(text, "table {family} {TABLE} {{");
        text.push_str(
            "  chain prerouting {\n    type nat hook prerouting priority dstnat; policy accept;\n",
        );
        nft_ports(&mut text, &options.inbound_ignored, "return");
        for subnet in options
            .subnets
            .iter()
            .filter(|subnet| subnet.contains(':') == (*family == "ip6"))
        {
            let _ = writeln!(text, "    {family} saddr {subnet} return");
        }
        if options.redirected.is_empty() {
            let _ = writeln!(
                text,
                "    meta l4proto tcp redirect to :{}",
                options.incoming
            );
        } else {
            nft_ports(
                &mut text,
                &options.redirected,
                &format!("redirect to :{}", options.incoming),
            );
        }
        text.push_str(
            "  }\n  chain output {\n    type nat hook output priority -100; policy accept;\n",
        );
        let _ = writeln!(text, "    meta skuid {} return", options.uid);
        if let Some(gid) = options.gid {
            let _ = writeln!(text, "    meta skgid {gid} return");
        }
        if let Some(mark) = options.mark {
            let _ = writeln!(text, "    meta mark {mark:#x} return");
        }
        text.push_str("    oifname \"lo\" return\n");
        nft_ports(&mut text, &options.outbound_ignored, "return");
        let _ = writeln!(
            text,
            "    meta l4proto tcp redirect to :{}",
            options.outgoing
        );
        text.push_str("  }\n}\n");
    }
    text
}

fn nft_ports(text: &mut String, ports: &[(u16, u16)], verdict: &str) {
    if ports.is_empty() {
        return;
    }
    let listed: Vec<String> = joined(ports)
        .into_iter()
        .map(|(first, last)| range(first, last, '-'))
        .collect();
    let _ = writeln!(text, "    tcp dport {{ {} }} {verdict}", listed.join(", "));
}

/// Ranges sorted and joined where they touch: nft refuses a set whose ranges overlap.
fn joined(ports: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match out.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => {
                before.1 = before.1.max(last)
            }
            _ => out.push((first, last)),
        }
    }
    out
}

fn range(first: u16, last: u16, between: char) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}{between}{last}")
    }
}

/// For `iptables-restore --noflush`: naming a chain makes it, or empties it when it is there.
pub fn iptables(options: &Options) -> String {
    let mut text = format!("*nat\n:{REDIRECT} - [0:0]\n:{OUTPUT} - [0:0]\n");
    iptables_ports(
        &mut text,
        REDIRECT,
        &options.inbound_ignored,
        "RETURN",
        "ignore-port",
    );
    for subnet in options
        .subnets
        .iter()
        .filter(|subnet| !subnet.contains(':'))
    {
        let _ = writeln!(
            text,
            "-A {REDIRECT} -s {subnet} -j RETURN -m comment --comment proxy-init/ignore-subnet"
        );
    }
    let redirect = format!("REDIRECT --to-port {}", options.incoming);
    if options.redirected.is_empty() {
        let _ = writeln!(
            text,
            "-A {REDIRECT} -p tcp -j {redirect} -m comment --comment proxy-init/redirect-all-incoming-to-proxy-port"
        );
    } else {
        iptables_ports(
            &mut text,
            REDIRECT,
            &options.redirected,
            &redirect,
            "redirect-port",
        );
    }
    let _ = writeln!(
        text,
        "-A {OUTPUT} -m owner --uid-owner {} -j RETURN -m comment --comment proxy-init/ignore-proxy-user-id",
        options.uid
    );
    if let Some(gid) = options.gid {
        let _ = writeln!(
            text,
            "-A {OUTPUT} -m owner --gid-owner {gid} -j RETURN -m comment --comment proxy-init/ignore-proxy-group-id"
        );
    }
    if let Some(mark) = options.mark {
        let _ = writeln!(
            text,
            "-A {OUTPUT} -m mark --mark {mark:#x} -j RETURN -m comment --comment proxy-init/ignore-proxy-mark"
        );
    }
    let _ = writeln!(
        text,
        "-A {OUTPUT} -o lo -j RETURN -m comment --comment proxy-init/ignore-loopback"
    );
    iptables_ports(
        &mut text,
        OUTPUT,
        &options.outbound_ignored,
        "RETURN",
        "ignore-port",
    );
    let _ = writeln!(
        text,
        "-A {OUTPUT} -p tcp -j REDIRECT --to-port {} -m comment --comment proxy-init/redirect-all-outgoing-to-proxy-port",
        options.outgoing
    );
    text.push_str("COMMIT\n");
    text
}

/// multiport takes 15 slots, a range takes two.
fn iptables_ports(
    text: &mut String,
    chain: &str,
    ports: &[(u16, u16)],
    verdict: &str,
    comment: &str,
) {
    let mut chunk: Vec<String> = Vec::new();
    let mut slots = 0;
    let mut write = |chunk: &mut Vec<String>| {
        if !chunk.is_empty() {
            let listed = chunk.join(",");
            let _ = writeln!(
                text,
                "-A {chain} -p tcp -m multiport --dports {listed} -j {verdict} -m comment --comment proxy-init/{comment}"
            );
            chunk.clear();
        }
    };
    for (first, last) in joined(ports) {
        let wanted = if first == last { 1 } else { 2 };
        if slots + wanted > 15 {
            write(&mut chunk);
            slots = 0;
        }
        chunk.push(range(first, last, ':'));
        slots += wanted;
    }
    write(&mut chunk);
}

/// The jumps into the chains, as arguments after `-A` or `-C`.
pub fn iptables_jumps() -> [[&'static str; 7]; 2] {
    [
        [
            "PREROUTING",
            "-j",
            REDIRECT,
            "-m",
            "comment",
            "--comment",
            "proxy-init/install-proxy-init-prerouting",
        ],
        [
            "OUTPUT",
            "-j",
            OUTPUT,
            "-m",
            "comment",
            "--comment",
            "proxy-init/install-proxy-init-output",
        ],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_those_of_linkerd_init() {
        assert_eq!(
            nft(&Options {
                mark: Some(0x7e11),
                ..Options::default()
            }),
            "table ip tulle-init {}\n\
             delete table ip tulle-init\n\
             table ip tulle-init {\n  \
               chain prerouting {\n    \
                 type nat hook prerouting priority dstnat; policy accept;\n    \
                 tcp dport { 4190-4191, 4567-4568 } return\n    \
                 meta l4proto tcp redirect to :4143\n  \
               }\n  \
               chain output {\n    \
                 type nat hook output priority -100; policy accept;\n    \
                 meta skuid 2102 return\n    \
                 meta mark 0x7e11 return\n    \
                 oifname \"lo\" return\n    \
                 tcp dport { 4567-4568 } return\n    \
                 meta l4proto tcp redirect to :4140\n  \
               }\n\
             }\n"
        );
    }

    #[test]
    fn many_ports_are_spread_over_rules_of_fifteen_slots() {
        let ports: Vec<(u16, u16)> = (0..20).map(|n| (1_000 + 10 * n, 1_001 + 10 * n)).collect();
        let text = iptables(&Options {
            inbound_ignored: ports,
            ..Options::default()
        });
        let rules: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(REDIRECT) && line.contains("multiport"))
            .collect();
        assert_eq!(rules.len(), 3);
        assert_eq!(
            rules
                .iter()
                .map(|rule| rule.matches(':').count())
                .sum::<usize>(),
            20
        );
    }

    #[test]
    fn listed_mode_leads_only_the_listed_ports() {
        let options = Options {
            redirected: vec![(80, 80), (8080, 8090)],
            inbound_ignored: Vec::new(),
            ..Options::default()
        };
        assert!(nft(&options).contains("tcp dport { 80, 8080-8090 } redirect to :4143\n"));
        assert!(!nft(&options).contains("meta l4proto tcp redirect to :4143"));
    }

    #[test]
    fn networks_go_to_the_table_of_their_family() {
        let options = Options {
            subnets: vec!["10.0.0.0/8".into(), "fd00::/8".into()],
            ipv6: true,
            ..Options::default()
        };
        let text = nft(&options);
        assert!(
            text.contains("ip saddr 10.0.0.0/8 return")
                && text.contains("ip6 saddr fd00::/8 return")
        );
        assert!(!text.contains("ip saddr fd00") && !text.contains("ip6 saddr 10."));
    }
}
