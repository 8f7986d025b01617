//! What the driver of a connection and the tasks of its streams share.
//!
//! All of it is on one thread. It is borrowed for the length of a call and never across an await. Whoever sends appends
//! to the codec's output and wakes the driver, once per round; the driver puts what comes into the streams' inboxes and
//! wakes their tasks. Since tasks run in the order in which they were woken, the driver runs again after all that it woke:
//! so the answers of a round leave in one write.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Waker};

use tulle_http::Head;
use tulle_http::h2::{Code, Connection, Ended, Event, Key};

use crate::http::h2::stream::Hand;
use crate::http::serve::{keep_head, spare_head};
use crate::http::{Fault, buffers};
use crate::net::io::Meter;

/// Inboxes that a connection keeps between two bursts; [`State::rest`] gives them back too.
const KEPT_INBOXES: usize = 64;

pub struct Link(RefCell<State>);

pub struct State {
    pub codec: Connection,
    inboxes: Vec<Inbox>,
    /// Server: streams that have been opened and not been handed out.
    pub opened: VecDeque<(Key, Head)>,
    driver: Option<Waker>,
    /// The driver has been woken this round.
    woken: bool,
    /// Tasks that wait for the peer to take another stream.
    openers: Vec<Waker>,
    /// The peer has said what it takes.
    pub introduced: bool,
    /// How the connection ended.
    pub lost: Option<Fault>,
    /// Client: nobody opens streams here any more.
    pub closing: bool,
    /// Where the peer's errors are counted.
    meter: Meter,
}

/// What has come for a stream and has not been taken.
#[derive(Default)]
pub struct Inbox {
    pub heads: Vec<Head>,
    pub data: Vec<u8>,
    pub trailers: Option<Head>,
    /// After these, nothing.
    pub ended: bool,
    /// After these, this.
    pub fault: Option<Fault>,
    waker: Option<Waker>,
    /// For the stream's task: what it has in hand is swapped with `data`.
    hand: Option<Box<Hand>>,
}

impl Inbox {
    pub fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Ready for another stream.
    fn recycle(&mut self, mut hand: Box<Hand>) {
        self.heads.drain(..).for_each(keep_head);
        if let Some(trailers) = self.trailers.take() {
            keep_head(trailers);
        }
        (self.ended, self.fault, self.waker) = (false, None, None);
        buffers::give(std::mem::take(&mut self.data));
        buffers::give(std::mem::take(&mut hand.chunk));
        hand.at = 0;
        self.hand = Some(hand);
    }
}

impl Link {
    pub fn new(codec: Connection, meter: Meter) -> Self {
        Link(RefCell::new(State {
            codec,
            inboxes: Vec::new(),
            opened: VecDeque::new(),
            driver: None,
            woken: false,
            openers: Vec::new(),
            introduced: false,
            lost: None,
            closing: false,
            meter,
        }))
    }

    /// Does something with the state, and sees to what follows from it: promised streams and the driver are woken.
    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.borrow_mut();
        let done = act(&mut state);
        state.settle();
        done
    }

    /// Only looks.
    pub fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.0.borrow())
    }

    /// The driver's round begins.
    pub fn begin_round(&self, cx: &Context<'_>) {
        let mut state = self.0.borrow_mut();
        state.woken = false;
        match &mut state.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    /// The driver writes: nobody has to tell it that there is something.
    pub fn write<T>(&self, write: impl FnOnce(&mut Connection) -> T) -> T {
        let mut state = self.0.borrow_mut();
        let written = write(&mut state.codec);
        state.wake_granted();
        written
    }
}

impl State {
    pub fn inbox(&mut self, key: Key) -> &mut Inbox {
        let index = key.index();
        if index >= self.inboxes.len() {
            self.inboxes.resize_with(index + 1, Inbox::default);
        }
        &mut self.inboxes[index]
    }

    /// What a new stream's task begins with.
    pub fn take_hand(&mut self, key: Key) -> Box<Hand> {
        self.inbox(key).hand.take().unwrap_or_default()
    }

    /// The stream's task has let go of it.
    pub fn release(&mut self, key: Key, hand: Box<Hand>) {
        self.codec.release(key);
        self.inbox(key).recycle(hand);
        if self.inboxes.len() > KEPT_INBOXES && self.codec.streams_in_use() == 0 {
            self.inboxes.truncate(KEPT_INBOXES);
        }
    }

