//! Policies and endpoints: followed, kept while the control plane is away, and what happens when nobody knows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use tulle_api::destination;
use tulle_proxy::config::{Config, Environment};
use tulle_proxy::control;
use tulle_proxy::discovery::{self, Target};
use tulle_proxy::metrics::{Limits, Registry};

use super::control_plane::{Answer, ControlPlane, Script};
use super::mesh::{add, balanced, dns_server, endpoint_profile, plain, remove, server};
use super::proxy::{Proxy, application, eventually, request};

const PATH: &str = "voting.default.svc.cluster.local:80";

struct World {
    script: Arc<Script>,
    control: ControlPlane,
    proxy: Proxy,
}

fn world(more: &[(&str, &str)]) -> World {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let mut all = vec![("TULLE_PROXY_DNS_SERVER", dns_server())];
    all.extend_from_slice(more);
    let proxy = Proxy::start("web", &control, &script, &all);
    proxy.wait_ready();
    World {
        script,
        control,
        proxy,
    }
}

impl World {
    fn ask(&self, host: &str) -> Option<(u16, String)> {
        request(self.proxy.outbound(), "GET", host, "/", "")
    }

    fn says(&self, host: &str, body: &str) -> bool {
        self.ask(host)
            .is_some_and(|answer| answer == (200, body.to_owned()))
    }
}

#[test]
fn a_name_that_leads_to_the_sidecar_itself_is_refused_and_does_not_go_round() {
    let world = world(&[]);
    let own = world.proxy.outbound();
    let name = format!("at-{}.test", own.ip().to_string().replace('.', "-"));
    let itself = format!("{name}:{}", own.port());
    world.script.policy(&itself, Answer::Refuse(Code::NotFound));
    let (status, body) = world.ask(&itself).expect("an answer");
    assert_eq!(status, 404, "{body}");
    assert!(
        body.contains("its address is this sidecar's own listener"),
        "{body}"
    );
    // Another port of the same address is anybody's.
    let app = application(&format!("{}:0", own.ip()), "beside");
    let beside = format!("{name}:{}", app.port());
    world.script.policy(&beside, Answer::Refuse(Code::NotFound));
    eventually("it answers", || world.says(&beside, "beside"));
}

#[test]
fn endpoints_are_added_and_removed_as_the_stream_says() {
    let world = world(&[]);
    let (one, two) = (
        application("127.0.0.1:0", "one"),
        application("127.0.0.1:0", "two"),
    );
    world
        .script
        .policy("voting", Answer::Say(balanced("voting", PATH)));
    world
        .script
        .endpoints(PATH, Answer::Say(add(vec![plain(one)])));
    eventually("the first endpoint answers", || world.says("voting", "one"));
    world
        .script
        .endpoints(PATH, Answer::Say(add(vec![plain(two)])));
    eventually("the second answers too", || world.says("voting", "two"));
    world.script.endpoints(PATH, Answer::Say(remove(one)));
    eventually("the first has gone", || {
        (0..20).all(|_| world.says("voting", "two"))
    });
    assert_eq!(
        world.script.opened(&format!("Destination.Get {PATH}")),
        1,
        "one stream told it all"
    );
}

