//! Trust anchors that change while traffic flows: rotated without a failure, and a dropped one takes its connections along.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::control_identity::start;
use super::control_plane::{Answer, ControlPlane, Issuer, Script, authority, leaf};
use super::mesh::{add, balanced, hinted_h2, meshed, opaque, plain, server};
use super::proxy::{Proxy, application, eventually, identity, request};

/// A peer's connection to the inbound port of a sidecar, by TLS and a transport header.
type Peer = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn connect(proxy: &Proxy, trusted: &str, own: Option<&Issuer>) -> Peer {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some(issuer) => {
            let (chain, key) = leaf(issuer, &identity("stranger"));
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"transport.l5d.io/v1".to_vec()];
    let name = ServerName::try_from(identity(&proxy.pod)).unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(format!("{}:4143", proxy.ip)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    rustls::StreamOwned::new(connection, socket)
}

/// A TLS handshake with the sidecar's inbound port, and a byte to see whether it holds.
pub fn knock(proxy: &Proxy, trusted: &str, own: Option<&Issuer>) -> Result<(), String> {
    let mut stream = connect(proxy, trusted, own);
    stream
        .write_all(b"transport.l5d.io/v1\r\n\r\n")
        .map_err(|error| error.to_string())?;
    match stream.read(&mut [0]) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            Ok(())
        }
        Ok(0) => Err("closed".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The sidecars of a caller and of a service that answers "voting", with the trust anchors of the script.
fn pair(control: &ControlPlane, script: &Arc<Script>) -> (Proxy, Proxy) {
    let behind = application("0.0.0.0:0", "voting");
    let map = format!("80={}", behind.port());
    let port = [
        ("LINKERD2_PROXY_INBOUND_PORTS", "80"),
        ("TULLE_PROXY_INBOUND_PORT_MAP", map.as_str()),
    ];
    script.port(80, Answer::Say(server("voting", true)));
    let voting = start("voting", control, script, &port);
    let web = start("web", control, script, &[]);
    let address: SocketAddr = format!("{}:80", voting.ip).parse().unwrap();
    let path = "voting.default.svc.cluster.local:80";
    script.policy("voting", Answer::Say(balanced("voting", path)));
    let endpoint = meshed(address, &identity("voting"), 4143);
    script.endpoints(path, Answer::Say(add(vec![endpoint])));
    voting.wait_ready();
    web.wait_ready();
    (web, voting)
}

#[test]
fn trust_anchors_are_rotated_under_traffic_without_a_failure_and_then_the_old_is_refused() {
    let script = Script::new();
    *script.leaf_life.lock().unwrap() = Duration::from_secs(3);
    let (old, new) = (script.issuer.pem(), Arc::new(authority()));
    script.trust(&[&old]);
    let control = ControlPlane::start(&script);
    let (web, voting) = pair(&control, &script);
    let mut answered = 0;
    let mut work_until = |what: &str, holds: &dyn Fn() -> bool| {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(std::time::Instant::now() < end, "never: {what}");
            let answer = request(web.outbound(), "GET", "voting", "/", "");
            let expected = Some((200, "voting".to_owned()));
            assert_eq!(answer, expected, "after {answered} answers, until {what}");
            answered += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let both_trust = |count: f64| {
        let proxies = [&web, &voting];
        proxies
            .iter()
            .all(|proxy| proxy.metric("identity_trust_anchors") == count)
    };

    script.trust(&[&old, &new.pem()]);
    work_until("both anchors are trusted", &|| both_trust(2.0));
    *script.next_issuer.lock().unwrap() = Some(new.clone());
    let before = script.certified().len();
    work_until("both have a certificate of the new one", &|| {
        let renewed = script.certified().split_off(before);
        [identity("web"), identity("voting")]
            .iter()
            .all(|name| renewed.iter().filter(|call| call.identity == *name).count() >= 2)
    });
    assert!(
        knock(&web, &new.pem(), Some(&script.issuer)).is_ok(),
        "the old one is still trusted"
    );

    script.trust(&[&new.pem()]);
    work_until("the new anchor alone is trusted", &|| both_trust(1.0));
    let before = script.certified().len();
    work_until("certificates are renewed under it", &|| {
        script.certified().len() >= before + 2
    });
    assert!(
        knock(&web, &new.pem(), Some(&script.issuer)).is_err(),
        "the old one is trusted no more"
    );
    assert!(knock(&web, &new.pem(), Some(&new)).is_ok());
    assert!(answered > 50, "{answered}");
}

#[test]
fn a_certificate_whose_anchor_is_dropped_is_renewed_at_once() {
    let script = Script::new();
    let (old, new) = (script.issuer.pem(), Arc::new(authority()));
    script.trust(&[&old, &new.pem()]);
    let control = ControlPlane::start(&script);
    let proxy = start("web", &control, &script, &[]);
    eventually("both are trusted", || {
        proxy.metric("identity_trust_anchors") == 2.0
    });
    assert_eq!(
        script.certified().len(),
        1,
        "its certificate lives for an hour"
    );
    *script.next_issuer.lock().unwrap() = Some(new.clone());
    script.trust(&[&new.pem()]);
    eventually("it has asked again", || script.certified().len() == 2);
    eventually("it shows the new certificate", || {
        knock(&proxy, &new.pem(), Some(&new)).is_ok()
    });
    assert_eq!(proxy.metric("identity_trust_anchors"), 1.0);
}

#[test]
fn connections_to_a_control_plane_that_the_dropped_anchor_vouched_for_are_made_anew() {
    let script = Script::new();
    let (old, new) = (script.issuer.pem(), Arc::new(authority()));
    script.trust(&[&old, &new.pem()]);
    let control = ControlPlane::start(&script);
    let (web, voting) = pair(&control, &script);
    let cut = |proxy: &Proxy| {
        let name = "tls_distrusted_connections_total{direction=\"control\",action=\"cut\"}";
        proxy.metric(name)
    };
    eventually("both anchors are trusted", || {
        [&web, &voting]
            .iter()
            .all(|proxy| proxy.metric("identity_trust_anchors") == 2.0)
    });
    assert_eq!((cut(&web), cut(&voting)), (0.0, 0.0));
    let answers = || request(web.outbound(), "GET", "voting", "/", "");
    assert_eq!(answers(), Some((200, "voting".to_owned())));
    // From now on the control plane shows a certificate of the new one; what is open was verified by the old.
    *script.next_issuer.lock().unwrap() = Some(new.clone());
    script.trust(&[&new.pem()]);
    // Identity's, destination's and policy's.
    eventually("no connection is left that the old one vouched for", || {
        cut(&web) >= 3.0 && cut(&voting) >= 2.0
    });
    // Nobody trusted both for a while, so they refuse each other until both have been certified anew.
    eventually("both show certificates of the new one", || {
        [&web, &voting]
            .iter()
            .all(|proxy| knock(proxy, &new.pem(), Some(&new)).is_ok())
    });
    // What discovery says next arrives, and nothing was forgotten meanwhile.
    let path = "voting.default.svc.cluster.local:80";
    let elsewhere = application("0.0.0.0:0", "elsewhere");
    assert_eq!(answers(), Some((200, "voting".to_owned())));
    script.endpoints(path, Answer::Say(add(vec![plain(elsewhere)])));
    eventually("the new endpoint is known", || {
        answers() == Some((200, "elsewhere".to_owned()))
    });
    let settled = (cut(&web), cut(&voting));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((cut(&web), cut(&voting)), settled, "it trusts the new ones");
}

#[test]
fn trust_anchors_that_cannot_be_used_change_nothing_and_are_counted() {
    let script = Script::new();
    script.trust(&[&script.issuer.pem()]);
    let control = ControlPlane::start(&script);
    let proxy = start("web", &control, &script, &[]);
    proxy.wait_ready();
    let good = script.issuer.der().to_vec();
    let invalid = "control_watch_invalid_total{method=\"Identity.WatchTrustAnchors\"}";
    let before = proxy.metric(invalid);
    let too_many = (0..65_u8)
        .map(|number| [good.clone(), vec![number]].concat())
        .collect();
    for (number, unusable) in [
        vec![],
        vec![b"no DER".to_vec()],
        vec![good, vec![0]],
        too_many,
    ]
    .into_iter()
    .enumerate()
    {
        script.say_anchors(unusable);
        eventually("it is counted", || {
            proxy.metric(invalid) == before + 1.0 + number as f64
        });
    }
    assert_eq!(proxy.metric("identity_trust_anchors"), 1.0);
    assert!(knock(&proxy, &script.issuer.pem(), Some(&script.issuer)).is_ok());
    let (_, shown) = proxy.get("/config").unwrap();
    assert!(shown.contains("65 trust anchors, of at most 64"), "{shown}");
}

/// The transport header of a connection for `port`, in the form that the protocol gives it.
fn header(port: u8, session: &[u8]) -> Vec<u8> {
    let mut message = vec![0x08, port];
    message.extend_from_slice(session);
    let mut header = b"transport.l5d.io/v1\r\n\r\n".to_vec();
    header.extend_from_slice(&(message.len() as u32).to_be_bytes());
    header.extend_from_slice(&message);
    header
}

/// `session_protocol`: HTTP/1.
const HTTP1: &[u8] = &[0x1a, 0x02, 0x0a, 0x00];

/// Asks on a connection that stays open.
fn ask(peer: &mut Peer) -> String {
    peer.write_all(b"GET / HTTP/1.1\r\nhost: voting\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    while !answer.ends_with("voting") {
        let mut part = [0; 1_024];
        let count = peer.read(&mut part).unwrap();
        assert!(count > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    answer
}

/// How long until the peer closes.
fn closed_after(peer: &mut Peer) -> Duration {
    let begun = Instant::now();
    peer.sock
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let end = peer.read(&mut [0]);
    assert!(!matches!(end, Ok(1)), "a byte, not the end");
    if let Err(error) = &end {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open");
    }
    begun.elapsed()
}

#[test]
fn connections_of_a_dropped_anchor_drain_and_no_request_fails() {
    const GRACE: &str = "1s";
    let script = Script::new();
    let (old, new) = (&script.issuer, Arc::new(authority()));
    script.trust(&[&old.pem(), &new.pem()]);
    *script.leaf_life.lock().unwrap() = Duration::from_secs(2);
    let control = ControlPlane::start(&script);
    let behind = application("0.0.0.0:0", "voting");
    let map = format!("80={0},81={0}", behind.port());
    let settings = [
        ("LINKERD2_PROXY_INBOUND_PORTS", "80,81"),
        ("TULLE_PROXY_INBOUND_PORT_MAP", map.as_str()),
        ("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", GRACE),
    ];
    script.port(80, Answer::Say(server("voting", true)));
    script.port(81, Answer::Say(opaque(server("voting", true))));
    let voting = start("voting", &control, &script, &settings);
    let web = start("web", &control, &script, &settings);
    let address: SocketAddr = format!("{}:80", voting.ip).parse().unwrap();
    let path = "voting.default.svc.cluster.local:80";
    script.policy("voting", Answer::Say(balanced("voting", path)));
    let endpoint = hinted_h2(meshed(address, &identity("voting"), 4143));
    script.endpoints(path, Answer::Say(add(vec![endpoint])));
    voting.wait_ready();
    web.wait_ready();
    eventually("both anchors are trusted", || {
        [&web, &voting]
            .iter()
            .all(|proxy| proxy.metric("identity_trust_anchors") == 2.0)
    });
    let ask_web = || request(web.outbound(), "GET", "voting", "/", "");
    let served = Some((200, "voting".to_owned()));
    assert_eq!(ask_web(), served);

    // Peers of either anchor, each with a connection for HTTP and one that is opaque.
    let both = format!("{}{}", old.pem(), new.pem());
    let peer = |issuer: &Issuer, header: Vec<u8>| {
        let mut peer = connect(&voting, &both, Some(issuer));
        peer.write_all(&header).unwrap();
        assert!(!ask(&mut peer).contains("connection: close"));
        peer
    };
    let mut of_old = peer(old, header(80, HTTP1));
    let mut opaque_of_old = peer(old, header(81, &[]));
    let mut of_new = peer(&new, header(80, HTTP1));
    let mut opaque_of_new = peer(&new, header(81, &[]));
    let mut streaming = TcpStream::connect(web.outbound()).unwrap();
    streaming
        .write_all(b"GET /stream HTTP/1.1\r\nhost: voting\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut first = [0; 1];
    streaming.read_exact(&mut first).unwrap();

    // Certificates are renewed under the new one; the connections that there are were verified by the old.
    let renewals = || [&web, &voting].map(|proxy| proxy.metric("identity_cert_refresh_count"));
    let (put, asked) = (renewals(), script.certified().len());
    *script.next_issuer.lock().unwrap() = Some(new.clone());
    eventually("both have a certificate of the new one", || {
        let renewed = script.certified().split_off(asked);
        let (names, now) = ([identity("web"), identity("voting")], renewals());
        let mut signed = names
            .iter()
            .map(|name| renewed.iter().any(|call| call.identity == *name));
        signed.all(|signed| signed) && now[0] > put[0] && now[1] > put[1]
    });
    *script.leaf_life.lock().unwrap() = Duration::from_secs(3_600);
    script.trust(&[&new.pem()]);
    let dropped = Instant::now();
    closed_after(&mut of_old);
    let (mut answered, end) = (0, dropped + Duration::from_secs(2));
    let waiting = std::thread::spawn(move || closed_after(&mut opaque_of_old));
    while Instant::now() < end {
        assert_eq!(ask_web(), served, "after {answered} answers");
        answered += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(answered > 50, "{answered}");
    let opaque_ended = waiting.join().unwrap();
    assert!(opaque_ended >= Duration::from_millis(300) && opaque_ended < Duration::from_secs(19));
    ask(&mut of_new);
    ask(&mut opaque_of_new);

    let counted = |proxy: &Proxy, direction: &str, action: &str| {
        proxy.metric(&format!(
            "tls_distrusted_connections_total{{direction=\"{direction}\",action=\"{action}\"}}"
        ))
    };
    // Two strangers and the caller's one HTTP/2 connection, which the streamed answer kept until it was cut.
    assert_eq!(counted(&voting, "inbound", "drain"), 3.0);
    assert_eq!(counted(&web, "outbound", "drain"), 1.0);
    assert!(counted(&voting, "inbound", "cut") >= 1.0);
    let mut rest = String::new();
    let _cut = streaming.read_to_string(&mut rest);
    assert!(!rest.ends_with("0\r\n\r\n"), "it was cut, and says so");
}