    /// Gives back memory: nothing has happened for a while.
    pub fn rest(&mut self) {
        self.codec.rest();
        if self.codec.streams_in_use() == 0 {
            self.inboxes = Vec::new();
            self.opened = VecDeque::new();
            self.openers = Vec::new();
        }
    }

    /// Waits for the peer to take another stream.
    pub fn wait_to_open(&mut self, cx: &Context<'_>) {
        if !self.openers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.openers.push(cx.waker().clone());
        }
    }

    /// How many wait for that.
    pub fn waiting_to_open(&self) -> usize {
        self.openers.len()
    }

    fn wake_granted(&mut self) {
        while let Some(key) = self.codec.pop_granted() {
            self.inbox(key).wake();
        }
    }

    fn settle(&mut self) {
        self.wake_granted();
        let due = !self.codec.output().is_empty() || self.closing;
        if due && !self.woken {
            if let Some(driver) = &self.driver {
                self.woken = true;
                driver.wake_by_ref();
            }
        }
        let may_open = self.introduced && self.codec.can_open();
        if !self.openers.is_empty() && (may_open || !self.codec.is_open()) {
            self.openers.drain(..).for_each(Waker::wake);
        }
    }

    /// Takes in what has come. What is left of `input` is the beginning of something.
    pub fn receive(&mut self, input: &mut &[u8], head: &mut Head) -> Result<(), Fault> {
        loop {
            let event = match self.codec.next(input, head) {
                Ok(event) => event,
                Err(error) => {
                    self.count_error(Some(error.code));
                    return Err(Fault::Closed);
                }
            };
            let stream = match event {
                Event::NeedMore => return Ok(()),
                Event::Head { stream, end } => {
                    let told = std::mem::replace(head, spare_head());
                    self.inbox(stream).ended = end;
                    if told.is_request() {
                        self.opened.push_back((stream, told));
                        continue;
                    }
                    self.inbox(stream).heads.push(told);
                    stream
                }
                Event::Data { stream, data, end } => {
                    let inbox = self.inbox(stream);
                    if inbox.data.capacity() == 0 {
                        inbox.data = buffers::take();
                    }
                    inbox.data.extend_from_slice(data);
                    inbox.ended = end;
                    stream
                }
                Event::Trailers { stream } => {
                    let told = std::mem::replace(head, spare_head());
                    let inbox = self.inbox(stream);
                    inbox.trailers = Some(told);
                    inbox.ended = true;
                    stream
                }
                Event::Ended { stream, why } => {
                    if let Ended::Broken(code) = why {
                        self.count_error(Some(code));
                    }
                    self.inbox(stream).fault = Some(fault(why));
                    stream
                }
                Event::Settings => {
                    self.introduced = true;
                    self.openers.drain(..).for_each(Waker::wake);
                    continue;
                }
                Event::Pong | Event::GoAway(_) => continue,
                Event::Refused(code) => {
                    self.count_error(code);
                    continue;
                }
            };
            self.inbox(stream).wake();
        }
    }

    #[cold]
    fn count_error(&self, code: Option<Code>) {
        if let Some(meter) = &self.meter {
            meter.http2_error(code.map_or("431", Code::name));
        }
    }

    /// The connection is no more: every stream is told.
    pub fn lose(&mut self, fault: Fault) {
        self.lost = Some(fault);
        let unwritten: Vec<Key> = self.codec.unwritten().collect();
        for key in unwritten {
            self.inbox(key).fault.get_or_insert(Fault::Refused);
        }
        for inbox in &mut self.inboxes {
            if !inbox.ended {
                inbox.fault.get_or_insert(fault);
            }
            inbox.wake();
        }
        self.openers.drain(..).for_each(Waker::wake);
    }

    /// A connection that is not lost.
    pub fn alive(&mut self) -> Result<&mut Connection, Fault> {
        match self.lost {
            None => Ok(&mut self.codec),
            Some(fault) => Err(fault),
        }
    }

    /// Why nothing can be sent on this stream.
    pub fn why_closed(&mut self, key: Key) -> Fault {
        self.inbox(key).fault.unwrap_or(Fault::Closed)
    }
}

fn fault(why: Ended) -> Fault {
    match why {
        Ended::Refused => Fault::Refused,
        Ended::Reset(code) | Ended::Broken(code) => Fault::Reset(code),
        Ended::Malformed(error) => Fault::Malformed(error),
    }
}
