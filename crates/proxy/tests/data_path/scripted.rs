//! A server that does with each request what its script says, and a rule that wants retries.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tulle_api::outbound::http_route as route;
use tulle_api::outbound::{self as api};

use crate::client::{Http1, Message};
use crate::rig::{Mesh, Pod, app, plain, policy_with};

/// What the server does with a request.
#[derive(Clone, Copy)]
pub enum Do {
    /// Answers with this status and these fields, each with its end of line.
    Answer(u16, &'static str),
    /// Answers with 200 after so many ms.
    Late(u64),
    /// Closes the connection without an answer.
    Close,
    /// Says nothing.
    Hang,
}

pub const OK: Do = Do::Answer(200, "");
pub const BUSY: Do = Do::Answer(503, "");

#[derive(Clone)]
pub struct Server(Rc<Inner>);

struct Inner {
    script: RefCell<Vec<Do>>,
    seen: RefCell<Vec<(Instant, Message)>>,
    /// Connections that the other side has closed while a request hung.
    left: RefCell<u32>,
}

impl Server {
    /// The script's last word goes for all that follows.
    pub async fn start(address: SocketAddr, script: &[Do]) -> Self {
        let server = Server(Rc::new(Inner {
            script: RefCell::default(),
            seen: RefCell::default(),
            left: RefCell::default(),
        }));
        server.script(script);
        let serving = server.clone();
        app(address, move |stream| {
            serving.clone().serve(Http1::new(stream))
        })
        .await;
        server
    }

    /// From here on.
    pub fn script(&self, script: &[Do]) {
        *self.0.script.borrow_mut() = script.iter().rev().copied().collect();
    }

    async fn serve(self, mut connection: Http1) {
        while let Some(request) = connection.message().await {
            self.0.seen.borrow_mut().push((Instant::now(), request));
            let step = {
                let mut script = self.0.script.borrow_mut();
                match script.len() {
                    0 | 1 => script.last().copied().unwrap_or(OK),
                    _ => script.pop().unwrap(),
                }
            };
            let (status, fields) = match step {
                Do::Answer(status, fields) => (status, fields),
                Do::Late(after) => {
                    tokio::time::sleep(Duration::from_millis(after)).await;
                    (200, "")
                }
                Do::Close => return,
                Do::Hang => {
                    connection.rest().await;
                    *self.0.left.borrow_mut() += 1;
                    return;
                }
            };
            let answer = format!("HTTP/1.1 {status} Said\r\n{fields}Content-Length: 4\r\n\r\ndone");
            connection.send(answer).await;
        }
    }

    pub fn count(&self) -> usize {
        self.0.seen.borrow().len()
    }

    pub fn seen(&self) -> Vec<Message> {
        self.0
            .seen
            .borrow()
            .iter()
            .map(|(_, seen)| seen.clone())
            .collect()
    }

    /// Between the request of this number and the one before.
    pub fn pause(&self, number: usize) -> Duration {
        let seen = self.0.seen.borrow();
        seen[number].0 - seen[number - 1].0
    }

    pub async fn has_left(&self) {
        while *self.0.left.borrow() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: i64::from(millis / 1000),
        nanos: millis % 1000 * 1_000_000,
    })
}

/// Two retries for 5xx.
pub fn retry() -> route::Retry {
    route::Retry {
        max_retries: 2,
        conditions: Some(route::retry::Conditions {
            status_ranges: vec![route::retry::conditions::StatusRange {
                start: 500,
                end: 599,
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn conditions(retry: &mut route::Retry) -> &mut route::retry::Conditions {
    retry.conditions.get_or_insert_default()
}

/// A pod `web` that calls the Service `voting`, whose rule is changed so, on one server outside of the mesh.
pub async fn calling(script: &[Do], change: impl Fn(&mut api::http_route::Rule)) -> (Pod, Server) {
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    mesh.policy("voting", policy_with("voting", change));
    mesh.endpoints("voting", &[plain(voting.address(18080))]);
    let server = Server::start(voting.address(18080), script).await;
    (web, server)
}

/// The same with retries, changed so.
pub async fn retrying(script: &[Do], change: impl Fn(&mut route::Retry)) -> (Pod, Server) {
    calling(script, |rule| {
        let mut retry = retry();
        change(&mut retry);
        rule.retry = Some(retry);
    })
    .await
}
