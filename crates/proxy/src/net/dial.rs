//! Outgoing TCP connections: options, the mark that exempts our own traffic from redirection, a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::config::Connections;
use crate::net::listen::SocketOptions;

#[derive(Clone, Copy, Debug, Default)]
pub struct Dialer {
    pub options: SocketOptions,
    /// SO_MARK for every socket we open; the redirect rules let marked packets pass.
    pub mark: Option<u32>,
}

impl Dialer {
    /// For the endpoints and applications of one direction.
    pub fn to_connect(connections: &Connections, mark: Option<u32>) -> Self {
        let options = SocketOptions {
            keepalive: connections.connect_keepalive,
            user_timeout: connections.connect_user_timeout,
            ..SocketOptions::default()
        };
        Dialer { options, mark }
    }

    /// Connects within `timeout`; a late connection is an error of kind `TimedOut`.
    pub async fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        {
            let socket = SockRef::from(&socket);
            self.options.apply(&socket)?;
            if let Some(mark) = self.mark {
                socket.set_mark(mark)?;
            }
        }
        match tokio::time::timeout(timeout, socket.connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection to {address} within {timeout:?}"),
            )),
        }
    }
}
