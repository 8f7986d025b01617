//! The incremental HTTP/1 decoder: bytes in, events out, one at a time. No socket, no clock, no task.
//!
//! Cost: a request without body takes no allocation; a head is tokenised once, when its last line is there, and each
//! octet is looked at once while waiting for it. Body octets are split off the input, not copied.
//! A head waits in the *caller's* buffer; this decoder itself holds some 100 octets.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::chunk::{self, Chunks, Step};
use super::framing::{self, BodyKind, Framing};
use super::lines::{Bounds, Lines};
use super::parse;
use crate::error::Error;
use crate::head::{Head, MethodKind};
use crate::limits::Limits;

/// What the decoder found. For each message: `Head`, `Data` any number of times, perhaps `Trailers`, `End`.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Read more bytes into the input, or call [`Decoder::eof`] if there are none to come.
    NeedMore,
    /// The head passed to [`Decoder::next`] was filled. An interim response is only this, no `End` follows it.
    Head(Framing),
    /// Body octets, never empty; after the head of an accepted upgrade or CONNECT, octets of the tunnel.
    Data(Bytes),
    /// The head passed in was filled with the trailer section, without the fields that may not stand there.
    Trailers,
    /// The message is complete.
    End,
    /// The request asked to leave HTTP/1. What follows it stays unread in the input until [`Decoder::tunnel`] or
    /// [`Decoder::resume`] says how to read it. Do not read more meanwhile: the input would be the only bound.
    Held,
    /// The last message of this connection is over; bytes behind it are never looked at.
    Closed,
}

/// What the end of input means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eof {
    /// Between messages: nothing is lost.
    Clean,
    /// It ends the message: a body until close, or a tunnel. This stands for `Event::End`.
    EndOfMessage,
    /// A message was cut: what was received of it must not be taken for complete.
    Cut,
}

/// What a client side needs to remember of the request it sent, to read the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// HEAD and CONNECT change what the response's framing headers mean.
    pub method: MethodKind,
    /// The request asked for an upgrade, so that 101 is a possible answer.
    pub upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Client: nothing was asked.
    Idle,
    /// Looking for the end of a head.
    Head(Lines),
    Length(u64),
    UntilClose,
    Chunks(Chunks),
    /// Looking for the end of a trailer section.
    Trailers(Lines),
    /// The message is complete, `End` was not told yet.
    End,
    Held,
    Tunnel,
    Closed,
    Failed(Error),
}

/// An incremental decoder for one side of one connection. Feed it until `Closed` or an error.
#[derive(Clone, Debug)]
pub struct Decoder {
    role: Role,
    state: State,
    limits: Limits,
    asked: Asked,
    interim: u8,
    empty_lines: u8,
    keep_alive: bool,
    /// The message being read is followed by `Held`.
    hold: bool,
    /// The method that `Held` is about is CONNECT.
    connect: bool,
}

impl Decoder {
    /// For the side that receives requests.
    #[must_use]
    pub fn server(limits: Limits) -> Self {
        Self::new(Role::Server, State::Head(Lines::default()), limits)
    }

    /// For the side that receives responses. It reads nothing until [`Decoder::expect`].
    #[must_use]
    pub fn client(limits: Limits) -> Self {
        Self::new(Role::Client, State::Idle, limits)
    }

    fn new(role: Role, state: State, limits: Limits) -> Self {
        let limits = Limits {
            fields: limits.fields.min(Limits::MAX_FIELDS),
            ..limits
        };
        Self {
            role,
            state,
            limits,
            asked: Asked::default(),
            interim: 0,
            empty_lines: 0,
            keep_alive: true,
            hold: false,
            connect: false,
        }
    }

    /// Client: a request was sent, its response is expected. One at a time: we do not pipeline upstream.
    pub fn expect(&mut self, asked: Asked) {
        debug_assert_eq!(
            (self.role, self.state),
            (Role::Client, State::Idle),
            "a response is still expected"
        );
        if self.state == State::Idle {
            (self.asked, self.interim) = (asked, 0);
            self.state = State::Head(Lines::default());
        }
    }

