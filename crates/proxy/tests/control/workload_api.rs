//! A SPIFFE agent that hands out what a test tells it to, on a real unix socket.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tonic::{Code, Status};
use tulle_api::spiffe::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use tulle_api::spiffe::{X509svid, X509svidRequest, X509svidResponse};

use super::control_plane::{Issuer, Said, said};
use super::serving::{Serving, converse};

/// A document for an ID, and the authorities that it says to trust.
pub fn document(issuer: &Issuer, id: &str, bundle: &[&Issuer]) -> X509svid {
    document_with(issuer, id, &[], bundle)
}

/// The same with DNS names beside the ID, as SPIRE makes them of an entry's `-dns`.
pub fn document_with(issuer: &Issuer, id: &str, dns: &[&str], bundle: &[&Issuer]) -> X509svid {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let names = dns.iter();
    let names = names.map(|&name| SanType::DnsName(name.try_into().unwrap()));
    params.subject_alt_names = names
        .chain([SanType::URI(id.try_into().unwrap())])
        .collect();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(3_600)).into();
    let leaf = params.signed_by(&key, issuer).unwrap();
    X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: leaf.der().to_vec(),
        x509_svid_key: key.serialize_der(),
        bundle: bundle.iter().flat_map(|one| one.der().to_vec()).collect(),
        hint: String::new(),
    }
}

/// What the agent says.
#[derive(Clone)]
pub enum Says {
    Documents(Vec<X509svid>),
    Refuses(Code),
}

/// What an agent knows; it outlives the agent.
pub struct Documents {
    says: watch::Sender<Says>,
    opened: AtomicUsize,
    /// Of every call: whether it had the header that SPIFFE asks for.
    headers: Mutex<Vec<bool>>,
}

impl Documents {
    pub fn new(says: Says) -> Arc<Self> {
        Arc::new(Self {
            says: watch::Sender::new(says),
            opened: AtomicUsize::new(0),
            headers: Mutex::default(),
        })
    }

    pub fn say(&self, says: Says) {
        self.says.send_replace(says);
    }

    /// How often the stream was opened.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    pub fn all_had_the_header(&self) -> bool {
        self.headers.lock().unwrap().iter().all(|had| *had)
    }
}

#[derive(Clone)]
struct Service(Arc<Documents>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Said<X509svidResponse>;

    async fn fetch_x509svid(
        &self,
        request: tonic::Request<X509svidRequest>,
    ) -> Result<tonic::Response<Said<X509svidResponse>>, Status> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let header = request.metadata().get("workload.spiffe.io");
        let had = header.is_some_and(|value| value == "true");
        self.0.headers.lock().unwrap().push(had);
        if !had {
            return Err(Status::invalid_argument("security header missing"));
        }
        let says = self.0.says.subscribe();
        if let Says::Refuses(code) = &*says.borrow() {
            return Err(Status::new(*code, "no identity issued"));
        }
        let stream = said(says, |says| match says {
            Says::Documents(svids) => Some(Ok(X509svidResponse {
                svids,
                ..Default::default()
            })),
            Says::Refuses(code) => Some(Err(Status::new(code, "no identity issued"))),
        });
        Ok(tonic::Response::new(stream))
    }
}

/// A running agent; dropped, it is gone with its socket.
pub struct Agent {
    pub socket: PathBuf,
    serving: Option<Serving>,
}

impl Agent {
    pub fn start(documents: &Arc<Documents>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("tulle-agent-{process}-{number}.sock");
        Self::start_on(documents, &std::env::temp_dir().join(name))
    }

    pub fn start_on(documents: &Arc<Documents>, socket: &Path) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let documents = documents.clone();
        Self {
            socket: socket.to_owned(),
            serving: Some(Serving::start(move || serve(listener, documents))),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.serving.take());
        std::fs::remove_file(&self.socket).unwrap();
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, documents: Arc<Documents>) {
    let listener = UnixListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let api = SpiffeWorkloadApiServer::new(Service(documents.clone()));
        tokio::spawn(converse(stream, api));
    }
}
