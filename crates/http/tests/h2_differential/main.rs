//! The `h2` crate as the oracle of ours, in both roles: a valid conversation means the same to both, message by message;
//! of a spoiled one, no message that is whole to both differs. Every case is made from a seed, which a failure prints.

#![allow(clippy::unwrap_used)]

mod ours;
mod theirs;
mod told;
mod traffic;

use proptest::prelude::*;
use told::Told;
use traffic::{Dice, Writer, spoil};
use tulle_http::Head;
use tulle_http::h2::{Connection, Settings};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn our_server(wire: &[u8], step: usize) -> Told {
    ours::read(&mut Connection::server(Settings::default()), wire, step)
}

fn our_client(wire: &[u8], streams: u32, step: usize) -> Told {
    let mut connection = Connection::client(Settings::default());
    let mut head = Head::new();
    head.set_method(b"GET").unwrap();
    head.set_scheme(b"http").unwrap();
    head.set_authority(b"web").unwrap();
    head.set_path(b"/").unwrap();
    for _ in 0..streams {
        connection.open(&head, true).unwrap();
    }
    ours::read(&mut connection, wire, step)
}

fn requests(frames: Vec<Vec<u8>>) -> Vec<u8> {
    [PREFACE.to_vec(), frames.concat()].concat()
}

/// What is whole to both is the same to both; true when anything was.
fn agree(ours: &Told, theirs: &Told) -> Result<usize, TestCaseError> {
    let mut compared = 0;
    for (id, message) in ours.complete() {
        if let Some((_, other)) = theirs.complete().find(|(other, _)| *other == id) {
            prop_assert_eq!(message, other, "stream {}", id);
            compared += 1;
        }
    }
    Ok(compared)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_clients_frames_mean_the_same_to_both(seed: u64, step in 1..5000usize) {
        let wire = requests(Writer::new(seed).client());
        let (ours, theirs) = (our_server(&wire, step), theirs::server(&wire));
        prop_assert!(!ours.lost);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_servers_frames_mean_the_same_to_both(seed: u64, step in 1..5000usize, streams in 1..8u32) {
        let wire = Writer::new(seed).server(streams).concat();
        let (ours, theirs) = (our_client(&wire, streams, step), theirs::client(&wire, streams));
        prop_assert!(!ours.lost);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn of_a_clients_spoiled_frames_no_request_is_read_in_two_ways(seed: u64, step in 1..5000usize) {
        let frames = Writer::new(seed).client();
        let wire = requests(spoil(frames, &mut Dice::new(!seed)));
        agree(&our_server(&wire, step), &theirs::server(&wire))?;
    }

    #[test]
    fn of_a_servers_spoiled_frames_no_answer_is_read_in_two_ways(seed: u64, step in 1..5000usize, streams in 1..8u32) {
        let frames = Writer::new(seed).server(streams);
        let wire = spoil(frames, &mut Dice::new(!seed)).concat();
        agree(&our_client(&wire, streams, step), &theirs::client(&wire, streams))?;
    }

    #[test]
    fn noise_neither_panics_nor_is_taken_for_more_than_it_is(wire in prop::collection::vec(any::<u8>(), 0..2000), step in 1..300usize) {
        let told = our_server(&[PREFACE, &wire].concat(), step);
        prop_assert!(told.messages.is_empty());
        our_client(&wire, 3, step);
    }
}

#[test]
fn the_comparison_compares() {
    let compared: usize = (0..200)
        .map(|seed| {
            let wire = requests(spoil(Writer::new(seed).client(), &mut Dice::new(!seed)));
            agree(&our_server(&wire, 100), &theirs::server(&wire)).unwrap()
        })
        .sum();
    assert!(compared > 200, "{compared} requests in 200 conversations");
}
