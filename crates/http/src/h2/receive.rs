//! What a peer's frames do (RFC 9113 §5, §6). Each is judged whole before anything of it takes effect; only DATA is
//! handed on as it comes, after its header has been judged. Here stands what is the same for all: reading a frame,
//! judging its header, ending a stream or the connection for it; what each kind does is in `heads`, `bodies`,
//! `control`.

mod bodies;
mod control;
mod heads;

use super::connection::{Connection, ConnectionError, Event, Expect};
use super::frame::{self, HEADER, Header, Kind, PREFACE, flag};
use super::stream::Key;
use super::{Code, Ended};
use crate::Head;

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
        Ok(Some(Event::Refused(Some(code))))
    }

    /// The event, if anybody holds the stream.
    fn told(&self, key: Key, event: Event<'static>) -> Option<Event<'static>> {
        let held = self.streams.get(key).is_some_and(|stream| stream.held);
        held.then_some(event)
    }
}
