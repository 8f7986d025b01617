//! What a peer's frames do (RFC 9113 §5, §6). Each is judged whole before anything of it takes effect; only DATA is
//! handed on as it comes, after its header has been judged.

use super::connection::{Connection, ConnectionError, Event, Expect};
use super::fields::Section;
use super::frame::{self, HEADER, Header, Kind, PREFACE, flag};
use super::settings::DEFAULT_WINDOW;
use super::stream::{Half, Key, Stream};
use super::{Code, Ended};
use crate::{Error, Head, Limits, translate};

/// CONTINUATION frames of one header block. With the octets they may have (`Settings::max_header_list`), more are only
/// small ones, sent to make us work.
const MAX_CONTINUATIONS: u8 = 16;
/// A stream that was reset within so many milliseconds of its opening was opened for nothing.
const YOUNG: u32 = 1000;
/// A body's frame that is worth its header.
const USEFUL_DATA: usize = 64;

/// What useless frames cost of a peer's credit.
mod price {
    pub(super) const FRAME: u32 = 1;
    pub(super) const RESET: u32 = 1;
    pub(super) const REFUSED: u32 = 1;
    /// Every stream's window may have to be changed.
    pub(super) const SETTINGS: u32 = 4;
    /// A stream that we have to reset for what the peer did.
    pub(super) const STREAM_ERROR: u32 = 1;
}

/// What becomes of a frame: nothing to tell, or something.
type Outcome = Result<Option<Event<'static>>, ConnectionError>;

