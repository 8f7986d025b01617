//! A service that has the last word on each request (Envoy's `ext_authz`): where it is, how long it may take, and what
//! happens when it does not answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tulle_api::inbound as api;

use super::jwt::is_field_name;
use crate::invalid::{Invalid, duration};
use crate::meta::Meta;

/// The most octets of a body that the service is shown.
pub const MAX_SHOWN_BODY: u32 = 64 * 1024;

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);
/// A request waits no longer than this, whatever the policy says.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// A service that is asked about each request.
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// The object that asks for it.
    pub meta: Arc<Meta>,
    /// `name:port` or an address.
    pub authority: Box<str>,
    /// What the service has to prove to be; `None`: nothing.
    pub identity: Option<Box<str>>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whether requests pass when there is none.
    pub fail_open: bool,
    /// Octets of the body that the service sees.
    pub max_request_bytes: usize,
    /// Why it cannot be asked, when it could not be read. Then nobody passes, whatever `fail_open` says.
    pub invalid: Option<Invalid>,
}

impl External {
    pub(super) fn compile(
        message: &api::ExternalAuthorization,
        problems: &mut Vec<Invalid>,
    ) -> Self {
        let mut invalid = None;
        let mut fail = |error: Invalid| {
            let error = error.under("external_authorization");
            problems.push(error.clone());
            invalid.get_or_insert(error);
        };
        if !names_a_port(&message.authority) {
            fail(Invalid::new(
                "authority",
                "is not name:port or address:port",
            ));
        }
        if message.max_request_bytes > MAX_SHOWN_BODY {
            let why = format!("is more than {MAX_SHOWN_BODY}");
            fail(Invalid::new("max_request_bytes", why));
        }
        let timeout = match &message.timeout {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => match duration("timeout", timeout) {
                Ok(timeout) if !timeout.is_zero() && timeout <= MAX_TIMEOUT => timeout,
                Ok(_) => {
                    fail(Invalid::new("timeout", "is not above 0 and at most 10 s"));
                    DEFAULT_TIMEOUT
                }
                Err(error) => {
                    fail(error);
                    DEFAULT_TIMEOUT
                }
            },
        };
        Self {
            meta: Meta::compile(message.metadata.as_ref()),
            authority: message.authority.as_str().into(),
            identity: Some(message.identity.as_str())
                .filter(|identity| !identity.is_empty())
                .map(Into::into),
            timeout,
            fail_open: message.fail_open,
            max_request_bytes: usize::try_from(message.max_request_bytes).unwrap_or(0),
            invalid,
        }
    }
}

fn names_a_port(authority: &str) -> bool {
    let Some((host, port)) = authority.rsplit_once(':') else {
        return false;
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .map_or_else(
            || is_field_name(host),
            |ip| ip.parse::<std::net::Ipv6Addr>().is_ok(),
        );
    host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// What a client would need.
impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the leave of {}", self.authority)?;
        if self.fail_open {
            f.write_str(", if it answers")?;
        }
        Ok(())
    }
}
