//! Conversations of our session with rustls' own connections, and of our records with records that are wrong.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, Connection, DigitallySignedStruct, Error, HandshakeKind, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::handshake::{Established, Handshake, Progress};
use super::records::{MAX_RECORD, Records};
use super::*;
use crate::identity::testing::{Authority, Leaf};
use crate::identity::{ClientAlpn, Epoch, ServerAlpn};

const NAME: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";

fn epoch() -> Epoch {
    let authority = Authority::new();
    let (chain, key) = authority.issue(&Leaf::named(NAME));
    Epoch::new(NAME, &authority.anchors(), chain, &key).unwrap()
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let epoch = epoch();
    (
        epoch.client(ClientAlpn::TransportHeader),
        epoch.server(ServerAlpn::TransportHeader),
    )
}

/// For the next connection between the same two, with a ticket if the last one has brought it.
fn again(epoch: &Epoch) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (alpn, address) = (ClientAlpn::TransportHeader, ([192, 0, 2, 1], 4143).into());
    (
        epoch.client_to(alpn, address),
        epoch.server(ServerAlpn::TransportHeader),
    )
}

fn name() -> ServerName<'static> {
    NAME.try_into().unwrap()
}

/// Hands what one end has to say to the other until both are done.
fn shake(client: &mut Handshake, server: &mut Handshake) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut done = [false; 2];
    for _ in 0..8 {
        for (index, (end, input)) in [
            (&mut *client, &mut to_client),
            (&mut *server, &mut to_server),
        ]
        .into_iter()
        .enumerate()
        {
            if !done[index] {
                let (used, progress) = end.advance(input).unwrap();
                input.drain(..used);
                done[index] = progress == Progress::Done;
            }
        }
        // A server's tickets stay with it.
        to_server.append(&mut client.out);
        if !done[1] {
            to_client.append(&mut server.out);
        }
    }
    assert_eq!(done, [true; 2]);
}

fn established(configs: &(Arc<ClientConfig>, Arc<ServerConfig>)) -> (Established, Established) {
    let mut client = Handshake::client(configs.0.clone(), name()).unwrap();
    let mut server = Handshake::server(configs.1.clone()).unwrap();
    shake(&mut client, &mut server);
    (client.finish().unwrap(), server.finish().unwrap())
}

/// The same, and the client has taken its ticket.
fn settled(configs: &(Arc<ClientConfig>, Arc<ServerConfig>)) -> (Records, Records) {
    let (mut client, server) = established(configs);
    assert_eq!(open(&mut client.records, &server.out).unwrap(), b"");
    (client.records, server.records)
}

fn seal(records: &mut Records, text: &[u8]) -> Vec<u8> {
    let mut out = vec![0; text.len() + 64 * 1024];
    let (taken, written) = records.seal(text, &mut out).unwrap();
    assert_eq!(taken, text.len());
    out.truncate(written);
    out
}

/// Opens what is there whole; what is left goes back.
fn open(records: &mut Records, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut text, mut at) = (Vec::new(), 0);
    let mut room = vec![0; 4 * MAX_RECORD];
    loop {
        let (used, written) = records.open(&bytes[at..], &mut room)?;
        at += used;
        text.extend_from_slice(&room[..written]);
        if used == 0 {
            assert_eq!(at, bytes.len());
            return Ok(text);
        }
    }
}

#[test]
fn what_one_end_seals_the_other_opens_in_pieces_of_any_length() {
    let (mut client, mut server) = settled(&configs());
    for length in [1, 100, 16_383, 16_384, 16_385, 70_000] {
        let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let sealed = seal(&mut client, &text);
        assert!(sealed.len() > length && open(&mut server, &sealed).unwrap() == text);
        let sealed = seal(&mut server, &text);
        assert!(open(&mut client, &sealed).unwrap() == text);
    }
}

