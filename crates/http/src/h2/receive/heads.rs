//! HEADERS and CONTINUATION: requests, answers, interim answers and trailers (RFC 9113 §6.2, §6.10, §8.1).

use super::{Outcome, price};
use crate::h2::connection::{Connection, Event, Expect, Leaving};
use crate::h2::fields::Section;
use crate::h2::frame::{self, Header, flag};
use crate::h2::stream::{Half, Key, Stream};
use crate::h2::{Code, Ended};
use crate::{Error, Head, Limits, translate};

/// CONTINUATION frames of one header block. With the octets they may have (`Settings::max_header_list`), more are only
/// small ones, sent to make us work.
const MAX_CONTINUATIONS: u8 = 16;

impl Connection {
    #[inline]
    pub(super) fn on_headers(
        &mut self,
        header: Header,
        payload: &[u8],
        head: &mut Head,
    ) -> Outcome {
        let mut block = payload;
        if header.has(flag::PADDED) {
            block = match block.split_first() {
                Some((&padding, rest)) if usize::from(padding) <= rest.len() => {
                    &rest[..rest.len() - usize::from(padding)]
                }
                _ => return Err(self.fail(Code::PROTOCOL_ERROR, "more padding than frame")),
            };
        }
        let mut self_dependent = false;
        if header.has(flag::PRIORITY) {
            let Some((priority, rest)) = block.split_first_chunk::<5>() else {
                return Err(self.fail(Code::FRAME_SIZE_ERROR, "HEADERS too short"));
            };
            let [a, b, c, d, _] = *priority;
            self_dependent = frame::number([a, b, c, d]) == header.stream;
            block = rest;
        }
        let end = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.on_block(header.stream, end, self_dependent, block, head);
        }
        self.block.clear();
        self.block.extend_from_slice(block);
        self.expect = Expect::Continuation {
            id: header.stream,
            end,
            self_dependent,
            frames: 0,
        };
        Ok(None)
    }

    pub(super) fn on_continuation(
        &mut self,
        header: Header,
        payload: &[u8],
        head: &mut Head,
    ) -> Outcome {
        let Expect::Continuation {
            id,
            end,
            self_dependent,
            frames,
        } = self.expect
        else {
            return Ok(None);
        };
        // Compressed fields are seldom larger than they are: what exceeds the list's bound need not be looked at.
        let too_long = self.block.len() + payload.len() > self.settings.max_header_list as usize;
        if too_long || frames >= MAX_CONTINUATIONS {
            return Err(self.fail(Code::ENHANCE_YOUR_CALM, "header block too long"));
        }
        self.block.extend_from_slice(payload);
        if !header.has(flag::END_HEADERS) {
            self.expect = Expect::Continuation {
                id,
                end,
                self_dependent,
                frames: frames + 1,
            };
            return Ok(None);
        }
        self.expect = Expect::Frame;
        let block = std::mem::take(&mut self.block);
        self.on_block(id, end, self_dependent, &block, head)
    }

    fn on_block(
        &mut self,
        id: u32,
        end: bool,
        self_dependent: bool,
        block: &[u8],
        head: &mut Head,
    ) -> Outcome {
        let known = self.streams.find(id);
        let half = known
            .and_then(|key| self.streams.get(key))
            .map(|stream| stream.incoming);
        let section = match half {
            Some(Half::Body | Half::Ended) => Section::Trailers,
            _ if self.client => Section::Response,
            _ => Section::Request,
        };
        let read = self.read_block(block, section, head)?;
        let Some(key) = known else {
            return self.on_unknown_head(id, end, self_dependent, read, head);
        };
        if self_dependent {
            return self.break_stream(key, Ended::Broken(Code::PROTOCOL_ERROR));
        }
        match (half, read) {
            (Some(Half::Ended), _) => self.break_stream(key, Ended::Broken(Code::STREAM_CLOSED)),
            (_, Err(error)) => self.break_stream(key, Ended::Malformed(error)),
            (Some(Half::Body), Ok(())) => self.on_trailers(key, end),
            (_, Ok(())) => self.on_response(key, end, head),
        }
    }

    fn on_trailers(&mut self, key: Key, end: bool) -> Outcome {
        let left = self
            .streams
            .get(key)
            .and_then(|stream| stream.content_left)
            .unwrap_or(0);
        if !end {
            return self.break_stream(key, Ended::Malformed(Error::PseudoHeader));
        }
        if left > 0 {
            return self.break_stream(key, Ended::Malformed(Error::ContentLength));
        }
        self.incoming_ended(key);
        Ok(self.told(key, Event::Trailers { stream: key }))
    }

    fn on_response(&mut self, key: Key, end: bool, head: &Head) -> Outcome {
        let length = translate::declared_length(head).ok().flatten();
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if head.status() < 200 {
            stream.interim += 1;
            let too_many = stream.interim > Limits::default().interim_responses;
            if end || too_many {
                let error = if end {
                    Error::PseudoHeader
                } else {
                    Error::TooManyInterim
                };
                return self.break_stream(key, Ended::Malformed(error));
            }
            return Ok(self.told(key, Event::Head { stream: key, end }));
        }
        let bodyless = stream.bodyless || matches!(head.status(), 204 | 304);
        stream.content_left = if bodyless { Some(0) } else { length };
        if end && stream.content_left.unwrap_or(0) > 0 {
            return self.break_stream(key, Ended::Malformed(Error::ContentLength));
        }
        stream.incoming = Half::Body;
        if end {
            self.incoming_ended(key);
        }
        Ok(self.told(key, Event::Head { stream: key, end }))
    }

    /// A header block for a stream that is not open: a request, or something too late.
    fn on_unknown_head(
        &mut self,
        id: u32,
        end: bool,
        self_dependent: bool,
        read: Result<(), Error>,
        head: &mut Head,
    ) -> Outcome {
        if !self.is_idle(id) {
            if self.streams.may_be_unaware(id) {
                return Ok(None);
            }
            let code = if self.skipped {
                Code::PROTOCOL_ERROR
            } else {
                Code::STREAM_CLOSED
            };
            return Err(self.fail(code, "HEADERS on a closed stream"));
        }
        if self.client || id % 2 == 0 {
            return Err(self.fail(Code::PROTOCOL_ERROR, "HEADERS on an idle stream"));
        }
        if self.leaving == Leaving::Final {
            // Above the last stream of our GOAWAY: the peer knows that nobody looks at it.
            return Ok(None);
        }
        self.skipped |= id > self.last_peer_id + 2 || (self.last_peer_id == 0 && id > 1);
        self.last_peer_id = id;
        if self.streams.open() >= self.settings.max_concurrent_streams as usize {
            return self.refuse(id, Code::REFUSED_STREAM, price::REFUSED);
        }
        let length = match read {
            Err(Error::HeadTooLarge | Error::TooManyFields) => {
                return self.refuse_large(id, end, head);
            }
            Err(_) => return self.refuse(id, Code::PROTOCOL_ERROR, price::STREAM_ERROR),
            Ok(()) => translate::declared_length(head).ok().flatten(),
        };
        if self_dependent || (end && length.unwrap_or(0) > 0) {
            return self.refuse(id, Code::PROTOCOL_ERROR, price::STREAM_ERROR);
        }
        let opened = (self.now / 1_000_000) as u32;
        let mut stream = Stream::new(id, self.peer.initial_window, self.receive_initial(), opened);
        stream.incoming = if end { Half::Ended } else { Half::Body };
        stream.content_left = length;
        let stream = self.streams.insert(stream);
        Ok(Some(Event::Head { stream, end }))
    }

    /// Answers a head beyond the bounds as HTTP/1 would.
    #[cold]
    fn refuse_large(&mut self, id: u32, end: bool, head: &mut Head) -> Outcome {
        self.spend(price::STREAM_ERROR)?;
        head.clear();
        let _status = head.set_status(431);
        let before = self.out.len();
        self.write_block(Key { slot: 0, id }, Section::Response, head, true);
        self.last_frame = None;
        if !end {
            frame::put_reset(id, Code::NO_ERROR, &mut self.out);
            self.streams.remember_reset(id);
        }
        self.control(self.out.len() - before)?;
        Ok(Some(Event::Refused(None)))
    }
}
