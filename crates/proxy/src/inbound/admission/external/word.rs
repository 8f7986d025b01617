//! The service's word: what becomes of the request and of its answer.

use bytes::Bytes;
use tulle_api::envoy::config::core::v3::HeaderValueOption;
use tulle_api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use tulle_api::envoy::service::auth::v3::check_response::HttpResponse;
use tulle_api::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use tulle_engine::Reason;
use tulle_engine::inbound::{External, is_reserved};
use tulle_http::Head;

use super::Silence;
use crate::http::answer::Refusal;

/// What the service wishes for the answer to the request.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes(Vec<Change>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    name: String,
    value: Vec<u8>,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Add,
    AddIfAbsent,
    Set,
    SetIfPresent,
}

const UNREADABLE: Silence = Silence::BadAnswer("has a header that is none");
const RESERVED: Silence = Silence::BadAnswer("changes a header that frames or routes the message");

/// Changes the request as the answer says, or refuses it.
pub fn carry_out(
    answer: &CheckResponse,
    head: &mut Head,
    rule: &External,
) -> Result<Result<Option<Box<Changes>>, Refusal>, Silence> {
    let code = answer.status.as_ref().map(|status| status.code);
    match (&answer.http_response, code) {
        (Some(HttpResponse::DeniedResponse(denied)), _) => Ok(Err(refusal(Some(denied), rule))),
        (_, None) => Err(Silence::BadAnswer("has no status")),
        (None, Some(0)) => Ok(Ok(None)),
        (Some(HttpResponse::OkResponse(ok)), Some(0)) => allowed(ok, head).map(Ok),
        (_, Some(_)) => Ok(Err(refusal(None, rule))),
    }
}

fn allowed(ok: &OkHttpResponse, head: &mut Head) -> Result<Option<Box<Changes>>, Silence> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err(Silence::BadAnswer(
            "changes the query, which this proxy does not",
        ));
    }
    let request = changes(&ok.headers)?;
    let answer = changes(&ok.response_headers_to_add)?;
    for name in &ok.headers_to_remove {
        let name = name.to_ascii_lowercase();
        if is_reserved(&name) {
            return Err(RESERVED);
        }
        head.remove(name.as_bytes());
    }
    for change in &request {
        change.apply(head).map_err(|_| UNREADABLE)?;
    }
    Ok((!answer.is_empty()).then(|| Box::new(Changes(answer))))
}

fn changes(options: &[HeaderValueOption]) -> Result<Vec<Change>, Silence> {
    let all = options.iter().map(|option| {
        let change = Change::read(option).ok_or(UNREADABLE)?;
        if is_reserved(&change.name) {
            return Err(RESERVED);
        }
        Ok(change)
    });
    all.collect()
}

