//! The SPIFFE Workload API as the source of identity: documents obtained, rotated under traffic, refused, an agent that
//! goes and comes back.

use std::net::SocketAddr;
use std::sync::Arc;

use tonic::Code;
use tulle_api::destination::tls_identity::{Strategy, UriLikeIdentity};
use tulle_api::destination::{TlsIdentity, WeightedAddr};
use tulle_api::inbound::authn::permit_mesh_tls::{Clients, PermitClientIdentities};
use tulle_api::inbound::authn::{Permit, PermitMeshTls};
use tulle_api::inbound::{Authn, Identity, Server};
use tulle_api::spiffe::X509svid;

use super::control_plane::{Answer, ControlPlane, Issuer, NAME, Script, authority};
use super::mesh::{add, balanced, dns_server, meshed, server};
use super::proxy::{Proxy, application, eventually, request};
use super::workload_api::{Agent, Documents, Says, document, document_with};

const PATH: &str = "voting.default.svc.cluster.local:80";

fn id(pod: &str) -> String {
    format!("spiffe://root.linkerd.cluster.local/{pod}")
}

fn server_name(pod: &str) -> String {
    format!("{pod}.default.mesh.example")
}

/// Documents for both pods of a test.
fn both(issuer: &Issuer, bundle: &[&Issuer]) -> Says {
    let of = |pod| document(issuer, &id(pod), bundle);
    Says::Documents(vec![of("voting"), of("web")])
}

fn start(
    pod: &str,
    agent: &Agent,
    control: &ControlPlane,
    script: &Script,
    more: &[(&str, &str)],
) -> Proxy {
    let service = control.address.to_string();
    let service = service.replace("127.0.0.1", "control-plane.test");
    let socket = format!("unix://{}", agent.socket.display());
    let base = [
        ("TULLE_PROXY_DNS_SERVER", dns_server()),
        ("LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET", &socket),
        ("LINKERD2_PROXY_IDENTITY_SERVER_ID", &id(pod)),
        ("LINKERD2_PROXY_IDENTITY_SERVER_NAME", &server_name(pod)),
        // The control plane has its certificate from elsewhere.
        (
            "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS",
            &script.issuer.pem(),
        ),
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &service),
        ("LINKERD2_PROXY_DESTINATION_SVC_NAME", NAME),
        ("LINKERD2_PROXY_POLICY_SVC_ADDR", &service),
        ("LINKERD2_PROXY_POLICY_SVC_NAME", NAME),
    ];
    Proxy::start_with(pod, &base, more)
}

/// The port that only this identity may use.
fn only_for(client: &str) -> Server {
    let mut server = server("voting", true);
    server.authorizations[0].authentication = Some(Authn {
        permit: Some(Permit::MeshTls(PermitMeshTls {
            clients: Some(Clients::Identities(PermitClientIdentities {
                identities: vec![Identity {
                    name: client.to_owned(),
                }],
                suffixes: Vec::new(),
            })),
        })),
    });
    server
}

fn endpoint(address: SocketAddr, identity: &str, name: &str) -> WeightedAddr {
    let uri = UriLikeIdentity {
        uri: identity.to_owned(),
    };
    WeightedAddr {
        tls_identity: Some(TlsIdentity {
            strategy: Some(Strategy::UriLikeIdentity(uri)),
            server_name: Some(tulle_api::destination::tls_identity::DnsLikeIdentity {
                name: name.to_owned(),
            }),
        }),
        ..meshed(address, "", 4143)
    }
}

/// `web` calls `voting`; both have their identity from one agent.
struct Pair {
    script: Arc<Script>,
    documents: Arc<Documents>,
    web: Proxy,
    voting: Proxy,
    _control: ControlPlane,
    _agent: Agent,
}

