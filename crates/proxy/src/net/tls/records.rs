//! The records of an established TLS 1.3 connection (RFC 8446 §5), octets in and octets out, with the keys that
//! rustls has agreed on.
//!
//! Cost: a record is sealed from where its text lies to where it is written from, and opened from where it was read to
//! where it is wanted: no copy and no allocation. rustls itself does not do that; its connections allocate and copy for
//! each record in either direction. What it knows of the protocol beside is still its own: keys that follow from keys,
//! and what a ticket says.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets, InvalidMessage,
    PeerMisbehaved,
};

/// Octets before a record's text.
const HEADER: usize = 5;
/// Octets behind it: its type and the tag.
const BEHIND: usize = 1 + TAG;
const TAG: usize = 16;
/// Most octets of text in a record.
pub(super) const MAX_TEXT: usize = 16 * 1024;
/// Most octets that may follow a record's header (RFC 8446 §5.2).
const MAX_PAYLOAD: usize = MAX_TEXT + 256;
/// Octets of a whole record.
pub(super) const MAX_RECORD: usize = HEADER + MAX_PAYLOAD;
/// What sealing adds to a record.
pub(super) const OVERHEAD: usize = HEADER + BEHIND;
/// Octets that sealing may add beside: a key update.
pub(super) const KEY_UPDATE: usize = OVERHEAD + 5;

/// Most octets of a message after the handshake.
const MAX_MESSAGE: usize = 64 * 1024;
/// Records without text that a peer may send one after the other: tickets, new keys, nothing at all.
const MAX_IDLE: u32 = 32;

mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const DATA: u8 = 23;
}

mod message {
    pub(super) const NEW_SESSION_TICKET: u8 = 4;
    pub(super) const KEY_UPDATE: u8 = 24;
}

/// What rustls keeps of a connection whose records we carry.
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// The key of one direction, and the number of its next record.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

pub(super) struct Records {
    sending: Direction,
    receiving: Direction,
    keys: Keys,
    /// Records for which a key may be used.
    limit: u64,
    /// The beginning of a message that has not come whole.
    joining: Vec<u8>,
    /// Records without text since the last with text.
    idle: u32,
    /// The peer wants to see a new key of ours, with the next that we say.
    update_owed: bool,
    /// The peer says nothing more.
    closed: bool,
    /// We say nothing more.
    closing: bool,
    /// Found behind text that had to be handed out first.
    fault: Option<Error>,
}

/// Octets of the record at the front of `bytes`, when it is there whole.
pub(super) fn whole(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let length = HEADER + length(header);
    (bytes.len() >= length).then_some(length)
}

/// How much of `bytes` rustls is to see next of a handshake: one record, if it is there whole; all of what is none, for
/// it to say so.
pub(super) fn next_for_handshake(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let sound = (20..=content::DATA).contains(&header[0]) && length(header) <= MAX_PAYLOAD;
    if sound {
        whole(bytes)
    } else {
        Some(bytes.len())
    }
}

fn length(header: &[u8; HEADER]) -> usize {
    usize::from(u16::from_be_bytes([header[3], header[4]]))
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("an unknown cipher".to_owned())),
        };
        let unusable = || Error::General("an unusable key".to_owned());
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unusable())?;
        Ok(Direction {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| unusable())?,
            sequence,
        })
    }

    /// No two records of a key have the same: the number only grows, and the key changes long before its end.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (octet, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *octet ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Writes one record to the front of `out`.
    fn seal(&mut self, kind: u8, text: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let length = text.len() + BEHIND;
        let [high, low] = (length as u16).to_be_bytes();
        let header = [content::DATA, 3, 3, high, low];
        let (front, sealed) = out[..HEADER + length].split_at_mut(HEADER);
        front.copy_from_slice(&header);
        let (cipher, behind) = sealed.split_at_mut(text.len());
        let (nonce, aad) = (self.nonce(), Aad::from(header));
        self.key
            .seal_out_of_place_scatter(nonce, aad, text, cipher, &[kind], behind)
            .map_err(|_| Error::EncryptError)?;
        self.sequence += 1;
        Ok(HEADER + length)
    }

    /// Opens one whole record into the front of `out`: its type, and how much text it has.
    fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<(u8, usize), Error> {
        let (header, payload) = record.split_at(HEADER);
        let length = payload.len().checked_sub(TAG).ok_or(Error::DecryptError)?;
        let (cipher, tag) = payload.split_at(length);
        let text = &mut out[..length];
        self.key
            .open_separate_gather(self.nonce(), Aad::from(header), cipher, tag, text)
            .map_err(|_| Error::DecryptError)?;
        self.sequence += 1;
        // Behind the text its type, behind that as many zeros as the peer liked.
        let last = text.iter().rposition(|octet| *octet != 0);
        let last = last.ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
        if last > MAX_TEXT {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok((text[last], last))
    }
}

