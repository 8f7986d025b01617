//! The identity documents of a SPIFFE agent, judged: from its message to an [`Epoch`], or why not.
//!
//! Of the documents in a message the one that names this proxy is taken. It is used when its chain leads to its trust
//! domain's bundle, its leaf names exactly that one SPIFFE ID and is valid now, and its key is the leaf's. Peers are
//! judged by the bundle, and by the anchors of the environment where there are some: those of a mesh whose other
//! members have their certificates from its identity service.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tulle_api::spiffe::{X509svid, X509svidResponse};

use super::der::{Reader, tag};
use super::{Epoch, PeerIdentity, TrustAnchors, Unusable, spiffe_id};

/// Most certificates of a SPIFFE document's chain.
const MAX_CHAIN: usize = 16;
/// Most documents whose names an error lists.
const LISTED: usize = 8;

/// What this proxy wants of its agent.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The SPIFFE ID that the document must have.
    pub id: String,
    /// The server name by which peers dial this proxy.
    pub server_name: String,
    /// Beside the bundle.
    pub anchors: Option<TrustAnchors>,
}

impl Wanted {
    /// The epoch that a message makes.
    ///
    /// # Errors
    /// There is no document for this proxy in it, or it cannot be used; the text says why.
    pub fn epoch(&self, message: &X509svidResponse) -> Result<Epoch, Unusable> {
        let found = message.svids.iter().find(|svid| svid.spiffe_id == self.id);
        let svid = found.ok_or_else(|| self.missing(&message.svids))?;
        self.read(svid)
            .map_err(|why| Unusable(format!("the document for {}: {why}", self.id)))
    }

    fn missing(&self, svids: &[X509svid]) -> Unusable {
        let mut names: Vec<_> = svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
        let more = names.len() > LISTED;
        names.truncate(LISTED);
        let mut list = match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        if more {
            list.push_str(", …");
        }
        Unusable(format!(
            "there is no document for {} (LINKERD2_PROXY_IDENTITY_SERVER_ID); the agent has {list}",
            self.id
        ))
    }

    fn read(&self, svid: &X509svid) -> Result<Epoch, String> {
        spiffe_id(&svid.spiffe_id)?;
        let chain = certificates(&svid.x509_svid, "certificate chain")?;
        let leaf = match chain.as_slice() {
            [] => return Err("it has no certificate".to_owned()),
            chain if chain.len() > MAX_CHAIN => {
                let count = chain.len();
                return Err(format!(
                    "its chain has {count} certificates, of at most {MAX_CHAIN}"
                ));
            }
            [leaf, ..] => leaf,
        };
        let named = PeerIdentity::from_leaf(leaf)
            .map_err(|_| "its leaf does not name exactly one identity; peers would refuse it")?;
        if named.name != self.id {
            return Err(format!("its leaf names {}", named.name));
        }
        if svid.x509_svid_key.is_empty() {
            return Err("it has no key".to_owned());
        }
        let bundle = certificates(&svid.bundle, "bundle")?;
        if bundle.is_empty() {
            return Err("it has no bundle to judge peers by".to_owned());
        }
        // The agent's own document must be under its own bundle, whatever else is trusted.
        let domain =
            TrustAnchors::from_der(bundle.clone()).map_err(|why| format!("its bundle: {why}"))?;
        let anchors = match &self.anchors {
            None => domain.clone(),
            Some(anchors) => anchors
                .and(bundle)
                .map_err(|why| format!("its bundle: {why}"))?,
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone()));
        let epoch = Epoch::new(&self.id, &domain, chain, &key).map_err(|why| why.to_string())?;
        let epoch = epoch.dialled_as(&self.server_name);
        match self.anchors {
            None => Ok(epoch),
            Some(_) => epoch.trusting(&anchors).map_err(|why| why.to_string()),
        }
    }
}

/// Certificates in DER, one behind the other.
fn certificates(der: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut reader = Reader::new(der, what);
    let mut found = Vec::new();
    while !reader.is_empty() {
        let one = reader.whole(tag::SEQUENCE);
        let one = one.map_err(|_| format!("its {what} is not a row of certificates in DER"))?;
        found.push(CertificateDer::from(one.to_vec()));
    }
    Ok(found)
}

#[cfg(test)]
#[path = "svid_tests.rs"]
mod tests;
