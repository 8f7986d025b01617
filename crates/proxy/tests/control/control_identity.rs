//! Certificates: obtained, renewed under traffic, refused, expired and recovered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::control_plane::{Answer, ControlPlane, Script, authority, leaf};
use super::mesh::{add, balanced, dns_server, meshed, server};
use super::proxy::{Proxy, application, eventually, identity, request};

fn start(pod: &str, control: &ControlPlane, script: &Script, more: &[(&str, &str)]) -> Proxy {
    let mut all = vec![("TULLE_PROXY_DNS_SERVER", dns_server())];
    all.extend_from_slice(more);
    Proxy::start(pod, control, script, &all)
}

#[test]
fn the_first_certificate_and_every_port_make_the_proxy_ready() {
    let script = Script::new();
    *script.certify_fails.lock().unwrap() = Some(tonic::Code::Unavailable);
    let control = ControlPlane::start(&script);
    let proxy = start(
        "web",
        &control,
        &script,
        &[("LINKERD2_PROXY_INBOUND_PORTS", "80,8080")],
    );
    eventually("it has tried", || script.certified().len() >= 2);
    let (status, why) = proxy.get("/ready").unwrap();
    assert_eq!(
        (status, why.as_str()),
        (
            503,
            "not ready: no certificate from the identity service yet\n"
        )
    );
    assert!(proxy.metric("control_identity_cert_refreshes_total{result=\"error\"}") >= 2.0);

    *script.certify_fails.lock().unwrap() = None;
    eventually("the ports are what is missing", || {
        proxy
            .get("/ready")
            .unwrap()
            .1
            .contains("no policy yet for port 80, 8080")
    });
    script.port(80, Answer::Say(server("web", true)));
    eventually("one port is what is missing", || {
        proxy.get("/ready").unwrap().1.contains("port 8080")
    });
    script.port(8080, Answer::Refuse(tonic::Code::NotFound));
    proxy.wait_ready();

    let call = script.certified().pop().unwrap();
    assert_eq!(call.identity, identity("web"));
    assert_eq!(
        call.names,
        [identity("web")],
        "the request names exactly the identity"
    );
    assert_eq!(call.token, "token-1");
    assert_eq!(proxy.metric("identity_cert_refresh_count"), 1.0);
    let expires = proxy.metric("identity_cert_expiration_timestamp_seconds");
    assert_eq!(
        expires,
        proxy.metric("control_identity_cert_expiration_timestamp_seconds")
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!((expires - now - 3_600.0).abs() < 30.0);
}

#[test]
fn a_certificate_of_two_seconds_is_renewed_under_traffic_without_a_failure() {
    let script = Script::new();
    *script.leaf_life.lock().unwrap() = Duration::from_secs(2);
    let control = ControlPlane::start(&script);
    let behind = application("0.0.0.0:0", "voting");
    let map = format!("80={}", behind.port());
    let port = [
        ("LINKERD2_PROXY_INBOUND_PORTS", "80"),
        ("TULLE_PROXY_INBOUND_PORT_MAP", map.as_str()),
    ];
    script.port(80, Answer::Say(server("voting", true)));
    let voting = start("voting", &control, &script, &port);
    let web = start("web", &control, &script, &[]);
    let address: SocketAddr = format!("{}:80", voting.ip).parse().unwrap();
    script.policy(
        "voting",
        Answer::Say(balanced("voting", "voting.default.svc.cluster.local:80")),
    );
    let endpoint = meshed(address, &identity("voting"), 4143);
    script.endpoints(
        "voting.default.svc.cluster.local:80",
        Answer::Say(add(vec![endpoint])),
    );
    voting.wait_ready();
    web.wait_ready();

    let mut stream = TcpStream::connect(web.outbound()).unwrap();
    stream
        .write_all(b"GET /stream HTTP/1.1\r\nhost: voting\r\nconnection: close\r\n\r\n")
        .unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    let (mut answered, before) = (0, script.certified().len());
    while !reader.is_finished() {
        let answer = request(web.outbound(), "GET", "voting", "/", "");
        assert_eq!(
            answer,
            Some((200, "voting".to_owned())),
            "after {answered} answers"
        );
        answered += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let streamed = reader.join().unwrap().unwrap();
    assert_eq!(streamed.matches("chunk").count() - 1, 80, "{streamed}");
    assert!(answered > 20);
    assert!(
        script.certified().len() >= before + 4,
        "both renewed at least twice in four seconds"
    );
    assert_eq!(
        web.metric("control_identity_cert_refreshes_total{result=\"error\"}"),
        0.0
    );
}

#[test]
fn the_token_file_is_read_again_for_every_certificate() {
    let script = Script::new();
    *script.leaf_life.lock().unwrap() = Duration::from_secs(1);
    let control = ControlPlane::start(&script);
    let proxy = start("web", &control, &script, &[]);
    eventually("the first certificate", || !script.certified().is_empty());
    std::fs::write(&proxy.token_file, "token-2").unwrap();
    eventually("the second token is shown", || {
        script
            .certified()
            .iter()
            .any(|call| call.token == "token-2")
    });
}

#[test]
fn an_expired_certificate_makes_it_unready_and_a_returning_identity_service_heals_it() {
    let script = Script::new();
    *script.leaf_life.lock().unwrap() = Duration::from_secs(2);
    let control = ControlPlane::start(&script);
    let proxy = start("web", &control, &script, &[]);
    proxy.wait_ready();
    let address = control.address;
    drop(control);
    eventually("the certificate has expired", || {
        proxy
            .get("/ready")
            .is_some_and(|(status, why)| status == 503 && why.contains("expired"))
    });
    assert_eq!(proxy.get("/live").unwrap().0, 200);
    let _control = ControlPlane::start_on(&script, address);
    proxy.wait_ready();
}

#[test]
fn an_identity_service_that_is_somebody_else_is_refused_and_counted() {
    let script = Script::new();
    *script.server_name.lock().unwrap() =
        "imposter.linkerd.serviceaccount.identity.linkerd.cluster.local".to_owned();
    let control = ControlPlane::start(&script);
    let proxy = start("web", &control, &script, &[]);
    let refused = || {
        let (_, page) = proxy.get("/metrics").unwrap();
        page.lines().any(|line| {
            line.starts_with("control_connect_failures_total") && line.contains("wrong_identity")
        })
    };
    eventually("the refusal is counted", refused);
    assert!(
        script.certified().is_empty(),
        "no token was shown to a stranger"
    );
    *script.server_name.lock().unwrap() = super::control_plane::NAME.to_owned();
    proxy.wait_ready();
}

#[test]
fn a_control_plane_of_which_one_replica_is_gone_is_reached_at_the_other() {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let more = [("TULLE_PROXY_DNS_SERVER", dns_server())];
    let proxy = Proxy::start_at("control-planes.test", "web", &control, &script, &more);
    proxy.wait_ready();
    let (_, page) = proxy.get("/metrics").unwrap();
    let asked =
        "control_dns_resolutions_total{client=\"identity\",record_type=\"A\",result=\"ok\"} 1";
    assert!(page.contains(asked), "{page}");
}

/// A TLS handshake with the sidecar's inbound port, and a byte to see whether it holds.
fn knock(
    proxy: &Proxy,
    trusted: &str,
    own: Option<&super::control_plane::Issuer>,
) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject as _;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
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
    let name = ServerName::try_from(identity("web")).unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(format!("{}:4143", proxy.ip)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
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

#[test]
fn clients_of_another_authority_or_without_a_certificate_are_refused_and_counted() {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let proxy = start("web", &control, &script, &[]);
    proxy.wait_ready();
    let ours = script.issuer.pem();
    let foreign = authority();
    assert!(knock(&proxy, &ours, Some(&foreign)).is_err());
    eventually("the foreign client is counted", || {
        proxy
            .metric("tls_handshake_failures_total{direction=\"inbound\",reason=\"unknown_issuer\"}")
            >= 1.0
    });
    assert!(
        knock(&proxy, &foreign.pem(), Some(&script.issuer)).is_err(),
        "the client refuses a foreign proxy"
    );
    assert!(
        knock(&proxy, &ours, None).is_err(),
        "nobody may use the transport header without a certificate"
    );
    assert!(
        knock(&proxy, &ours, Some(&script.issuer)).is_ok(),
        "one of ours may"
    );
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
    assert!(answered > 100, "{answered}");
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
