//! A control plane that says what a test tells it to: identity, policy and destination on one TLS port.
//!
//! It runs on a thread of its own and can be taken away and brought back on the same address; what it has been told
//! to say outlives it.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tulle_api::destination::destination_server::{Destination, DestinationServer};
use tulle_api::destination::{DestinationProfile, GetDestination, Update};
use tulle_api::identity::identity_server::{Identity, IdentityServer};
use tulle_api::identity::{
    CertifyRequest, CertifyResponse, TrustAnchors, WatchTrustAnchorsRequest,
};
use tulle_api::inbound::inbound_server_policies_server::{
    InboundServerPolicies, InboundServerPoliciesServer,
};
use tulle_api::inbound::{PortSpec, Server};
use tulle_api::outbound::outbound_policies_server::{OutboundPolicies, OutboundPoliciesServer};
use tulle_api::outbound::{OutboundPolicy, TrafficSpec, traffic_spec};
use tulle_engine::destination::socket_addr;

use super::serving::{Serving, converse};

/// The identity of all three services.
pub const NAME: &str = "tulle-controller.linkerd.serviceaccount.identity.linkerd.cluster.local";

pub type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A certificate authority.
pub fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "root.linkerd.cluster.local");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A leaf for a name.
pub fn leaf(issuer: &Issuer, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (
        vec![certificate.der().clone()],
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    )
}

/// What a stream is to say.
#[derive(Clone)]
pub enum Answer<M> {
    Say(M),
    Refuse(tonic::Code),
}

type Topics<M> = Mutex<HashMap<String, watch::Sender<Option<Answer<M>>>>>;

/// One call of `Certify`.
#[derive(Clone, Debug)]
pub struct Certified {
    pub identity: String,
    pub token: String,
    pub names: Vec<String>,
}

/// What the control plane knows and what it has been asked.
pub struct Script {
    pub issuer: Issuer,
    /// Signs from now on, instead of `issuer`.
    pub next_issuer: Mutex<Option<Arc<Issuer>>>,
    /// What followers of the trust anchors are told; `None`: the method is not known, as to Linkerd's control plane.
    anchors: watch::Sender<Option<TrustAnchors>>,
    /// How long the next certificates live.
    pub leaf_life: Mutex<Duration>,
    /// The answer of `Certify` instead of a certificate.
    pub certify_fails: Mutex<Option<tonic::Code>>,
    pub certified: Mutex<Vec<Certified>>,
    /// The name in the server's own certificate.
    pub server_name: Mutex<String>,
    pub connections: AtomicUsize,
    pub opened: Mutex<Vec<String>>,
    ports: Topics<Server>,
    policies: Topics<OutboundPolicy>,
    profiles: Topics<DestinationProfile>,
    endpoints: Topics<Update>,
}

impl Script {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            issuer: authority(),
            next_issuer: Mutex::default(),
            anchors: watch::Sender::new(None),
            leaf_life: Mutex::new(Duration::from_secs(3_600)),
            certify_fails: Mutex::new(None),
            certified: Mutex::default(),
            server_name: Mutex::new(NAME.to_owned()),
            connections: AtomicUsize::new(0),
            opened: Mutex::default(),
            ports: Mutex::default(),
            policies: Mutex::default(),
            profiles: Mutex::default(),
            endpoints: Mutex::default(),
        })
    }

    /// Tells followers these trust anchors, PEM.
    pub fn trust(&self, anchors: &[&str]) {
        let der = |pem: &&str| {
            CertificateDer::from_pem_slice(pem.as_bytes())
                .unwrap()
                .to_vec()
        };
        self.say_anchors(anchors.iter().map(der).collect());
    }

    pub fn say_anchors(&self, certificates: Vec<Vec<u8>>) {
        self.anchors
            .send_replace(Some(TrustAnchors { certificates }));
    }

    fn sign<T>(&self, with: impl FnOnce(&Issuer) -> T) -> T {
        match &*self.next_issuer.lock().unwrap() {
            Some(next) => with(next),
            None => with(&self.issuer),
        }
    }

    pub fn port(&self, port: u16, answer: Answer<Server>) {
        topic(&self.ports, &port.to_string()).send_replace(Some(answer));
    }

    pub fn policy(&self, target: &str, answer: Answer<OutboundPolicy>) {
        topic(&self.policies, target).send_replace(Some(answer));
    }

    pub fn profile(&self, target: &str, answer: Answer<DestinationProfile>) {
        topic(&self.profiles, target).send_replace(Some(answer));
    }

    pub fn endpoints(&self, path: &str, answer: Answer<Update>) {
        topic(&self.endpoints, path).send_replace(Some(answer));
    }

    /// How often a stream of this name (`OutboundPolicies.Watch voting:80`) was opened.
    pub fn opened(&self, name: &str) -> usize {
        self.opened
            .lock()
            .unwrap()
            .iter()
            .filter(|opened| *opened == name)
            .count()
    }

    pub fn certified(&self) -> Vec<Certified> {
        self.certified.lock().unwrap().clone()
    }

    fn watch<M: Clone + Send + Sync + 'static>(
        &self,
        topics: &Topics<M>,
        method: &str,
        target: &str,
    ) -> Said<M> {
        self.opened
            .lock()
            .unwrap()
            .push(format!("{method} {target}"));
        let answers = topic(topics, target).subscribe();
        said(answers, |answer| match answer? {
            Answer::Say(message) => Some(Ok(message)),
            Answer::Refuse(code) => Some(Err(Status::new(code, "scripted"))),
        })
    }
}