#[test]
fn the_last_known_state_serves_while_the_control_plane_is_away_and_streams_resume_after() {
    let world = world(&[]);
    let (one, two) = (
        application("127.0.0.1:0", "one"),
        application("127.0.0.1:0", "two"),
    );
    world
        .script
        .policy("voting", Answer::Say(balanced("voting", PATH)));
    world
        .script
        .endpoints(PATH, Answer::Say(add(vec![plain(one)])));
    eventually("the endpoint answers", || world.says("voting", "one"));

    let World {
        script,
        control,
        proxy,
    } = world;
    let address = control.address;
    drop(control);
    let ask = || request(proxy.outbound(), "GET", "voting", "/", "");
    eventually("the proxy has noticed", || {
        proxy.metric("control_watch_oldest_contact_seconds{method=\"Destination.Get\"}") > 0.0
    });
    for _ in 0..30 {
        assert_eq!(
            ask(),
            Some((200, "one".to_owned())),
            "no request fails meanwhile"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(proxy.is_ready());

    // What changed meanwhile is learnt: the first message of the new stream replaces all of the old.
    script.endpoints(PATH, Answer::Say(add(vec![plain(two)])));
    let _control = ControlPlane::start_on(&script, address);
    eventually("the new state is in force", || {
        (0..10).all(|_| ask() == Some((200, "two".to_owned())))
    });
    assert_eq!(
        proxy.metric("control_watch_oldest_contact_seconds{method=\"Destination.Get\"}"),
        0.0
    );
}

#[test]
fn endpoints_that_are_gone_when_the_control_plane_returns_are_asked_no_more() {
    for exists in [true, false] {
        let world = world(&[]);
        let one = application("127.0.0.1:0", "one");
        world
            .script
            .policy("voting", Answer::Say(balanced("voting", PATH)));
        world
            .script
            .endpoints(PATH, Answer::Say(add(vec![plain(one)])));
        eventually("requests pass", || world.says("voting", "one"));
        let World {
            script,
            control,
            proxy,
        } = world;
        let address = control.address;
        drop(control);
        let gone = destination::update::Update::NoEndpoints(destination::NoEndpoints { exists });
        let gone = destination::Update { update: Some(gone) };
        script.endpoints(PATH, Answer::Say(gone));
        let _control = ControlPlane::start_on(&script, address);
        eventually("nobody is asked any more", || {
            request(proxy.outbound(), "GET", "voting", "/", "")
                .is_some_and(|(status, _)| status == 503)
        });
    }
}

#[test]
fn an_address_without_policy_is_the_endpoint_of_its_profile() {
    let world = world(&[]);
    let (pod, other) = (
        application("127.0.0.1:0", "pod"),
        application("127.0.0.1:0", "other"),
    );
    let target = pod.to_string();
    world.script.policy(&target, Answer::Refuse(Code::NotFound));
    // Leading elsewhere than the address itself shows that it is the profile that is used.
    world
        .script
        .profile(&target, Answer::Say(endpoint_profile(plain(other))));
    let view = || outbound_view(&world.proxy, &target);
    world.ask(&target);
    eventually("the profile is in force", || {
        world.ask(&target);
        view().is_none_or(|view| view["source"] == "profile")
    });
}

#[test]
fn a_profile_with_routes_wins_over_a_policy_and_gives_way_without() {
    let world = world(&[]);
    let (pod, other) = (
        application("127.0.0.1:0", "pod"),
        application("127.0.0.1:0", "other"),
    );
    let target = pod.to_string();
    let mut profile = endpoint_profile(plain(other));
    world
        .script
        .policy(&target, Answer::Say(balanced("pod", "pod:80")));
    world
        .script
        .endpoints("pod:80", Answer::Say(add(vec![plain(pod)])));
    world.script.profile(&target, Answer::Say(profile.clone()));
    eventually("the policy is in force", || world.says(&target, "pod"));
    profile.routes = vec![tulle_api::destination::Route {
        condition: Some(tulle_api::destination::RequestMatch {
            r#match: Some(tulle_api::destination::request_match::Match::Path(
                tulle_api::destination::PathMatch { regex: ".*".into() },
            )),
        }),
        ..Default::default()
    }];
    world.script.profile(&target, Answer::Say(profile.clone()));
    eventually("the profile is in force", || world.says(&target, "other"));
    profile.routes.clear();
    world.script.profile(&target, Answer::Say(profile));
    eventually("the policy is in force again", || {
        world.says(&target, "pod")
    });
}

#[test]
fn an_address_that_nobody_knows_is_dialled_as_it_is() {
    let world = world(&[]);
    let app = application("127.0.0.1:0", "outside");
    let target = app.to_string();
    world.script.policy(&target, Answer::Refuse(Code::NotFound));
    world
        .script
        .profile(&target, Answer::Refuse(Code::InvalidArgument));
    eventually("it answers", || world.says(&target, "outside"));
}

#[test]
fn a_name_that_nobody_knows_is_answered_404_with_the_reason() {
    let world = world(&[]);
    world
        .script
        .policy("voting2", Answer::Refuse(Code::NotFound));
    let mut last = None;
    eventually("it is refused", || {
        last = world.ask("voting2");
        last.as_ref().is_some_and(|(status, _)| *status == 404)
    });
}

#[test]
fn a_policy_that_cannot_be_read_changes_nothing() {
    let world = world(&[]);
    let one = application("127.0.0.1:0", "one");
    world
        .script
        .policy("voting", Answer::Say(balanced("voting", PATH)));
    world
        .script
        .endpoints(PATH, Answer::Say(add(vec![plain(one)])));
    eventually("the endpoint answers", || world.says("voting", "one"));
    world
        .script
        .policy("voting", Answer::Say(Default::default()));
    eventually("the message is counted", || {
        world
            .proxy
            .metric("control_watch_invalid_total{method=\"OutboundPolicies.Watch\"}")
            >= 1.0
    });
    assert!(world.says("voting", "one"));
}

