//! `tulle._engine`: the proxies' engine for Python. Thin: bytes of messages and facts of a request in, JSON out.
//!
//! `src/tulle/_engine.pyi` tells the types; `tulle.tools.verdict` reads the JSON into Python's own.
//! Nothing is decided here.

mod facts;
mod inbound;
mod outbound;
mod verdict;

use prost::Message;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Serialize;
use tulle_api::destination;
use tulle_engine::Reason;
use tulle_engine::destination::{Endpoints, State};
use tulle_engine::route::Pattern;

use self::facts::Request;
use self::verdict::{Endpoint, EndpointsVerdict, ReasonVerdict};

fn decode<M: Message + Default>(bytes: &[u8]) -> PyResult<M> {
    M::decode(bytes).map_err(|error| PyValueError::new_err(format!("not a message: {error}")))
}

fn json<T: Serialize>(verdict: &T) -> PyResult<String> {
    serde_json::to_string(verdict).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// What an `OutboundPolicy` makes of a request, and why every other rule did not decide.
#[pyfunction]
#[pyo3(signature = (policy, *, method, authority, path, headers, http2 = false))]
fn decide_outbound(
    policy: &[u8],
    method: &str,
    authority: &str,
    path: &str,
    headers: Vec<(String, Vec<u8>)>,
    http2: bool,
) -> PyResult<String> {
    let request = Request {
        method,
        authority,
        path,
        headers,
    };
    json(&outbound::decide(&decode(policy)?, &request, http2))
}

/// What an inbound `Server` makes of a request of a client, and why every other rule did not decide.
///
/// `identity` is the name in the client's certificate; without one, `tls` says whether it came over the mesh's TLS.
#[pyfunction]
#[pyo3(signature = (server, *, client, identity, tls, method, authority, path, headers))]
#[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
fn decide_inbound(
    server: &[u8],
    client: &str,
    identity: Option<&str>,
    tls: bool,
    method: &str,
    authority: &str,
    path: &str,
    headers: Vec<(String, Vec<u8>)>,
) -> PyResult<String> {
    let addr = client
        .parse()
        .map_err(|_| PyValueError::new_err(format!("{client:?} is not an address")))?;
    let request = Request {
        method,
        authority,
        path,
        headers,
    };
    json(&inbound::decide(
        &decode(server)?,
        addr,
        identity,
        tls,
        &request,
    ))
}

/// The endpoints that a stream of `Update`s has told.
#[pyfunction]
fn endpoints(updates: Vec<Vec<u8>>) -> PyResult<String> {
    let mut endpoints = Endpoints::default();
    let mut problems = Vec::new();
    for (index, bytes) in updates.iter().enumerate() {
        let update: destination::Update = decode(bytes)?;
        let changes = endpoints.apply(&update, index == 0);
        problems.extend(changes.problems.iter().map(ToString::to_string));
    }
    json(&EndpointsVerdict {
        state: match endpoints.state() {
            State::Unknown => "unknown",
            State::Missing => "missing",
            State::Exists => "exists",
        },
        endpoints: endpoints
            .iter()
            .map(|endpoint| Endpoint::new(endpoint))
            .collect(),
        problems,
    })
}

/// Why a proxy would not take this regular expression; `None` when it would.
#[pyfunction]
fn pattern_problem(text: &str) -> Option<String> {
    Pattern::new(text).err().map(|error| error.why)
}

/// Every reason for which a proxy answers by itself.
#[pyfunction]
fn reasons() -> PyResult<String> {
    json(&Reason::all().map(ReasonVerdict::new).collect::<Vec<_>>())
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decide_outbound, module)?)?;
    module.add_function(wrap_pyfunction!(decide_inbound, module)?)?;
    module.add_function(wrap_pyfunction!(endpoints, module)?)?;
    module.add_function(wrap_pyfunction!(pattern_problem, module)?)?;
    module.add_function(wrap_pyfunction!(reasons, module)?)?;
    Ok(())
}