fn topic<M>(topics: &Topics<M>, target: &str) -> watch::Sender<Option<Answer<M>>> {
    topics
        .lock()
        .unwrap()
        .entry(target.to_owned())
        .or_insert_with(|| watch::Sender::new(None))
        .clone()
}

/// What a watched value says, now and whenever it changes, until nobody listens.
pub fn said<V: Clone + Send + Sync + 'static, M: Send + 'static>(
    mut values: watch::Receiver<V>,
    say: impl Fn(V) -> Option<Result<M, Status>> + Send + 'static,
) -> Said<M> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let value = values.borrow_and_update().clone();
            if let Some(message) = say(value) {
                if tell.send(message).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = values.changed() => if changed.is_err() { return },
                () = tell.closed() => return,
            }
        }
    });
    Box::pin(ReceiverStream::new(told))
}

pub type Said<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[derive(Clone)]
struct Service(Arc<Script>);

#[tonic::async_trait]
impl Identity for Service {
    type WatchTrustAnchorsStream = Said<TrustAnchors>;

    async fn watch_trust_anchors(
        &self,
        _request: tonic::Request<WatchTrustAnchorsRequest>,
    ) -> Result<tonic::Response<Self::WatchTrustAnchorsStream>, Status> {
        let told = self.0.anchors.subscribe();
        if told.borrow().is_none() {
            return Err(Status::unimplemented("as Linkerd's control plane answers"));
        }
        Ok(tonic::Response::new(said(told, |message| message.map(Ok))))
    }