#[test]
fn an_inbound_policy_closes_a_port_and_a_bad_one_does_not_open_it() {
    let behind = application("0.0.0.0:0", "web");
    let map = format!("80={}", behind.port());
    let world_with_port = || {
        let script = Script::new();
        script.port(80, Answer::Say(server("web", true)));
        let control = ControlPlane::start(&script);
        let proxy = Proxy::start(
            "web",
            &control,
            &script,
            &[
                ("TULLE_PROXY_DNS_SERVER", dns_server()),
                ("LINKERD2_PROXY_INBOUND_PORTS", "80"),
                ("TULLE_PROXY_INBOUND_PORT_MAP", &map),
                ("TULLE_PROXY_INBOUND_EXTRA_LISTENERS", "{ip}:30080=80"),
            ],
        );
        proxy.wait_ready();
        World {
            script,
            control,
            proxy,
        }
    };
    let World {
        script,
        control,
        proxy,
    } = world_with_port();
    let public: SocketAddr = format!("{}:30080", proxy.ip).parse().unwrap();
    let status = || request(public, "GET", "web", "/", "").map(|(status, _)| status);
    assert_eq!(status(), Some(200));
    script.port(80, Answer::Say(server("closed", false)));
    eventually("the port is closed", || status() == Some(403));
    script.port(80, Answer::Say(Default::default()));
    eventually("the bad policy is counted", || {
        proxy.metric("control_watch_invalid_total{method=\"InboundServerPolicies.WatchPort\"}")
            >= 1.0
    });
    assert_eq!(status(), Some(403));
    drop(control);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        status(),
        Some(403),
        "inbound never falls open because the control plane is away"
    );
}

#[test]
fn what_the_proxy_knows_is_shown_at_config() {
    let world = world(&[]);
    let one = application("127.0.0.1:0", "one");
    world
        .script
        .policy("voting", Answer::Say(balanced("voting", PATH)));
    world
        .script
        .endpoints(PATH, Answer::Say(add(vec![plain(one)])));
    eventually("the endpoint answers", || world.says("voting", "one"));
    let config: serde_json::Value =
        serde_json::from_str(&world.proxy.get("/config").unwrap().1).unwrap();
    assert_eq!(config["outbound"]["voting"]["view"]["source"], "policy");
    assert_eq!(config["outbound"]["voting"]["stream"]["connected"], true);
    assert_eq!(
        config["endpoints"][PATH]["endpoints"]["addresses"][0]["addr"],
        one.to_string()
    );
    assert_eq!(config["identity"]["name"], super::proxy::identity("web"));
}

