//! Documents, good and bad: each refusal by its words.

use rcgen::SanType;

use super::super::testing::{Authority, Leaf, dns};
use super::*;

const WEB: &str = "spiffe://cluster.local/ns/emojivoto/sa/web";
const OTHER: &str = "spiffe://cluster.local/ns/emojivoto/sa/other";
const NAME: &str = "web.emojivoto.cluster.local";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("IA5"))
}

fn leaf(names: Vec<SanType>) -> Leaf {
    Leaf {
        names,
        ..Leaf::named(NAME)
    }
}

fn wanted() -> Wanted {
    Wanted {
        id: WEB.to_owned(),
        server_name: NAME.to_owned(),
        anchors: None,
    }
}

/// A document as an agent hands it out.
fn svid(authority: &Authority, id: &str, leaf: &Leaf) -> X509svid {
    let (chain, key) = authority.issue(leaf);
    X509svid {
        spiffe_id: id.to_owned(),
        x509_svid: chain.concat_der(),
        x509_svid_key: key.secret_der().to_vec(),
        bundle: authority.der(),
        hint: String::new(),
    }
}

trait Concat {
    fn concat_der(&self) -> Vec<u8>;
}

impl Concat for Vec<CertificateDer<'static>> {
    fn concat_der(&self) -> Vec<u8> {
        self.iter().flat_map(|one| one.to_vec()).collect()
    }
}

fn message(svids: Vec<X509svid>) -> X509svidResponse {
    X509svidResponse {
        svids,
        ..Default::default()
    }
}

fn good(authority: &Authority) -> X509svid {
    svid(authority, WEB, &leaf(vec![uri(WEB)]))
}

#[test]
fn a_good_document_makes_an_epoch_of_its_id_and_server_name() {
    let authority = Authority::new();
    let other = svid(&authority, OTHER, &leaf(vec![uri(OTHER)]));
    let epoch = wanted()
        .epoch(&message(vec![other, good(&authority)]))
        .expect("an epoch");
    assert_eq!(epoch.name(), WEB);
    assert!(epoch.is_named("WEB.emojivoto.cluster.local") && !epoch.is_named(WEB));
    assert_eq!(epoch.anchors(), &authority.anchors());
    // SPIRE's `-dns`.
    let named = svid(&authority, WEB, &leaf(vec![dns(NAME), uri(WEB)]));
    let epoch = wanted().epoch(&message(vec![named])).expect("an epoch");
    assert_eq!(epoch.name(), WEB);
}

#[test]
fn peers_are_judged_by_the_bundle_and_the_anchors_of_the_environment() {
    let (agent, mesh) = (Authority::new(), Authority::new());
    let wanted = Wanted {
        anchors: Some(mesh.anchors()),
        ..wanted()
    };
    let epoch = wanted
        .epoch(&message(vec![good(&agent)]))
        .expect("an epoch");
    assert_eq!(epoch.anchors().count(), 2);
    assert!(epoch.is_named(NAME), "it is still dialled by that name");
    // A document that only the environment's anchors vouch for is none of its trust domain.
    let mut foreign = good(&mesh);
    foreign.bundle = agent.der();
    let why = wanted.epoch(&message(vec![foreign])).expect_err("refused");
    assert!(why.to_string().contains("is not valid for"), "{why}");
}

#[test]
fn each_bad_document_is_refused_by_what_is_wrong_with_it() {
    let authority = Authority::new();
    let of = |leaf: Leaf| svid(&authority, WEB, &leaf);
    let with = |change: &dyn Fn(&mut X509svid)| {
        let mut svid = good(&authority);
        change(&mut svid);
        svid
    };
    let other_key = good(&authority).x509_svid_key;
    let stranger = Authority::new();
    let table = [
        (
            with(&|svid| svid.x509_svid.clear()),
            "it has no certificate",
        ),
        (
            with(&|svid| svid.x509_svid.push(0x30)),
            "its certificate chain is not a row",
        ),
        (
            with(&|svid| svid.x509_svid = vec![0x30, 0]),
            "does not name exactly one identity",
        ),
        (
            with(&|svid| svid.x509_svid = svid.x509_svid.repeat(MAX_CHAIN + 1)),
            "its chain has 17 certificates",
        ),
        (with(&|svid| svid.x509_svid_key.clear()), "it has no key"),
        (
            with(&|svid| svid.x509_svid_key = vec![1, 2, 3]),
            "cannot be used with its key",
        ),
        (
            with(&|svid| svid.x509_svid_key.clone_from(&other_key)),
            "cannot be used with its key",
        ),
        (with(&|svid| svid.bundle.clear()), "it has no bundle"),
        (
            with(&|svid| svid.bundle.truncate(40)),
            "its bundle is not a row",
        ),
        (
            with(&|svid| svid.bundle = vec![0x30, 0]),
            "its bundle: a trust anchor cannot be used",
        ),
        (
            with(&|svid| svid.bundle = stranger.der()),
            "is not valid for",
        ),
        (
            of(leaf(vec![uri(OTHER)])),
            "its leaf names spiffe://cluster.local/ns/emojivoto/sa/other",
        ),
        (
            of(leaf(vec![dns(NAME)])),
            "its leaf names web.emojivoto.cluster.local",
        ),
        (of(leaf(vec![])), "does not name exactly one identity"),
        (
            of(leaf(vec![uri(WEB), uri(OTHER)])),
            "does not name exactly one identity",
        ),
        (
            of(leaf(vec![uri(WEB), uri("https://a.b/c")])),
            "does not name exactly one identity",
        ),
        (
            of(leaf(vec![dns(NAME), dns("a.b")])),
            "does not name exactly one identity",
        ),
        (
            of(Leaf {
                not_after: -1,
                ..leaf(vec![uri(WEB)])
            }),
            "is not valid for",
        ),
        (
            of(Leaf {
                not_before: 600,
                ..leaf(vec![uri(WEB)])
            }),
            "is not valid for",
        ),
    ];
    for (svid, expected) in table {
        let why = wanted()
            .epoch(&message(vec![svid]))
            .expect_err(expected)
            .to_string();
        assert!(
            why.starts_with(&format!("the document for {WEB}: ")),
            "{why}"
        );
        assert!(why.contains(expected), "{why}, and not: {expected}");
    }
}

#[test]
fn a_message_without_our_document_says_what_there_is() {
    let authority = Authority::new();
    let other = svid(&authority, OTHER, &leaf(vec![uri(OTHER)]));
    for (svids, expected) in [
        (vec![], "the agent has none"),
        (
            vec![other.clone()],
            "the agent has spiffe://cluster.local/ns/emojivoto/sa/other",
        ),
        (vec![other; 9], "…"),
    ] {
        let why = wanted()
            .epoch(&message(svids))
            .expect_err(expected)
            .to_string();
        assert!(
            why.starts_with(&format!("there is no document for {WEB}")),
            "{why}"
        );
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn an_id_is_compared_with_its_case() {
    let authority = Authority::new();
    let shouted = "spiffe://cluster.local/ns/emojivoto/sa/WEB";
    let why = wanted()
        .epoch(&message(vec![svid(
            &authority,
            WEB,
            &leaf(vec![uri(shouted)]),
        )]))
        .expect_err("another identity");
    assert!(why.to_string().contains("its leaf names"), "{why}");
    let (chain, _) = authority.issue(&leaf(vec![uri(shouted)]));
    let one = authority.anchors();
    let now = rustls::pki_types::UnixTime::now();
    assert!(one.verify_server(&chain[0], &[], shouted, now).is_ok());
    assert!(one.verify_server(&chain[0], &[], WEB, now).is_err());
}