#[test]
fn a_handshake_takes_its_octets_in_any_cut_and_touches_nothing_behind_it() {
    let configs = configs();
    let mut client = Handshake::client(configs.0.clone(), name()).unwrap();
    let mut server = Handshake::server(configs.1.clone()).unwrap();
    client.advance(&mut []).unwrap();
    let hello = std::mem::take(&mut client.out);
    let mut held = Vec::new();
    for octet in hello {
        held.push(octet);
        let (used, progress) = server.advance(&mut held).unwrap();
        held.drain(..used);
        assert_eq!(progress, Progress::More);
    }
    let flight = std::mem::take(&mut server.out);
    let mut done = Progress::More;
    for octet in flight {
        held.push(octet);
        let (used, progress) = client.advance(&mut held).unwrap();
        held.drain(..used);
        done = progress;
    }
    assert_eq!((done, held.len()), (Progress::Done, 0));
    let mut last = std::mem::take(&mut client.out);
    let finished = last.len();
    let mut client = client.finish().unwrap();
    last.extend(seal(&mut client.records, b"at once"));
    let (used, progress) = server.advance(&mut last).unwrap();
    assert_eq!((used, progress), (finished, Progress::Done));
    let mut server = server.finish().unwrap();
    assert_eq!(
        open(&mut server.records, &last[used..]).unwrap(),
        b"at once"
    );
}

#[test]
fn a_client_of_another_authority_is_refused_and_told_why() {
    let (other, (_, server)) = (configs().0, configs());
    let mut other = ClientConfig::clone(&other);
    // It takes any server, to get as far as showing its own certificate.
    let anyone = Anyone(other.crypto_provider().clone());
    other.dangerous().set_certificate_verifier(Arc::new(anyone));
    let mut client = Handshake::client(Arc::new(other), name()).unwrap();
    let mut server = Handshake::server(server).unwrap();
    client.advance(&mut []).unwrap();
    server
        .advance(&mut std::mem::take(&mut client.out))
        .unwrap();
    let (_, progress) = client
        .advance(&mut std::mem::take(&mut server.out))
        .unwrap();
    assert_eq!(progress, Progress::Done);
    let error = server.advance(&mut client.out).unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
    assert!(!server.out.is_empty(), "an alert");
}

#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("not TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_ticket_is_taken_when_it_comes_and_makes_the_next_handshake_a_short_one() {
    let epoch = epoch();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (mut client, server) = established(&again(&epoch));
        assert_eq!((client.kind, server.kind), (kind, kind));
        let certificates = |end: &Established| end.chain.as_ref().map(Vec::len);
        assert_eq!(
            (certificates(&client), certificates(&server)),
            (Some(1), Some(1))
        );
        assert!(server.lazy && !client.lazy && client.out.is_empty());
        assert_eq!(open(&mut client.records, &server.out).unwrap(), b"");
    }
}

#[test]
fn a_key_that_has_been_used_enough_is_replaced_and_its_last_record_says_so() {
    let (mut client, mut server) = settled(&configs());
    client.limit_to(4);
    let mut grown = 0;
    for round in 0..20u8 {
        let sealed = seal(&mut client, &[round; 10]);
        grown += usize::from(sealed.len() > 32);
        assert_eq!(open(&mut server, &sealed).unwrap(), [round; 10]);
    }
    // Three of text, then one that says that another key follows.
    assert_eq!(grown, 6);
}

