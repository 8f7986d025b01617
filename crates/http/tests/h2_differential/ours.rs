//! Our codec's reading.

use tulle_http::Head;
use tulle_http::h2::{Connection, Ended, Event};

use crate::told::{End, Fields, Message, Told, normal};

fn fields(head: &Head) -> Fields {
    normal(
        head.iter()
            .map(|(name, value)| (std::str::from_utf8(name).unwrap(), value)),
    )
}

fn start(head: &Head) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    if head.is_response() {
        return head.status().to_string();
    }
    // Without an authority the crate's kind of URI has no place for a scheme.
    let target = match head.authority() {
        Some(authority) => format!("{}://{}", text(head.scheme()), text(authority)),
        None => String::new(),
    };
    format!("{} {target}{}", text(head.method()), text(head.path()))
}

/// Reads all of `wire`, in pieces of `step` octets; what a body takes is given back at once.
pub fn read(connection: &mut Connection, wire: &[u8], step: usize) -> Told {
    read_and_write(connection, wire, step).0
}

/// The same, and what was written on the way.
pub fn read_and_write(connection: &mut Connection, wire: &[u8], step: usize) -> (Told, Vec<u8>) {
    let (mut told, mut head, mut held) = (Told::default(), Head::new(), Vec::new());
    let mut written = Vec::new();
    for piece in wire.chunks(step) {
        held.extend_from_slice(piece);
        let mut input = &held[..];
        loop {
            match connection.next(&mut input, &mut head) {
                Ok(Event::NeedMore) => break,
                Ok(Event::Head { stream, end }) => {
                    connection.accept(stream);
                    if head.is_response() && head.status() < 200 {
                        continue;
                    }
                    let message = Message {
                        start: start(&head),
                        fields: fields(&head),
                        end: if end { End::Complete } else { End::Open },
                        ..Message::default()
                    };
                    told.messages.insert(stream.id(), message);
                }
                Ok(Event::Data { stream, data, end }) => {
                    let message = told.messages.get_mut(&stream.id()).unwrap();
                    message.body.extend_from_slice(data);
                    if end {
                        message.end = End::Complete;
                    }
                    connection.consume(stream, data.len());
                }
                Ok(Event::Trailers { stream }) => {
                    let message = told.messages.get_mut(&stream.id()).unwrap();
                    (message.trailers, message.end) = (fields(&head), End::Complete);
                }
                Ok(Event::Ended { stream, why }) => {
                    if let Some(message) = told.messages.get_mut(&stream.id()) {
                        // What was whole stays whole.
                        if message.end == End::Open {
                            message.end = match why {
                                Ended::Reset(code) => End::Reset(code.0),
                                Ended::Refused => End::Reset(7),
                                Ended::Broken(_) | Ended::Malformed(_) => End::Broken,
                            };
                        }
                    }
                }
                Ok(Event::Pong | Event::Settings | Event::GoAway(_) | Event::Refused(_)) => {}
                Err(_) => {
                    told.lost = true;
                    written.extend_from_slice(connection.output());
                    return (told, written);
                }
            }
        }
        let rest = input.len();
        held.drain(..held.len() - rest);
        written.extend_from_slice(connection.output());
        connection.wrote(connection.output().len());
    }
    (told, written)
}
