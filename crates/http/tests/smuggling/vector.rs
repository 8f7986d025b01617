//! One attack: its name, its bytes, its fate; and how the usual shapes of them are built.

use tulle_http::Error;

#[derive(Debug)]
pub enum Fate {
    Refused(Error),
    /// The request as the next hop gets it.
    Normalised(&'static str),
}
use Fate::Refused;

pub struct Vector {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub fate: Fate,
}

pub fn vector(name: &'static str, bytes: impl AsRef<[u8]>, fate: Fate) -> Vector {
    Vector {
        name,
        bytes: bytes.as_ref().to_vec(),
        fate,
    }
}

/// A POST with these field lines and a body that is a request of its own under one reading or another.
pub fn post(name: &'static str, fields: &str, error: Error) -> Vector {
    vector(
        name,
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        ),
        Refused(error),
    )
}

/// A GET whose field lines are these alone.
pub fn get(name: &'static str, fields: &str, error: Error) -> Vector {
    vector(
        name,
        format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"),
        Refused(error),
    )
}

pub fn line(name: &'static str, request_line: &[u8], error: Error) -> Vector {
    vector(
        name,
        [request_line, b"\r\nHost: a\r\n\r\n"].concat(),
        Refused(error),
    )
}

/// A chunked POST with this body.
pub fn chunks(name: &'static str, body: &[u8], error: Error) -> Vector {
    vector(
        name,
        [
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            body,
        ]
        .concat(),
        Refused(error),
    )
}
