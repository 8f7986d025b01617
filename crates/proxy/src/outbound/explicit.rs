//! Clients that were not redirected here but came by themselves: `http_proxy` (absolute form, CONNECT), or a request
//! straight to the outbound port with a `Host`. Each request goes to its authority.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tulle_engine::Reason;
use tulle_http::Head;

use crate::detect;
use crate::discovery::Target;
use crate::drain::Guard;
use crate::http::answer::Refusal;
use crate::http::serve;
use crate::net::io::Io;
use crate::net::listen;
use crate::net::sniff::Spoken;
use crate::outbound::http::Requests;
use crate::outbound::target::{State, Targets};
use crate::outbound::{Outbound, tcp};

/// Serves a connection whose requests name their destinations. `original`: where it was redirected from, in ingress
/// mode; what names nothing goes there.
pub async fn serve(outbound: Rc<Outbound>, mut io: Io, original: Option<SocketAddr>, guard: Guard) {
    let detect_timeout = outbound.config.outbound.connections.detect_timeout;
    let target = original.map(|original| Targets::get(&outbound, Target::Addr(original)));
    let (spoken, opened) = match &target {
        Some(target) => {
            outbound
                .detect_beside(&mut io, detect_timeout, target)
                .await
        }
        None => (outbound.detect(&mut io, detect_timeout, None).await, None),
    };
    let Ok(spoken) = spoken else { return };
    let (limits, timeouts) = (outbound.h1_limits(), outbound.h1_timeouts());
    match (spoken, target) {
        (Spoken::Known(detect::Protocol::Http2), _) => {
            let settings = outbound.server_settings();
            let requests = Requests::by_authority(outbound, io.peer(), original);
            // The connection's task has told the peer what was wrong with it.
            let _ended = serve::http2(io, Rc::new(requests), settings, guard).await;
        }
        (Spoken::Known(detect::Protocol::Http1) | Spoken::Known(_), None)
        | (Spoken::Known(detect::Protocol::Http1), _) => {
            let requests = Requests::by_authority(outbound, io.peer(), original);
            serve::http1(io, &requests, limits, timeouts, guard).await;
        }
        (spoken, Some(target)) => {
            let name = match spoken {
                Spoken::Tls { server_name } => server_name.unwrap_or_default(),
                _ => String::new(),
            };
            tcp::serve(outbound, io, target, name.as_bytes(), opened, guard).await;
        }
        // Nothing says where to.
        (_, None) => {}
    }
}

/// The target of a request, by its authority. `last` is the connection's last one: a client mostly talks to one.
pub fn target(
    outbound: &Rc<Outbound>,
    head: &Head,
    last: &RefCell<Option<(Vec<u8>, Rc<State>)>>,
    original: Option<SocketAddr>,
) -> Result<Rc<State>, Refusal> {
    let overridden = if outbound.config.outbound.ingress_mode {
        head.get("l5d-dst-override")
    } else {
        None
    };
    let authority = overridden
        .or(head.authority())
        .filter(|authority| !authority.is_empty());
    let Some(authority) = authority else {
        return match original {
            Some(original) => Ok(Targets::get(outbound, Target::Addr(original))),
            None => Err(Refusal::because(
                Reason::BadRequest,
                "the request names no host",
            )),
        };
    };
    if let Some((known, state)) = &*last.borrow() {
        if known == authority {
            return Ok(state.clone());
        }
    }
    let target = parse(authority).ok_or_else(|| {
        Refusal::because(
            Reason::BadRequest,
            "the request's host is not a name or address",
        )
    })?;
    if comes_back(&target, &outbound.listening) {
        return Err(Refusal::new(Reason::Loop));
    }
    let state = Targets::get(outbound, target);
    *last.borrow_mut() = Some((authority.to_vec(), state.clone()));
    Ok(state)
}

/// An address when it is one, in its canonical form and with port 80 if it has none; else a name, in lower case.
fn parse(authority: &[u8]) -> Option<Target> {
    let text = std::str::from_utf8(authority).ok()?;
    let address = |ip: IpAddr, port| Some(Target::Addr(SocketAddr::new(ip.to_canonical(), port)));
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return address(whole.ip(), whole.port());
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => address(ip, 80),
        Err(_) => Some(Target::Authority(text.to_ascii_lowercase())),
    }
}

/// Would a connection to the target arrive at our own listener? A name that DNS leads here is found when it is resolved.
fn comes_back(target: &Target, listening: &[SocketAddr]) -> bool {
    match target {
        Target::Addr(address) => listen::arrives_at(*address, listening),
        Target::Authority(authority) => listening.iter().any(|own| {
            authority.strip_prefix("localhost:") == Some(own.port().to_string().as_str())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_an_address_or_a_name() {
        let address = |text: &str| Some(Target::Addr(text.parse().unwrap()));
        assert_eq!(parse(b"10.0.0.1:8080"), address("10.0.0.1:8080"));
        assert_eq!(parse(b"10.0.0.1"), address("10.0.0.1:80"));
        assert_eq!(parse(b"[::1]:81"), address("[::1]:81"));
        assert_eq!(parse(b"[::1]"), address("[::1]:80"));
        assert_eq!(parse(b"[::ffff:10.0.0.1]:81"), address("10.0.0.1:81"));
        assert_eq!(parse(b"[::ffff:10.0.0.1]"), address("10.0.0.1:80"));
        assert_eq!(
            parse(b"Voting.Default:80"),
            Some(Target::Authority("voting.default:80".into()))
        );
    }

    #[test]
    fn our_own_port_is_known_under_its_names() {
        let listening = ["127.0.0.1:4140".parse().unwrap()];
        for (authority, back) in [
            ("localhost:4140", true),
            ("127.0.0.1:4140", true),
            ("[::ffff:127.0.0.1]:4140", true),
            ("0.0.0.0:4140", true),
            ("[::]:4140", true),
            ("127.0.0.1:4141", false),
            ("10.0.0.1:4140", false),
            ("voting:4140", false),
            ("localhost", false),
        ] {
            assert_eq!(
                comes_back(&parse(authority.as_bytes()).unwrap(), &listening),
                back,
                "{authority}"
            );
        }
    }
}
