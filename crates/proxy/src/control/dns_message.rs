//! DNS messages, as much as a client needs: a question out, A, AAAA and SRV answers in. Pure; every index is checked,
//! name compression may only point backwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
    /// Hosts and ports.
    Srv = 33,
}

impl RecordType {
    /// The `record_type` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }
}

/// One usable record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An address, and the seconds it may be kept.
    Ip(IpAddr, u32),
    /// Host, port and the seconds they may be kept.
    Srv {
        /// Lower case, without trailing dot.
        host: String,
        /// The port.
        port: u16,
        /// Lower is preferred.
        priority: u16,
        /// Seconds it may be kept.
        ttl: u32,
    },
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question's id.
    pub id: u16,
    /// The answer did not fit; ask again over TCP.
    pub truncated: bool,
    /// 0 success, 3 no such name, others failures of the server.
    pub code: u8,
    /// What it holds of the type asked for.
    pub records: Vec<Record>,
    /// Addresses of SRV hosts that came along.
    pub additional: Vec<(String, IpAddr)>,
}

/// Most records that are read of one answer.
const MAX_RECORDS: usize = 1_000;

/// A question for `name` (trailing dot allowed); `None` when it is not a name that DNS can carry.
pub fn question(id: u16, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion desired, one question
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    out.extend_from_slice(&1u16.to_be_bytes()); // IN
    (out.len() <= 12 + 255 + 4).then_some(out)
}

/// Reads an answer to a question of this type; `None` when it is not a whole DNS answer.
pub fn answer(bytes: &[u8], kind: RecordType) -> Option<Answer> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let flags = word(2)?;
    if flags & 0x8000 == 0 {
        return None; // a question
    }
    let mut answer = Answer {
        id: word(0)?,
        truncated: flags & 0x0200 != 0,
        code: (flags & 0x0f) as u8,
        records: Vec::new(),
        additional: Vec::new(),
    };
    if answer.truncated {
        return Some(answer);
    }
    let (questions, answers) = (word(4)?, word(6)?);
    let others = usize::from(word(8)?) + usize::from(word(10)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(bytes, at)? + 4;
    }
    for number in 0..(usize::from(answers) + others).min(MAX_RECORDS) {
        let (name, after) = read_name(bytes, at)?;
        let found = word(after)?;
        let ttl = u32::from_be_bytes(bytes.get(after + 4..after + 8)?.try_into().ok()?);
        let length = usize::from(word(after + 8)?);
        let start = after + 10;
        let data = bytes.get(start..start + length)?;
        at = start + length;
        let ip = match found {
            1 => <[u8; 4]>::try_from(data)
                .ok()
                .map(|octets| IpAddr::from(Ipv4Addr::from(octets))),
            28 => <[u8; 16]>::try_from(data)
                .ok()
                .map(|octets| IpAddr::from(Ipv6Addr::from(octets))),
            _ => None,
        };
        if number >= usize::from(answers) {
            answer.additional.extend(ip.map(|ip| (name, ip)));
        } else if found == kind as u16 {
            if let Some(ip) = ip {
                answer.records.push(Record::Ip(ip, ttl));
            } else if found == 33 && length >= 7 {
                let (host, _) = read_name(bytes, start + 6)?;
                answer.records.push(Record::Srv {
                    host,
                    port: word(start + 4)?,
                    priority: word(start)?,
                    ttl,
                });
            }
        }
    }
    Some(answer)
}

fn skip_name(bytes: &[u8], at: usize) -> Option<usize> {
    read_name(bytes, at).map(|(_, after)| after)
}

/// A name and where the message goes on after it.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = start;
    let mut lowest = start;
    let mut after = None;
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length & 0xc0 {
            0x00 if length == 0 => return Some((name, after.unwrap_or(at + 1))),
            0x00 => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                if name.len() + length + 1 > 254 {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(
                    label
                        .iter()
                        .map(|byte| char::from(byte.to_ascii_lowercase())),
                );
                at += 1 + length;
            }
            0xc0 => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                after.get_or_insert(at + 2);
                if target >= lowest {
                    return None; // Forwards or in a circle.
                }
                lowest = target;
                at = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(question: &[u8], answers: &[&[u8]]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2] |= 0x80;
        out[7] = answers.len() as u8;
        for record in answers {
            out.extend_from_slice(record);
        }
        out
    }

    #[test]
    fn addresses_are_read_through_a_compressed_name() {
        let asked = question(7, "web.default.", RecordType::A).expect("a question");
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 42, 0, 7];
        let read = answer(&reply(&asked, &[&record]), RecordType::A).expect("an answer");
        assert_eq!((read.id, read.code), (7, 0));
        assert_eq!(
            read.records,
            [Record::Ip("10.42.0.7".parse().expect("ip"), 30)]
        );
    }

    #[test]
    fn srv_records_give_host_and_port() {
        let asked = question(7, "dst.linkerd", RecordType::Srv).expect("a question");
        let mut record = vec![0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0, 0];
        let data = [
            &[0, 0, 0, 0][..],
            &8086u16.to_be_bytes(),
            &[3, b'P', b'o', b'd', 0xc0, 12],
        ]
        .concat();
        record[11] = data.len() as u8;
        record.extend_from_slice(&data);
        let read = answer(&reply(&asked, &[&record]), RecordType::Srv).expect("an answer");
        assert_eq!(
            read.records,
            [Record::Srv {
                host: "pod.dst.linkerd".into(),
                port: 8086,
                priority: 0,
                ttl: 5
            }]
        );
    }

    #[test]
    fn a_name_that_points_at_itself_is_refused() {
        let asked = question(7, "a.b", RecordType::A).expect("a question");
        let here = asked.len() as u8;
        let record = [0xc0, here, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 42, 0, 7];
        assert_eq!(answer(&reply(&asked, &[&record]), RecordType::A), None);
    }

    #[test]
    fn names_that_dns_cannot_carry_are_refused() {
        assert_eq!(question(1, "a..b", RecordType::A), None);
        assert_eq!(question(1, &"a".repeat(64), RecordType::A), None);
        assert_eq!(question(1, &"abcdefg.".repeat(40), RecordType::A), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for kind in [RecordType::A, RecordType::Aaaa, RecordType::Srv] {
                let _ = answer(&bytes, kind);
            }
        }

        #[test]
        fn a_damaged_answer_is_read_without_panic(at in 0usize..60, byte in any::<u8>()) {
            let asked = question(7, "web.default.svc.cluster.local", RecordType::A).expect("a question");
            let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 42, 0, 7];
            let mut bytes = reply(&asked, &[&record]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = answer(&bytes, RecordType::A);
        }
    }
}
