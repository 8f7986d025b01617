//! The rig: a mesh of pods on loopback addresses. A pod is a worker with its own configuration and discovery, and the
//! applications that a test starts beside it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tulle_api::{destination, meta, net, outbound as api};
use tulle_engine::destination::Endpoints;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};
use tulle_engine::outbound::{Policy, ProfileRoutes};
use tulle_proxy::config::{Config, Environment};
use tulle_proxy::control::traces::{Exporter, Flush};
use tulle_proxy::discovery::{self, Discovery, OutboundView, Request, Source, Target};
use tulle_proxy::drain::Drain;
use tulle_proxy::identity::{Epoch, Trust, TrustAnchors};
use tulle_proxy::metrics::{Format, Limits, Registry, render};
use tulle_proxy::observe::{Observed, access};
use tulle_proxy::tap;
use tulle_proxy::trace::queue::Traces;
use tulle_proxy::worker::{self, Listeners, Parts};

#[path = "documented.rs"]
mod documented;

/// Runs a test on a worker's kind of runtime; a minute catches what hangs.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test hangs")
    });
}

/// A certificate authority and what every pod's discovery knows.
#[derive(Clone)]
pub struct Mesh(Rc<Inner>);

struct Inner {
    anchors: String,
    issuer: Issuer<'static, KeyPair>,
    script: RefCell<Script>,
}

#[derive(Default)]
struct Script {
    outbound: HashMap<Target, watch::Sender<Option<Arc<OutboundView>>>>,
    endpoints: HashMap<String, watch::Sender<Option<Arc<Endpoints>>>>,
    profiles: HashMap<String, watch::Sender<Option<Arc<ProfileRoutes>>>>,
    /// How often the routes of a profile were asked for.
    asked: usize,
}

impl Mesh {
    pub fn new() -> Self {
        Self::with_key(KeyPair::generate().unwrap())
    }

