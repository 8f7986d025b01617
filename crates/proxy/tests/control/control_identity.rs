//! Certificates: obtained, renewed under traffic, refused, expired and recovered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::control_anchors::knock;
use super::control_plane::{Answer, ControlPlane, Script, authority};
use super::mesh::{add, balanced, dns_server, meshed, server};
use super::proxy::{Proxy, application, eventually, identity, request};

pub fn start(pod: &str, control: &ControlPlane, script: &Script, more: &[(&str, &str)]) -> Proxy {
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
