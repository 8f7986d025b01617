//! Handshakes in memory: who is let in, who is refused, and with which words.

use super::testing::{Authority, Leaf, dns};
use super::*;
use rcgen::SanType;
use rustls::{ClientConnection, Connection, ProtocolVersion, ServerConnection};

pub(super) const WEB: &str = "web.emojivoto.serviceaccount.identity.linkerd.cluster.local";
pub(super) const VOTING: &str = "voting.emojivoto.serviceaccount.identity.linkerd.cluster.local";

pub(super) fn epoch(authority: &Authority, anchors: &TrustAnchors, name: &str) -> Epoch {
    let (chain, key) = authority.issue(&Leaf::named(name));
    Epoch::new(name, anchors, chain, &key).expect("an epoch")
}

/// A client configuration that shows any certificate and believes anything of this authority.
fn stranger(authority: &Authority, leaf: &Leaf, servers: &TrustAnchors) -> Arc<ClientConfig> {
    let (chain, key) = authority.issue(leaf);
    let own = presented(&servers.provider, &chain, &key).expect("a certificate");
    Arc::new(client(servers, Some(own), &[]).expect("a configuration"))
}

pub(super) struct Done {
    pub client: ClientConnection,
    pub server: ServerConnection,
}

/// Runs a handshake; the error is the side that failed first, as its reason.
pub(super) fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<Done, (&'static str, &'static str)> {
    let mut client =
        ClientConnection::new(client, server_name(name).expect("a name")).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    for _ in 0..10 {
        if !turn(&mut client, &mut server) {
            return Err((
                "server",
                reason(server.process_new_packets().expect_err("it failed")),
            ));
        }
        if let Err(error) = client.process_new_packets() {
            return Err(("client", reason(error)));
        }
        if !turn_back(&mut server, &mut client) {
            return Err((
                "client",
                reason(client.process_new_packets().expect_err("it failed")),
            ));
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Done { client, server })
}

fn turn(from: &mut ClientConnection, to: &mut ServerConnection) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("memory");
    }
    to.read_tls(&mut wire.as_slice()).expect("memory");
    to.process_new_packets().is_ok()
}

fn turn_back(from: &mut ServerConnection, to: &mut ClientConnection) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("memory");
    }
    to.read_tls(&mut wire.as_slice()).expect("memory");
    to.process_new_packets().is_ok()
}

fn reason(error: rustls::Error) -> &'static str {
    failure_reason(&std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

#[test]
fn two_proxies_meet_with_tls13_and_the_hybrid_exchange() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    let done = handshake(
        web.client(ClientAlpn::TransportHeader),
        voting.server(ServerAlpn::TransportHeader),
        VOTING,
    )
    .expect("a handshake");
    let server = Connection::from(done.server);
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(
        server
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
    assert_eq!(
        server.negotiated_cipher_suite().map(|suite| suite.suite()),
        Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256)
    );
    assert_eq!(server.alpn_protocol(), Some(transport_header::ALPN));
    let leaf = &server.peer_certificates().expect("a certificate")[0];
    assert_eq!(PeerIdentity::from_leaf(leaf).expect("a peer").name, WEB);
}

#[test]
fn a_transparent_connection_chooses_no_alpn_and_refuses_none() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    let done = handshake(
        web.client(ClientAlpn::H2),
        voting.server(ServerAlpn::None),
        VOTING,
    )
    .expect("a handshake");
    assert_eq!(done.client.alpn_protocol(), None);
    let refused = handshake(
        web.client(ClientAlpn::H2),
        voting.server(ServerAlpn::TransportHeader),
        VOTING,
    );
    assert_eq!(refused.err(), Some(("server", "no_alpn")));
}

#[test]
fn a_server_that_is_not_who_was_dialled_is_refused() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    let refused = handshake(
        web.client(ClientAlpn::None),
        voting.server(ServerAlpn::None),
        WEB,
    );
    assert_eq!(refused.err(), Some(("client", "wrong_identity")));
    let pinned = web.client_expecting(ClientAlpn::None, VOTING);
    assert!(handshake(pinned, voting.server(ServerAlpn::None), "gateway.example").is_ok());
    let pinned = web.client_expecting(ClientAlpn::None, WEB);
    let refused = handshake(pinned, voting.server(ServerAlpn::None), VOTING);
    assert_eq!(refused.err(), Some(("client", "wrong_identity")));
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let web = epoch(&ours, &ours.anchors(), WEB);
    let voting = epoch(&theirs, &theirs.anchors(), VOTING);
    let refused = handshake(
        web.client(ClientAlpn::None),
        voting.server(ServerAlpn::None),
        VOTING,
    );
    assert_eq!(refused.err(), Some(("client", "unknown_issuer")));
}