    /// The mesh of an authority with this key: meshes of one key trust each other.
    pub fn with_key(key: KeyPair) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "root.linkerd.cluster.local");
        let anchors = params.self_signed(&key).unwrap().pem();
        Mesh(Rc::new(Inner {
            anchors,
            issuer: Issuer::new(params, key),
            script: RefCell::default(),
        }))
    }

    pub fn pem(&self) -> &str {
        &self.0.anchors
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(self.pem()).unwrap()
    }

    /// A certificate for a pod's identity, with the pod in its subject.
    pub fn epoch(&self, name: &str) -> Epoch {
        let (leaf, key) = self.leaf(name, 2100);
        Epoch::new(&identity(name), &self.anchors(), vec![leaf], &key).unwrap()
    }

    /// The certificate itself and its key.
    pub fn leaf(&self, name: &str, year: i32) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![identity(name)]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "default");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, name);
        let leaf = params.signed_by(&key, &self.0.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (CertificateDer::from(leaf.der().to_vec()), key)
    }

    /// A pod with a sidecar.
    pub async fn pod(&self, name: &str) -> Pod {
        self.pod_with(name, &[]).await
    }

    /// The same, with more in its environment.
    pub async fn pod_with(&self, name: &str, more: &[(&str, &str)]) -> Pod {
        let ip = fresh_ip();
        let anchors = self.0.anchors.clone();
        let mut environment: Environment = [
            ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", format!("{ip}:4140")),
            ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", format!("{ip}:4143")),
            ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", format!("{ip}:4191")),
            ("LINKERD2_PROXY_INBOUND_IPS", ip.clone()),
            ("LINKERD2_PROXY_POLICY_WORKLOAD", format!("default:{name}")),
            ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", anchors),
            ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/dev/null".to_owned()),
            ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", identity(name)),
            (
                "LINKERD2_PROXY_IDENTITY_SVC_ADDR",
                "localhost.:8080".to_owned(),
            ),
            (
                "TULLE_PROXY_INBOUND_EXTRA_LISTENERS",
                format!("{ip}:30080=80"),
            ),
            ("TULLE_PROXY_INBOUND_PORT_MAP", "80=18080".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        environment.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), value.replace("$ip", &ip))),
        );
        let mut config =
            Config::from_env(&environment).unwrap_or_else(|problems| panic!("{problems}"));
        if let Some(tracing) = &mut config.tracing {
            // All of the rig is on loopback, where a collector is spoken to in plain text.
            let name = environment.get("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME");
            tracing.collector.identity = name.cloned();
        }
        let config = Arc::new(config);
        let (epochs, received) = watch::channel(Some(Arc::new(self.epoch(name))));
        let registry = Registry::new(Limits::default());
        let (inbound, outbound) = (Drain::default(), Drain::default());
        let detect = config.inbound.connections.detect_timeout;
        let by_default = |protocol| {
            Arc::new(Server::by_default(
                DefaultPolicy::AllUnauthenticated,
                protocol,
                &[],
            ))
        };
        let (discovery, mut requests) = discovery::channel(discovery::InboundDefaults {
            detect: by_default(DefaultProtocol::Detect(detect)),
            opaque: by_default(DefaultProtocol::Opaque),
            opaque_ports: config.inbound.opaque_ports.clone(),
        });
        let asking = discovery.clone();
        let servers: Rc<RefCell<BTreeMap<u16, watch::Sender<Arc<Server>>>>> = Rc::default();
        let (mesh, known) = (self.clone(), servers.clone());
        tokio::task::spawn_local(async move {
            while let Some(request) = requests.next().await {
                mesh.answer(request, &known);
            }
        });
        let access_lines = Lines::default();
        let access = config
            .access_log
            .map(|format| access::Writer::start(format, access_lines.clone()).unwrap());
        let spans = config.tracing.as_ref().map(|tracing| {
            let (traces, shard) = (Arc::<Traces>::default(), registry.shard());
            let (exporter, flush) =
                Exporter::new(&config, tracing, received.clone(), &shard, traces.clone());
            tokio::task::spawn_local(exporter.run());
            (traces, flush)
        });
        let traces = spans.as_ref().map(|(traces, _)| traces.clone());
        let observed = Observed::new(access, traces);
        if let (Some(listener), Some(tap)) = (tap::bind(&config).unwrap(), &config.tap) {
            let taps = observed.taps().clone();
            let guard = inbound.guard().unwrap();
            let server = tap::Server::new(&tap.identity, Trust::new(received.clone()), taps, guard);
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::task::spawn_local(server.run(listener));
        }
        let parts = Parts {
            number: 0,
            config: config.clone(),
            discovery,
            trust: Trust::new(received),
            shard: registry.shard(),
            limits: Arc::default(),
            inbound: inbound.guard().unwrap(),
            outbound: outbound.guard().unwrap(),
            observed: observed.clone(),
        };
        let listeners = Listeners::bind(&config).unwrap();
        tokio::task::spawn_local(async move { worker::run(listeners, parts).await.unwrap() });
        Pod {
            name: name.to_owned(),
            ip,
            registry,
            epochs,
            inbound,
            outbound,
            servers,
            discovery: asking,
            observed,
            access_lines,
            spans: spans.map(|(_, flush)| flush),
        }
    }

    fn answer(
        &self,
        request: Request,
        servers: &RefCell<BTreeMap<u16, watch::Sender<Arc<Server>>>>,
    ) {
        let mut script = self.0.script.borrow_mut();
        match request {
            Request::Outbound(target, sender) => {
                let known = script
                    .outbound
                    .get(&target)
                    .and_then(|known| known.borrow().clone());
                let view = known.or_else(|| match &target {
                    Target::Addr(address) => Some(original(*address)),
                    Target::Authority(_) => None,
                });
                sender.send_replace(view);
                script.outbound.insert(target, sender);
            }
            Request::Endpoints(path, sender) => {
                let known = script
                    .endpoints
                    .get(&path)
                    .and_then(|known| known.borrow().clone());
                sender.send_replace(known);
                script.endpoints.insert(path, sender);
            }
            Request::Profile(path, sender) => {
                script.asked += 1;
                let known = script.profiles.get(&path);
                sender.send_replace(known.and_then(|known| known.borrow().clone()));
                script.profiles.insert(path, sender);
            }
            Request::Inbound(port, sender) => {
                let mut servers = servers.borrow_mut();
                if let Some(known) = servers.get(&port) {
                    sender.send_replace(known.borrow().clone());
                }
                servers.insert(port, sender);
            }
        }
    }

    /// A Service that clients call by `name`, with the endpoints behind it.
    pub fn service(&self, name: &str, endpoints: &[destination::WeightedAddr]) {
        self.policy(name, policy(name));
        self.endpoints(name, endpoints);
    }

    /// What discovery says about an authority.
    pub fn policy(&self, authority: &str, message: api::OutboundPolicy) {
        let policy = Policy::compile(&message).unwrap();
        self.compiled(authority, policy, Source::Policy);
    }

    /// The same, in Linkerd's older form.
    pub fn profile(&self, authority: &str, message: &destination::DestinationProfile) {
        let policy = Policy::from_profile(message, 80, Duration::from_secs(10));
        self.compiled(authority, policy.unwrap().unwrap(), Source::Profile);
    }

    /// The same of a profile that is not sound; gives what is wrong with it.
    pub fn unsound_profile(
        &self,
        authority: &str,
        message: &destination::DestinationProfile,
    ) -> String {
        let policy = Policy::from_profile(message, 80, Duration::from_secs(10));
        let mut policy = policy.unwrap().unwrap();
        let problems = format!("{:?}", std::mem::take(&mut policy.problems));
        self.compiled(authority, policy, Source::Profile);
        problems
    }

    /// What discovery says of a name by which requests come in: these routes, or none.
    pub fn inbound_profile(&self, path: &str, message: Option<&destination::DestinationProfile>) {
        let routes = message.map(|message| {
            let mut problems = Vec::new();
            let routes = ProfileRoutes::compile(message, 80, &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            Arc::new(routes)
        });
        let mut script = self.0.script.borrow_mut();
        match script.profiles.get(path) {
            Some(sender) => drop(sender.send_replace(routes)),
            None => drop(
                script
                    .profiles
                    .insert(path.to_owned(), watch::channel(routes).0),
            ),
        }
    }

    /// The profiles that some server's worker holds, beside its cache.
    pub fn held_profiles(&self) -> usize {
        let script = self.0.script.borrow();
        let senders = script.profiles.values();
        senders
            .filter(|sender| !discovery::is_unheld(sender))
            .count()
    }

    /// For which names, and how often, servers have asked for profiles.
    pub fn asked_profiles(&self) -> (Vec<String>, usize) {
        let script = self.0.script.borrow();
        (script.profiles.keys().cloned().collect(), script.asked)
    }

    fn compiled(&self, authority: &str, policy: Policy, source: Source) {
        assert!(policy.problems.is_empty(), "{:?}", policy.problems);
        let view = Some(Arc::new(OutboundView { policy, source }));
        let mut script = self.0.script.borrow_mut();
        for authority in [authority.to_owned(), format!("{authority}:80")] {
            let target = Target::Authority(authority);
            match script.outbound.get(&target) {
                Some(sender) => drop(sender.send_replace(view.clone())),
                None => drop(
                    script
                        .outbound
                        .insert(target, watch::channel(view.clone()).0),
                ),
            }
        }
    }

    /// What discovery says about the endpoints of a Service.
    pub fn endpoints(&self, service: &str, endpoints: &[destination::WeightedAddr]) {
        let update = match endpoints {
            [] => {
                destination::update::Update::NoEndpoints(destination::NoEndpoints { exists: true })
            }
            addrs => destination::update::Update::Add(destination::WeightedAddrSet {
                addrs: addrs.to_vec(),
                metric_labels: [
                    ("service".to_owned(), service.to_owned()),
                    ("namespace".to_owned(), "default".to_owned()),
                ]
                .into(),
            }),
        };
        let mut known = Endpoints::default();
        let changes = known.apply(
            &destination::Update {
                update: Some(update),
            },
            true,
        );
        assert!(changes.problems.is_empty(), "{:?}", changes.problems);
        let mut script = self.0.script.borrow_mut();
        let (path, known) = (path(service), Some(Arc::new(known)));
        match script.endpoints.get(&path) {
            Some(sender) => drop(sender.send_replace(known)),
            None => drop(script.endpoints.insert(path, watch::channel(known).0)),
        }
    }
}

