//! What tracing allocates per request: nothing where a request is not sampled, and for one that is no more than its span
//! takes, which comes from the worker's own set and goes back to it.

use super::{application, exchange_of, hold, measured, rig, runtime};

/// So few that what sends the spans, which shares the thread here, has no reason to begin: two spans each, within half
/// of a worker's set.
const WARM_UP: usize = 40;
const REQUESTS: usize = 200;
const _: () = assert!(2 * (WARM_UP + REQUESTS) < tulle_proxy::trace::queue::BATCH);

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Nobody listens at the collector's address.
const TRACED: [(&str, &str); 2] = [
    ("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", "127.0.0.1:1"),
    ("TULLE_PROXY_TRACE_EXPORT_INTERVAL", "1h"),
];

/// Allocations per request with this context, and whether the requests were recorded.
fn counted(inbound: bool, context: &str) -> (f64, bool) {
    let request = format!("GET / HTTP/1.1\r\nHost: voting\r\ntraceparent: {context}\r\n\r\n");
    let runtime = runtime();
    let (mut client, pod) = runtime.block_on(async {
        let mesh = rig::Mesh::new();
        let pod = mesh.pod_with("voting", &TRACED).await;
        rig::app(pod.address(18080), application).await;
        mesh.service("voting", &[rig::plain(pod.address(18080))]);
        let mut client = match inbound {
            true => pod.enter().await,
            false => pod.call().await,
        };
        exchange_of(&mut client, request.as_bytes(), WARM_UP).await;
        (client, pod)
    });
    let count = measured(REQUESTS, || {
        runtime.block_on(exchange_of(&mut client, request.as_bytes(), REQUESTS));
    });
    // More than a worker's set holds: once it is empty, spans are dropped and counted.
    runtime.block_on(exchange_of(&mut client, request.as_bytes(), 1_000));
    let dropped = pod.metric("trace_spans_dropped_total", &["queue_full"]);
    (count, dropped > 0.0)
}

#[test]
fn spans_allocate_nothing_where_no_request_is_sampled_and_what_they_may_where_one_is() {
    for inbound in [true, false] {
        let (count, recorded) = counted(inbound, UNSAMPLED);
        assert!(!recorded);
        hold("allocations_unsampled", count);
        let (count, recorded) = counted(inbound, SAMPLED);
        assert!(recorded, "these requests have spans");
        hold("allocations_sampled", count);
    }
}