impl Change {
    fn read(option: &HeaderValueOption) -> Option<Self> {
        let header = option
            .header
            .as_ref()
            .filter(|header| !header.key.is_empty())?;
        let value = if header.value.is_empty() {
            header.raw_value.clone()
        } else {
            header.value.clone().into_bytes()
        };
        let how = match (option.append, option.append_action()) {
            (Some(true), _) => How::Add,
            (Some(false), _) => How::Set,
            // Not said, and the default: external authorization has always replaced then.
            (None, HeaderAppendAction::AppendIfExistsOrAdd) => How::Set,
            (None, HeaderAppendAction::AddIfAbsent) => How::AddIfAbsent,
            (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => How::Set,
            (None, HeaderAppendAction::OverwriteIfExists) => How::SetIfPresent,
        };
        Some(Change {
            name: header.key.to_ascii_lowercase(),
            value,
            how,
        })
    }

    fn apply(&self, head: &mut Head) -> Result<(), tulle_http::Error> {
        let name = self.name.as_bytes();
        match self.how {
            How::Add => head.push(name, &self.value),
            How::AddIfAbsent if head.get(name).is_some() => Ok(()),
            How::SetIfPresent if head.get(name).is_none() => Ok(()),
            How::AddIfAbsent | How::Set | How::SetIfPresent => head.set(name, &self.value),
        }
    }
}

impl Changes {
    /// Changes the head of the answer.
    pub fn apply(&self, head: &mut Head) -> Result<(), tulle_http::Error> {
        self.0.iter().try_for_each(|change| change.apply(head))
    }
}

/// What the client gets. Its framing stays the proxy's, whatever the service says about that.
fn refusal(denied: Option<&DeniedHttpResponse>, rule: &External) -> Refusal {
    let mut refusal = Refusal::new(Reason::ExternallyDenied).of_rule(&rule.meta);
    let Some(denied) = denied else {
        return refusal;
    };
    if let Some(status) = denied
        .status
        .and_then(|status| u16::try_from(status.code).ok())
    {
        if (200..=599).contains(&status) {
            refusal.status = status;
            refusal.grpc_status = Some(grpc_of(status));
        }
    }
    let more = refusal.more.get_or_insert_default();
    let mut scratch = Head::new();
    for change in denied.headers.iter().filter_map(Change::read) {
        // Whether it can be a header is asked here, so that the rest of the answer goes out without it.
        if !is_reserved(&change.name) && change.apply(&mut scratch).is_err() {
            continue;
        }
    }
    for (name, value) in scratch.iter() {
        more.fields
            .push((String::from_utf8_lossy(name).into(), value.into()));
    }
    if !denied.body.is_empty() || !more.fields.is_empty() {
        more.body = Some(Bytes::from(denied.body.clone()));
    }
    refusal
}

/// The gRPC status of an HTTP status, as gRPC maps them.
fn grpc_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulle_api::envoy::config::core::v3::HeaderValue;
    use tulle_api::envoy::service::auth::v3::QueryParameter;
    use tulle_api::envoy::r#type::v3::HttpStatus;
    use tulle_api::google::rpc::Status;