impl Connection {
    /// Takes the next event out of `input`, which then begins behind it. `head` is filled by [`Event::Head`] and
    /// [`Event::Trailers`], and otherwise scratch space.
    /// # Errors
    /// The connection is lost; so is every stream. The output ends with the GOAWAY that says so.
    pub fn next<'i>(
        &mut self,
        input: &mut &'i [u8],
        head: &mut Head,
    ) -> Result<Event<'i>, ConnectionError> {
        loop {
            if let Some((stream, why)) = self.ended.pop() {
                return Ok(Event::Ended { stream, why });
            }
            match self.expect {
                Expect::Data {
                    stream,
                    left,
                    padding,
                    end,
                } => {
                    if let Some(event) = self.on_data(input, stream, left, padding, end) {
                        return Ok(event);
                    }
                    if input.is_empty() && matches!(self.expect, Expect::Data { .. }) {
                        return Ok(Event::NeedMore);
                    }
                    continue;
                }
                Expect::Nothing(error) => return Err(error),
                Expect::Preface => {
                    let (ours, theirs) = (PREFACE.len().min(input.len()), *input);
                    if theirs[..ours] != PREFACE[..ours] {
                        return Err(self.fail(Code::PROTOCOL_ERROR, "invalid preface"));
                    }
                    if ours < PREFACE.len() {
                        return Ok(Event::NeedMore);
                    }
                    *input = &theirs[ours..];
                    self.expect = Expect::Frame;
                }
                Expect::Frame | Expect::Continuation { .. } => {}
            }
            let Some(header) = Header::read(input) else {
                return Ok(Event::NeedMore);
            };
            self.check_header(header)?;
            let bytes = *input;
            if header.kind == Kind::Data {
                let padded = usize::from(header.has(flag::PADDED));
                let Some(front) = bytes.get(HEADER..HEADER + padded.min(header.length)) else {
                    return Ok(Event::NeedMore);
                };
                *input = &bytes[HEADER + front.len()..];
                if let Some(event) = self.on_data_header(header, front)? {
                    return Ok(event);
                }
                continue;
            }
            let Some(payload) = bytes.get(HEADER..HEADER + header.length) else {
                return Ok(Event::NeedMore);
            };
            *input = &bytes[HEADER + header.length..];
            if let Some(event) = self.on_frame(header, payload, head)? {
                return Ok(event);
            }
        }
    }

    /// What can be said of a frame before its payload is there.
    fn check_header(&mut self, header: Header) -> Result<(), ConnectionError> {
        if header.length > self.settings.max_frame as usize {
            return Err(self.fail(Code::FRAME_SIZE_ERROR, "frame too large"));
        }
        if !self.greeted && (header.kind != Kind::Settings || header.has(flag::ACK)) {
            return Err(self.fail(Code::PROTOCOL_ERROR, "first frame is not SETTINGS"));
        }
        let expected = match self.expect {
            Expect::Continuation { id, .. } => {
                header.kind == Kind::Continuation && header.stream == id
            }
            _ => header.kind != Kind::Continuation,
        };
        if !expected {
            return Err(self.fail(Code::PROTOCOL_ERROR, "header block interrupted"));
        }
        let (on_stream, length) = (header.stream != 0, header.length);
        let (placed, sized) = match header.kind {
            Kind::Data | Kind::Headers | Kind::Continuation => (on_stream, true),
            // A PRIORITY of a wrong size is a stream error (§6.3).
            Kind::Priority => (on_stream, true),
            Kind::Reset => (on_stream, length == 4),
            Kind::Settings if header.has(flag::ACK) => (!on_stream, length == 0),
            Kind::Settings => (!on_stream, length % 6 == 0),
            Kind::Ping => (!on_stream, length == 8),
            Kind::GoAway => (!on_stream, length >= 8),
            Kind::WindowUpdate => (true, length == 4),
            Kind::PushPromise => (false, true),
            Kind::Unknown => (true, true),
        };
        if !placed {
            return Err(self.fail(
                Code::PROTOCOL_ERROR,
                "frame on a stream where it may not be",
            ));
        }
        if !sized {
            return Err(self.fail(Code::FRAME_SIZE_ERROR, "frame of a wrong size"));
        }
        Ok(())
    }

    fn on_frame(&mut self, header: Header, payload: &[u8], head: &mut Head) -> Outcome {
        let four = || payload.first_chunk().copied().unwrap_or_default();
        match header.kind {
            Kind::Headers => self.on_headers(header, payload, head),
            Kind::Continuation => self.on_continuation(header, payload, head),
            Kind::Priority => self.on_priority(header, payload),
            Kind::Reset => self.on_reset(header.stream, Code(u32::from_be_bytes(four()))),
            Kind::Settings => self.on_settings(header, payload),
            Kind::Ping if header.has(flag::ACK) => Ok(self.ponged(payload)),
            Kind::Ping => {
                self.spend(price::FRAME)?;
                self.last_frame = None;
                frame::put(Kind::Ping, flag::ACK, 0, payload, &mut self.out);
                self.control(HEADER + payload.len())?;
                Ok(None)
            }
            Kind::GoAway => self.on_go_away(payload),
            Kind::WindowUpdate => self.on_window_update(header.stream, frame::number(four())),
            Kind::Unknown => self.spend(price::FRAME).map(|()| None),
            // Neither may come here: see `check_header` and `next`.
            Kind::Data | Kind::PushPromise => Ok(None),
        }
    }

    /// Has this stream never been opened?
    fn is_idle(&self, id: u32) -> bool {
        if self.client {
            id % 2 == 0 || id >= self.next_id
        } else {
            id % 2 == 0 || id > self.last_peer_id
        }
    }

    /// The peer broke a rule of one stream, which ends.
    fn break_stream(&mut self, key: Key, why: Ended) -> Outcome {
        self.spend(price::STREAM_ERROR)?;
        let code = match why {
            Ended::Broken(code) => code,
            _ => Code::PROTOCOL_ERROR,
        };
        self.reset(key, code);
        self.control(HEADER + 4)?;
        self.peer_ended(key)?;
        Ok(self.tell_end(key, why))
    }

    /// An end is told to whoever still holds the stream.
    fn tell_end(&self, stream: Key, why: Ended) -> Option<Event<'static>> {
        let held = self.streams.get(stream).is_some_and(|stream| stream.held);
        held.then_some(Event::Ended { stream, why })
    }

    /// Counts a stream that ended by the peer's doing before anybody had looked at it.
    fn peer_ended(&mut self, key: Key) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        if !stream.accepted && !stream.pending_reset {
            stream.pending_reset = true;
            self.pending_resets += 1;
            if self.pending_resets > self.settings.max_pending_resets {
                return Err(self.fail(Code::ENHANCE_YOUR_CALM, "too many requests reset at once"));
            }
        }
        Ok(())
    }

    /// A reset for a stream that has no slot.
    fn refuse(&mut self, id: u32, code: Code, cost: u32) -> Outcome {
        self.spend(cost)?;
        self.last_frame = None;
        frame::put_reset(id, code, &mut self.out);
        self.streams.remember_reset(id);
        self.control(HEADER + 4)?;
        Ok(None)
    }

    // --- heads -------------------------------------------------------------------------------------------------------

    fn on_headers(&mut self, header: Header, payload: &[u8], head: &mut Head) -> Outcome {
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

    fn on_continuation(&mut self, header: Header, payload: &[u8], head: &mut Head) -> Outcome {
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

    /// The event, if anybody holds the stream.
    fn told(&self, key: Key, event: Event<'static>) -> Option<Event<'static>> {
        let held = self.streams.get(key).is_some_and(|stream| stream.held);
        held.then_some(event)
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
        if self.leaving == super::connection::Leaving::Final {
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
        Ok(None)
    }

    // --- bodies ------------------------------------------------------------------------------------------------------

    /// Judges a DATA frame by its header and, when it is padded, the first octet.
    fn on_data_header(&mut self, header: Header, front: &[u8]) -> Outcome {
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
    fn on_data<'i>(
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

    // --- the rest ----------------------------------------------------------------------------------------------------

    fn on_priority(&mut self, header: Header, payload: &[u8]) -> Outcome {
        self.spend(price::FRAME)?;
        let found = self.streams.find(header.stream);
        let wrong = match payload {
            [a, b, c, d, _] if frame::number([*a, *b, *c, *d]) != header.stream => return Ok(None),
            [_, _, _, _, _] => Code::PROTOCOL_ERROR,
            _ => Code::FRAME_SIZE_ERROR,
        };
        match found {
            Some(key) => self.break_stream(key, Ended::Broken(wrong)),
            // There is no stream to reset.
            None => Err(self.fail(wrong, "invalid PRIORITY")),
        }
    }

    fn on_reset(&mut self, id: u32, code: Code) -> Outcome {
        let Some(key) = self.streams.find(id) else {
            if self.is_idle(id) {
                return Err(self.fail(Code::PROTOCOL_ERROR, "RST_STREAM on an idle stream"));
            }
            return self.spend(price::FRAME).map(|()| None);
        };
        let age = match self.streams.get(key) {
            Some(stream) => ((self.now / 1_000_000) as u32).wrapping_sub(stream.opened),
            None => 0,
        };
        if !self.client && age < YOUNG {
            self.spend(price::RESET)?;
        }
        self.take_grant(key);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.backlog = None;
        }
        let why = match code {
            Code::REFUSED_STREAM => Ended::Refused,
            code => Ended::Reset(code),
        };
        let told = self.tell_end(key, why);
        self.peer_ended(key)?;
        self.streams.close(key);
        self.grant();
        Ok(told)
    }

    fn on_settings(&mut self, header: Header, payload: &[u8]) -> Outcome {
        if header.has(flag::ACK) {
            if !self.acknowledged {
                self.acknowledged = true;
                let change = self.settings.stream_window as i32 - DEFAULT_WINDOW as i32;
                for (_, stream) in self.streams.each() {
                    stream.receive_window += change;
                }
            }
            return Ok(None);
        }
        self.spend(price::SETTINGS)?;
        let before = self.peer;
        let mut peer = before;
        if let Err(error) = peer.apply(payload, !self.greeted, self.client) {
            return Err(self.fail(error.code, error.reason));
        }
        (self.peer, self.greeted) = (peer, true);
        if peer.header_table != before.header_table {
            let most = crate::hpack::DEFAULT_TABLE_SIZE;
            self.encoder
                .set_max_table((peer.header_table as usize).min(most));
        }
        self.last_frame = None;
        frame::put(Kind::Settings, flag::ACK, 0, &[], &mut self.out);
        self.control(HEADER)?;
        self.change_windows(i64::from(peer.initial_window) - i64::from(before.initial_window))?;
        Ok(Some(Event::Settings))
    }

    /// The window that streams begin with has changed, and that of all open ones with it (§6.9.2).
    fn change_windows(&mut self, change: i64) -> Result<(), ConnectionError> {
        if change == 0 {
            return Ok(());
        }
        let mut overflow = false;
        let mut opened = Vec::new();
        for (key, stream) in self.streams.each() {
            match i32::try_from(i64::from(stream.send_window) + change) {
                Ok(window) => stream.send_window = window,
                Err(_) => overflow = true,
            }
            if stream.waiting && !stream.queued && stream.send_window > 0 {
                opened.push(key);
            }
            // A promise from before may be more than there is now.
            let window = u32::try_from(stream.send_window).unwrap_or(0);
            if stream.granted > window {
                self.promised -= (stream.granted - window) as usize;
                stream.granted = window;
            }
        }
        if overflow {
            return Err(self.fail(Code::FLOW_CONTROL_ERROR, "window of a stream overflows"));
        }
        for key in opened {
            self.enqueue(key);
        }
        self.grant();
        Ok(())
    }

    fn on_go_away(&mut self, payload: &[u8]) -> Outcome {
        self.spend(price::FRAME)?;
        let [a, b, c, d, e, f, g, h] = payload.first_chunk().copied().unwrap_or_default();
        let (last, code) = (
            frame::number([a, b, c, d]),
            Code(u32::from_be_bytes([e, f, g, h])),
        );
        self.peer_leaving = true;
        if self.client {
            let beyond: Vec<Key> = self
                .streams
                .each()
                .filter(|(key, stream)| key.id > last && stream.held)
                .map(|(key, _)| key)
                .collect();
            for key in beyond {
                self.take_grant(key);
                self.streams.close(key);
                self.ended.push((key, Ended::Refused));
            }
            self.grant();
        }
        Ok(Some(Event::GoAway(code)))
    }

    fn on_window_update(&mut self, id: u32, increment: u32) -> Outcome {
        self.spend(price::FRAME)?;
        if id == 0 {
            self.send_window += i64::from(increment);
            if increment == 0 {
                return Err(self.fail(Code::PROTOCOL_ERROR, "WINDOW_UPDATE of nothing"));
            }
            if self.send_window > i64::from(frame::MAX_WINDOW) {
                return Err(self.fail(
                    Code::FLOW_CONTROL_ERROR,
                    "window of the connection overflows",
                ));
            }
            self.grant();
            return Ok(None);
        }
        let Some(key) = self.streams.find(id) else {
            if self.is_idle(id) {
                return Err(self.fail(Code::PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream"));
            }
            return Ok(None);
        };
        if increment == 0 {
            return self.break_stream(key, Ended::Broken(Code::PROTOCOL_ERROR));
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        match stream.send_window.checked_add(increment as i32) {
            Some(window) => stream.send_window = window,
            None => return self.break_stream(key, Ended::Broken(Code::FLOW_CONTROL_ERROR)),
        }
        self.enqueue(key);
        self.grant();
        Ok(None)
    }
}
