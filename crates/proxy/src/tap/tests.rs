//! The bounds of taps: their number, their queues, their pace; and what a request costs that nobody watches.

use std::task::{Context, Poll, Waker};

use tulle_api::tap::observe_request::{Match, r#match as kinds};
use tulle_api::tap::{ObserveRequest, TapEvent, tap_event};
use tulle_engine::tap::Labels as Known;
use tulle_http::Head;

use super::*;
use crate::observe::Direction;

fn wish(limit: u32) -> Wish {
    Wish::compile(&ObserveRequest {
        limit,
        r#match: Some(Match {
            r#match: Some(kinds::Match::All(kinds::Seq::default())),
        }),
        ..Default::default()
    })
    .unwrap()
}

fn watch(taps: &Arc<Taps>, head: &Head) -> Option<Box<Watched>> {
    taps.watch(&Seen {
        direction: Direction::Outbound,
        source: None,
        source_tls: Tls::None("loopback"),
        destination: None,
        destination_tls: Tls::None("no_endpoint"),
        destination_labels: Known::List(&[]),
        route: None,
        head,
        bridged: false,
    })
}

fn head(path: &str) -> Head {
    let mut head = Head::new();
    head.set_method(b"GET").unwrap();
    head.set_path(path.as_bytes()).unwrap();
    head
}

/// What waits for the reader; `true`: and nothing follows.
fn read(tap: &mut Registered) -> (Vec<TapEvent>, bool) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut events = Vec::new();
    loop {
        match tap.poll_next(&mut cx) {
            Poll::Ready(Some(bytes)) => {
                events.push(prost::Message::decode(&bytes[5..]).unwrap());
            }
            Poll::Ready(None) => return (events, true),
            Poll::Pending => return (events, false),
        }
    }
}

fn sample(taps: &Taps, name: &str) -> f64 {
    taps.served.store(true, Ordering::Relaxed);
    let samples = taps.samples();
    let of = samples.iter().filter(|sample| sample.family.name == name);
    of.map(|sample| sample.value).sum()
}

#[test]
fn a_tap_ends_with_the_last_of_its_requests() {
    let taps = Arc::<Taps>::default();
    assert!(!taps.is_on());
    let mut tap = taps.register(wish(2)).unwrap();
    assert!(taps.is_on());
    let (first, second) = (watch(&taps, &head("/1")), watch(&taps, &head("/2")));
    // The limit is reached: no request is asked about any more, while those two go on.
    assert!(!taps.is_on());
    assert!(watch(&taps, &head("/3")).is_none());
    drop(first);
    let (events, ended) = read(&mut tap);
    assert_eq!((events.len(), ended), (3, false));
    drop(second);
    let (events, ended) = read(&mut tap);
    assert_eq!((events.len(), ended), (1, true));
    let Some(tap_event::Event::Http(tap_event::Http {
        event: Some(tap_event::http::Event::ResponseEnd(end)),
    })) = &events[0].event
    else {
        panic!("{events:?}");
    };
    assert_eq!(end.id.unwrap().stream, 1);
}

#[test]
fn there_are_no_more_taps_than_may_be_and_one_that_goes_makes_room() {
    let taps = Arc::<Taps>::default();
    let mut held: Vec<_> = (0..MAX_TAPS)
        .map(|_| taps.register(wish(1)).unwrap())
        .collect();
    assert_eq!(taps.register(wish(1)).err(), Some(Refused::Taps));
    assert_eq!(sample(&taps, "tap_active"), MAX_TAPS as f64);
    held.pop();
    held.push(taps.register(wish(1)).unwrap());
    held.clear();
    assert!(!taps.is_on());
    assert_eq!(sample(&taps, "tap_active"), 0.0);
}

#[test]
fn what_a_reader_is_too_slow_for_is_lost_and_counted() {
    let taps = Arc::<Taps>::default();
    let mut tap = taps.register(wish(1_000)).unwrap();
    // Two events each.
    for _ in 0..QUEUE_EVENTS {
        drop(watch(&taps, &head("/")));
    }
    assert_eq!(tap.lost(), QUEUE_EVENTS as u64);
    assert_eq!(sample(&taps, "tap_events_lost_total"), QUEUE_EVENTS as f64);
    assert_eq!(sample(&taps, "tap_events_total"), QUEUE_EVENTS as f64);
    assert_eq!(read(&mut tap).0.len(), QUEUE_EVENTS);
    // It has caught up.
    drop(watch(&taps, &head("/")));
    assert_eq!(read(&mut tap).0.len(), 2);
    assert_eq!(tap.lost(), QUEUE_EVENTS as u64);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let taps = Arc::<Taps>::default();
    let mut tap = taps.register(wish(1_000)).unwrap();
    let long = head(&format!("/{}", "x".repeat(32 << 10)));
    for _ in 0..100 {
        drop(watch(&taps, &long));
    }
    let bytes = tap.state.bytes.load(Ordering::Relaxed);
    assert!(bytes <= QUEUE_BYTES && bytes > QUEUE_BYTES - (33 << 10));
    let told = read(&mut tap).0.len() as u64;
    assert_eq!((told + tap.lost(), tap.lost() > 0), (200, true));
    assert_eq!(tap.state.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_tap_is_told_of_so_many_requests_per_second() {
    let taps = Arc::<Taps>::default();
    let tap = taps.register(wish(100_000)).unwrap();
    let own = taps.lock()[0].clone();
    let told = (0..MAX_PER_SECOND + 50).filter(|_| own.is_in_time(7));
    assert_eq!(told.count(), MAX_PER_SECOND as usize);
    assert!(own.is_in_time(8));
    drop(tap);
}

#[test]
fn a_request_that_nobody_watches_allocates_nothing() {
    let taps = Arc::<Taps>::default();
    let cost = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            assert!(!taps.is_on());
        }
    });
    assert_eq!(cost.count_total, 0);
}