    /// Server: the answer to the held request was 101 (or 2xx to CONNECT): everything from here on is tunnel data.
    pub fn tunnel(&mut self) {
        debug_assert_eq!(self.state, State::Held, "nothing is held");
        if self.state == State::Held {
            self.state = State::Tunnel;
        }
    }

    /// Server: the answer to the held request was an ordinary one: what follows is HTTP again. After a refused CONNECT
    /// the connection closes instead: bytes sent ahead of the answer belong to the tunnel that never was (CVE-2025-64763).
    pub fn resume(&mut self) {
        debug_assert_eq!(self.state, State::Held, "nothing is held");
        if self.state == State::Held {
            self.state = if self.connect || !self.keep_alive {
                State::Closed
            } else {
                State::Head(Lines::default())
            };
        }
    }

    /// True between messages: nothing was read of a next one (client: nothing is expected).
    /// A connection may be pooled, or closed without loss, only in this state and with an empty input.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match self.state {
            State::Idle => true,
            State::Head(lines) => self.role == Role::Server && lines == Lines::default(),
            _ => false,
        }
    }

    /// Client: a response is expected and not one octet of it came. If the connection ends now, the server may never
    /// have seen the request: the one moment when a request on a reused connection can be sent again without harm.
    #[must_use]
    pub fn is_untouched(&self, input: &BytesMut) -> bool {
        self.state == State::Head(Lines::default()) && self.interim == 0 && input.is_empty()
    }

    /// The next event. Consumed octets leave `input`; `head` is overwritten by `Head` and `Trailers` events only.
    /// # Errors
    /// Any [`Error`]; the same one again on every later call. The connection is to be closed, after an answer if the
    /// role is server.
    pub fn next(&mut self, input: &mut BytesMut, head: &mut Head) -> Result<Event, Error> {
        let result = self.step(input, head);
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    /// What it means that no more bytes come. Call it when `next` said `NeedMore` (or `Held`) and the peer ended.
    #[must_use]
    pub fn eof(&self, input: &BytesMut) -> Eof {
        match self.state {
            State::UntilClose | State::Tunnel => Eof::EndOfMessage,
            State::Idle | State::Held | State::Closed | State::End => Eof::Clean,
            State::Head(_) if self.role == Role::Server && input.is_empty() => Eof::Clean,
            State::Head(_)
            | State::Length(_)
            | State::Chunks(_)
            | State::Trailers(_)
            | State::Failed(_) => Eof::Cut,
        }
    }

    fn step(&mut self, input: &mut BytesMut, head: &mut Head) -> Result<Event, Error> {
        loop {
            match self.state {
                State::Head(lines) => {
                    if lines == Lines::default() && self.head_at_once(input, head)? {
                        return self.framing(head).map(Event::Head);
                    }
                    let Some(end) = self.head_block(input, lines)? else {
                        return Ok(Event::NeedMore);
                    };
                    match self.role {
                        Role::Server => parse::request(&input[..end], head, &self.limits)?,
                        Role::Client => parse::response(&input[..end], head, &self.limits)?,
                    }
                    input.advance(end);
                    return self.framing(head).map(Event::Head);
                }
                State::End => {
                    self.state = self.after_message();
                    return Ok(Event::End);
                }
                State::Length(left) => {
                    if input.is_empty() {
                        return Ok(Event::NeedMore);
                    }
                    let (data, left) = chunk::take(input, left);
                    self.state = if left == 0 {
                        State::End
                    } else {
                        State::Length(left)
                    };
                    return Ok(Event::Data(data));
                }
                State::Chunks(mut chunks) => {
                    let step = chunks.step(input, &self.limits)?;
                    self.state = if step == Step::Last {
                        State::Trailers(Lines::default())
                    } else {
                        State::Chunks(chunks)
                    };
                    match step {
                        Step::NeedMore => return Ok(Event::NeedMore),
                        Step::Data(data) => return Ok(Event::Data(data)),
                        Step::Last => {}
                    }
                }
                State::Trailers(mut lines) => {
                    let end = lines.find_end(input, Bounds::of_trailers(&self.limits))?;
                    self.state = end.map_or(State::Trailers(lines), |_| State::End);
                    match end {
                        None => return Ok(Event::NeedMore),
                        Some(2) => input.advance(2),
                        Some(end) => {
                            parse::trailers(&input[..end], head)?;
                            input.advance(end);
                            return Ok(Event::Trailers);
                        }
                    }
                }
                State::UntilClose | State::Tunnel if !input.is_empty() => {
                    return Ok(Event::Data(input.split().freeze()));
                }
                State::UntilClose | State::Tunnel => return Ok(Event::NeedMore),
                State::Idle if input.is_empty() => return Ok(Event::NeedMore),
                State::Idle => return Err(Error::Unsolicited),
                State::Held => return Ok(Event::Held),
                State::Closed => return Ok(Event::Closed),
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// Looks for the empty line that ends a head.
    fn head_block(
        &mut self,
        input: &mut BytesMut,
        mut lines: Lines,
    ) -> Result<Option<usize>, Error> {
        let server = self.role == Role::Server;
        if server && lines.no_line_yet() && self.skip_empty_lines(input)? {
            lines = Lines::default();
        }
        let first_look = lines.no_line_yet();
        let bounds = Bounds::of_head(&self.limits, server);
        if let Some(end) = lines.find_end(input, bounds)? {
            return Ok(Some(end));
        }
        if server && first_look && !lines.no_line_yet() {
            // Judged now and not when the head is complete: that might be never.
            let line = memchr(b'\n', input).map_or(input.len(), |lf| lf + 1);
            parse::request_line(&input[..line], &self.limits)?;
        }
        self.state = State::Head(lines);
        Ok(None)
    }

    fn skip_empty_lines(&mut self, input: &mut BytesMut) -> Result<bool, Error> {
        let before = input.len();
        while input.starts_with(b"\r\n") {
            input.advance(2);
            self.empty_lines += 1;
            if self.empty_lines > self.limits.leading_empty_lines {
                return Err(Error::EmptyLines);
            }
        }
        Ok(input.len() != before)
    }

    /// The usual case: the head is there as a whole and in order. False says nothing: look line by line.
    fn head_at_once(&mut self, input: &mut BytesMut, head: &mut Head) -> Result<bool, Error> {
        if input.is_empty() {
            return Ok(false);
        }
        let end = match self.role {
            Role::Server => parse::request_at_once(input, head, &self.limits)?,
            Role::Client => parse::response_at_once(input, head, &self.limits)?,
        };
        input.advance(end.unwrap_or(0));
        Ok(end.is_some())
    }

    /// Decides how to go on after a head.
    fn framing(&mut self, head: &Head) -> Result<Framing, Error> {
        let framing = match self.role {
            Role::Server => framing::request(head)?,
            Role::Client => framing::response(head, self.asked)?,
        };
        self.empty_lines = 0;
        if framing.interim {
            self.interim += 1;
            if self.interim > self.limits.interim_responses {
                return Err(Error::TooManyInterim);
            }
            self.state = State::Head(Lines::default());
            return Ok(framing);
        }
        self.keep_alive = framing.keep_alive;
        self.hold = framing.upgrade && self.role == Role::Server;
        self.connect = self.hold && head.method_kind() == MethodKind::Connect;
        self.state = match framing.body {
            BodyKind::None if framing.upgrade && self.role == Role::Client => State::Tunnel,
            BodyKind::None | BodyKind::Length(0) => State::End,
            BodyKind::Length(n) => State::Length(n),
            BodyKind::Chunked => State::Chunks(Chunks::new()),
            BodyKind::UntilClose => State::UntilClose,
        };
        Ok(framing)
    }

    fn after_message(&self) -> State {
        match self.role {
            _ if self.hold => State::Held,
            _ if !self.keep_alive => State::Closed,
            Role::Server => State::Head(Lines::default()),
            Role::Client => State::Idle,
        }
    }
}
