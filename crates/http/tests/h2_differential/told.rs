//! What an end of a connection made of a peer's frames, in a form that both can be compared in.

use std::collections::BTreeMap;

pub type Fields = Vec<(String, Vec<u8>)>;

/// How far a message came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// No end was seen.
    #[default]
    Open,
    Complete,
    /// The peer reset it, with this code.
    Reset(u32),
    /// The peer broke a rule of the stream.
    Broken,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub start: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    pub end: End,
}

/// The messages by stream, and whether the connection ended in an error.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub messages: BTreeMap<u32, Message>,
    pub lost: bool,
}

impl Told {
    /// The messages that are whole.
    pub fn complete(&self) -> impl Iterator<Item = (u32, &Message)> {
        let whole = |(id, message): (&u32, _)| (*id, message);
        self.messages
            .iter()
            .map(whole)
            .filter(|(_, message)| message.end == End::Complete)
    }
}

/// Sorted, for no order but that of one name's values means anything; cookie crumbs are one field (RFC 9113 §8.2.3).
pub fn normal<'f>(fields: impl Iterator<Item = (&'f str, &'f [u8])>) -> Fields {
    let (cookies, mut others): (Fields, Fields) = fields
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .partition(|(name, _)| name == "cookie");
    if !cookies.is_empty() {
        let crumbs: Vec<Vec<u8>> = cookies.into_iter().map(|(_, value)| value).collect();
        others.push(("cookie".to_owned(), crumbs.join(&b"; "[..])));
    }
    others.sort_by(|a, b| a.0.cmp(&b.0));
    others
}
