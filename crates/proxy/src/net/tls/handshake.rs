//! A TLS handshake, octets in and octets out: rustls has the say, we carry.
//!
//! What rustls has to send gathers in [`Handshake::out`], one flight for one write. Records are handed to it one at a
//! time, so that nothing behind the handshake's last record is touched: that belongs to [`super::records`].

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ClientConfig, CommonState, Error, HandshakeKind, ServerConfig};

use super::records::{self, Keys, Records};

pub(super) struct Handshake {
    end: End,
    /// How many octets of the input have been handed to rustls and are still wanted: the beginning of a message.
    seen: usize,
    /// What is to be sent.
    pub out: Vec<u8>,
}

enum End {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The peer is to say more.
    More,
    Done,
    /// The peer has ended the connection instead.
    Closed,
}

enum Step {
    Again,
    Waiting,
    Closed,
}

/// What a handshake has led to.
pub(super) struct Established {
    pub records: Records,
    pub kind: HandshakeKind,
    /// What the peer has shown, the leaf first.
    pub chain: Option<Vec<CertificateDer<'static>>>,
    /// What is still to be sent …
    pub out: Vec<u8>,
    /// … and is of use only for a later connection: a server's tickets.
    pub lazy: bool,
}

impl Handshake {
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(End::Client(connection)))
    }

    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(End::Server(connection)))
    }

    fn new(end: End) -> Self {
        Handshake {
            end,
            seen: 0,
            out: Vec::new(),
        }
    }

    /// Goes as far as it can with what has come, and says how much of that is dealt with; the rest must be handed in
    /// again with more behind it.
    ///
    /// # Errors
    /// The handshake has failed; the alert that says why is in `out`.
    pub fn advance(&mut self, incoming: &mut [u8]) -> Result<(usize, Progress), Error> {
        let (mut at, mut end) = (0, self.seen.min(incoming.len()));
        loop {
            let (discard, step) = self.process(&mut incoming[at..end]);
            at += discard;
            match step {
                Err(error) => {
                    // Each turn hands over one message and looks at nothing. The input stays as it is: rustls may still
                    // point into it.
                    while self.state().wants_write() {
                        if self.process(&mut incoming[at..end]).1.is_err() {
                            break;
                        }
                    }
                    return Err(error);
                }
                Ok(Step::Again) => {}
                Ok(Step::Closed) => return Ok((at, Progress::Closed)),
                Ok(Step::Waiting) if !self.state().is_handshaking() => {
                    return Ok((at, Progress::Done));
                }
                Ok(Step::Waiting) => match records::next_for_handshake(&incoming[end..]) {
                    Some(length) => end += length,
                    None => {
                        self.seen = end - at;
                        return Ok((at, Progress::More));
                    }
                },
            }
        }
    }

    fn process(&mut self, incoming: &mut [u8]) -> (usize, Result<Step, Error>) {
        match &mut self.end {
            End::Client(end) => step(end.process_tls_records(incoming), &mut self.out),
            End::Server(end) => step(end.process_tls_records(incoming), &mut self.out),
        }
    }

    fn state(&self) -> &CommonState {
        match &self.end {
            End::Client(end) => end,
            End::Server(end) => end,
        }
    }

    /// Takes the keys over.
    ///
    /// # Errors
    /// It is not done, or the configuration does not let its keys out.
    pub fn finish(self) -> Result<Established, Error> {
        let state = self.state();
        let kind = state.handshake_kind().ok_or(Error::HandshakeNotComplete)?;
        let chain = state.peer_certificates().map(<[_]>::to_vec);
        let (lazy, secrets, keys) = match self.end {
            End::Client(end) => {
                let (secrets, keys) = end.dangerous_into_kernel_connection()?;
                (false, secrets, Keys::Client(keys))
            }
            End::Server(end) => {
                let (secrets, keys) = end.dangerous_into_kernel_connection()?;
                (true, secrets, Keys::Server(keys))
            }
        };
        Ok(Established {
            records: Records::new(secrets, keys)?,
            kind,
            chain,
            out: self.out,
            lazy,
        })
    }
}

fn step<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
    let step = status.state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(data) => encode(data, out),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Step::Waiting),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::Closed),
        _ => Err(Error::HandshakeNotComplete),
    });
    (status.discard, step)
}

/// Appends a message to `out`.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<Step, Error> {
    let used = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut [])
    {
        out.resize(used + required_size, 0);
        data.encode(&mut out[used..])
            .map_err(|error| Error::General(error.to_string()))?;
    }
    Ok(Step::Again)
}