impl Mesh {
    /// What discovery says next about the endpoints of a Service that it has spoken of.
    pub fn change(&self, service: &str, update: destination::update::Update) {
        let message = destination::Update {
            update: Some(update),
        };
        let script = self.0.script.borrow();
        script.endpoints[&path(service)].send_modify(|known| {
            let known = known.as_mut().expect("it has spoken");
            let changes = Arc::make_mut(known).apply(&message, false);
            assert!(changes.problems.is_empty(), "{:?}", changes.problems);
        });
    }
}

fn path(service: &str) -> String {
    format!("{service}.default.svc.cluster.local:80")
}

pub fn identity(name: &str) -> String {
    format!("{name}.default.serviceaccount.identity.linkerd.cluster.local")
}

/// One route for everything to a Service, whatever is spoken.
pub fn policy(service: &str) -> api::OutboundPolicy {
    policy_with(service, |_| {})
}

/// The same, with a changed rule.
pub fn policy_with(
    service: &str,
    change: impl Fn(&mut api::http_route::Rule),
) -> api::OutboundPolicy {
    let mut message = tulle_engine::doc::policy();
    let Some(api::proxy_protocol::Kind::Http1(mut http1)) =
        message.protocol.take().and_then(|protocol| protocol.kind)
    else {
        panic!("the engine's example has changed");
    };
    for rule in &mut http1.routes[0].rules {
        for backend in backends(rule) {
            let Some(api::backend::Kind::Balancer(balancer)) = &mut backend.kind else {
                panic!()
            };
            balancer.discovery = Some(api::backend::EndpointDiscovery {
                kind: Some(api::backend::endpoint_discovery::Kind::Dst(
                    api::backend::endpoint_discovery::DestinationGet {
                        path: path(service),
                    },
                )),
            });
        }
        change(rule);
    }
    let backend = backends(&mut http1.routes[0].rules[0]).remove(0).clone();
    let opaque = api::proxy_protocol::Opaque {
        routes: vec![opaque_route(backend)],
    };
    let http2 = api::proxy_protocol::Http2 {
        routes: http1.routes.clone(),
        failure_accrual: None,
    };
    let detect = api::proxy_protocol::Detect {
        timeout: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
        opaque: Some(opaque),
        http1: Some(http1),
        http2: Some(http2),
    };
    message.protocol = Some(api::ProxyProtocol {
        kind: Some(api::proxy_protocol::Kind::Detect(detect)),
    });
    message
}