    async fn certify(
        &self,
        request: tonic::Request<CertifyRequest>,
    ) -> Result<tonic::Response<CertifyResponse>, Status> {
        let request = request.into_inner();
        let der = CertificateSigningRequestDer::from(request.certificate_signing_request);
        let mut csr = CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let names = csr.params.subject_alt_names.iter().map(|name| match name {
            SanType::DnsName(name) => name.to_string(),
            other => format!("{other:?}"),
        });
        let now = SystemTime::now();
        self.0.certified.lock().unwrap().push(Certified {
            identity: request.identity.clone(),
            token: String::from_utf8(request.token).unwrap(),
            names: names.collect(),
        });
        if let Some(code) = *self.0.certify_fails.lock().unwrap() {
            return Err(Status::new(code, "scripted"));
        }
        let until = now + *self.0.leaf_life.lock().unwrap();
        csr.params.not_before = (now - Duration::from_secs(60)).into();
        csr.params.not_after = until.into();
        csr.params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = self
            .0
            .sign(|issuer| csr.signed_by(issuer))
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(tonic::Response::new(CertifyResponse {
            leaf_certificate: certificate.der().to_vec(),
            intermediate_certificates: Vec::new(),
            valid_until: Some(until.into()),
        }))
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for Service {
    type WatchPortStream = Said<Server>;

    async fn get_port(
        &self,
        _: tonic::Request<PortSpec>,
    ) -> Result<tonic::Response<Server>, Status> {
        Err(Status::unimplemented("the proxy watches"))
    }

    async fn watch_port(
        &self,
        request: tonic::Request<PortSpec>,
    ) -> Result<tonic::Response<Said<Server>>, Status> {
        let target = request.into_inner().port.to_string();
        Ok(tonic::Response::new(self.0.watch(
            &self.0.ports,
            "InboundServerPolicies.WatchPort",
            &target,
        )))
    }
}

#[tonic::async_trait]
impl OutboundPolicies for Service {
    type WatchStream = Said<OutboundPolicy>;

    async fn get(
        &self,
        _: tonic::Request<TrafficSpec>,
    ) -> Result<tonic::Response<OutboundPolicy>, Status> {
        Err(Status::unimplemented("the proxy watches"))
    }

    async fn watch(
        &self,
        request: tonic::Request<TrafficSpec>,
    ) -> Result<tonic::Response<Said<OutboundPolicy>>, Status> {
        let target = match request.into_inner().target {
            Some(traffic_spec::Target::Addr(address)) => socket_addr(&address).unwrap().to_string(),
            Some(traffic_spec::Target::Authority(authority)) => authority,
            None => return Err(Status::invalid_argument("no target")),
        };
        Ok(tonic::Response::new(self.0.watch(
            &self.0.policies,
            "OutboundPolicies.Watch",
            &target,
        )))
    }
}

#[tonic::async_trait]
impl Destination for Service {
    type GetStream = Said<Update>;
    type GetProfileStream = Said<DestinationProfile>;

    async fn get(
        &self,
        request: tonic::Request<GetDestination>,
    ) -> Result<tonic::Response<Said<Update>>, Status> {
        let path = request.into_inner().path;
        Ok(tonic::Response::new(self.0.watch(
            &self.0.endpoints,
            "Destination.Get",
            &path,
        )))
    }

    async fn get_profile(
        &self,
        request: tonic::Request<GetDestination>,
    ) -> Result<tonic::Response<Said<DestinationProfile>>, Status> {
        let path = request.into_inner().path;
        Ok(tonic::Response::new(self.0.watch(
            &self.0.profiles,
            "Destination.GetProfile",
            &path,
        )))
    }
}

/// A running control plane; dropped, it is gone with all its connections.
pub struct ControlPlane {
    pub address: SocketAddr,
    _serving: Serving,
}

impl ControlPlane {
    /// On a fresh port.
    pub fn start(script: &Arc<Script>) -> Self {
        Self::start_on(script, "127.0.0.1:0".parse().unwrap())
    }

    /// On a fresh port, in plain text: what a controller is to the sidecar of its own pod.
    pub fn start_plain(script: &Arc<Script>) -> Self {
        Self::bind(script, "127.0.0.1:0".parse().unwrap(), false)
    }

    /// On this address.
    pub fn start_on(script: &Arc<Script>, address: SocketAddr) -> Self {
        Self::bind(script, address, true)
    }

    fn bind(script: &Arc<Script>, address: SocketAddr, tls: bool) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        let listener: TcpListener = socket.into();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let script = script.clone();
        Self {
            address,
            _serving: Serving::start(move || serve(listener, script, tls)),
        }
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>, tls: bool) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        script.connections.fetch_add(1, Ordering::Relaxed);
        let script = script.clone();
        tokio::spawn(async move {
            if !tls {
                return converse(stream, Services(Service(script))).await;
            }
            let name = script.server_name.lock().unwrap().clone();
            let (chain, key) = script.sign(|issuer| leaf(issuer, &name));
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            if let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                converse(stream, Services(Service(script))).await;
            }
        });
    }
}

/// All three services behind one door.
#[derive(Clone)]
struct Services(Service);

impl tower_service::Service<Request<Incoming>> for Services {
    type Response = Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let service = self.0.clone();
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            if path.starts_with("/io.linkerd.proxy.identity.") {
                IdentityServer::new(service).call(request).await
            } else if path.starts_with("/io.linkerd.proxy.inbound.") {
                InboundServerPoliciesServer::new(service)
                    .call(request)
                    .await
            } else if path.starts_with("/io.linkerd.proxy.outbound.") {
                OutboundPoliciesServer::new(service).call(request).await
            } else {
                DestinationServer::new(service).call(request).await
            }
        })
    }
}
