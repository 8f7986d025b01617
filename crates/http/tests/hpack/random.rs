//! Round trips over connections of many blocks, with table sizes that change, and blocks of noise.

use super::*;
use proptest::prelude::*;

/// Names and values from small sets and large ones: tables must be hit, missed, overflown and emptied.
fn field() -> impl Strategy<Value = Pair> {
    let name = prop_oneof![
        4 => prop::sample::select(vec![
            ":method", ":path", ":status", ":authority", ":scheme", "accept-encoding", "cookie", "date", "etag",
            "content-type", "user-agent", "x-request-id", "grpc-status", "x-api-key", "www-authenticate", "",
        ]).prop_map(|name| name.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => "[a-z-]{1,12}".prop_map(String::into_bytes),
    ];
    let value = prop_oneof![
        4 => prop::sample::select(vec!["GET", "/", "200", "http", "gzip, deflate", "", "application/grpc", "/a/b", "1"])
            .prop_map(|value| value.as_bytes().to_vec()),
        2 => "[a-zA-Z0-9/=.-]{0,60}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (900..1100usize).prop_map(|len| vec![b'a'; len]),
    ];
    (name, value)
}

#[derive(Clone, Debug)]
enum Step {
    Block(Vec<Pair>),
    /// The receiver sets its table size, the sender hears of it.
    Resize(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(field(), 0..20).prop_map(Step::Block),
        1 => prop_oneof![Just(0usize), 0..5000usize, Just(4096)].prop_map(Step::Resize),
    ];
    prop::collection::vec(step, 1..40)
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    // Plain noise, and noise that begins like representations so that it gets further.
    let biased = prop::collection::vec(
        prop_oneof![
            any::<u8>(),
            Just(0x82),
            Just(0x40),
            Just(0xbe),
            Just(0x3f),
            Just(0x81),
            Just(0x01),
            Just(0xff)
        ],
        0..120,
    );
    prop_oneof![prop::collection::vec(any::<u8>(), 0..300), biased]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_comes_back(steps in steps(), own in prop_oneof![Just(4096usize), 0..8192usize]) {
        let (mut encoder, mut decoder) = (Encoder::new(own), Decoder::new(4096));
        for step in steps {
            match step {
                Step::Resize(size) => {
                    encoder.set_max_table(size);
                    decoder.set_max_table(size);
                }
                Step::Block(pairs) => {
                    let block = encode(&mut encoder, &pairs);
                    prop_assert_eq!(decode(&mut decoder, &block), Ok(pairs));
                }
            }
        }
    }

    #[test]
    fn noise_neither_panics_nor_costs_more_memory_than_it_may(blocks in prop::collection::vec(noise(), 1..30)) {
        let mut decoder = Decoder::new(4096);
        let limits = Limits { list_size: 2000, fields: 20 };
        let peak = allocation_counter::measure(|| {
            for block in &blocks {
                let (mut octets, mut fields) = (0, 0);
                let result = decoder.decode(block, &limits, |field| {
                    octets += field.name.len() + field.value.len() + 32;
                    fields += 1;
                });
                assert!(octets <= 2000 && fields <= 20);
                if result.is_err_and(Error::is_connection_error) {
                    return;
                }
            }
        });
        // Twice the table, its entries (128 of 12 octets, grown by doubling), the scratch buffer of one block.
        prop_assert!(peak.bytes_max <= 16 * 1024, "{} octets", peak.bytes_max);
    }

    #[test]
    fn noise_that_decodes_decodes_the_same_after_our_encoder(block in noise()) {
        if let Ok(pairs) = decode(&mut Decoder::new(4096), &block) {
            let again = encode(&mut Encoder::new(4096), &pairs);
            prop_assert_eq!(decode(&mut Decoder::new(4096), &again), Ok(pairs));
        }
    }
}