#[test]
fn clients_with_bad_certificates_are_refused_each_with_its_reason() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let anchors = ours.anchors();
    let voting = epoch(&ours, &anchors, VOTING);
    let uri = |text: &str| SanType::URI(text.try_into().expect("IA5"));
    let two = ["a", "b"].map(|name| uri(&format!("spiffe://cluster.local/{name}")));
    for (authority, leaf, expected) in [
        (&theirs, Leaf::named(WEB), "unknown_issuer"),
        (
            &ours,
            Leaf {
                not_before: -7_200,
                not_after: -60,
                ..Leaf::named(WEB)
            },
            "expired",
        ),
        (
            &ours,
            Leaf {
                not_before: 600,
                ..Leaf::named(WEB)
            },
            "not_yet_valid",
        ),
        (
            &ours,
            Leaf {
                names: vec![dns(WEB), dns("b.c")],
                ..Leaf::named(WEB)
            },
            "bad_certificate",
        ),
        (
            &ours,
            Leaf {
                names: two.to_vec(),
                ..Leaf::named(WEB)
            },
            "bad_certificate",
        ),
        (
            &ours,
            Leaf {
                names: vec![],
                ..Leaf::named(WEB)
            },
            "bad_certificate",
        ),
    ] {
        let client = stranger(authority, &leaf, &anchors);
        let outcome = handshake(client, voting.server(ServerAlpn::None), VOTING);
        assert_eq!(outcome.err(), Some(("server", expected)));
    }
}

#[test]
fn a_client_without_a_certificate_is_let_in_and_known_as_nobody() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let voting = epoch(&authority, &anchors, VOTING);
    let client = anonymous_client(&anchors).expect("a configuration");
    let done = handshake(client, voting.server(ServerAlpn::None), VOTING).expect("a handshake");
    assert!(done.server.peer_certificates().is_none());
}

#[test]
fn tls_1_2_is_refused() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let voting = epoch(&authority, &anchors, VOTING);
    // A hello without the supported_versions extension: TLS 1.2 as far as it goes.
    let mut server = ServerConnection::new(voting.server(ServerAlpn::None)).expect("a server");
    let mut hello = vec![0x03, 0x03];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0]);
    let mut wire = vec![
        0x16,
        0x03,
        0x01,
        0,
        (hello.len() + 4) as u8,
        1,
        0,
        0,
        hello.len() as u8,
    ];
    wire.extend_from_slice(&hello);
    server.read_tls(&mut wire.as_slice()).expect("memory");
    assert!(server.process_new_packets().is_err());
}

#[test]
fn a_certificate_that_is_not_ours_makes_no_epoch() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let anchors = ours.anchors();
    let (chain, key) = ours.issue(&Leaf::named(WEB));
    assert!(
        Epoch::new(VOTING, &anchors, chain.clone(), &key).is_err(),
        "another name"
    );
    let (_, other_key) = ours.issue(&Leaf::named(WEB));
    assert!(
        Epoch::new(WEB, &anchors, chain, &other_key).is_err(),
        "another key"
    );
    let (chain, key) = theirs.issue(&Leaf::named(WEB));
    assert!(
        Epoch::new(WEB, &anchors, chain, &key).is_err(),
        "another authority"
    );
    assert!(
        Epoch::new(WEB, &anchors, Vec::new(), &key).is_err(),
        "nothing"
    );
}

#[test]
fn renewal_comes_at_seventy_percent_within_its_bounds() {
    let day = Duration::from_secs(86_400);
    let (min, max) = (Duration::from_secs(10), day);
    let mut earliest = day;
    let mut latest = Duration::ZERO;
    for n in 0..=10 {
        let after = renew_after(day, min, max, f64::from(n) / 10.0);
        earliest = earliest.min(after);
        latest = latest.max(after);
    }
    assert!(earliest >= day.mul_f64(0.66) && latest <= day.mul_f64(0.74) && latest > earliest);
    assert_eq!(renew_after(Duration::from_secs(2), min, max, 0.5), min);
    assert_eq!(renew_after(day * 30, min, max, 0.5), max);
}