impl Records {
    pub fn new(secrets: ExtractedSecrets, keys: Keys) -> Result<Self, Error> {
        let suite = match &keys {
            Keys::Client(keys) => keys.negotiated_cipher_suite(),
            Keys::Server(keys) => keys.negotiated_cipher_suite(),
        };
        let suite = suite
            .tls13()
            .ok_or_else(|| Error::General("not TLS 1.3".to_owned()))?;
        Ok(Records {
            sending: Direction::new(secrets.tx)?,
            receiving: Direction::new(secrets.rx)?,
            keys,
            limit: suite.common.confidentiality_limit,
            joining: Vec::new(),
            idle: 0,
            update_owed: false,
            closed: false,
            closing: false,
            fault: None,
        })
    }

    /// The peer has said its last word.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Something is wrong that the next [`Records::open`] tells.
    pub fn is_faulty(&self) -> bool {
        self.fault.is_some()
    }

    /// Opens as many whole records as there are and as `out` has room for the text of; at least one, if `out` has room
    /// for [`MAX_RECORD`]. Says how much of `incoming` is dealt with, and how much text there is.
    ///
    /// # Errors
    /// The connection is over, for the peer or for what it did; [`Records::last_words`] say which.
    pub fn open(&mut self, incoming: &[u8], out: &mut [u8]) -> Result<(usize, usize), Error> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let (mut used, mut written) = (0, 0);
        while !self.closed {
            match self.open_next(&incoming[used..], &mut out[written..]) {
                Ok(None) => break,
                Ok(Some((length, text))) => {
                    used += length;
                    written += text;
                }
                Err(fault) if written > 0 => {
                    // What was said before is heard first.
                    self.fault = Some(fault);
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok((used, written))
    }

    fn open_next(
        &mut self,
        incoming: &[u8],
        out: &mut [u8],
    ) -> Result<Option<(usize, usize)>, Error> {
        let Some(header) = incoming.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        if header[1] != 3 {
            return Err(InvalidMessage::UnknownProtocolVersion.into());
        }
        if header[0] != content::DATA {
            return Err(InvalidMessage::UnexpectedMessage("a record that is not sealed").into());
        }
        if length(header) > MAX_PAYLOAD {
            return Err(Error::PeerSentOversizedRecord);
        }
        let Some(whole) = whole(incoming) else {
            return Ok(None);
        };
        if whole > out.len() {
            return Ok(None);
        }
        let (kind, length) = self.receiving.open(&incoming[..whole], out)?;
        let text = &out[..length];
        if kind == content::DATA && length > 0 {
            self.not_within_a_message()?;
            self.idle = 0;
            return Ok(Some((whole, length)));
        }
        self.idle += 1;
        if self.idle > MAX_IDLE {
            return Err(PeerMisbehaved::TooManyEmptyFragments.into());
        }
        match kind {
            content::DATA => self.not_within_a_message()?,
            content::ALERT => self.take_alert(text)?,
            content::HANDSHAKE if !text.is_empty() => self.take_messages(text)?,
            _ => return Err(InvalidMessage::UnexpectedMessage("an unknown record").into()),
        }
        Ok(Some((whole, 0)))
    }

    fn not_within_a_message(&self) -> Result<(), Error> {
        if self.joining.is_empty() {
            Ok(())
        } else {
            Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into())
        }
    }

    fn take_alert(&mut self, text: &[u8]) -> Result<(), Error> {
        self.not_within_a_message()?;
        let &[_, description] = text else {
            return Err(InvalidMessage::MissingData("alert").into());
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.closed = true,
            // Some say so before they close.
            AlertDescription::UserCanceled => {}
            description => return Err(Error::AlertReceived(description)),
        }
        Ok(())
    }

    fn take_messages(&mut self, text: &[u8]) -> Result<(), Error> {
        let joined;
        let mut rest = if self.joining.is_empty() {
            text
        } else {
            self.joining.extend_from_slice(text);
            joined = std::mem::take(&mut self.joining);
            &joined[..]
        };
        while let Some(&[kind, l0, l1, l2]) = rest.first_chunk::<4>() {
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if length > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some(body) = rest.get(4..4 + length) else {
                break;
            };
            rest = &rest[4 + length..];
            match (kind, &mut self.keys) {
                (message::NEW_SESSION_TICKET, Keys::Client(keys)) => {
                    keys.handle_new_session_ticket(body)?;
                }
                (message::KEY_UPDATE, _) => self.take_key_update(body, rest.is_empty())?,
                _ => return Err(InvalidMessage::UnexpectedMessage("a handshake message").into()),
            }
        }
        self.joining.extend_from_slice(rest);
        Ok(())
    }

    /// `last`: nothing follows in its record, which would be sealed with the former key.
    fn take_key_update(&mut self, body: &[u8], last: bool) -> Result<(), Error> {
        if !last {
            return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
        }
        match body {
            [0] => {}
            // One answer does for all that were asked for before it.
            [1] => self.update_owed = true,
            _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
        }
        self.receiving = Direction::new(match &mut self.keys {
            Keys::Client(keys) => keys.update_rx_secret()?,
            Keys::Server(keys) => keys.update_rx_secret()?,
        })?;
        Ok(())
    }

    /// Seals as much of `text` as `out` has room for: how much that is, and how much of `out` is filled.
    ///
    /// # Errors
    /// There is no key to go on with.
    pub fn seal(&mut self, text: &[u8], out: &mut [u8]) -> Result<(usize, usize), Error> {
        let (mut taken, mut written) = (0, 0);
        while taken < text.len() {
            let room = (out.len() - written).saturating_sub(OVERHEAD + KEY_UPDATE);
            let count = room.min(MAX_TEXT).min(text.len() - taken);
            if count == 0 {
                break;
            }
            written += self.refresh(&mut out[written..])?;
            let piece = &text[taken..taken + count];
            written += self
                .sending
                .seal(content::DATA, piece, &mut out[written..])?;
            taken += count;
        }
        Ok((taken, written))
    }

    /// Goes over to a new key if the peer has asked for that or the present one has been used enough. The last record
    /// of a key says so.
    fn refresh(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if !self.update_owed && self.sending.sequence + 1 < self.limit {
            return Ok(0);
        }
        let message = [message::KEY_UPDATE, 0, 0, 1, 0];
        let written = self.sending.seal(content::HANDSHAKE, &message, out)?;
        self.sending = Direction::new(match &mut self.keys {
            Keys::Client(keys) => keys.update_tx_secret()?,
            Keys::Server(keys) => keys.update_tx_secret()?,
        })?;
        self.update_owed = false;
        Ok(written)
    }

    /// Our last word: once, and only if none of another kind has been said.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.say_last(1, AlertDescription::CloseNotify, out)
    }

