//! HTTP/2 behind the seam, on the codec of `tulle_http`.
//!
//! `link` is what a connection's driver and the tasks of its streams share, `driver` the one task that reads and writes,
//! `stream` what a stream's task sees of it; `client` opens streams, `server` hands out those that the peer opens.

pub mod client;
pub mod driver;
pub mod keepalive;
pub mod link;
pub mod server;
pub mod stream;

use std::time::Duration;

/// More of a connection's output than this would only wait in our memory instead of the kernel's.
const MAX_OUTPUT: usize = 64 * 1024;

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
    /// Bytes that may wait to be written on one connection before its streams have to wait; at most 64 KiB.
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
    /// What the codec holds the peer to.
    fn codec(&self) -> tulle_http::h2::Settings {
        tulle_http::h2::Settings {
            stream_window: self.stream_window,
            connection_window: self.connection_window,
            max_concurrent_streams: self.max_concurrent_streams,
            max_header_list: self.max_header_list,
            max_frame: self.max_frame,
            max_pending_resets: self.max_pending_resets,
            max_output: self.max_send_buffer.min(MAX_OUTPUT),
            ..tulle_http::h2::Settings::default()
        }
    }

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