impl Pair {
    fn start(says: Says) -> Self {
        let (script, documents) = (Script::new(), Documents::new(says));
        let control = ControlPlane::start(&script);
        let agent = Agent::start(&documents);
        let behind = application("0.0.0.0:0", "voting");
        let map = format!("80={}", behind.port());
        let port = [
            ("LINKERD2_PROXY_INBOUND_PORTS", "80"),
            ("TULLE_PROXY_INBOUND_PORT_MAP", map.as_str()),
        ];
        script.port(80, Answer::Say(only_for(&id("web"))));
        let voting = start("voting", &agent, &control, &script, &port);
        let web = start("web", &agent, &control, &script, &[]);
        let address = format!("{}:80", voting.ip).parse().unwrap();
        script.policy("voting", Answer::Say(balanced("voting", PATH)));
        let found = endpoint(address, &id("voting"), &server_name("voting"));
        script.endpoints(PATH, Answer::Say(add(vec![found])));
        voting.wait_ready();
        web.wait_ready();
        Self {
            script,
            documents,
            web,
            voting,
            _control: control,
            _agent: agent,
        }
    }

    fn call(&self) -> Option<u16> {
        request(self.web.outbound(), "GET", "voting", "/", "").map(|(status, _)| status)
    }
}

#[test]
fn sidecars_meet_under_their_spiffe_ids_and_policies_name_them() {
    let authority = authority();
    let pair = Pair::start(both(&authority, &[&authority]));
    assert_eq!(pair.call(), Some(200));
    assert!(pair.documents.all_had_the_header());
    for proxy in [&pair.web, &pair.voting] {
        assert_eq!(proxy.metric("identity_cert_refresh_count"), 1.0);
        assert_eq!(proxy.metric("identity_trust_anchors"), 2.0);
    }
    let (_, page) = pair.voting.get("/metrics").unwrap();
    let client = format!("client_id=\"{}\"", id("web"));
    assert!(page.contains(&client), "{page}");

    // Another ID, of the same trust domain: not this one's.
    pair.script.port(80, Answer::Say(only_for(&id("web-2"))));
    eventually("the policy names another", || pair.call() == Some(403));
    pair.script.port(80, Answer::Say(only_for(&id("web"))));
    eventually("it is let in again", || pair.call() == Some(200));

    // An endpoint that should be somebody else is not spoken to.
    let address = format!("{}:80", pair.voting.ip).parse().unwrap();
    let imposter = endpoint(address, &id("VOTING"), &server_name("voting"));
    pair.script
        .endpoints(PATH, Answer::Say(add(vec![imposter])));
    eventually("its ID is another", || {
        pair.call().is_some_and(|status| status >= 500)
    });
}

#[test]
fn dns_names_beside_an_id_change_nothing_about_who_it_is() {
    let authority = authority();
    let of = |pod| {
        let dns = ["shop.example.org", pod];
        document_with(&authority, &id(pod), &dns, &[&authority])
    };
    let pair = Pair::start(Says::Documents(vec![of("voting"), of("web")]));
    assert_eq!(pair.call(), Some(200));
    // A policy that lets in who has such a DNS name does not mean it.
    pair.script
        .port(80, Answer::Say(only_for("shop.example.org")));
    eventually("the ID counts", || pair.call() == Some(403));
}

#[test]
fn documents_and_bundles_rotate_under_traffic_without_a_failed_request() {
    let (old, new) = (authority(), authority());
    let pair = Pair::start(both(&old, &[&old]));
    let stages = [
        both(&old, &[&old]),
        both(&old, &[&old, &new]),
        both(&new, &[&old, &new]),
        both(&new, &[&new]),
    ];
    let mut answered = 0;
    for (done, stage) in stages.into_iter().enumerate() {
        pair.documents.say(stage);
        let mut after = 0;
        while after < 15 {
            assert_eq!(pair.call(), Some(200), "after {answered} answers");
            answered += 1;
            let all = [&pair.web, &pair.voting].into_iter();
            let mut count = all.map(|proxy| proxy.metric("identity_cert_refresh_count"));
            if count.all(|count| count >= (done + 2) as f64) {
                after += 1;
            }
            assert!(answered < 2_000, "the documents do not arrive");
        }
    }
    for proxy in [&pair.web, &pair.voting] {
        let failed = "control_identity_cert_refreshes_total{result=\"error\"}";
        assert_eq!(proxy.metric(failed), 0.0);
        // The environment's and the new one.
        assert_eq!(proxy.metric("identity_trust_anchors"), 2.0);
    }
}