    /// Tells the peer what was wrong with it.
    pub fn last_words(&mut self, error: &Error, out: &mut Vec<u8>) -> Result<(), Error> {
        let description = match error {
            Error::AlertReceived(_) => return Ok(()),
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::PeerMisbehaved(_)
            | Error::InvalidMessage(InvalidMessage::UnexpectedMessage(_)) => {
                AlertDescription::UnexpectedMessage
            }
            Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => {
                AlertDescription::IllegalParameter
            }
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            _ => AlertDescription::InternalError,
        };
        self.say_last(2, description, out)
    }

    fn say_last(
        &mut self,
        level: u8,
        description: AlertDescription,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if std::mem::replace(&mut self.closing, true) {
            return Ok(());
        }
        let used = out.len();
        out.resize(used + OVERHEAD + 2, 0);
        let alert = [level, u8::from(description)];
        self.sending
            .seal(content::ALERT, &alert, &mut out[used..])?;
        Ok(())
    }
}

#[cfg(test)]
impl Records {
    /// As if a key were good for so many records only.
    pub(super) fn limit_to(&mut self, records: u64) {
        self.limit = records;
    }

    /// A record without text.
    pub(super) fn seal_nothing(&mut self) -> Vec<u8> {
        let mut out = vec![0; OVERHEAD];
        self.sending
            .seal(content::DATA, &[], &mut out)
            .expect("it has a key");
        out
    }
}
