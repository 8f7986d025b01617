//! What an update of one endpoint costs the sidecar, from the control plane's message to the request that goes by it:
//! the same whether the service has a hundred endpoints or ten thousand.
//!
//! The control side and the worker share this thread and are the real ones; the control plane has a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tulle_api::destination::WeightedAddr;
use tulle_proxy::config::{Config, Environment};
use tulle_proxy::control;
use tulle_proxy::discovery;
use tulle_proxy::drain::Drain;
use tulle_proxy::identity::Trust;
use tulle_proxy::metrics::{Limits, Registry};
use tulle_proxy::observe::Observed;
use tulle_proxy::worker::{self, Listeners, Parts};

use super::control_plane::{Answer, ControlPlane, Script};
use super::mesh::{add, balanced, plain};
use super::{ANSWER, application, rig, runtime};

const PATH: &str = "voting.default.svc.cluster.local:80";
const FEW: u32 = 100;
/// With the updates, as many as a service may have.
const MANY: u32 = 10_000 - UPDATES;
/// Neither number of endpoints grows past a power of two by so many: growing a table is paid for by those that follow.
const UPDATES: u32 = 8;
/// How many allocations and bytes an update may differ by: a node of a sorted map is split now and then, a buffer of the
/// stream is a fresh one.
const SLACK: (u64, u64) = (20, 4 << 10);

/// An endpoint that takes no request while the application is there.
fn idle(number: u32) -> WeightedAddr {
    let ip = std::net::Ipv4Addr::from(0x0a00_0000 + number);
    WeightedAddr {
        weight: 0,
        metric_labels: [("pod".to_owned(), format!("voting-{number:05}"))].into(),
        ..plain(SocketAddr::from((ip, 8080)))
    }
}

/// One request, and its whole answer.
async fn ask(client: &mut TcpStream) {
    let request = b"GET / HTTP/1.1\r\nhost: voting\r\n\r\n";
    client.write_all(request).await.unwrap();
    let (mut bytes, mut held) = ([0; 4096], 0);
    while !bytes[..held].ends_with(b"hello, world\n") {
        let read = client.read(&mut bytes[held..]).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&bytes[..held]));
        held += read;
    }
    assert_eq!(bytes[..16], ANSWER[..16]);
}

/// Of all updates together, in a service that has so many endpoints before the first.
fn cost(held: u32) -> AllocationInfo {
    let script = Script::new();
    let control_plane = ControlPlane::start_plain(&script);
    let address = control_plane.address.to_string();
    let environment: Environment = [
        ("LINKERD2_PROXY_IDENTITY_DISABLED", "1"),
        ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", "127.0.0.1:0"),
        ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "127.0.0.1:0"),
        ("LINKERD2_PROXY_POLICY_SVC_ADDR", &address),
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &address),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let config = Config::from_env(&environment).unwrap();
    let runtime = runtime();
    let (mut client, mut endpoints, _alive) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        drop(listener);
        rig::app(app, application).await;
        let mut all = vec![plain(app)];
        all.extend((1..held).map(idle));
        script.policy("voting", Answer::Say(balanced("voting", PATH)));
        script.endpoints(PATH, Answer::Say(add(all)));

        let registry = Registry::new(Limits::default());
        let shard = registry.shard();
        let (discovery, requests) = discovery::channel(control::inbound_defaults(&config));
        let (epochs, received) = watch::channel(None);
        let asked = discovery.clone();
        let control = control::start(&config, asked, requests, epochs, &registry, &shard).unwrap();
        let listeners = Listeners::bind(&config).unwrap();
        let outbound = listeners.outbound[0].local_addr().unwrap();
        let drains = (Drain::default(), Drain::default());
        let parts = Parts {
            number: 0,
            config: Arc::new(config),
            discovery: discovery.clone(),
            trust: Trust::new(received),
            shard: registry.shard(),
            limits: Arc::default(),
            inbound: drains.0.guard().unwrap(),
            outbound: drains.1.guard().unwrap(),
            observed: Observed::new(None, None),
        };
        tokio::task::spawn_local(async move { worker::run(listeners, parts).await.unwrap() });

        let mut client = TcpStream::connect(outbound).await.unwrap();
        let endpoints = discovery.endpoints(PATH);
        for _ in 0..3 {
            ask(&mut client).await;
        }
        (client, endpoints, (control, drains))
    });
    measure(move || {
        for number in 0..UPDATES {
            script.endpoints(PATH, Answer::Say(add(vec![idle(MANY + number)])));
            let told = async {
                let all = (held + number + 1) as usize;
                let known =
                    endpoints.wait_for(|known| known.as_ref().is_some_and(|k| k.len() == all));
                drop(known.await.unwrap());
                ask(&mut client).await;
            };
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(60), told).await })
                .expect("the update is not taken in");
        }
    })
}

#[test]
fn an_update_of_one_endpoint_costs_the_same_among_a_hundred_and_among_ten_thousand() {
    let (few, many) = (cost(FEW), cost(MANY));
    let each = |count: u64| count / u64::from(UPDATES);
    let few = (each(few.count_total), each(few.bytes_total));
    let many = (each(many.count_total), each(many.bytes_total));
    println!("allocations and bytes of an update: {few:?} of {FEW}, {many:?} of {MANY}");
    assert!(
        many.0 <= few.0 + SLACK.0 && many.1 <= few.1 + SLACK.1,
        "{many:?} allocations and bytes among {MANY} endpoints, {few:?} among {FEW}"
    );
}