#[test]
fn the_peer_may_ask_for_new_keys_and_gets_them_with_the_next_text() {
    let configs = configs();
    let mut server = Handshake::server(configs.1).unwrap();
    let mut client = Connection::from(rustls::ClientConnection::new(configs.0, name()).unwrap());
    let mut held = Vec::new();
    while client.is_handshaking() {
        client.write_tls(&mut held).unwrap();
        let (used, _) = server.advance(&mut held).unwrap();
        held.drain(..used);
        let out = std::mem::take(&mut server.out);
        client.read_tls(&mut &out[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    client.write_tls(&mut held).unwrap();
    let (used, progress) = server.advance(&mut held).unwrap();
    assert_eq!((used, progress), (held.len(), Progress::Done));
    let mut server = server.finish().unwrap();
    client.read_tls(&mut &server.out[..]).unwrap();
    client.process_new_packets().unwrap();
    for round in 0..3u8 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[round; 5]).unwrap();
        let mut sealed = Vec::new();
        client.write_tls(&mut sealed).unwrap();
        assert_eq!(open(&mut server.records, &sealed).unwrap(), [round; 5]);
        let answer = seal(&mut server.records, &[round; 7]);
        assert!(answer.len() > 7 + 22, "a key update goes before the text");
        client.read_tls(&mut &answer[..]).unwrap();
        client.process_new_packets().unwrap();
        let mut text = [0; 7];
        client.reader().read_exact(&mut text).unwrap();
        assert_eq!(text, [round; 7]);
    }
}

#[test]
fn a_record_that_was_changed_ends_the_connection_and_the_peer_is_told() {
    let (mut client, mut server) = settled(&configs());
    let first = seal(&mut client, b"first");
    let mut changed = seal(&mut client, b"second");
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let mut room = vec![0; MAX_RECORD];
    let bytes = [first, changed].concat();
    let (used, text) = server.open(&bytes, &mut room).unwrap();
    assert_eq!(&room[..text], b"first", "what came before is heard");
    let error = server.open(&bytes[used..], &mut room).unwrap_err();
    assert_eq!(error, Error::DecryptError);
    let mut told = Vec::new();
    server.last_words(&error, &mut told).unwrap();
    let heard = open(&mut client, &told).unwrap_err();
    assert_eq!(
        heard,
        Error::AlertReceived(rustls::AlertDescription::BadRecordMac)
    );
    // Nothing is said after that.
    server.close(&mut told).unwrap();
    assert_eq!(told.len(), 5 + 2 + 17);
}

#[test]
fn what_is_not_a_sealed_record_is_refused_from_its_header() {
    let refused = [
        &[22, 3, 3, 0, 4][..],
        &[20, 3, 3, 0, 1],
        &[23, 2, 0, 0, 9],
        &[23, 3, 3, 0x41, 1],
    ];
    let configs = configs();
    for header in refused {
        let (_, mut server) = established(&configs);
        let mut room = vec![0; MAX_RECORD];
        assert!(
            server.records.open(header, &mut room).is_err(),
            "{header:?}"
        );
    }
    let (_, mut server) = established(&configs);
    let mut room = vec![0; MAX_RECORD];
    assert_eq!(
        server.records.open(&[23, 3, 3, 0x41, 0], &mut room),
        Ok((0, 0))
    );
    let short = server.records.open(&[23, 3, 3, 0, 1, 0], &mut room);
    assert_eq!(short, Err(Error::DecryptError));
}

#[test]
fn a_peer_that_keeps_us_busy_with_nothing_is_refused() {
    let configs = configs();
    let (mut client, mut server) = settled(&configs);
    client.limit_to(0);
    // Each text brings a new key: that may go on for ever.
    for _ in 0..100 {
        let sealed = seal(&mut client, b"x");
        assert_eq!(open(&mut server, &sealed).unwrap(), b"x");
    }
    let mut nothing = 0;
    let error = loop {
        let sealed = client.seal_nothing();
        match open(&mut server, &sealed) {
            Ok(text) => assert!(text.is_empty()),
            Err(error) => break error,
        }
        nothing += 1;
    };
    assert_eq!(nothing, 32);
    assert_eq!(error, rustls::PeerMisbehaved::TooManyEmptyFragments.into());
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .unwrap()
    })
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (ours.unwrap(), theirs.unwrap().0)
}

const LONG: Duration = Duration::from_secs(20);

/// Two ends of a connection; the client has said `hello`.
async fn meet(configs: &(Arc<ClientConfig>, Arc<ServerConfig>)) -> (Io, Io) {
    let (ours, theirs) = sockets().await;
    let (near, far) = tokio::join!(
        async {
            let mut near = connect(ours, configs.0.clone(), name(), LONG)
                .await
                .unwrap();
            near.write_all(b"hello").await.unwrap();
            near
        },
        async {
            let mut far = accept(theirs.into(), configs.1.clone(), LONG)
                .await
                .unwrap();
            let mut first = [0; 5];
            far.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"hello");
            far
        },
    );
    (near, far)
}

