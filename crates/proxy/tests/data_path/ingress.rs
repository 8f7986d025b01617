//! Ingress mode, and the headers by which a request steers its own proxy.

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, identity, plain, run};

#[test]
fn in_ingress_mode_each_request_goes_where_it_says_and_else_to_its_authority() {
    run(async {
        let mesh = Mesh::new();
        let ingress = mesh
            .pod_with("ingress", &[("LINKERD2_PROXY_INGRESS_MODE", "true")])
            .await;
        for (name, port) in [("voting", 9001), ("emoji", 9002)] {
            let address = ingress.address(port);
            app(address, move |stream| async move {
                let mut server = Http1::new(stream);
                while let Some(request) = server.message().await {
                    let body = format!("{name}\n{}", request.head);
                    let length = body.len();
                    server
                        .send(format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
                        ))
                        .await;
                }
            })
            .await;
            mesh.service(name, &[plain(address)]);
        }
        let mut client = Http1::new(ingress.call().await);
        for (steer, served) in [
            ("l5d-dst-override: voting:80\r\n", "voting"),
            ("l5d-dst-override: emoji\r\n", "emoji"),
            ("", "emoji"),
        ] {
            client
                .send(format!("GET / HTTP/1.1\r\nHost: emoji\r\n{steer}\r\n"))
                .await;
            let seen = format!("{served}\nGET / HTTP/1.1\nhost: emoji");
            assert_eq!(client.answer().await.text(), seen, "after {steer:?}");
        }
    });
}

#[test]
fn outside_of_ingress_mode_an_override_steers_nothing_and_goes_no_further() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        mesh.service("admin", &[plain(web.address(1))]);
        for (mut client, meshed) in [
            (Http1::new(web.call().await), true),
            (Http1::new(voting.enter().await), false),
        ] {
            client
                .send("GET / HTTP/1.1\r\nHost: voting\r\nl5d-dst-override: admin:80\r\n\r\n")
                .await;
            let id = format!("l5d-client-id: {}\n", identity("web"));
            let id = if meshed { id.as_str() } else { "" };
            assert_eq!(
                client.answer().await.text(),
                format!("GET / HTTP/1.1\nhost: voting\n{id}\n")
            );
        }
    });
}

#[test]
fn a_required_identity_is_not_found_at_a_peer_without_any() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[plain(web.address(9000))]);
        let mut client = Http1::new(web.call().await);
        let required = identity("voting");
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: voting\r\nl5d-require-id: {required}\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        let said = (answer.status(), answer.field("tulle-reason"));
        assert_eq!(said, (502, Some("identity-required")), "{answer:?}");
        assert_eq!(client.get("voting", "/").await.status(), 200);
    });
}

/// An address of this machine that is not loopback, if it has one. Nothing is sent.
fn address_of_the_machine() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn a_stranger_may_borrow_the_outbound_port_in_ingress_mode_only() {
    let Some(stranger) = address_of_the_machine() else {
        eprintln!("skipped: this machine has no address beside loopback");
        return;
    };
    run(async {
        let mesh = Mesh::new();
        let ingress = [("LINKERD2_PROXY_INGRESS_MODE", "true")];
        let own = [("LINKERD2_PROXY_INBOUND_IPS", stranger.to_string())];
        let own: Vec<_> = own.iter().map(|(name, ip)| (*name, ip.as_str())).collect();
        for (name, settings, served) in [
            ("web", &[][..], false),
            ("ingress", &ingress[..], true),
            ("own", &own[..], true),
        ] {
            let pod = mesh.pod_with(name, settings).await;
            app(pod.address(9000), echo).await;
            mesh.service("voting", &[plain(pod.address(9000))]);
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((stranger, 0).into()).unwrap();
            let stream = socket.connect(pod.address(4140)).await.unwrap();
            let mut client = Http1::new(stream);
            client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
            let answered = client.message().await.map(|answer| answer.status());
            assert_eq!(answered, served.then_some(200), "{name}");
            let counted = pod.metric("outbound_tcp_errors_total", &["reason=\"stranger\""]);
            assert_eq!(counted, f64::from(u8::from(!served)), "{name}");
            // Its own application is served in any case.
            let mut own = Http1::new(pod.call().await);
            assert_eq!(own.get("voting", "/").await.status(), 200, "{name}");
        }
    });
}
