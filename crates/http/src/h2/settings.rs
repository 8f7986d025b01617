//! What each end of a connection may do to the other: [`Settings`] are ours and held against the peer, [`PeerSettings`]
//! are the peer's and held by us.

use super::frame::{self, setting};
use super::{Code, ConnectionError};

/// The flow-control window and the frame size that hold before anybody has said otherwise (RFC 9113 §6.5.2).
pub(super) const DEFAULT_WINDOW: u32 = 65_535;
pub(super) const DEFAULT_FRAME: u32 = 16_384;
/// Streams that we open before the peer has told how many it takes.
const UNTOLD_STREAMS: u32 = 100;

/// Our end's bounds. What is announced is also enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Octets of body that a peer may send on one stream before they are consumed.
    pub stream_window: u32,
    /// The same for all streams of the connection together; at least 65,535.
    pub connection_window: u32,
    /// Streams that the peer may have open; one more is refused.
    pub max_concurrent_streams: u32,
    /// Octets of a header list: names, values and 32 for each field.
    pub max_header_list: u32,
    /// Fields of a header list, pseudo fields and cookie crumbs included.
    pub max_fields: usize,
    /// Octets of a frame's payload that we take, 16,384 to 16,777,215.
    pub max_frame: u32,
    /// Requests that the peer has reset before they were looked at ([`Connection::accept`](super::Connection::accept));
    /// one more ends the connection.
    pub max_pending_resets: usize,
    /// Octets waiting to be written at which streams may add no more DATA.
    pub max_output: usize,
    /// Server: offers extended CONNECT (RFC 8441).
    pub connect_protocol: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stream_window: DEFAULT_WINDOW,
            connection_window: 1 << 20,
            max_concurrent_streams: 1024,
            max_header_list: 64 * 1024,
            max_fields: crate::Limits::MAX_FIELDS,
            max_frame: DEFAULT_FRAME,
            max_pending_resets: 20,
            max_output: 64 * 1024,
            connect_protocol: false,
        }
    }
}

impl Settings {
    /// The same with values that the protocol does not have brought into its range.
    pub(super) fn in_range(self) -> Self {
        Settings {
            stream_window: self.stream_window.min(frame::MAX_WINDOW),
            connection_window: self
                .connection_window
                .clamp(DEFAULT_WINDOW, frame::MAX_WINDOW),
            max_frame: self.max_frame.clamp(DEFAULT_FRAME, frame::MAX_FRAME),
            max_output: self.max_output.max(DEFAULT_FRAME as usize),
            ..self
        }
    }

    /// Appends the SETTINGS frame that announces them, and the window of the connection.
    pub(super) fn announce(&self, client: bool, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(36);
        let mut put = |id: u16, value: u32| {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        };
        if client {
            put(setting::ENABLE_PUSH, 0);
        } else {
            put(setting::MAX_CONCURRENT_STREAMS, self.max_concurrent_streams);
            if self.connect_protocol {
                put(setting::ENABLE_CONNECT_PROTOCOL, 1);
            }
        }
        if self.stream_window != DEFAULT_WINDOW {
            put(setting::INITIAL_WINDOW_SIZE, self.stream_window);
        }
        if self.max_frame != DEFAULT_FRAME {
            put(setting::MAX_FRAME_SIZE, self.max_frame);
        }
        put(setting::MAX_HEADER_LIST_SIZE, self.max_header_list);
        frame::put(frame::Kind::Settings, 0, 0, &payload, out);
        if self.connection_window > DEFAULT_WINDOW {
            frame::put_window_update(0, self.connection_window - DEFAULT_WINDOW, out);
        }
    }
}

/// What the peer has announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    pub(super) initial_window: u32,
    pub(super) max_frame: u32,
    pub(super) max_concurrent_streams: u32,
    pub(super) header_table: u32,
    pub(super) connect_protocol: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        PeerSettings {
            initial_window: DEFAULT_WINDOW,
            max_frame: DEFAULT_FRAME,
            max_concurrent_streams: UNTOLD_STREAMS,
            header_table: crate::hpack::DEFAULT_TABLE_SIZE as u32,
            connect_protocol: false,
        }
    }
}

impl PeerSettings {
    /// Takes in a SETTINGS frame. `first`: it is the connection's first. `from_server`: the peer is one.
    pub(super) fn apply(
        &mut self,
        payload: &[u8],
        first: bool,
        from_server: bool,
    ) -> Result<(), ConnectionError> {
        let wrong = |code, why| Err(ConnectionError::new(code, why));
        if first {
            // Saying nothing means that there is no bound.
            self.max_concurrent_streams = u32::MAX;
        }
        for pair in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([pair[0], pair[1]]);
            let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
            match id {
                setting::HEADER_TABLE_SIZE => self.header_table = value,
                setting::ENABLE_PUSH if value > 1 || (from_server && value == 1) => {
                    return wrong(Code::PROTOCOL_ERROR, "invalid ENABLE_PUSH");
                }
                setting::MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
                setting::INITIAL_WINDOW_SIZE if value > frame::MAX_WINDOW => {
                    return wrong(Code::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large");
                }
                setting::INITIAL_WINDOW_SIZE => self.initial_window = value,
                setting::MAX_FRAME_SIZE if !(DEFAULT_FRAME..=frame::MAX_FRAME).contains(&value) => {
                    return wrong(Code::PROTOCOL_ERROR, "invalid MAX_FRAME_SIZE");
                }
                setting::MAX_FRAME_SIZE => self.max_frame = value,
                // It may not be taken back (RFC 8441 §3).
                setting::ENABLE_CONNECT_PROTOCOL
                    if value > 1 || (value == 0 && self.connect_protocol) =>
                {
                    return wrong(Code::PROTOCOL_ERROR, "invalid ENABLE_CONNECT_PROTOCOL");
                }
                setting::ENABLE_CONNECT_PROTOCOL => self.connect_protocol = value == 1,
                _ => {}
            }
        }
        Ok(())
    }
}
