//! What the encoder puts into the table, what it keeps out, and how it follows the peer's setting.

use super::*;

/// How a field is written: an index, or a literal that is indexed, plain or never to be indexed.
fn kind(encoder: &mut Encoder, name: &str, value: &str) -> &'static str {
    match encode(encoder, &[pair(name, value)])[0] {
        0x80.. => "index",
        0x40.. => "indexed",
        0x10..0x20 => "never",
        0x00..0x10 => "plain",
        _ => "size",
    }
}

fn kinds(name: &str, values: &[&str]) -> Vec<&'static str> {
    let mut encoder = Encoder::new(4096);
    values
        .iter()
        .map(|value| kind(&mut encoder, name, value))
        .collect()
}

#[test]
fn what_repeats_is_indexed_at_once() {
    assert_eq!(
        kinds(":authority", &["web:80", "web:80"]),
        ["indexed", "index"]
    );
    assert_eq!(
        kinds("content-type", &["application/grpc"; 2]),
        ["indexed", "index"]
    );
    assert_eq!(
        kinds(":status", &["200", "418", "418"]),
        ["index", "indexed", "index"]
    );
    assert_eq!(kinds("l5d-client-id", &["web.ns"; 2]), ["indexed", "index"]);
}

#[test]
fn what_changes_each_time_is_not() {
    for name in ["date", "etag", "content-length", "last-modified", "age"] {
        assert_eq!(kinds(name, &["1", "1", "2"]), ["plain"; 3], "{name}");
    }
}

#[test]
fn secrets_are_marked_for_every_hop() {
    for name in [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
    ] {
        assert_eq!(kinds(name, &["secret"; 2]), ["never"; 2], "{name}");
    }
    let mut encoder = Encoder::new(4096);
    let mut out = Vec::new();
    encoder.encode_sensitive(b"x-ours", b"secret", &mut out);
    let mut fields = Vec::new();
    Decoder::new(4096)
        .decode(&out, &Limits::default(), |field| {
            fields.push((field.name.to_vec(), field.sensitive))
        })
        .unwrap();
    assert_eq!(fields, [(b"x-ours".to_vec(), true)]);
}

#[test]
fn a_path_is_indexed_when_it_comes_again() {
    assert_eq!(
        kinds(":path", &["/a", "/a", "/a"]),
        ["plain", "indexed", "index"]
    );
    assert_eq!(kinds(":path", &["/", "/index.html"]), ["index"; 2]);
}

#[test]
fn a_name_of_its_own_is_indexed_once_and_its_changing_values_are_not() {
    assert_eq!(
        kinds("traceparent", &["a", "b", "c", "c", "c"]),
        ["indexed", "plain", "plain", "indexed", "index"]
    );
    // Once the name is known a request costs its index and the value.
    let mut encoder = Encoder::new(4096);
    encode(&mut encoder, &[pair("x-request-id", "#########")]);
    assert_eq!(
        encode(&mut encoder, &[pair("x-request-id", "@@@@@@@@@")]).len(),
        2 + 1 + 9
    );
}

#[test]
fn no_field_takes_more_than_a_quarter_of_the_table() {
    let long = "v".repeat(1024);
    assert_eq!(kinds("x-long", &[&long, &long]), ["plain"; 2]);
}

#[test]
fn the_peers_setting_is_announced_and_obeyed() {
    let mut encoder = Encoder::new(4096);
    encode(&mut encoder, &[pair("x-a", "1")]);
    encoder.set_max_table(4096);
    assert_eq!(
        encode(&mut encoder, &[pair("x-a", "1")]),
        [0xbe],
        "nothing changed"
    );
    encoder.set_max_table(0);
    encoder.set_max_table(4096);
    let block = encode(&mut encoder, &[pair("x-a", "1")]);
    assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f], "down and up again");
    assert_eq!(block[4] & 0xc0, 0x40, "and the table is empty");
    encoder.set_max_table(1 << 20);
    assert_eq!(
        encode(&mut encoder, &[pair("x-a", "1")]),
        [0xbe],
        "more than our own bound is not used"
    );
    encoder.set_max_table(0);
    assert_eq!(encode(&mut encoder, &[])[..], [0x20]);
    assert_eq!(kind(&mut encoder, "x-a", "1"), "plain");
}

#[test]
fn a_smaller_table_of_our_own_is_announced_first() {
    let mut encoder = Encoder::new(100);
    assert_eq!(
        encode(&mut encoder, &[pair(":method", "GET")]),
        [0x3f, 69, 0x82]
    );
    assert_eq!(encode(&mut encoder, &[pair(":method", "GET")]), [0x82]);
}
