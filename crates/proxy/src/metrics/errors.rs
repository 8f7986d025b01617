//! Linkerd's words for what a proxy could not carry: the `error` label of `{inbound,outbound}_{http,tcp}_errors_total`.
//! The label `reason` beside it has our own code, which tells more.

use tulle_engine::Reason;

/// Of a request or connection to the workload. `None`: policy has refused it, which is counted elsewhere.
pub fn inbound(reason: Reason) -> Option<&'static str> {
    use Reason as R;
    match reason {
        R::Redirected | R::Preflight | R::FaultInjected | R::FailureInjected => None,
        R::RouteNotFound | R::Unauthorized | R::Forbidden => None,
        R::RateLimited | R::ConcurrencyLimited => None,
        R::TokenMissing | R::TokenInvalid | R::ExternallyDenied => None,
        R::Loop => Some("gateway loop"),
        R::GatewayDomain => Some("gateway domain invalid"),
        _ => Some(common(reason)),
    }
}

/// Of a request or connection of the workload. `None`: it got what its route is there for.
pub fn outbound(reason: Reason) -> Option<&'static str> {
    use Reason as R;
    match reason {
        R::Redirected | R::Preflight => None,
        R::IdentityRequired | R::IdentityMismatch | R::MeshTlsRequired => Some("identity required"),
        R::RequestTimeout | R::ResponseTimeout | R::TryTimeout | R::IdleTimeout => {
            Some("response timeout")
        }
        _ => Some(common(reason)),
    }
}

fn common(reason: Reason) -> &'static str {
    use Reason as R;
    match reason {
        R::FailFast | R::NoEndpoints | R::EndpointsFull => "failfast",
        R::LoadShed => "loadshed",
        R::ConnectFailed | R::ConnectTimeout | R::TlsFailed => "i/o",
        R::ConnectionClosed | R::StreamReset => "i/o",
        _ => "unexpected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_linkerds_words() {
        for (reason, at_the_server, at_the_client) in [
            (Reason::FailFast, Some("failfast"), Some("failfast")),
            (Reason::LoadShed, Some("loadshed"), Some("loadshed")),
            (Reason::ConnectFailed, Some("i/o"), Some("i/o")),
            (Reason::Loop, Some("gateway loop"), Some("unexpected")),
            (
                Reason::GatewayDomain,
                Some("gateway domain invalid"),
                Some("unexpected"),
            ),
            (
                Reason::IdentityRequired,
                Some("unexpected"),
                Some("identity required"),
            ),
            (
                Reason::RequestTimeout,
                Some("unexpected"),
                Some("response timeout"),
            ),
            (Reason::Unauthorized, None, Some("unexpected")),
            (Reason::RateLimited, None, Some("unexpected")),
            (Reason::Redirected, None, None),
        ] {
            assert_eq!(
                (inbound(reason), outbound(reason)),
                (at_the_server, at_the_client),
                "{}",
                reason.code()
            );
        }
    }
}
