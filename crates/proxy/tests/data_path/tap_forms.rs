//! Tap as Linkerd's controller asks for it: every form of its conditions, and requests that pass a gateway.

use tulle_api::http_types::{HttpMethod, Scheme, http_method, scheme};
use tulle_api::net::{IpAddress, ip_address::Ip};
use tulle_api::tap::observe_request::r#match as kinds;
use tulle_api::tap::tap_event;
use tulle_engine::doc::tap::{self as conditions, exact, http, not, ports, prefix, seq};

use crate::client::{Http1, echo};
use crate::gateway::through;
use crate::rig::{Mesh, app, identity, run};
use crate::tap::{begun, label, matching, next, observe, reader, tapped, three};

fn all(parts: Vec<kinds::Match>) -> kinds::Match {
    kinds::Match::All(seq(parts))
}

fn any(parts: Vec<kinds::Match>) -> kinds::Match {
    kinds::Match::Any(seq(parts))
}

fn net(ip: u32, mask: u32) -> kinds::Tcp {
    kinds::Tcp {
        r#match: Some(kinds::tcp::Match::Netmask(kinds::tcp::Netmask {
            ip: Some(IpAddress {
                ip: Some(Ip::Ipv4(ip)),
            }),
            mask,
        })),
    }
}

fn of_scheme(registered: scheme::Registered) -> kinds::Match {
    http(kinds::http::Match::Scheme(Scheme {
        r#type: Some(scheme::Type::Registered(registered.into())),
    }))
}

#[test]
fn each_form_of_a_condition_tells_requests_apart() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        let (own, loopback) = (
            u32::from(client.stream.local_addr().unwrap().port()),
            127 << 24,
        );
        let second = || http(kinds::http::Match::Path(exact("/b/c")));

        let mut questions: Vec<kinds::Match> = vec![
            second(),
            http(kinds::http::Match::Path(prefix("/b"))),
            http(kinds::http::Match::Authority(exact("voting:80"))),
            http(kinds::http::Match::Authority(prefix("voting:"))),
            http(kinds::http::Match::Method(HttpMethod {
                r#type: Some(http_method::Type::Registered(
                    http_method::Registered::Post.into(),
                )),
            })),
        ];
        for true_of_both in [
            of_scheme(scheme::Registered::Http),
            kinds::Match::Source(net(loopback, 8)),
            kinds::Match::Source(ports(own, own)),
            kinds::Match::Source(ports(own, 0)),
            kinds::Match::Destination(net(loopback, 8)),
            kinds::Match::Destination(ports(80, 81)),
            kinds::Match::DestinationLabel(conditions::label("pod", "voting")),
            kinds::Match::DestinationLabel(conditions::label("service", "voting")),
            kinds::Match::RouteLabel(conditions::label("route_kind", "default")),
            all(vec![]),
        ] {
            questions.push(all(vec![true_of_both.clone(), second()]));
            questions.push(any(vec![not(true_of_both), second()]));
        }
        for true_of_none in [
            of_scheme(scheme::Registered::Https),
            kinds::Match::Source(net(10 << 24, 8)),
            kinds::Match::Source(ports(1, 2)),
            kinds::Match::Destination(net(10 << 24, 8)),
            kinds::Match::Destination(ports(81, 90)),
            kinds::Match::DestinationLabel(conditions::label("pod", "web")),
            kinds::Match::RouteLabel(conditions::label("route_kind", "HTTPRoute")),
        ] {
            questions.push(any(vec![true_of_none.clone(), second()]));
            questions.push(all(vec![not(true_of_none), second()]));
        }
        let mut tap = reader(&mesh, &web).await;
        for question in questions {
            let asked = format!("{question:?}");
            let mut events = observe(&mut tap, matching(1, question)).await;
            client.get("voting", "/a").await;
            client
                .send("POST /b/c HTTP/1.1\r\nHost: voting:80\r\nContent-Length: 0\r\n\r\n")
                .await;
            assert_eq!(client.answer().await.status(), 200);
            let told = three(&mut events).await;
            assert_eq!(begun(&told[0]).path, "/b/c", "{asked}");
            assert_eq!(next(&mut events).await, None, "{asked}");
        }
    });
}

#[test]
fn a_gateway_tells_whose_request_it_forwards_and_where_to() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let who = identity("tap");
        let gateway = mesh
            .pod_with(
                "gateway",
                &[
                    ("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "voting"),
                    ("LINKERD2_PROXY_TAP_SVC_NAME", &who),
                    ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "$ip:4190"),
                ],
            )
            .await;
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        mesh.service("remote", &[through(&gateway, "voting:80")]);
        let mut tap = reader(&mesh, &gateway).await;
        let source = kinds::Match::Source(net(127 << 24, 8));
        let mut events = observe(&mut tap, matching(1, source)).await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("remote", "/vote").await.status(), 200);

        let [begin, middle, last] = three(&mut events).await;
        let outbound = tap_event::ProxyDirection::Outbound;
        assert_eq!(begin.proxy_direction(), outbound);
        assert_eq!(label(&begin.source_meta, "tls"), "true");
        assert_eq!(label(&begin.source_meta, "client_id"), identity("web"));
        assert!(begin.source.is_some_and(|source| source.port > 0));
        assert_eq!(label(&begin.destination_meta, "pod"), "voting");
        let server = label(&begin.destination_meta, "server_id");
        assert_eq!(server, identity("voting"));
        assert_eq!(begin.destination.unwrap().port, 80);
        assert!(begin.route_meta.is_some());
        let init = begun(&begin);
        assert_eq!((&*init.authority, &*init.path), ("voting:80", "/vote"));
        for event in [&middle, &last] {
            assert_eq!(event.source, begin.source);
            assert_eq!(event.source_meta, begin.source_meta);
        }
        assert_eq!(next(&mut events).await, None);
    });
}
