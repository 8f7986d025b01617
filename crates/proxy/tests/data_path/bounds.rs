//! What a peer of HTTP/2 is refused for going beyond a bound is counted by what it was told.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::rig::{Mesh, Pod, app, run};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const END_STREAM_AND_HEADERS: u8 = 5;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET http://voting/` by the indices of HPACK's static table, with more behind it.
fn request(stream: u32, more: &[u8]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x41, 6];
    block.extend(b"voting");
    block.extend(more);
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &block)
}

/// A pod whose application never answers, and one connection to it.
async fn silent(more: &[(&str, &str)]) -> (Pod, TcpStream) {
    let pod = Mesh::new().pod_with("voting", more).await;
    app(pod.address(18080), |stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let mut client = pod.enter().await;
    client.write_all(PREFACE).await.unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    (pod, client)
}

async fn until_counted(pod: &Pod, code: &str) {
    let code = format!("code=\"{code}\"");
    let labels = [&*code, "direction=\"inbound\"", "peer=\"src\""];
    while pod.metric("http2_errors_total", &labels) == 0.0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(pod.metric("http2_errors_total", &labels), 1.0);
}

#[test]
fn a_stream_too_many_is_counted_as_refused() {
    run(async {
        let bound = "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS";
        let (pod, mut client) = silent(&[(bound, "1")]).await;
        client.write_all(&request(1, &[])).await.unwrap();
        client.write_all(&request(3, &[])).await.unwrap();
        until_counted(&pod, "REFUSED_STREAM").await;
    });
}

#[test]
fn a_head_beyond_the_bound_is_counted_as_431() {
    run(async {
        let bound = "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE";
        let (pod, mut client) = silent(&[(bound, "1024")]).await;
        // Four fields of 300 octets once they are unfolded: one is sent, and named again three times.
        let mut more = vec![0x40, 1, b'x', 0x7f, 0xad, 0x01];
        more.extend([b'v'; 300]);
        more.extend([0xbe; 3]);
        client.write_all(&request(1, &more)).await.unwrap();
        until_counted(&pod, "431").await;
    });
}

#[test]
fn a_connection_that_breaks_a_rule_is_counted_by_its_code() {
    run(async {
        let (pod, mut client) = silent(&[]).await;
        client
            .write_all(&frame(DATA, 0, 1, &[0; 16_385]))
            .await
            .unwrap();
        until_counted(&pod, "FRAME_SIZE_ERROR").await;
    });
}