    fn option(name: &str, value: &str, append: Option<bool>, action: i32) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(HeaderValue {
                key: name.into(),
                value: value.into(),
                raw_value: Vec::new(),
            }),
            append,
            append_action: action,
        }
    }

    fn rule() -> External {
        let message = tulle_api::inbound::Server {
            protocol: Some(tulle_api::inbound::ProxyProtocol {
                kind: Some(tulle_api::inbound::proxy_protocol::Kind::Opaque(
                    Default::default(),
                )),
            }),
            external_authorization: Some(tulle_api::inbound::ExternalAuthorization {
                authority: "authz:9000".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let server = tulle_engine::inbound::Server::compile(&message).unwrap();
        (**server.external.as_ref().unwrap()).clone()
    }

    fn head() -> Head {
        let mut head = Head::new();
        head.set_method(b"GET").unwrap();
        head.set_path(b"/").unwrap();
        head.push("x-there", "client").unwrap();
        head.push("x-gone", "client").unwrap();
        head
    }

    fn answer(code: Option<i32>, http: Option<HttpResponse>) -> CheckResponse {
        CheckResponse {
            status: code.map(|code| Status {
                code,
                message: String::new(),
            }),
            http_response: http,
        }
    }

    fn fields(head: &Head, name: &str) -> Vec<String> {
        head.get_all(name.as_bytes())
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn headers_are_set_added_and_removed_as_envoy_does() {
        let mut head = head();
        let ok = OkHttpResponse {
            headers: vec![
                option("X-There", "service", None, 0),
                option("x-new", "1", None, 0),
                option("x-new", "2", Some(true), 0),
                option("x-new", "3", None, 1),
                option("x-absent", "no", None, 3),
                option("authorization", "Bearer inner", Some(false), 0),
            ],
            headers_to_remove: vec!["X-Gone".into()],
            response_headers_to_add: vec![option("x-seen", "yes", Some(true), 0)],
            ..Default::default()
        };
        let answer = answer(Some(0), Some(HttpResponse::OkResponse(ok)));
        let changes = carry_out(&answer, &mut head, &rule())
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(fields(&head, "x-there"), ["service"]);
        assert_eq!(fields(&head, "x-new"), ["1", "2"]);
        assert_eq!(fields(&head, "x-absent"), [""; 0]);
        assert_eq!(fields(&head, "x-gone"), [""; 0]);
        assert_eq!(fields(&head, "authorization"), ["Bearer inner"]);
        let mut response = Head::new();
        response.set_status(200).unwrap();
        changes.apply(&mut response).unwrap();
        assert_eq!(fields(&response, "x-seen"), ["yes"]);
    }

    #[test]
    fn an_answer_that_cannot_be_carried_out_lets_nobody_in() {
        let ok = |ok| Some(HttpResponse::OkResponse(ok));
        let with = |option| OkHttpResponse {
            headers: vec![option],
            ..Default::default()
        };
        for (answer, why) in [
            (answer(None, None), "no status"),
            (answer(None, ok(OkHttpResponse::default())), "no status"),
            (
                answer(Some(0), ok(with(option("content-length", "0", None, 0)))),
                "frames or routes",
            ),
            (
                answer(Some(0), ok(with(option("Host", "evil", None, 0)))),
                "frames or routes",
            ),
            (
                answer(Some(0), ok(with(option("l5d-client-id", "root", None, 0)))),
                "frames or routes",
            ),
            (
                answer(Some(0), ok(with(option(":path", "/admin", None, 0)))),
                "frames or routes",
            ),
            (
                answer(Some(0), ok(with(option("x", "a\r\nb: c", None, 0)))),
                "none",
            ),
            (answer(Some(0), ok(with(option("", "a", None, 0)))), "none"),
            (
                answer(
                    Some(0),
                    ok(OkHttpResponse {
                        headers_to_remove: vec!["host".into()],
                        ..Default::default()
                    }),
                ),
                "frames or routes",
            ),
            (
                answer(
                    Some(0),
                    ok(OkHttpResponse {
                        query_parameters_to_set: vec![QueryParameter::default()],
                        ..Default::default()
                    }),
                ),
                "query",
            ),
        ] {
            let silence = carry_out(&answer, &mut head(), &rule()).unwrap_err();
            assert!(silence.to_string().contains(why), "{silence}");
            assert!(!silence.may_pass());
        }
    }

    #[test]
    fn a_denial_has_the_services_status_headers_and_body() {
        let denied = DeniedHttpResponse {
            status: Some(HttpStatus { code: 302 }),
            headers: vec![
                option("Location", "https://login", None, 0),
                option("content-length", "7", None, 0),
                option("x", "a\r\nb", None, 0),
            ],
            body: "log in".into(),
        };
        let answer = answer(Some(7), Some(HttpResponse::DeniedResponse(denied)));
        let refusal = carry_out(&answer, &mut head(), &rule())
            .unwrap()
            .unwrap_err();
        assert_eq!((refusal.status, refusal.grpc_status), (302, Some(2)));
        let more = refusal.more.unwrap();
        assert_eq!(
            more.fields,
            [("location".into(), (&b"https://login"[..]).into())]
        );
        assert_eq!(more.body.as_deref(), Some(&b"log in"[..]));
    }

    #[test]
    fn a_denial_needs_no_words_and_a_status_of_ok_does_not_undo_it() {
        let deny = |code, http| {
            carry_out(&answer(code, http), &mut head(), &rule())
                .unwrap()
                .unwrap_err()
        };
        let odd = |code| {
            Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                status: Some(HttpStatus { code }),
                ..Default::default()
            }))
        };
        assert_eq!(deny(Some(7), None).status, 403);
        assert_eq!(
            deny(Some(16), Some(HttpResponse::OkResponse(Default::default()))).status,
            403
        );
        assert_eq!(deny(Some(0), odd(429)).status, 429);
        assert_eq!(deny(None, odd(401)).status, 401);
        for wrong in [0, 101, 600, -1, 70_000] {
            assert_eq!(deny(Some(7), odd(wrong)).status, 403, "{wrong}");
        }
    }
}
