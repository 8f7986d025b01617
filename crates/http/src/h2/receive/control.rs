//! The frames that carry no message: PRIORITY, RST_STREAM, SETTINGS, GOAWAY and WINDOW_UPDATE (RFC 9113 §6.3–§6.9).

use super::{Outcome, price};
use crate::h2::connection::{Connection, ConnectionError, Event};
use crate::h2::frame::{self, HEADER, Header, Kind, flag};
use crate::h2::settings::DEFAULT_WINDOW;
use crate::h2::stream::Key;
use crate::h2::{Code, Ended};

/// A stream that was reset within so many milliseconds of its opening was opened for nothing.
const YOUNG: u32 = 1000;

impl Connection {
    pub(super) fn on_priority(&mut self, header: Header, payload: &[u8]) -> Outcome {
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

    pub(super) fn on_reset(&mut self, id: u32, code: Code) -> Outcome {
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

    pub(super) fn on_settings(&mut self, header: Header, payload: &[u8]) -> Outcome {
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

    pub(super) fn on_go_away(&mut self, payload: &[u8]) -> Outcome {
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

    #[inline]
    pub(super) fn on_window_update(&mut self, id: u32, increment: u32) -> Outcome {
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
