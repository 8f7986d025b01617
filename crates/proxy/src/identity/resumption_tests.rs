//! Sessions that are resumed: when, for whom, and who the peer is then.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, HandshakeKind, NamedGroup};

use super::resumption::Tickets;
use super::testing::{Authority, Leaf};
use super::tests::{Done, VOTING, WEB, epoch, handshake};
use super::*;

const EMOJI: &str = "emoji.emojivoto.serviceaccount.identity.linkerd.cluster.local";

/// The name of the client as the server knows it after a handshake.
fn seen_by_server(done: &Done) -> String {
    let chain = done.server.peer_certificates().expect("a certificate");
    PeerIdentity::from_leaf(&chain[0]).expect("a peer").name
}

/// One connection of `web` to `voting`, and how it was begun.
fn meet(web: &Epoch, voting: &Epoch) -> HandshakeKind {
    let (client, server) = (
        web.client(ClientAlpn::TransportHeader),
        voting.server(ServerAlpn::TransportHeader),
    );
    let done = handshake(client, server, VOTING).expect("a handshake");
    assert_eq!(seen_by_server(&done), WEB, "resumed or not");
    assert_eq!(done.client.handshake_kind(), done.server.handshake_kind());
    done.server.handshake_kind().expect("it is done")
}

fn client_with(
    authority: &Authority,
    name: &str,
    tickets: Arc<dyn ClientSessionStore>,
) -> Arc<ClientConfig> {
    let (chain, key) = authority.issue(&Leaf::named(name));
    let resumption = Resumption::store(tickets);
    client(&authority.anchors(), Some((&chain, &key)), &[], resumption).expect("a configuration")
}

#[test]
fn sessions_are_resumed_between_two_certificates_and_the_peer_is_the_same() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (web, voting) = (
        epoch(&authority, &anchors, WEB),
        epoch(&authority, &anchors, VOTING),
    );
    assert_eq!(meet(&web, &voting), HandshakeKind::Full);
    for _ in 0..10 {
        assert_eq!(meet(&web, &voting), HandshakeKind::Resumed);
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
        assert_eq!(meet(web, voting), HandshakeKind::Full, "{what}");
        assert_eq!(meet(web, voting), HandshakeKind::Resumed, "{what}, again");
    }
}

#[test]
fn as_many_connections_at_once_are_resumed_as_there_were_at_once_and_no_more_are_kept_than_the_bound()
 {
    let authority = Authority::new();
    let voting = epoch(&authority, &authority.anchors(), VOTING);
    let tickets = Arc::new(Tickets::default());
    let web = client_with(&authority, WEB, tickets.clone());
    let server = voting.server(ServerAlpn::None);
    let meet = || handshake(web.clone(), server.clone(), VOTING).expect("a handshake");
    // A ticket each, put aside by connections that began when there was none.
    let aside: Vec<_> = (0..16)
        .map(|_| {
            assert_eq!(meet().server.handshake_kind(), Some(HandshakeKind::Full));
            let name = server_name(VOTING).expect("a name");
            (
                name.clone(),
                tickets.take_tls13_ticket(&name).expect("a ticket"),
            )
        })
        .collect();
    for (name, ticket) in aside {
        tickets.insert_tls13_ticket(name, ticket);
    }
    assert_eq!(tickets.len(), 16);
    for _ in 0..32 {
        assert_eq!(meet().server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(tickets.len(), 16, "one is taken, one is given");
    }
    let other = epoch(&authority, &authority.anchors(), EMOJI).server(ServerAlpn::None);
    for number in 0..TICKETS {
        let name = server_name(EMOJI).expect("a name");
        let held = tickets.take_tls13_ticket(&name);
        handshake(web.clone(), other.clone(), EMOJI).expect("a handshake");
        if let Some(ticket) = held {
            tickets.insert_tls13_ticket(name.clone(), ticket);
        }
        assert!(tickets.len() <= TICKETS, "{number}");
    }
}

/// Hands any ticket to whoever asks, whatever the name.
#[derive(Debug, Default)]
struct Careless(Tickets);

fn anybody() -> ServerName<'static> {
    server_name("anybody.example").expect("a name")
}

impl ClientSessionStore for Careless {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anybody(), ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anybody())
    }
}

#[test]
fn a_ticket_of_one_server_is_of_no_use_at_another_or_under_another_name() {
    let authority = Authority::new();
    let anchors = authority.anchors();
    let (voting, emoji) = (
        epoch(&authority, &anchors, VOTING),
        epoch(&authority, &anchors, EMOJI),
    );
    let web = client_with(&authority, WEB, Arc::new(Careless::default()));
    let meet = |epoch: &Epoch, name| handshake(web.clone(), epoch.server(ServerAlpn::None), name);
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
    let shared = Arc::new(Careless::default());
    let web = client_with(&authority, WEB, shared.clone());
    let emoji = client_with(&authority, EMOJI, shared);
    for _ in 0..3 {
        for (config, name) in [(&web, WEB), (&emoji, EMOJI)] {
            let done = handshake(config.clone(), voting.clone(), VOTING).expect("a handshake");
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
