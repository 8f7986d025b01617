//! What is read from leaves, good and strange.

use super::super::testing::{Authority, Leaf, dns};
use super::*;
use proptest::prelude::*;
use rcgen::{DnType, SanType};

const WEB: &str = "web.emojivoto.serviceaccount.identity.linkerd.cluster.local";

fn read(leaf: &Leaf) -> Result<PeerIdentity, Malformed> {
    PeerIdentity::from_leaf(&Authority::new().issue(leaf).0[0])
}

#[test]
fn name_pod_and_namespace_are_read() {
    let leaf = Leaf {
        subject: vec![
            (DnType::OrganizationName, "emojivoto"),
            (DnType::OrganizationalUnitName, "web-5f9c-abcde"),
        ],
        ..Leaf::named(WEB)
    };
    let peer = read(&leaf).expect("a peer");
    assert_eq!(
        (
            peer.name.as_str(),
            peer.pod.as_str(),
            peer.namespace.as_str()
        ),
        (WEB, "web-5f9c-abcde", "emojivoto")
    );
    let life = not_after(&Authority::new().issue(&leaf).0[0])
        .expect("an end")
        .duration_since(SystemTime::now())
        .expect("in the future")
        .as_secs();
    assert!((3_590..=3_600).contains(&life), "{life}");
}

#[test]
fn linkerds_leaf_has_a_name_and_no_pod() {
    let peer = read(&Leaf::named(WEB)).expect("a peer");
    assert_eq!(
        (
            peer.name.as_str(),
            peer.pod.as_str(),
            peer.namespace.as_str()
        ),
        (WEB, "", "")
    );
}

#[test]
fn a_subject_that_is_no_kubernetes_name_counts_as_absent() {
    let leaf = Leaf {
        subject: vec![
            (DnType::OrganizationName, "evil\"} 1\n"),
            (DnType::OrganizationalUnitName, "UPPER"),
        ],
        ..Leaf::named(WEB)
    };
    let peer = read(&leaf).expect("a peer");
    assert_eq!((peer.pod.as_str(), peer.namespace.as_str()), ("", ""));
}

#[test]
fn anything_but_one_plain_name_is_refused() {
    let uri = |text: &str| SanType::URI(text.try_into().expect("IA5"));
    let ip = SanType::IpAddress("10.0.0.1".parse().expect("ip"));
    for names in [
        vec![],
        vec![ip.clone()],
        vec![dns(WEB), dns("other.ns")],
        vec![
            dns(WEB),
            uri("spiffe://cluster.local/ns/a/sa/b"),
            uri("https://example.com"),
        ],
        vec![dns("*.emojivoto"), uri("spiffe://cluster.local/ns/a/sa/b")],
        vec![dns("*.emojivoto")],
        vec![dns("web.emojivoto.")],
        vec![dns("web\0.emojivoto")],
        vec![uri("https://example.com")],
        (0..40).map(|n| dns(&format!("a{n}.b"))).collect(),
    ] {
        let leaf = Leaf {
            names: names.clone(),
            ..Leaf::named(WEB)
        };
        assert!(read(&leaf).is_err(), "{names:?}");
    }
    let id = "spiffe://cluster.local/ns/a/sa/b";
    for beside in [
        vec![uri(id), ip],
        vec![dns(WEB), uri(id)],
        vec![uri(id), dns("a.b"), dns(WEB)],
    ] {
        let leaf = Leaf {
            names: beside,
            ..Leaf::named(WEB)
        };
        assert_eq!(read(&leaf).expect("a peer").name, id);
        // Nor is a server with that document who is dialled by a name of the mesh.
        let chain = Authority::new().issue(&leaf).0;
        assert_eq!(
            (names(&chain[0], id), names(&chain[0], WEB)),
            (Ok(true), Ok(false))
        );
    }
}

#[test]
fn names_are_compared_whole_and_without_case() {
    let leaf = Leaf {
        names: vec![dns("Web.Emojivoto"), dns("b.c")],
        ..Leaf::named(WEB)
    };
    let chain = Authority::new().issue(&leaf).0;
    assert_eq!(names(&chain[0], "web.emojivoto"), Ok(true));
    assert_eq!(names(&chain[0], "b.c"), Ok(true));
    assert_eq!(names(&chain[0], "emojivoto"), Ok(false));
}

#[test]
fn times_are_those_of_the_calendar() {
    let seconds = |kind, text: &str| {
        time(kind, text.as_bytes())
            .map(|at| at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
    };
    assert_eq!(seconds(tag::UTC_TIME, "700101000000Z"), Some(0));
    assert_eq!(seconds(tag::UTC_TIME, "000229120000Z"), Some(951_825_600));
    assert_eq!(seconds(tag::UTC_TIME, "491231235959Z"), Some(2_524_607_999));
    assert_eq!(
        seconds(tag::GENERALIZED_TIME, "20500101000000Z"),
        Some(2_524_608_000)
    );
    for bad in [
        "7001010000Z",
        "701301000000Z",
        "700101000000",
        "7001010000+0Z",
        "",
    ] {
        assert_eq!(seconds(tag::UTC_TIME, bad), None, "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_damaged_certificate_is_read_without_panic(flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8), cut in any::<u16>()) {
        thread_local!(static LEAF: Vec<u8> = Authority::new().issue(&Leaf::named(WEB)).0[0].to_vec());
        let mut bytes = LEAF.with(Clone::clone);
        for (at, byte) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if cut % 4 == 0 {
            bytes.truncate(usize::from(cut) % bytes.len());
        }
        let leaf = CertificateDer::from(bytes);
        let _ = PeerIdentity::from_leaf(&leaf);
        let _ = names(&leaf, WEB);
    }
}
