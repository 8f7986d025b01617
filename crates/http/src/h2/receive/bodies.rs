//! DATA: judged by its header, then handed on as it comes (RFC 9113 §6.1, §6.9).

use super::{Outcome, price};
use crate::Error;
use crate::h2::connection::{Connection, Event, Expect};
use crate::h2::frame::{Header, flag};
use crate::h2::stream::{Half, Key};
use crate::h2::{Code, Ended};

/// A body's frame that is worth its header.
const USEFUL_DATA: usize = 64;

impl Connection {
    /// Judges a DATA frame by its header and, when it is padded, the first octet.
    #[inline]
    pub(super) fn on_data_header(&mut self, header: Header, front: &[u8]) -> Outcome {
        let padding = match (header.has(flag::PADDED), front.first()) {
            (false, _) => 0,
            (true, Some(&padding)) if usize::from(padding) < header.length => usize::from(padding),
            _ => return Err(self.fail(Code::PROTOCOL_ERROR, "more padding than frame")),
        };
        self.receive_window -= header.length as i64;
        if self.receive_window < 0 {
            return Err(self.fail(
                Code::FLOW_CONTROL_ERROR,
                "DATA beyond the connection's window",
            ));
        }
        let data = header.length - front.len() - padding;
        let end = header.has(flag::END_STREAM);
        if data == 0 && !end {
            self.spend(price::FRAME)?;
        } else if data >= USEFUL_DATA {
            self.patience.earn(price::FRAME);
        }
        let stream = self.streams.find(header.stream);
        self.expect = Expect::Data {
            stream,
            left: data,
            padding,
            end,
        };
        // The octet that tells the padding.
        self.give_connection(front.len() as u32);
        let Some(key) = stream else {
            if self.is_idle(header.stream) {
                return Err(self.fail(Code::PROTOCOL_ERROR, "DATA on an idle stream"));
            }
            if !self.streams.may_be_unaware(header.stream) {
                return Err(self.fail(Code::STREAM_CLOSED, "DATA on a closed stream"));
            }
            return Ok(None);
        };
        match self.check_data(key, header.length, data, end) {
            Ok(()) => {
                self.give_stream(
                    key,
                    (front.len() + padding) as u32,
                    self.settings.stream_window / 2,
                );
                Ok(None)
            }
            Err(why) => {
                self.expect = Expect::Data {
                    stream: None,
                    left: data,
                    padding,
                    end,
                };
                self.break_stream(key, why)
            }
        }
    }

    /// May this much DATA come on this stream? Takes it off its window.
    fn check_data(&mut self, key: Key, length: usize, data: usize, end: bool) -> Result<(), Ended> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        match stream.incoming {
            Half::Body => {}
            Half::Head => return Err(Ended::Broken(Code::PROTOCOL_ERROR)),
            Half::Ended => return Err(Ended::Broken(Code::STREAM_CLOSED)),
        }
        if length as i64 > i64::from(stream.receive_window) {
            return Err(Ended::Broken(Code::FLOW_CONTROL_ERROR));
        }
        stream.receive_window -= length as i32;
        if let Some(left) = &mut stream.content_left {
            // Before any of it is handed on: nobody downstream sees a body that is not what its length said.
            match left.checked_sub(data as u64) {
                Some(rest) if !end || rest == 0 => *left = rest,
                _ => return Err(Ended::Malformed(Error::ContentLength)),
            }
        }
        Ok(())
    }

    /// Hands on what has come of a DATA frame.
    #[inline]
    pub(super) fn on_data<'i>(
        &mut self,
        input: &mut &'i [u8],
        stream: Option<Key>,
        left: usize,
        padding: usize,
        end: bool,
    ) -> Option<Event<'i>> {
        let bytes = *input;
        let (data, rest) = bytes.split_at(left.min(bytes.len()));
        let (padded, rest) = rest.split_at(if data.len() == left {
            padding.min(rest.len())
        } else {
            0
        });
        *input = rest;
        self.give_connection(padded.len() as u32);
        let complete = data.len() == left;
        self.expect = if complete && padded.len() == padding {
            Expect::Frame
        } else {
            Expect::Data {
                // What is left is padding only, and the stream has been told all.
                stream: stream.filter(|_| !complete),
                left: left - data.len(),
                padding: padding - padded.len(),
                end,
            }
        };
        let held = stream
            .and_then(|key| self.streams.get_mut(key).map(|stream| (key, stream)))
            .filter(|(_, stream)| stream.on_wire);
        let Some((key, open)) = held else {
            self.give_connection(data.len() as u32);
            return None;
        };
        let end = end && complete;
        let held = open.held;
        if held {
            open.unconsumed += data.len() as u32;
        }
        if !held || self.client {
            self.give_connection(data.len() as u32);
        }
        if end {
            self.incoming_ended(key);
        }
        let event = Event::Data {
            stream: key,
            data,
            end,
        };
        let held = self.streams.get(key).is_some_and(|stream| stream.held);
        (held && (end || !data.is_empty())).then_some(event)
    }
}
