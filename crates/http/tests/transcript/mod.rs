//! What a decoder made of some bytes, flat and comparable: shared by the property and differential tests.

// Each test binary uses its part of it.
#![allow(dead_code)]

use bytes::BytesMut;
use tulle_http::h1::{Asked, BodyKind, Decoder, Eof, Event, Framing};
use tulle_http::{Error, Head, Limits};

/// A message as decoded; pieces of data are joined, since where reads end must not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Option<Head>,
    /// `End` was seen, or the end of input stands for it.
    pub complete: bool,
}

/// How the reading of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    Eof(Eof),
    Held,
    Closed,
    Refused(Error),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    pub messages: Vec<Message>,
    pub ending: Ending,
    /// The most octets that ever waited in the input when the decoder asked for more.
    pub most_waiting: usize,
}

/// Reads requests cut into `pieces`.
pub fn requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Transcript {
    read(Decoder::server(Limits::default()), None, pieces)
}

/// Reads responses to requests that were all like `asked`, cut into `pieces`.
pub fn responses<'a>(asked: Asked, pieces: impl IntoIterator<Item = &'a [u8]>) -> Transcript {
    let mut decoder = Decoder::client(Limits::default());
    decoder.expect(asked);
    read(decoder, Some(asked), pieces)
}

fn read<'a>(
    mut decoder: Decoder,
    asked: Option<Asked>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Transcript {
    let (mut head, mut input) = (Head::new(), BytesMut::new());
    let mut pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
    let mut transcript = Transcript {
        messages: Vec::new(),
        ending: Ending::Closed,
        most_waiting: 0,
    };
    let (mut fed, mut steps) = (0, 0);
    loop {
        steps += 1;
        assert!(
            steps <= 4 * fed + 16,
            "the decoder makes events without consuming input"
        );
        let event = match decoder.next(&mut input, &mut head) {
            Ok(event) => event,
            Err(error) => {
                assert_eq!(
                    decoder.next(&mut input, &mut head),
                    Err(error),
                    "a refusal is final"
                );
                transcript.ending = Ending::Refused(error);
                return transcript;
            }
        };
        match (event, transcript.messages.last_mut()) {
            (Event::NeedMore, last) => {
                transcript.most_waiting = transcript.most_waiting.max(input.len());
                let Some(piece) = pieces.next() else {
                    let eof = decoder.eof(&input);
                    if let (Eof::EndOfMessage, Some(last)) = (eof, last) {
                        last.complete = true;
                    }
                    transcript.ending = Ending::Eof(eof);
                    return transcript;
                };
                fed += piece.len();
                input.extend_from_slice(piece);
            }
            (Event::Head(framing), _) => transcript.messages.push(Message {
                head: head.clone(),
                framing,
                body: Vec::new(),
                trailers: None,
                complete: framing.interim,
            }),
            (Event::Data(data), Some(last)) => {
                assert!(!data.is_empty() && !last.framing.interim);
                last.body.extend_from_slice(&data);
            }
            (Event::Trailers, Some(last)) => {
                assert_eq!(last.framing.body, BodyKind::Chunked);
                last.trailers = Some(head.clone());
            }
            (Event::End, Some(last)) => {
                assert!(!last.complete);
                if let BodyKind::Length(n) = last.framing.body {
                    assert_eq!(last.body.len() as u64, n);
                }
                last.complete = true;
                // The next request of the same kind was sent at once.
                if let (Some(asked), true) = (asked, last.framing.keep_alive) {
                    decoder.expect(asked);
                }
            }
            (Event::Held, _) => {
                transcript.ending = Ending::Held;
                return transcript;
            }
            (Event::Closed, _) => return transcript,
            (event, None) => panic!("{event:?} before a head"),
        }
    }
}

/// Cuts `bytes` at `cuts` (taken modulo the length).
pub fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}