/// The control side alone, on this thread: what it watches follows who asks.
#[test]
fn a_target_that_nobody_uses_is_forgotten_but_not_while_the_control_plane_is_away() {
    let script = Script::new();
    script.policy("voting", Answer::Say(balanced("voting", PATH)));
    let control_plane = ControlPlane::start_plain(&script);
    let environment: Environment = [
        ("LINKERD2_PROXY_IDENTITY_DISABLED", "1".to_owned()),
        (
            "LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT",
            "400ms".to_owned(),
        ),
        (
            "LINKERD2_PROXY_POLICY_SVC_ADDR",
            control_plane.address.to_string(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let config = Config::from_env(&environment).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let registry = Registry::new(Limits::default());
        let shard = registry.shard();
        let (discovery, requests) = discovery::channel(control::inbound_defaults(&config));
        let (epochs, _received) = tokio::sync::watch::channel(None);
        let _control = control::start(
            &config,
            discovery.clone(),
            requests,
            epochs,
            &registry,
            &shard,
        )
        .unwrap();
        let known = || discovery.snapshot().outbound.len();

        let mut held = discovery.outbound(Target::Authority("voting".into()));
        held.wait_for(Option::is_some).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(known(), 1, "somebody holds it");
        drop(held);
        until(|| known() == 0).await;

        let mut held = discovery.outbound(Target::Authority("voting".into()));
        held.wait_for(Option::is_some).await.unwrap();
        assert_eq!(
            script.opened("OutboundPolicies.Watch voting"),
            2,
            "it was watched anew"
        );
        drop(control_plane);
        drop(held);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(
            known(),
            1,
            "the last known state is kept while the control plane is away"
        );
        assert!(
            discovery
                .outbound(Target::Authority("voting".into()))
                .borrow()
                .is_some()
        );
    });
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("not in time");
}

fn outbound_view(proxy: &Proxy, target: &str) -> Option<serde_json::Value> {
    let config: serde_json::Value = serde_json::from_str(&proxy.get("/config")?.1).ok()?;
    config.get("outbound")?.get(target)?.get("view").cloned()
}

#[test]
fn a_thousand_targets_are_watched_at_once_over_as_many_connections_as_it_takes() {
    const TARGETS: usize = 1_000;
    let world = world(&[("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "1h")]);
    let (served, elsewhere) = (
        application("127.0.0.1:0", "served"),
        application("127.0.0.1:0", "elsewhere"),
    );
    let path = |name: &str| format!("{name}.default.svc.cluster.local:80");
    let names: Vec<_> = (0..TARGETS).map(|n| format!("target-{n}")).collect();
    for name in &names {
        let endpoints = Answer::Say(add(vec![plain(served)]));
        world
            .script
            .policy(name, Answer::Say(balanced(name, &path(name))));
        world.script.endpoints(&path(name), endpoints);
    }
    // The server admits 200 streams on a connection, fewer than the sidecar would open.
    for name in &names {
        eventually(name, || world.says(name, "served"));
    }
    for method in ["OutboundPolicies.Watch", "Destination.Get"] {
        let open = world
            .proxy
            .metric(&format!("control_watches{{method=\"{method}\"}}"));
        assert_eq!(open, TARGETS as f64, "{method}");
    }
    let opened = |name: &str| {
        world
            .script
            .opened(&format!("Destination.Get {}", path(name)))
    };
    assert!(
        names.iter().all(|name| opened(name) == 1),
        "none was asked for twice"
    );
    // The last one is as much alive as the first. Not asked by requests: they stay with the endpoint that is known to be
    // quick, and the new one waits for its turn.
    let knows = |name: &str, address: SocketAddr| {
        let config = world.proxy.get("/config").unwrap_or_default().1;
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
        let known = config["endpoints"][path(name)]["endpoints"].to_string();
        known.contains(&address.to_string())
    };
    for name in [&names[0], &names[500], &names[TARGETS - 1]] {
        assert!(knows(name, served) && !knows(name, elsewhere), "{name}");
        let said = std::time::Instant::now();
        let endpoints = Answer::Say(add(vec![plain(elsewhere)]));
        world.script.endpoints(&path(name), endpoints);
        eventually("the update is in force", || knows(name, elsewhere));
        println!("{name}: {:?} from the update to its effect", said.elapsed());
    }
}

#[test]
fn a_thousand_targets_cost_little_and_are_let_go_when_nobody_asks() {
    const TARGETS: usize = 1_000;
    let world = world(&[("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "4s")]);
    let served = application("127.0.0.1:0", "served");
    let names: Vec<_> = (0..TARGETS)
        .map(|number| format!("target-{number}"))
        .collect();
    for name in &names {
        let path = format!("{name}.default.svc.cluster.local:80");
        world
            .script
            .policy(name, Answer::Say(balanced(name, &path)));
        world
            .script
            .endpoints(&path, Answer::Say(add(vec![plain(served)])));
    }
    let kib = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.proxy.pid()));
        let status = status.unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap()
    };
    let streams = || {
        ["OutboundPolicies.Watch", "Destination.Get"].map(|method| {
            let line = format!("control_watches{{method=\"{method}\"}}");
            world.proxy.metric(&line)
        })
    };
    let last = |stream: &str| {
        world.proxy.metric(&format!(
            "control_stream_last_update_timestamp_seconds{{method=\"Destination.Get\",stream=\"{stream}\"}}"
        ))
    };
    assert!(world.says(&names[0], "served"));
    let before = kib();
    for name in &names {
        assert!(world.says(name, "served"), "{name}");
    }
    let (after, open) = (kib(), streams());
    println!(
        "{TARGETS} targets: {} KiB more, {open:?} streams",
        after - before
    );
    assert!(open[0] > 0.0 && open[0] <= TARGETS as f64);
    assert!(after - before < 32 * 1_024, "{} KiB more", after - before);
    let (oldest, newest) = (last("oldest"), last("newest"));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(oldest > now - 60.0 && oldest <= newest && newest <= now);
    eventually("all are let go", || streams() == [0.0, 0.0]);
    assert_eq!(last("newest"), 0.0, "no stream, no time");
    assert!(world.says(&names[500], "served"), "and taken up again");
}
