#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const TRACE: TraceId = [
    0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
];
const PARENT: SpanId = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
const OURS: SpanId = [1, 2, 3, 4, 5, 6, 7, 8];

fn head(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    head.set_method(b"GET").unwrap();
    for (name, value) in fields {
        head.push(name, value).unwrap();
    }
    head
}

fn fields(head: &Head) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all: Vec<_> = head.iter().map(|(n, v)| (text(n), text(v))).collect();
    all.sort();
    all
}

/// The head after our span has been written into it.
fn handed_on(given: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut head = head(given);
    let context = TraceContext::read(&head).expect("a context");
    context.hand_on(&mut head, OURS).unwrap();
    fields(&head)
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn each_form_is_read_and_handed_on_in_its_own_way() {
    type Fields<'f> = &'f [(&'f str, &'f str)];
    let cases: [(Fields<'_>, Fields<'_>); 6] = [
        (
            &[
                (
                    "traceparent",
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                ),
                ("tracestate", "vendor=opaque"),
            ],
            &[
                (
                    "traceparent",
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-01",
                ),
                ("tracestate", "vendor=opaque"),
            ],
        ),
        (
            &[("grpc-trace-bin", "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE=")],
            &[("grpc-trace-bin", "AABL+S81d7NNpqPOkp0ODkc2AQECAwQFBgcIAgE=")],
        ),
        (
            &[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1")],
            &[(
                "b3",
                "4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-1-00f067aa0ba902b7",
            )],
        ),
        (
            &[(
                "b3",
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-d-0000000000000007",
            )],
            &[(
                "b3",
                "4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-d-00f067aa0ba902b7",
            )],
        ),
        (
            &[
                ("x-b3-sampled", "1"),
                ("x-b3-spanid", "00f067aa0ba902b7"),
                ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ],
            &[
                ("x-b3-parentspanid", "00f067aa0ba902b7"),
                ("x-b3-sampled", "1"),
                ("x-b3-spanid", "0102030405060708"),
                ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ],
        ),
        // All of them: kept in step.
        (
            &[
                ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
                (
                    "traceparent",
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                ),
            ],
            &[
                (
                    "b3",
                    "4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-1-00f067aa0ba902b7",
                ),
                (
                    "traceparent",
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-01",
                ),
            ],
        ),
    ];
    for (given, expected) in cases {
        let context = TraceContext::read(&head(given)).unwrap();
        assert_eq!(
            (context.trace, context.parent),
            (TRACE, PARENT),
            "{given:?}"
        );
        assert!(context.sampled, "{given:?}");
        assert_eq!(handed_on(given), pairs(expected));
    }
}

#[test]
fn short_traces_of_b3_are_the_lower_half_and_stay_short() {
    let given = [("b3", "a3ce929d0e0e4736-00F067AA0BA902B7-1")];
    let context = TraceContext::read(&head(&given)).unwrap();
    assert_eq!(context.trace[..8], [0; 8]);
    assert_eq!(context.trace[8..], TRACE[8..]);
    assert_eq!(context.parent, PARENT);
    let expected = "a3ce929d0e0e4736-0102030405060708-1-00F067AA0BA902B7";
    assert_eq!(handed_on(&given), pairs(&[("b3", expected)]));
}

#[test]
fn only_what_the_caller_decided_for_is_sampled() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let b3 = |end: &str| format!("{trace}-00f067aa0ba902b7{end}");
    let w3c = |end: &str| format!("00-{trace}-00f067aa0ba902b7-{end}");
    for (name, value, sampled) in [
        ("traceparent", w3c("00"), false),
        ("traceparent", w3c("02"), false),
        ("traceparent", w3c("03"), true),
        ("traceparent", w3c("ff"), true),
        ("b3", b3(""), false),
        ("b3", b3("-0"), false),
        ("b3", b3("-d"), true),
    ] {
        let context = TraceContext::read(&head(&[(name, &value)])).unwrap();
        assert_eq!(context.sampled, sampled, "{value}");
    }
    let several = [("x-b3-traceid", trace), ("x-b3-spanid", "00f067aa0ba902b7")];
    for (more, sampled) in [
        (("x", "1"), false),
        (("x-b3-sampled", "0"), false),
        (("x-b3-sampled", "true"), true),
        (("x-b3-flags", "1"), true),
    ] {
        let fields = [several[0], several[1], more];
        let context = TraceContext::read(&head(&fields)).unwrap();
        assert_eq!(context.sampled, sampled, "{more:?}");
    }
}

#[test]
fn what_is_not_well_formed_is_not_there() {
    let zeros = "00000000000000000000000000000000";
    for (name, value) in [
        ("traceparent", ""),
        ("traceparent", "00"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        ),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
        ),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ),
        (
            "traceparent",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ),
        (
            "traceparent",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        (
            "traceparent",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ),
        (
            "traceparent",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        (
            "traceparent",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
        ),
        ("grpc-trace-bin", "AAAA"),
        ("grpc-trace-bin", "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3Ag*="),
        ("grpc-trace-bin", "AQBL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE="),
        ("b3", "0"),
        ("b3", "d"),
        ("b3", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-2"),
        ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-"),
        (
            "b3",
            "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-00f067aa0ba902b7-1",
        ),
        ("b3", "4bf92f3577b34da6a-00f067aa0ba902b7-1"),
        ("b3", &format!("{zeros}-00f067aa0ba902b7-1")),
        ("b3", &"-".repeat(70)),
        ("x-b3-traceid", zeros),
    ] {
        assert_eq!(
            TraceContext::read(&head(&[(name, value)])),
            None,
            "{name}: {value}"
        );
    }
    let twice = (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    assert_eq!(TraceContext::read(&head(&[twice, twice])), None);
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    let given = [(
        "traceparent",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-what-follows",
    )];
    let expected = "00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-01";
    assert_eq!(handed_on(&given), pairs(&[("traceparent", expected)]));
}

#[test]
fn a_form_that_speaks_of_another_trace_is_left_alone() {
    let other = ("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-1");
    let ours = (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let expected = "00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-01";
    assert_eq!(
        handed_on(&[other, ours]),
        pairs(&[other, ("traceparent", expected)])
    );
}

fn form() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("traceparent"),
        Just("grpc-trace-bin"),
        Just("b3"),
        Just("x-b3-traceid"),
        Just("x-b3-spanid"),
        Just("x-b3-sampled"),
        Just("x-b3-flags"),
    ]
}

proptest! {
    /// Whatever is read can be handed on, and reads back as the same trace with our span as parent.
    #[test]
    fn what_is_handed_on_reads_back(
        trace in any::<TraceId>(),
        parent in any::<SpanId>(),
        span in any::<SpanId>(),
        flags in 0u8..4,
        which in 0usize..4,
    ) {
        prop_assume!(trace != [0; 16] && parent != [0; 8] && span != [0; 8]);
        let text = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
        let sampled = if flags & 1 == 1 { "1" } else { "0" };
        let mut head = head(&[]);
        match which {
            0 => head.set("traceparent", w3c::write(&trace, &parent, flags)).unwrap(),
            1 => head.set("grpc-trace-bin", binary::write(&trace, &parent, flags)).unwrap(),
            2 => head.set("b3", format!("{}-{}-{sampled}", text(&trace), text(&parent))).unwrap(),
            _ => {
                head.set("x-b3-traceid", text(&trace)).unwrap();
                head.set("x-b3-spanid", text(&parent)).unwrap();
                head.set("x-b3-sampled", sampled).unwrap();
            }
        }
        let read = TraceContext::read(&head).unwrap();
        prop_assert_eq!((read.trace, read.parent, read.sampled), (trace, parent, flags & 1 == 1));
        read.hand_on(&mut head, span).unwrap();
        let again = TraceContext::read(&head).unwrap();
        prop_assert_eq!(again, TraceContext { parent: span, ..read });
    }

    /// No header of a stranger does harm, however it looks: near a context or far from one.
    #[test]
    fn nothing_that_a_stranger_sends_does_harm(
        fields in prop::collection::vec(
            (form(), prop_oneof!["[0-9a-fA-F-]{0,80}", "[ -~]{0,80}", "[A-Za-z0-9+/]{38,40}={0,1}"]),
            0..8,
        ),
        span in any::<SpanId>(),
    ) {
        let given: Vec<_> = fields.iter().map(|(name, value)| (*name, value.trim())).collect();
        let mut head = head(&given);
        if let Some(context) = TraceContext::read(&head) {
            prop_assert!(context.trace != [0; 16] && context.parent != [0; 8]);
            context.hand_on(&mut head, span).unwrap();
        }
    }
}