#[test]
fn bytes_flow_both_ways_and_each_half_ends_for_itself() {
    run(async {
        let (mut near, mut far) = meet(&configs()).await;
        let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let (received, ()) = tokio::join!(
            async {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.unwrap();
                received
            },
            async {
                near.write_all(&body).await.unwrap();
                near.shutdown().await.unwrap();
            },
        );
        assert!(received == body);
        let ((), answer) = tokio::join!(
            async {
                far.write_all(&body).await.unwrap();
                far.write_all(b"after the end").await.unwrap();
                far.shutdown().await.unwrap();
            },
            async {
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.unwrap();
                answer
            },
        );
        assert!(answer.len() == body.len() + 13 && answer.ends_with(b"after the end"));
    });
}

#[test]
fn who_waits_for_the_other_has_said_all_of_the_handshake_before() {
    run(async {
        let configs = configs();
        let (ours, theirs) = sockets().await;
        let (heard, ()) = tokio::join!(
            async {
                let mut near = connect(ours, configs.0, name(), LONG).await.unwrap();
                let mut heard = [0; 7];
                near.read_exact(&mut heard).await.unwrap();
                heard
            },
            async {
                // The server speaks first, when it knows who the client is.
                let mut far = accept(theirs.into(), configs.1, LONG).await.unwrap();
                far.write_all(b"welcome").await.unwrap();
                far.flush().await.unwrap();
                // Held open until it has been read.
                let mut end = [0; 1];
                assert!(far.read_exact(&mut end).await.is_err());
            },
        );
        assert_eq!(&heard, b"welcome");
    });
}

#[test]
fn tickets_come_with_the_first_answer_or_with_the_end() {
    run(async {
        let epoch = epoch();
        for (kind, answer) in [
            (HandshakeKind::Full, &b"answer"[..]),
            (HandshakeKind::Resumed, b""),
            (HandshakeKind::Resumed, b""),
        ] {
            let (mut near, mut far) = meet(&again(&epoch)).await;
            assert_eq!(near.tls().unwrap().kind(), kind);
            far.write_all(answer).await.unwrap();
            far.shutdown().await.unwrap();
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, answer);
        }
    });
}

#[test]
fn an_end_that_is_not_told_in_tls_is_no_end_of_the_text() {
    run(async {
        let (mut near, far) = meet(&configs()).await;
        drop(far);
        let error = near.read_to_end(&mut Vec::new()).await.unwrap_err();
        let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

#[test]
fn who_does_not_speak_tls_is_refused_and_told() {
    run(async {
        let (mut ours, theirs) = sockets().await;
        ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = accept(theirs.into(), configs().1, LONG)
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut told = Vec::new();
        ours.read_to_end(&mut told).await.unwrap();
        assert_eq!(&told[..3], [21, 3, 3], "an alert");
    });
}

#[test]
fn a_receiver_that_does_not_read_holds_the_sender_and_loses_nothing() {
    run(async {
        let (mut near, mut far) = meet(&configs()).await;
        let mut sent = 0u64;
        let piece: Vec<u8> = (0..65_536u32).map(|n| (n % 251) as u8).collect();
        loop {
            let write = tokio::time::timeout(Duration::from_millis(300), near.write(&piece));
            match write.await {
                Ok(count) => sent += count.unwrap() as u64,
                Err(_) => break,
            }
            assert!(sent < 64 << 20, "nothing holds the sender");
        }
        let (received, ()) = tokio::join!(
            async {
                let mut received = Vec::new();
                far.read_to_end(&mut received).await.unwrap();
                received
            },
            async { near.shutdown().await.unwrap() },
        );
        assert_eq!(received.len() as u64, sent);
        assert!(
            received
                .chunks(piece.len())
                .all(|chunk| piece.starts_with(chunk))
        );
    });
}