/// The backend that is the Service `voting` of the engine's example, by the endpoints of another.
pub fn balanced(service: &str) -> api::Backend {
    let mut message = policy(service);
    let Some(api::proxy_protocol::Kind::Detect(detect)) =
        message.protocol.take().and_then(|protocol| protocol.kind)
    else {
        panic!("policy() detects");
    };
    let mut http1 = detect.http1.unwrap();
    backends(&mut http1.routes[0].rules[0]).remove(0).clone()
}

fn backends(rule: &mut api::http_route::Rule) -> Vec<&mut api::Backend> {
    let Some(api::http_route::distribution::Kind::FirstAvailable(first)) =
        rule.backends.as_mut().and_then(|b| b.kind.as_mut())
    else {
        panic!("the engine's example has changed");
    };
    first
        .backends
        .iter_mut()
        .filter_map(|backend| backend.backend.as_mut())
        .collect()
}

fn opaque_route(backend: api::Backend) -> api::OpaqueRoute {
    use api::opaque_route::{Distribution, RouteBackend, Rule, distribution};
    let first = distribution::FirstAvailable {
        backends: vec![RouteBackend {
            backend: Some(backend),
            ..Default::default()
        }],
    };
    let rule = Rule {
        backends: Some(Distribution {
            kind: Some(distribution::Kind::FirstAvailable(first)),
        }),
        ..Default::default()
    };
    api::OpaqueRoute {
        metadata: None,
        rules: vec![rule],
    }
}

/// What the control side says of an address that nobody knows.
fn original(address: SocketAddr) -> Arc<OutboundView> {
    let mut message = policy("unknown");
    let text = format!("{:?}", message.metadata.take());
    assert!(!text.is_empty());
    let forward = api::backend::Kind::Forward(plain(address));
    if let Some(api::ProxyProtocol {
        kind: Some(api::proxy_protocol::Kind::Detect(detect)),
    }) = &mut message.protocol
    {
        let http1 = detect.http1.as_mut().unwrap();
        for backend in backends(&mut http1.routes[0].rules[0]) {
            backend.kind = Some(forward.clone());
        }
        detect.http2.as_mut().unwrap().routes = http1.routes.clone();
        let backend = backends(&mut http1.routes[0].rules[0]).remove(0).clone();
        detect.opaque = Some(api::proxy_protocol::Opaque {
            routes: vec![opaque_route(backend)],
        });
    }
    let policy = Policy::compile(&message).unwrap();
    Arc::new(OutboundView {
        policy,
        source: Source::Original,
    })
}

