//! Sessions that are resumed: when, for whom, and who the peer is then.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Connection, Error, HandshakeKind, NamedGroup};

use super::resumption::Tickets;
use super::testing::{Authority, Leaf};
use super::tests::{Done, VOTING, WEB, epoch, handshake};
use super::*;

const EMOJI: &str = "emoji.emojivoto.serviceaccount.identity.linkerd.cluster.local";
const ALPN: ClientAlpn = ClientAlpn::TransportHeader;

/// Where all servers are, unless a test says otherwise.
fn here() -> SocketAddr {
    ([192, 0, 2, 1], 4143).into()
}

fn elsewhere() -> SocketAddr {
    ([192, 0, 2, 2], 4143).into()
}

/// The name of the client as the server knows it after a handshake.
fn seen_by_server(done: &Done) -> String {
    let chain = done.server.peer_certificates().expect("a certificate");
    PeerIdentity::from_leaf(&chain[0]).expect("a peer").name
}

/// One connection of `web` to `voting`, with a ticket if there is one.
fn meet(web: &Epoch, voting: &Epoch, address: SocketAddr) -> Done {
    let client = web.client_to(ALPN, address);
    let done =
        handshake(client, voting.server(ServerAlpn::TransportHeader), VOTING).expect("a handshake");
    assert_eq!(seen_by_server(&done), WEB, "resumed or not");
    assert_eq!(done.client.handshake_kind(), done.server.handshake_kind());
    done
}

fn kind(done: &Done) -> HandshakeKind {
    done.server.handshake_kind().expect("it is done")
}

fn client_of(authority: &Authority, name: &str) -> ClientConfig {
    let epoch = epoch(authority, &authority.anchors(), name);
    ClientConfig::clone(&epoch.client(ClientAlpn::None))
}

/// A connection with the ticket that another has left, whoever gave it.
fn with_any_ticket(tickets: &Arc<Tickets>, config: &ClientConfig) -> Arc<ClientConfig> {
    Meeting::new(here(), tickets).with(config)
}

#[test]
fn sessions_are_resumed_between_two_certificates_and_the_peer_is_the_same() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    assert_eq!(kind(&meet(&web, &voting, here())), HandshakeKind::Full);
    for _ in 0..10 {
        assert_eq!(kind(&meet(&web, &voting, here())), HandshakeKind::Resumed);
    }
}

#[test]
fn a_resumed_session_makes_its_keys_by_the_hybrid_exchange_too() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    for _ in 0..3 {
        let server = Connection::from(meet(&web, &voting, here()).server);
        let used = server.negotiated_key_exchange_group();
        let hybrid = Some(NamedGroup::X25519MLKEM768);
        assert_eq!(used.map(|used| used.name()), hybrid);
    }
}

#[test]
fn the_replicas_of_a_server_have_tickets_of_their_own() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let web = epoch(&authority, &anchors, WEB);
    let replicas = [here(), elsewhere()].map(|at| (at, epoch(&authority, &anchors, VOTING)));
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        for (address, replica) in &replicas {
            assert_eq!(kind(&meet(&web, replica, *address)), expected, "{address}");
        }
    }
}

#[test]
fn a_new_certificate_or_other_anchors_at_either_end_ask_for_a_full_handshake() {
    let (authority, joining) = (Authority::new(), Authority::new());
    let anchors = authority.anchors();
    let both =
        TrustAnchors::from_pem(&format!("{}{}", authority.pem(), joining.pem())).expect("anchors");
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    let renewed = |name| epoch(&authority, &anchors, name);
    let trusting = |epoch: &Epoch| epoch.trusting(&both).expect("an epoch");
    for (what, web, voting) in [
        ("the first", &web, &voting),
        ("the client is renewed", &renewed(WEB), &voting),
        ("the server is renewed", &web, &renewed(VOTING)),
        ("the client trusts others", &trusting(&web), &voting),
        ("the server trusts others", &web, &trusting(&voting)),
    ] {
        assert_eq!(
            kind(&meet(web, voting, here())),
            HandshakeKind::Full,
            "{what}"
        );
        assert_eq!(
            kind(&meet(web, voting, here())),
            HandshakeKind::Resumed,
            "{what}, again"
        );
    }
}

