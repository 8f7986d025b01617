//! HTTP/2 behind the seam, carried by the `h2` crate. `HeaderMap` and `http::Request` live in this folder only.
//!
//! `message` turns heads into what the crate wants and back, `stream` moves one stream's bodies, `server` and `client`
//! drive connections: one task each, which writes once per scheduler round whatever many streams gave it.

pub mod client;
pub mod keepalive;
pub mod message;
pub mod server;
pub mod stream;

use std::time::Duration;

/// What we announce to a peer; the windows bound what its streams can make us hold.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub stream_window: u32,
    pub connection_window: u32,
    pub max_concurrent_streams: u32,
    pub max_header_list: u32,
    pub max_frame: u32,
    /// Streams that a client reset before they were served; with more, it is flooding us.
    pub max_pending_resets: usize,
    /// Bytes that one connection's streams may have queued for writing, each.
    pub max_send_buffer: usize,
    /// A peer is asked for a sign of life after this long …
    pub keepalive_interval: Option<Duration>,
    /// … and given up when none comes for this long.
    pub keepalive_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stream_window: 65_535,
            connection_window: 1_048_576,
            max_concurrent_streams: 1024,
            max_header_list: 64 * 1024,
            max_frame: 16_384,
            max_pending_resets: 20,
            max_send_buffer: 64 * 1024,
            keepalive_interval: Some(Duration::from_secs(10)),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl Settings {
    /// For accepted connections.
    pub fn from_config(config: &crate::config::Http2) -> Self {
        Settings {
            stream_window: config.stream_window,
            connection_window: config.connection_window,
            max_concurrent_streams: config.max_streams,
            max_header_list: config.max_header_list,
            max_frame: config.max_frame,
            max_pending_resets: config.max_pending_resets,
            max_send_buffer: config.max_send_buffer,
            keepalive_interval: config.keep_alive_interval,
            keepalive_timeout: config.keep_alive_timeout,
        }
    }

    /// For a connection to an endpoint, as discovery wants it.
    pub fn for_endpoint(params: &tulle_engine::destination::Http2Params, meshed: bool) -> Self {
        let default = Settings::default();
        Settings {
            stream_window: params.stream_window.unwrap_or(default.stream_window),
            connection_window: params
                .connection_window
                .unwrap_or(default.connection_window),
            max_frame: params.max_frame_size.unwrap_or(default.max_frame),
            max_send_buffer: params
                .max_send_buf_size
                .map_or(default.max_send_buffer, |size| size as usize),
            // A server outside of the mesh may take pings for abuse.
            keepalive_interval: match params.keep_alive {
                Some(keep_alive) => Some(keep_alive.interval),
                None if meshed => default.keepalive_interval,
                None => None,
            },
            keepalive_timeout: params
                .keep_alive
                .map_or(default.keepalive_timeout, |keep_alive| keep_alive.timeout),
            ..default
        }
    }
}
