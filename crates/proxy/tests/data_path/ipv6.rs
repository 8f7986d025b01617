//! IPv6: listeners, endpoints, authorities and policies.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::TcpStream;
use tulle_api::destination;
use tulle_engine::inbound::{Cidr, DefaultPolicy, DefaultProtocol, Server};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, plain, run};

/// A pod on `[::1]`: its ports are what the kernel has free.
struct Six {
    pod: Pod,
    outbound: SocketAddr,
    inbound: SocketAddr,
    plain: SocketAddr,
    application: SocketAddr,
}

async fn pod(mesh: &Mesh, name: &str) -> Six {
    let held: Vec<TcpListener> = (0..4)
        .map(|_| TcpListener::bind("[::1]:0").unwrap())
        .collect();
    let free: Vec<SocketAddr> = held.iter().map(|one| one.local_addr().unwrap()).collect();
    let [outbound, inbound, plain, application] = free[..] else {
        panic!("four were asked for")
    };
    drop(held);
    let pod = mesh
        .pod_with(
            name,
            &[
                ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", &outbound.to_string()),
                ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &inbound.to_string()),
                ("LINKERD2_PROXY_INBOUND_IPS", "::1"),
                (
                    "TULLE_PROXY_INBOUND_EXTRA_LISTENERS",
                    &format!("{plain}=80"),
                ),
                (
                    "TULLE_PROXY_INBOUND_PORT_MAP",
                    &format!("80={}", application.port()),
                ),
            ],
        )
        .await;
    Six {
        pod,
        outbound,
        inbound,
        plain,
        application,
    }
}

#[test]
fn a_request_crosses_the_mesh_over_ipv6() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (pod(&mesh, "web").await, pod(&mesh, "voting").await);
        app(voting.application, echo).await;
        let mut endpoint = destination::WeightedAddr {
            addr: plain("[::1]:80".parse().unwrap()).addr,
            ..voting.pod.endpoint(80)
        };
        let hint = endpoint.protocol_hint.as_mut().unwrap();
        hint.opaque_transport.as_mut().unwrap().inbound_port = u32::from(voting.inbound.port());
        mesh.service("voting", &[endpoint]);
        let mut client = Http1::new(TcpStream::connect(web.outbound).await.unwrap());
        let answer = client.get("voting", "/six").await;
        assert!(
            answer
                .text()
                .starts_with("GET /six HTTP/1.1\nhost: voting\nl5d-client-id: web.")
        );

        // An address as the authority, with brackets, in both of its forms.
        let authority = voting.plain.to_string();
        assert!(authority.starts_with("[::1]:"), "{authority}");
        let answer = client.get(&authority, "/bare").await;
        assert_eq!(
            answer.text(),
            format!("GET /bare HTTP/1.1\nhost: {authority}\n\n")
        );
        client
            .send(format!(
                "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
            ))
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(client.get("inside", "/tunnel").await.status(), 200);
        // Our own listener is ours in IPv6 too.
        let mut client = Http1::new(TcpStream::connect(web.outbound).await.unwrap());
        let answer = client.get(&web.outbound.to_string(), "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (508, Some("loop"))
        );
    });
}

#[test]
fn a_policy_names_networks_of_ipv6() {
    run(async {
        let mesh = Mesh::new();
        let voting = pod(&mesh, "voting").await;
        app(voting.application, echo).await;
        for (network, status) in [
            ("2001:db8::/32", 403),
            ("::1/128", 200),
            ("10.0.0.0/8", 403),
        ] {
            let networks: Vec<Cidr> = vec![network.parse().unwrap()];
            let detect = DefaultProtocol::Detect(Duration::from_secs(1));
            let policy = DefaultPolicy::ClusterUnauthenticated;
            let mut server = Server::by_default(policy, detect, &networks);
            server.meta = tulle_engine::Meta::named(network);
            voting.pod.allow(80, server).await;
            let mut client = Http1::new(TcpStream::connect(voting.plain).await.unwrap());
            assert_eq!(
                client.get("voting", "/").await.status(),
                status,
                "{network}"
            );
        }
    });
}