#[test]
fn a_bad_document_is_named_and_the_last_good_one_serves() {
    let (authority, stranger) = (authority(), authority());
    let good = || document(&authority, &id("web"), &[&authority]);
    let with = |change: &dyn Fn(&mut X509svid)| {
        let mut svid = good();
        change(&mut svid);
        vec![svid]
    };
    let bad = [
        (vec![], "the agent has none"),
        (
            with(&|svid| svid.x509_svid_key = good().x509_svid_key),
            "cannot be used with its key",
        ),
        (
            with(&|svid| svid.x509_svid.clear()),
            "it has no certificate",
        ),
        (
            with(&|svid| svid.bundle = stranger.der().to_vec()),
            "is not valid for",
        ),
        (
            with(&|svid| svid.x509_svid = document(&authority, &id("other"), &[]).x509_svid),
            "its leaf names spiffe://root.linkerd.cluster.local/other",
        ),
    ];
    let (script, documents) = (Script::new(), Documents::new(Says::Documents(vec![good()])));
    let control = ControlPlane::start(&script);
    let agent = Agent::start(&documents);
    let proxy = start("web", &agent, &control, &script, &[]);
    proxy.wait_ready();
    for (count, (svids, why)) in bad.into_iter().enumerate() {
        documents.say(Says::Documents(svids));
        eventually(why, || {
            let failed = "control_identity_cert_refreshes_total{result=\"error\"}";
            proxy.metric(failed) >= (count + 1) as f64 && proxy.log().contains(why)
        });
        assert!(proxy.is_ready(), "after: {why}");
    }
    assert_eq!(proxy.metric("identity_cert_refresh_count"), 1.0);
    assert_eq!(
        documents.opened(),
        1,
        "a bad message does not end the stream"
    );
    documents.say(Says::Documents(vec![good()]));
    eventually("the next good one is taken", || {
        proxy.metric("identity_cert_refresh_count") == 2.0
    });
}

#[test]
fn a_workload_that_is_registered_later_gets_its_document_then() {
    let authority = authority();
    let (script, documents) = (
        Script::new(),
        Documents::new(Says::Refuses(Code::PermissionDenied)),
    );
    let control = ControlPlane::start(&script);
    let agent = Agent::start(&documents);
    let proxy = start("web", &agent, &control, &script, &[]);
    eventually("it tries on", || documents.opened() >= 3);
    assert!(!proxy.is_ready());
    eventually("the log says what to do", || {
        proxy.log().contains("register the workload")
    });
    let own = document(&authority, &id("web"), &[&authority]);
    documents.say(Says::Documents(vec![own]));
    proxy.wait_ready();
}

#[test]
fn an_agent_that_goes_and_comes_back_is_followed_again() {
    let authority = authority();
    let own = || document(&authority, &id("web"), &[&authority]);
    let (script, documents) = (Script::new(), Documents::new(Says::Documents(vec![own()])));
    let control = ControlPlane::start(&script);
    let agent = Agent::start(&documents);
    let proxy = start("web", &agent, &control, &script, &[]);
    proxy.wait_ready();
    let socket = agent.socket.clone();
    drop(agent);
    eventually("it has noticed", || {
        proxy.metric("control_identity_cert_refreshes_total{result=\"error\"}") >= 1.0
    });
    assert!(proxy.is_ready(), "the last document serves");
    let _agent = Agent::start_on(&documents, &socket);
    eventually("the stream is open again", || documents.opened() >= 2);
    // What it has already is no renewal.
    assert_eq!(proxy.metric("identity_cert_refresh_count"), 1.0);
    documents.say(Says::Documents(vec![own()]));
    eventually("the next document is taken", || {
        proxy.metric("identity_cert_refresh_count") == 2.0
    });
}
