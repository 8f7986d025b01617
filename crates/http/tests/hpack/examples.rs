//! RFC 7541 appendix C.2 to C.6: each block decodes to the fields printed there, and the table they leave is the table
//! printed there, read back entry by entry.

use super::*;

/// One block, its fields, and the table after it, newest first.
type Step = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

fn run(table_size: usize, steps: &[Step]) {
    let mut decoder = Decoder::new(table_size);
    if table_size < 4096 {
        // The examples set the size beforehand; here the first block does.
        let mut update = vec![0x3f];
        let mut rest = table_size - 31;
        while rest >= 128 {
            update.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        update.push(rest as u8);
        assert_eq!(decode(&mut decoder, &update), Ok(vec![]));
    }
    for (block, fields, table) in steps {
        let expected: Vec<Pair> = fields.iter().map(|(n, v)| pair(n, v)).collect();
        assert_eq!(decode(&mut decoder, &hex(block)), Ok(expected), "{block}");
        let indices: Vec<u8> = (0..table.len()).map(|i| 0x80 | (62 + i) as u8).collect();
        let expected: Vec<Pair> = table.iter().map(|(n, v)| pair(n, v)).collect();
        assert_eq!(decode(&mut decoder, &indices), Ok(expected), "{block}");
    }
    // One entry more than the last table has is out of range: the tables above are complete.
    let beyond = 0x80 | (62 + steps.last().unwrap().2.len()) as u8;
    assert_eq!(decode(&mut decoder, &[beyond]), Err(Error::Index));
}

#[test]
fn c2_each_representation() {
    run(
        4096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &[("custom-key", "custom-header")],
            &[("custom-key", "custom-header")],
        )],
    );
    run(
        4096,
        &[
            (
                "040c 2f73 616d 706c 652f 7061 7468",
                &[(":path", "/sample/path")],
                &[],
            ),
            ("82", &[(":method", "GET")], &[]),
        ],
    );
    let mut sensitive = None;
    Decoder::new(4096)
        .decode(
            &hex("1008 7061 7373 776f 7264 0673 6563 7265 74"),
            &Limits::default(),
            |field| sensitive = Some((field.name.to_vec(), field.value.to_vec(), field.sensitive)),
        )
        .unwrap();
    assert_eq!(
        sensitive,
        Some((b"password".to_vec(), b"secret".to_vec(), true))
    );
}

const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
];
const GET_NO_CACHE: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const GET_CUSTOM: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];
const AFTER_GET: &[(&str, &str)] = &[(":authority", "www.example.com")];
const AFTER_NO_CACHE: &[(&str, &str)] = &[
    ("cache-control", "no-cache"),
    (":authority", "www.example.com"),
];
const AFTER_CUSTOM: &[(&str, &str)] = &[
    ("custom-key", "custom-value"),
    ("cache-control", "no-cache"),
    (":authority", "www.example.com"),
];

#[test]
fn c3_requests_without_huffman() {
    run(
        4096,
        &[
            (
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                GET,
                AFTER_GET,
            ),
            (
                "8286 84be 5808 6e6f 2d63 6163 6865",
                GET_NO_CACHE,
                AFTER_NO_CACHE,
            ),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                GET_CUSTOM,
                AFTER_CUSTOM,
            ),
        ],
    );
}

#[test]
fn c4_requests_with_huffman() {
    run(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", GET, AFTER_GET),
            (
                "8286 84be 5886 a8eb 1064 9cbf",
                GET_NO_CACHE,
                AFTER_NO_CACHE,
            ),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                GET_CUSTOM,
                AFTER_CUSTOM,
            ),
        ],
    );
}

const DATE_21: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const DATE_22: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const COOKIE: (&str, &str) = (
    "set-cookie",
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
);
const FOUND: &[(&str, &str)] = &[
    (":status", "302"),
    ("cache-control", "private"),
    ("date", DATE_21),
    LOCATION,
];
const TEMPORARY: &[(&str, &str)] = &[
    (":status", "307"),
    ("cache-control", "private"),
    ("date", DATE_21),
    LOCATION,
];
const OK: &[(&str, &str)] = &[
    (":status", "200"),
    ("cache-control", "private"),
    ("date", DATE_22),
    LOCATION,
    ("content-encoding", "gzip"),
    COOKIE,
];
const AFTER_FOUND: &[(&str, &str)] = &[
    LOCATION,
    ("date", DATE_21),
    ("cache-control", "private"),
    (":status", "302"),
];
const AFTER_TEMPORARY: &[(&str, &str)] = &[
    (":status", "307"),
    LOCATION,
    ("date", DATE_21),
    ("cache-control", "private"),
];
const AFTER_OK: &[(&str, &str)] = &[COOKIE, ("content-encoding", "gzip"), ("date", DATE_22)];

#[test]
fn c5_responses_without_huffman_in_a_table_of_256_octets() {
    run(
        256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                FOUND,
                AFTER_FOUND,
            ),
            ("4803 3330 37c1 c0bf", TEMPORARY, AFTER_TEMPORARY),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                OK,
                AFTER_OK,
            ),
        ],
    );
}

#[test]
fn c6_responses_with_huffman_in_a_table_of_256_octets() {
    run(
        256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                FOUND,
                AFTER_FOUND,
            ),
            ("4883 640e ffc1 c0bf", TEMPORARY, AFTER_TEMPORARY),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                OK,
                AFTER_OK,
            ),
        ],
    );
}

#[test]
fn our_huffman_is_the_standards() {
    // Literals of C.4.2 and C.6.3, byte for byte, through the encoder.
    let mut encoder = Encoder::new(4096);
    assert_eq!(
        encode(&mut encoder, &[pair("cache-control", "no-cache")]),
        hex("5886 a8eb 1064 9cbf")
    );
    assert_eq!(
        encode(&mut encoder, &[pair("content-encoding", "gzip")]),
        hex("5a83 9bd9 ab")
    );
}
