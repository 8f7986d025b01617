#![allow(clippy::unwrap_used)]

use super::queue::{BATCH, RECORDS};
use super::*;
use crate::metrics::{Format, Limits, Registry, render};

const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn head() -> Head {
    let mut head = Head::new();
    head.set_method(b"GET").unwrap();
    head.push("traceparent", CONTEXT).unwrap();
    head
}

fn tracer(traces: &Traces) -> (Tracer, Registry) {
    let registry = Registry::new(Limits::default());
    (Tracer::new(traces, &registry.shard()), registry)
}

fn spans(traces: &Traces) -> Vec<(Kind, SpanId, SpanId)> {
    let mut spans = Vec::new();
    traces.drain(usize::MAX, |record| {
        spans.push((record.kind, record.context.parent, record.span));
    });
    spans
}

#[test]
fn when_all_records_are_in_use_spans_are_dropped_and_counted_and_the_head_is_as_it_came() {
    let traces = Traces::default();
    let (tracer, registry) = tracer(&traces);
    let mut open: Vec<_> = (0..RECORDS)
        .map(|_| tracer.begin(Direction::Inbound, &mut head()))
        .collect();
    let mut late = head();
    let dropped = tracer.begin(Direction::Inbound, &mut late);
    assert_eq!(dropped.sampled(), None);
    assert_eq!(late.get("traceparent"), Some(CONTEXT.as_bytes()));
    let page = render(&registry, Vec::new(), Format::Prometheus);
    let line = "trace_spans_dropped_total{reason=\"queue_full\"} 1\n";
    assert!(page.contains(line), "{page}");
    open.clear();
    assert_eq!(spans(&traces).len(), RECORDS);
    // They are free again.
    let again = tracer.begin(Direction::Inbound, &mut late);
    assert!(again.sampled().is_some());
}

#[test]
fn a_try_beside_another_is_a_sibling_and_the_winner_is_the_requests_own() {
    let traces = Traces::default();
    let (tracer, _registry) = tracer(&traces);
    let mut head = head();
    let mut trace = tracer.begin(Direction::Outbound, &mut head);
    let (_, request) = trace.sampled().unwrap();
    trace.attempt(Some(&tracer), &mut head);
    let mut other = head.clone();
    let mut beside = trace.beside(Some(&tracer), &mut other);
    assert_ne!(head.get("traceparent"), other.get("traceparent"));
    beside.answered(200, None);
    trace.attempt_ended(0, None, "hedged");
    trace.adopt(beside);
    trace.ended(None, "");
    drop(trace);
    let spans = spans(&traces);
    let kinds = spans
        .iter()
        .map(|(kind, parent, _)| (*kind, *parent == request));
    let client = (Kind::Client, true);
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [client, client, (Kind::Server, false)]
    );
}

#[test]
fn a_head_without_room_is_not_traced() {
    let traces = Traces::default();
    let (tracer, _registry) = tracer(&traces);
    let mut head = head();
    while head.push("x", "y".repeat(500)).is_ok() {}
    while head.push("x", "y").is_ok() {}
    let trace = tracer.begin(Direction::Inbound, &mut head);
    assert_eq!(trace.sampled(), None);
    drop(trace);
    assert!(spans(&traces).is_empty());
    assert_eq!(head.get("traceparent"), Some(CONTEXT.as_bytes()));
}

#[test]
fn a_full_message_is_sent_without_a_wait() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let traces = Traces::default();
    let (tracer, _registry) = tracer(&traces);
    for _ in 0..BATCH {
        drop(tracer.begin(Direction::Inbound, &mut head()));
    }
    runtime.block_on(traces.full());
    assert_eq!(traces.drain(BATCH - 1, |_| ()), BATCH - 1);
    assert_eq!(spans(&traces).len(), 1);
}
