//! What ends a connection with COMPRESSION_ERROR, and what only refuses a message.

use super::*;

fn refused(block: &[u8]) -> Error {
    let error = decode(&mut Decoder::new(4096), block).unwrap_err();
    assert!(error.is_connection_error());
    error
}

#[test]
fn an_index_of_zero_or_beyond_the_tables() {
    for block in [
        &[0x80][..],
        &[0xbe],
        &[0xff, 0x00],
        &[0x7e, 0x00],
        &[0x0f, 0x2f, 0x00],
        &[0x1f, 0x2f, 0x00],
    ] {
        assert_eq!(refused(block), Error::Index, "{block:02x?}");
    }
    assert_eq!(
        decode(&mut Decoder::new(4096), &[0xbd]),
        Ok(vec![pair("www-authenticate", "")])
    );
}

#[test]
fn a_block_that_ends_inside_a_field() {
    let whole = hex("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    for end in 1..whole.len() {
        assert_eq!(refused(&whole[..end]), Error::Truncated, "{end} octets");
    }
    assert_eq!(refused(&[0xff]), Error::Truncated);
    assert_eq!(refused(&[0x3f, 0xe1]), Error::Truncated);
}

#[test]
fn an_integer_that_no_length_can_be() {
    assert_eq!(
        refused(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        Error::Integer
    );
    assert_eq!(
        refused(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        Error::Integer
    );
    // A length of 2^32 - 1 is one, but nothing of that length follows.
    assert_eq!(
        refused(&[0x40, 0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f, b'a']),
        Error::Truncated
    );
}

#[test]
fn a_table_size_above_the_setting_or_after_a_field() {
    assert_eq!(refused(&[0x3f, 0xe2, 0x1f]), Error::SizeUpdateTooLarge);
    assert_eq!(refused(&[0x82, 0x20]), Error::SizeUpdateLate);
    // At the start, twice, up to the setting: fine.
    assert_eq!(
        decode(&mut Decoder::new(4096), &[0x20, 0x3f, 0xe1, 0x1f, 0x82]),
        Ok(vec![pair(":method", "GET")])
    );
}

#[test]
fn a_lowered_setting_must_be_followed() {
    let mut decoder = Decoder::new(4096);
    decoder.set_max_table(1000);
    assert_eq!(decode(&mut decoder, &[0x82]), Err(Error::SizeUpdateMissing));
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &hex("3f 69")).unwrap();
    decoder.set_max_table(1000);
    assert_eq!(
        decode(&mut decoder, &[0x82]),
        Ok(vec![pair(":method", "GET")]),
        "136 octets are in use already"
    );
    assert_eq!(
        decode(&mut decoder, &[0x3f, 0xe1, 0x1f]),
        Err(Error::SizeUpdateTooLarge)
    );
}

#[test]
fn a_huffman_string_with_wrong_padding_or_an_end_inside() {
    let literal =
        |coded: &[u8]| [&[0x00, 0x01, b'a', 0x80 | coded.len() as u8][..], coded].concat();
    assert_eq!(refused(&literal(&[0b0000_0000])), Error::HuffmanPadding);
    assert_eq!(
        refused(&literal(&[0b0000_0111, 0xff])),
        Error::HuffmanPadding
    );
    assert_eq!(refused(&literal(&[0xff; 4])), Error::HuffmanEos);
}

#[test]
fn a_list_over_its_limits_refuses_the_message_and_keeps_the_tables_in_step() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let pairs: Vec<Pair> = (0..20)
        .map(|i| pair(&format!("x-name-{i}"), "0123456789"))
        .collect();
    let block = encode(&mut encoder, &pairs);
    let size = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 32)
        .sum();
    let tight = |list_size, fields| Limits { list_size, fields };
    for (limits, expected, handed_out) in [
        (tight(size, 20), Ok(()), 20),
        (tight(size - 1, 20), Err(Error::ListTooLarge), 19),
        (tight(size, 19), Err(Error::TooManyFields), 19),
        (tight(0, 20), Err(Error::ListTooLarge), 0),
        (tight(size, 0), Err(Error::TooManyFields), 0),
    ] {
        let mut decoder = Decoder::new(4096);
        let mut seen = 0;
        let result = decoder.decode(&block, &limits, |_| seen += 1);
        assert_eq!((result, seen), (expected, handed_out));
        assert!(result.map_or_else(|error| !error.is_connection_error(), |()| true));
    }
    // Refused once, the fields are in the table all the same: the next block is twenty references.
    let refused = decoder.decode(&block, &tight(100, 20), |_| ());
    assert_eq!(refused, Err(Error::ListTooLarge));
    let block = encode(&mut encoder, &pairs);
    assert_eq!(block.len(), 20);
    assert_eq!(decode(&mut decoder, &block), Ok(pairs));
}

#[test]
fn one_octet_references_are_counted_as_the_fields_they_stand_for() {
    // The amplification attack: a large entry, then references to it.
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let block = encode(&mut encoder, &[pair("x-bomb", &"b".repeat(900))]);
    decode(&mut decoder, &block).unwrap();
    let mut octets = 0;
    let result = decoder.decode(&[0xbe; 15_000], &Limits::default(), |field| {
        octets += field.value.len()
    });
    assert_eq!(result, Err(Error::ListTooLarge));
    assert!(
        octets <= Limits::default().list_size,
        "{octets} octets handed out"
    );
}
