//! Listening sockets and the destination a connection had before it was redirected here.
//!
//! Every option is set once, on the listener: accepted sockets inherit them, so an accept costs no option system call.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Whether a connection to `address` would arrive at one of these listeners of this process.
pub fn arrives_at(address: SocketAddr, listening: &[SocketAddr]) -> bool {
    let ip = address.ip().to_canonical();
    let local = ip.is_loopback() || ip.is_unspecified();
    listening.iter().any(|own| {
        let at = own.ip().to_canonical();
        // The kernel takes a connection to the unspecified address as one to loopback.
        let reached =
            at == ip || (at.is_unspecified() && local) || (at.is_loopback() && ip.is_unspecified());
        reached && own.port() == address.port()
    })
}

#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    pub keepalive: Option<Duration>,
    pub user_timeout: Option<Duration>,
    /// For listeners: connections that the kernel keeps until they are accepted.
    pub backlog: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions {
            keepalive: Some(Duration::from_secs(10)),
            user_timeout: Some(Duration::from_secs(30)),
            backlog: 1024,
        }
    }
}

impl SocketOptions {
    pub fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if let Some(time) = self.keepalive {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(time))?;
        }
        socket.set_tcp_user_timeout(self.user_timeout)
    }
}

/// Listens on `address`. The error names the address; a port in use is one, whoever uses it.
pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<std::net::TcpListener> {
    let listen = || {
        let socket = unbound(address, options)?;
        socket.bind(&address.into())?;
        // After the bind, not before: then it would not be told of another program's socket that shares its port.
        socket.set_reuse_port(true)?;
        socket.listen(backlog(options))?;
        Ok(socket.into())
    };
    listen().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Another listener on the address of `first`, with a queue of its own: the kernel spreads connections evenly among
/// them. Waiting together on one queue is not even, for the worker that waits last is woken first.
pub fn beside(
    first: &std::net::TcpListener,
    options: SocketOptions,
) -> io::Result<std::net::TcpListener> {
    let address = first.local_addr()?;
    let socket = unbound(address, options)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(options))?;
    Ok(socket.into())
}

fn unbound(address: SocketAddr, options: SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    options.apply(&socket)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn backlog(options: SocketOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

/// An accepted connection and its three addresses.
pub struct Accepted {
    pub stream: TcpStream,
    pub client: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// Where the client meant to go; equal to `local` when nothing redirected it.
    pub original: SocketAddr,
}

impl Accepted {
    pub fn redirected(&self) -> bool {
        self.original != self.local
    }
}

/// The next connection. Errors of a single connection and of a full descriptor table do not end the loop: the
/// former are passed over, the latter is waited out.
pub async fn accept(listener: &TcpListener) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                if let Ok(local) = stream.local_addr() {
                    let original = original_destination(&stream, local).unwrap_or(local);
                    return Accepted {
                        stream,
                        client,
                        local,
                        original,
                    };
                }
            }
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
                ) =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(_) => {}
        }
    }
}

const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// The address before redirection, from the connection tracker; `None` when the kernel knows of no other.
fn original_destination(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    address.ok()?.as_socket()
}
