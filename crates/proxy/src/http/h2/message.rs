//! Heads to and from the `h2` crate's types.
//!
//! Cost: an outgoing head makes one block for all values and shares it; names outside of the `http` crate's table are
//! one allocation each. An incoming head is copied into the reused [`Head`].

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use tulle_http::{Error, Head, MethodKind, Version};

/// Fills `head` from a request that came over HTTP/2 and judges it.
pub fn read_request(request: &Request<()>, head: &mut Head) -> Result<(), Error> {
    head.clear();
    head.set_version(Version::Http2);
    head.set_method(request.method().as_str().as_bytes())?;
    let uri = request.uri();
    if let Some(scheme) = uri.scheme_str() {
        head.set_scheme(scheme.as_bytes())?;
    }
    if let Some(authority) = uri.authority() {
        head.set_authority(authority.as_str().as_bytes())?;
    }
    if *request.method() != Method::CONNECT {
        head.set_path(
            uri.path_and_query()
                .map_or(&b"/"[..], |path| path.as_str().as_bytes()),
        )?;
    }
    read_fields(request.headers(), head)?;
    tulle_http::translate::check_h2_request(head)
}

/// Fills `head` from an answer that came over HTTP/2 and judges it.
pub fn read_response<T>(response: &Response<T>, head: &mut Head) -> Result<(), Error> {
    head.clear();
    head.set_version(Version::Http2);
    head.set_status(response.status().as_u16())?;
    read_fields(response.headers(), head)?;
    tulle_http::translate::check_h2_response(head)
}

pub fn read_trailers(trailers: &HeaderMap, head: &mut Head) -> Result<(), Error> {
    head.clear();
    read_fields(trailers, head)
}

fn read_fields(fields: &HeaderMap, head: &mut Head) -> Result<(), Error> {
    for (name, value) in fields {
        head.push_h2(name.as_str().as_bytes(), value.as_bytes())?;
    }
    Ok(())
}

/// A request for the `h2` crate. The head has passed `tulle_http`'s grammar, so errors are for what only HTTP/2 forbids.
pub fn write_request(head: &Head) -> Result<Request<()>, Error> {
    let path = if head.method_kind() == MethodKind::Connect {
        &b""[..]
    } else {
        head.path()
    };
    let authority = head.authority().unwrap_or_default();
    let mut block = Block::new(head, path.len() + authority.len());
    let path = block.put(path);
    let authority = block.put(authority);
    let fields = block.put_fields(head);
    let block = block.freeze();

    let mut uri = http::uri::Parts::default();
    if !path.is_empty() {
        // The `h2` crate wants a scheme wherever there is a path; without authority it sends none of the two.
        uri.path_and_query =
            Some(PathAndQuery::from_maybe_shared(block.slice(path)).map_err(|_| Error::Target)?);
        uri.scheme = Some(if head.scheme() == b"https" {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
    }
    if !authority.is_empty() {
        uri.authority = Some(
            Authority::from_maybe_shared(block.slice(authority)).map_err(|_| Error::Authority)?,
        );
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).map_err(|_| Error::Method)?;
    let authority_given = uri.authority.is_some();
    *request.uri_mut() = match (&uri.path_and_query, &uri.authority) {
        // `Uri` has no form for scheme and path alone.
        (Some(_), None) => Uri::from(uri.path_and_query.take().ok_or(Error::Target)?),
        _ => Uri::from_parts(uri).map_err(|_| Error::Target)?,
    };
    // Without an authority the `h2` crate supplies the scheme only for what says it was HTTP/1.
    *request.version_mut() = if authority_given {
        http::Version::HTTP_2
    } else {
        http::Version::HTTP_11
    };
    write_fields(head, &block, fields, request.headers_mut())?;
    Ok(request)
}

pub fn write_response(head: &Head) -> Result<Response<()>, Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| Error::StatusLine)?;
    let mut block = Block::new(head, 0);
    let fields = block.put_fields(head);
    write_fields(head, &block.freeze(), fields, response.headers_mut())?;
    Ok(response)
}

pub fn write_trailers(head: &Head) -> Result<HeaderMap, Error> {
    let mut trailers = HeaderMap::new();
    let mut block = Block::new(head, 0);
    let fields = block.put_fields(head);
    write_fields(head, &block.freeze(), fields, &mut trailers)?;
    Ok(trailers)
}

fn write_fields(
    head: &Head,
    block: &Bytes,
    start: usize,
    out: &mut HeaderMap,
) -> Result<(), Error> {
    out.try_reserve(head.len())
        .map_err(|_| Error::TooManyFields)?;
    let mut at = start;
    for (name, value) in head.iter() {
        let shared = block.slice(at..at + value.len());
        at += value.len();
        let name = HeaderName::from_lowercase(name).map_err(|_| Error::Name)?;
        let mut value = HeaderValue::from_maybe_shared(shared).map_err(|_| Error::Value)?;
        if name == http::header::AUTHORIZATION {
            value.set_sensitive(true);
        }
        out.try_append(name, value)
            .map_err(|_| Error::TooManyFields)?;
    }
    Ok(())
}

/// One allocation for everything of a head that HTTP/2 types want to own.
struct Block(BytesMut);

impl Block {
    fn new(head: &Head, extra: usize) -> Self {
        let values: usize = head.iter().map(|(_, value)| value.len()).sum();
        Block(BytesMut::with_capacity(values + extra))
    }

    fn put(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.0.len();
        self.0.extend_from_slice(bytes);
        start..self.0.len()
    }

    fn put_fields(&mut self, head: &Head) -> usize {
        let start = self.0.len();
        for (_, value) in head.iter() {
            self.0.extend_from_slice(value);
        }
        start
    }

    fn freeze(self) -> Bytes {
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_both_ways() {
        let mut head = Head::new();
        head.set_version(Version::Http2);
        head.set_method(b"POST").unwrap();
        head.set_scheme(b"http").unwrap();
        head.set_authority(b"voting.default:80").unwrap();
        head.set_path(b"/a?b=c").unwrap();
        for (name, value) in [
            ("te", "trailers"),
            ("x-one", "1"),
            ("x-one", "2"),
            ("content-type", "application/grpc"),
        ] {
            head.push(name, value).unwrap();
        }
        let mut back = Head::new();
        read_request(&write_request(&head).unwrap(), &mut back).unwrap();
        assert!(head == back, "{head:?}\n{back:?}");
    }

    #[test]
    fn an_answer_and_trailers_survive_both_ways() {
        let mut head = Head::new();
        head.set_version(Version::Http2);
        head.set_status(404).unwrap();
        head.push("set-cookie", "a=b").unwrap();
        let mut back = Head::new();
        read_response(&write_response(&head).unwrap(), &mut back).unwrap();
        assert!(head == back);
        let mut trailers = Head::new();
        trailers.push("grpc-status", "0").unwrap();
        read_trailers(&write_trailers(&trailers).unwrap(), &mut back).unwrap();
        assert_eq!(back.get("grpc-status"), Some(&b"0"[..]));
    }
}
