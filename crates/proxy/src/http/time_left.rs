//! How long a caller waits, as it travels in headers: `grpc-timeout` for gRPC, Linkerd's `l5d-timeout` between proxies.
//! Each hop tells the next what is left, so that nobody works for a caller who has left.

use std::time::Duration;

use tulle_engine::deadline;
use tulle_http::l5d::Peer;
use tulle_http::{Error, Head, Version};

use crate::http::answer::is_grpc;
use crate::http::decision::Fields;

/// Linkerd's name for how long a request may take. From an application it is a wish that its rule may grant; between
/// proxies it is what is left.
const L5D_TIMEOUT: &str = "l5d-timeout";

/// What the caller of a gRPC call says.
pub fn of_grpc(head: &Head) -> Option<Duration> {
    if head.version() != Version::Http2 {
        return None;
    }
    deadline::read_grpc_timeout(head.get("grpc-timeout")?)
}

/// What the caller of a request that comes in says: a gRPC caller itself, and its proxy if it has one. Nobody else is
/// believed to speak for a proxy.
pub fn of_caller(head: &Head, peer: Peer) -> Option<Duration> {
    let proxy = match peer {
        Peer::Meshed => deadline::read_l5d_timeout(&Fields(head)),
        Peer::Untrusted => None,
    };
    match (of_grpc(head), proxy) {
        (Some(call), Some(proxy)) => Some(call.min(proxy)),
        (call, proxy) => call.or(proxy),
    }
}

/// Tells the next hop what is left. A server outside of the mesh hears nothing but what is gRPC's own.
pub fn hand_on(head: &mut Head, meshed: bool, left: Option<Duration>) -> Result<(), Error> {
    let Some(left) = left else { return Ok(()) };
    if is_grpc(head) {
        return head.set("grpc-timeout", deadline::grpc_timeout(left).as_bytes());
    }
    if meshed {
        return head.set(L5D_TIMEOUT, deadline::l5d_timeout(left).as_bytes());
    }
    head.remove(L5D_TIMEOUT);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn request(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        head.set_method(b"POST").unwrap();
        head.set_version(Version::Http2);
        for (name, value) in fields {
            head.push(name, value).unwrap();
        }
        head
    }

    #[test]
    fn only_a_proxy_is_believed_to_speak_for_a_caller() {
        let http = request(&[("l5d-timeout", "1s")]);
        assert_eq!(of_caller(&http, Peer::Meshed), SECOND);
        assert_eq!(of_caller(&http, Peer::Untrusted), None);

        let both = request(&[("l5d-timeout", "1s"), ("grpc-timeout", "3S")]);
        assert_eq!(of_caller(&both, Peer::Meshed), SECOND);
        let three = Some(Duration::from_secs(3));
        assert_eq!(of_caller(&both, Peer::Untrusted), three);
    }

    #[test]
    fn each_next_hop_hears_what_is_meant_for_it() {
        let grpc = ("content-type", "application/grpc");
        let mut call = request(&[grpc, ("grpc-timeout", "9S")]);
        hand_on(&mut call, false, SECOND).unwrap();
        assert_eq!(call.get("grpc-timeout"), Some(&b"1000000u"[..]));

        let mut head = request(&[]);
        hand_on(&mut head, true, SECOND).unwrap();
        assert_eq!(head.get("l5d-timeout"), Some(&b"1000ms"[..]));
        hand_on(&mut head, false, SECOND).unwrap();
        assert_eq!(
            head.get("l5d-timeout"),
            None,
            "the next try leaves the mesh"
        );
        hand_on(&mut head, true, None).unwrap();
        assert_eq!(head.get("l5d-timeout"), None);
    }
}