/// An endpoint without a sidecar.
pub fn plain(address: SocketAddr) -> destination::WeightedAddr {
    let ip = match address {
        SocketAddr::V4(v4) => net::ip_address::Ip::Ipv4(u32::from(*v4.ip())),
        SocketAddr::V6(v6) => {
            let bits = u128::from(*v6.ip());
            net::ip_address::Ip::Ipv6(net::IPv6 {
                first: (bits >> 64) as u64,
                last: bits as u64,
            })
        }
    };
    destination::WeightedAddr {
        addr: Some(net::TcpAddress {
            ip: Some(net::IpAddress { ip: Some(ip) }),
            port: u32::from(address.port()),
        }),
        weight: 10_000,
        resource_ref: Some(meta::Metadata::default()),
        ..Default::default()
    }
}

/// Where an access log is written to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A pod and its sidecar.
pub struct Pod {
    pub name: String,
    pub ip: String,
    registry: Registry,
    pub epochs: watch::Sender<Option<Arc<Epoch>>>,
    pub inbound: Drain,
    pub outbound: Drain,
    servers: Rc<RefCell<BTreeMap<u16, watch::Sender<Arc<Server>>>>>,
    discovery: Discovery,
    pub observed: Arc<Observed>,
    access_lines: Lines,
    /// Sends its spans at once, where it has a collector.
    pub spans: Option<Flush>,
}

impl Pod {
    pub fn address(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.ip).parse().unwrap()
    }

    /// Where its applications send their requests.
    pub async fn call(&self) -> TcpStream {
        TcpStream::connect(self.address(4140)).await.unwrap()
    }

    /// The plain listener that stands for port 80.
    pub async fn enter(&self) -> TcpStream {
        TcpStream::connect(self.address(30080)).await.unwrap()
    }

    /// The pod's port as an endpoint of the mesh.
    pub fn endpoint(&self, port: u16) -> destination::WeightedAddr {
        let dns = destination::tls_identity::DnsLikeIdentity {
            name: identity(&self.name),
        };
        destination::WeightedAddr {
            tls_identity: Some(destination::TlsIdentity {
                server_name: None,
                strategy: Some(destination::tls_identity::Strategy::DnsLikeIdentity(dns)),
            }),
            protocol_hint: Some(destination::ProtocolHint {
                opaque_transport: Some(destination::protocol_hint::OpaqueTransport {
                    inbound_port: 4143,
                }),
                protocol: Some(destination::protocol_hint::Protocol::H2(Default::default())),
            }),
            metric_labels: [("pod".to_owned(), self.name.clone())].into(),
            ..plain(self.address(port))
        }
    }

    /// Sets the policy of one of its ports, and waits until the sidecar knows.
    pub async fn allow(&self, port: u16, server: Server) {
        let name = server.meta.name().to_owned();
        self.set(port, server);
        let mut known = self.discovery.inbound(port);
        known
            .wait_for(|server| server.meta.name() == name)
            .await
            .unwrap();
    }

    fn set(&self, port: u16, server: Server) {
        let mut servers = self.servers.borrow_mut();
        match servers.get(&port) {
            Some(sender) => drop(sender.send_replace(Arc::new(server))),
            None => drop(servers.insert(port, watch::channel(Arc::new(server)).0)),
        }
    }

    /// The access log, once it has this many lines.
    pub async fn access_log(&self, lines: usize) -> Vec<String> {
        loop {
            let text = String::from_utf8(self.access_lines.0.lock().unwrap().clone()).unwrap();
            if text.lines().count() >= lines && text.ends_with('\n') {
                return text.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn metrics(&self) -> String {
        let page = render(&self.registry, Vec::new(), Format::Prometheus);
        documented::check(&page);
        page
    }

    /// The value of a metric without labels; 0 without it.
    pub fn metric_of(&self, name: &str) -> f64 {
        let page = self.metrics();
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }

    /// The value of the series whose line contains all of these; 0 without one, the sum of several.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.metrics();
        let lines = page.lines().filter(|line| {
            line.starts_with(&format!("{name}{{"))
                && labels.iter().all(|label| line.contains(label))
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

/// An application: `serve` is called for each connection.
pub async fn app<F: Future<Output = ()> + 'static>(
    address: SocketAddr,
    serve: impl Fn(TcpStream) -> F + 'static,
) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream));
        }
    });
}

/// A loopback address that no other test uses.
fn fresh_ip() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "127.{}.{}.{}",
        64 + process % 64,
        process / 64 % 250,
        1 + number % 250
    )
}