#[test]
fn as_many_connections_at_once_are_resumed_as_there_were_at_once_and_no_more_are_kept_than_the_bound()
 {
    let authority = Authority::new();
    let voting = epoch(&authority, &authority.anchors(), VOTING);
    let tickets = Arc::new(Tickets::default());
    let web = client_of(&authority, WEB);
    let server = voting.server(ServerAlpn::None);
    let meet = || {
        let config = with_any_ticket(&tickets, &web);
        handshake(config, server.clone(), VOTING).expect("a handshake")
    };
    // A ticket each, put aside by connections that began when there was none.
    let aside: Vec<_> = (0..16)
        .map(|_| {
            assert_eq!(kind(&meet()), HandshakeKind::Full);
            tickets.take(here()).expect("a ticket")
        })
        .collect();
    for ticket in aside {
        tickets.put(here(), ticket);
    }
    assert_eq!(tickets.len(), 16);
    for _ in 0..32 {
        assert_eq!(kind(&meet()), HandshakeKind::Resumed);
        assert_eq!(tickets.len(), 16, "one is taken, one is given");
    }
    for number in 0..TICKETS {
        let replica = ([192, 0, 2, 3], 5000 + number as u16).into();
        let config = Meeting::new(replica, &tickets).with(&web);
        handshake(config, server.clone(), VOTING).expect("a handshake");
        assert!(tickets.len() <= TICKETS, "{number}");
    }
    assert_eq!(tickets.len(), TICKETS);
    assert!(tickets.take(here()).is_none(), "the oldest went");
}

#[test]
fn a_ticket_of_one_server_is_of_no_use_at_another_or_under_another_name() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (voting, emoji) = (
        epoch(&authority, &anchors, VOTING),
        epoch(&authority, &anchors, EMOJI),
    );
    let (web, tickets) = (client_of(&authority, WEB), Arc::default());
    let meet = |epoch: &Epoch, name| {
        let config = with_any_ticket(&tickets, &web);
        handshake(config, epoch.server(ServerAlpn::None), name)
    };
    assert!(meet(&voting, VOTING).is_ok());
    let done = meet(&emoji, EMOJI).expect("a handshake");
    assert_eq!(done.client.handshake_kind(), Some(HandshakeKind::Full));
    // The server that gave the ticket answers for a name that is not its own.
    assert!(meet(&voting, VOTING).is_ok());
    assert_eq!(
        meet(&voting, EMOJI).err(),
        Some(("client", "wrong_identity"))
    );
}

#[test]
fn a_ticket_that_one_client_was_given_makes_nobody_else_that_client() {
    let authority = Authority::new();
    let voting = epoch(&authority, &authority.anchors(), VOTING).server(ServerAlpn::None);
    let (web, emoji) = (client_of(&authority, WEB), client_of(&authority, EMOJI));
    let shared = Arc::default();
    for _ in 0..3 {
        for (config, name) in [(&web, WEB), (&emoji, EMOJI)] {
            let config = with_any_ticket(&shared, config);
            let done = handshake(config, voting.clone(), VOTING).expect("a handshake");
            assert_eq!(seen_by_server(&done), name);
        }
    }
}

#[test]
fn a_resumed_peer_is_held_to_the_name_that_is_dialled_and_to_the_life_of_its_certificates() {
    let authority = Authority::new();
    let (leaf, _) = authority.issue(&Leaf::named(VOTING));
    let long = Leaf {
        not_after: 7_200,
        ..Leaf::named(WEB)
    };
    let (longer, _) = authority.issue(&long);
    let judge = |chain: &[CertificateDer<'_>], dialled, hours: u64| {
        let later = UnixTime::now().as_secs() + hours * 3_600 + 60;
        super::judge_resumed(
            chain,
            dialled,
            UnixTime::since_unix_epoch(Duration::from_secs(later)),
        )
    };
    let chain = [longer[0].clone(), leaf[0].clone()];
    assert_eq!(judge(&leaf, Some(VOTING), 0), Ok(()));
    assert_eq!(judge(&leaf, None, 0), Ok(()));
    assert_eq!(judge(&chain, Some(WEB), 0), Ok(()));
    let refused = |why| Err(Error::InvalidCertificate(why));
    assert_eq!(
        judge(&leaf, Some(WEB), 0),
        refused(CertificateError::NotValidForName)
    );
    assert_eq!(
        judge(&leaf, Some(VOTING), 1),
        refused(CertificateError::Expired)
    );
    assert_eq!(judge(&leaf, None, 1), refused(CertificateError::Expired));
    assert_eq!(
        judge(&chain, Some(WEB), 1),
        refused(CertificateError::Expired),
        "its issuer"
    );
    assert_eq!(
        judge(&[], Some(WEB), 0),
        Err(Error::NoCertificatesPresented)
    );
    assert_eq!(judge(&[], None, 0), Ok(()), "a client may be nobody");
}
