//! One outgoing request, from its head to its account.
//!
//! `handle` is the order of things: target, policy, rule, filters, backend, endpoint, exchange. The rule is chosen by
//! the engine (`plan`); `send` carries it out, try by try, and `pass_on` brings the answer back.

mod pass_on;
mod plan;
mod send;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tulle_engine::outbound::HttpVersion;
use tulle_engine::tap::Labels;
use tulle_engine::{Meta, Reason};
use tulle_http::l5d::{self, Peer};
use tulle_http::{Head, TargetForm, Version, translate};

use crate::drain::Guard;
use crate::http::Fault;
use crate::http::account::Account;
use crate::http::answer::{self, Refusal};
use crate::http::fault;
use crate::http::serve::{Handled, Handler};
use crate::http::side::{Answer, Downstream};
use crate::net::io::Io;
use crate::net::relay;
use crate::observe::{Caller, Derivation, Direction, RequestId};
use crate::outbound::backend::Member;
use crate::outbound::target::State;
use crate::outbound::tries::Asked;
use crate::outbound::{DISCOVERY_TIMEOUT, Outbound, captured, explicit};
use crate::tap::{Seen, Tls, Watched};
use plan::decide;
use send::Sent;

/// The requests of one accepted connection.
pub struct Requests {
    outbound: Rc<Outbound>,
    /// Who sends them.
    client: Option<SocketAddr>,
    to: To,
}

/// Where requests go.
enum To {
    /// All to the connection's own destination.
    Target(Rc<State>),
    /// All to a name, from another proxy that sent them through this one.
    Gateway { target: Rc<State>, peer: Box<str> },
    /// Each to its authority; the last one is remembered.
    Authority {
        last: RefCell<Option<(Vec<u8>, Rc<State>)>>,
        original: Option<SocketAddr>,
    },
}

/// Where a tunnel leads to.
pub enum Tunnel {
    Server(Box<Io>),
    /// A client that was not redirected asked for a connection there (CONNECT).
    Target(Rc<State>),
}

impl Requests {
    pub fn to(outbound: Rc<Outbound>, client: Option<SocketAddr>, target: Rc<State>) -> Self {
        Requests {
            outbound,
            client,
            to: To::Target(target),
        }
    }

    pub fn by_authority(
        outbound: Rc<Outbound>,
        client: Option<SocketAddr>,
        original: Option<SocketAddr>,
    ) -> Self {
        Requests {
            outbound,
            client,
            to: To::Authority {
                last: RefCell::new(None),
                original,
            },
        }
    }

    /// `peer`: the identity of the proxy that sends them.
    pub fn through_gateway(
        outbound: Rc<Outbound>,
        target: Rc<State>,
        client: SocketAddr,
        peer: &str,
    ) -> Self {
        Requests {
            outbound,
            client: Some(client),
            to: To::Gateway {
                target,
                peer: peer.into(),
            },
        }
    }

    fn target(&self, head: &Head) -> Result<Rc<State>, Refusal> {
        match &self.to {
            To::Target(target) | To::Gateway { target, .. } => Ok(target.clone()),
            To::Authority { last, original } => {
                explicit::target(&self.outbound, head, last, *original)
            }
        }
    }

    fn is_explicit(&self) -> bool {
        matches!(self.to, To::Authority { .. })
    }
}

impl Handler for Requests {
    type Tunnel = Tunnel;

    async fn handle(&self, head: &mut Head, down: &mut Downstream<'_>) -> Handled<Tunnel> {
        let Some(_entered) = self.outbound.in_flight.enter() else {
            return self.refused(down, head, &Refusal::new(Reason::LoadShed), |_| {
                Derivation::none()
            });
        };
        let mut account = Account::begin(&self.outbound.shard, head);
        account.trace = self.outbound.observer.trace(Direction::Outbound, head);
        let target = match self.target(head) {
            Ok(target) => target,
            Err(refusal) => return self.refused(down, head, &refusal, |_| Derivation::none()),
        };
        let compiled = match target.current() {
            Some(compiled) => compiled,
            None => match Box::pin(target.ready(DISCOVERY_TIMEOUT)).await {
                Ok(compiled) => compiled,
                Err(reason) => {
                    return self.refused(down, head, &Refusal::new(reason), |_| Derivation::none());
                }
            },
        };
        if self.is_explicit() && down.asks_tunnel() && head.method() == b"CONNECT" {
            return open_tunnel(down, head, target);
        }
        if matches!(self.to, To::Gateway { .. }) {
            match unpack(head) {
                Ok(bridged) => account.bridged = bridged,
                Err(error) => {
                    return self.refused(down, head, &Refusal::malformed(error), |_| {
                        Derivation::none()
                    });
                }
            }
        }
        l5d::strip_unbelievable(head, Peer::Untrusted);
        let required_id = head
            .get("l5d-require-id")
            .map(|id| Box::from(String::from_utf8_lossy(id)));
        if self.is_explicit() {
            head.set_target_form(TargetForm::Origin);
        }
        let version = if head.version() == Version::Http2 {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        };
        let (delay, plan) = decide(&self.outbound, &compiled, version, head);
        if let Some(length) = delay {
            if let Err(fault) = Box::pin(fault::hold(down, length)).await {
                down.cut(fault);
                return Handled::Cut;
            }
        }
        let handled = match plan {
            Ok(ref plan) => {
                let asked = Asked::read(plan.rule, head);
                l5d::strip_controls(head);
                let wishes = (required_id.as_deref(), asked.as_deref());
                self.send(&compiled, plan, wishes, head, down, &mut account)
                    .await
            }
            Err(ref refusal) => Sent::Refused((**refusal).clone()),
        };
        match handled {
            Sent::Handled(handled) => handled,
            Sent::Refused(refusal) => {
                compiled.metrics.request();
                if self.outbound.observer.taps.is_on() && account.watched().is_none() {
                    let route = plan.as_ref().ok().map(|plan| plan.route);
                    account.watch(self.watched(head, route, None, account.bridged));
                }
                let handled = self.refused(down, head, &refusal, |head| match &plan {
                    Ok(plan) => Derivation::of_rule(plan.name()),
                    Err(_) => Derivation::outbound(compiled.policy(), version, head),
                });
                account.answered_itself(head);
                account.end(&compiled.metrics, answer::error_label(&refusal));
                handled
            }
        }
    }

    fn unreadable(&self, refusal: &Refusal) -> Option<RequestId> {
        let observer = &self.outbound.observer;
        observer.refused(Caller::workload(), &Head::new(), refusal, Derivation::none)
    }

    fn tunnel(&self, client: Io, to: Tunnel, guard: Guard) {
        match to {
            Tunnel::Server(server) => relay::relay_apart(client, *server, guard),
            // A connection inside of a connection, whose task this is.
            Tunnel::Target(target) => {
                let connection = captured(self.outbound.clone(), client, target, guard);
                drop(tokio::task::spawn_local(connection));
            }
        }
    }
}

impl Requests {
    /// Who watches this request, or this try of it.
    #[cold]
    fn watched(
        &self,
        head: &Head,
        route: Option<&Meta>,
        to: Option<&Member>,
        bridged: bool,
    ) -> Option<Box<Watched>> {
        let nowhere = (None, Labels::List(&[]), Tls::None("no_endpoint"));
        let (destination, labels, proof) = to.map_or(nowhere, |member| {
            let (at, labels, proof) = member.as_watched();
            (Some(at), labels, proof)
        });
        self.outbound.observer.taps.watch(&Seen {
            direction: Direction::Outbound,
            source: self.client,
            source_tls: match &self.to {
                To::Gateway { peer, .. } => Tls::Peer(peer),
                _ => Tls::None("loopback"),
            },
            destination,
            destination_tls: proof,
            destination_labels: labels,
            route,
            head,
            bridged,
        })
    }

    fn refused(
        &self,
        down: &mut Downstream<'_>,
        head: &mut Head,
        refusal: &Refusal,
        derivation: impl FnOnce(&Head) -> Derivation,
    ) -> Handled<Tunnel> {
        self.outbound.answered_itself(refusal.reason);
        let observer = &self.outbound.observer;
        let id = observer.refused(Caller::workload(), head, refusal, || derivation(head));
        match answer::refuse(down, head, refusal, id.as_ref()) {
            Ok(()) => Handled::Answered,
            Err(_) => Handled::Cut,
        }
    }
}

/// Takes an HTTP/1 request out of the HTTP/2 in which another proxy carried it. `false`: it is HTTP/2 by nature.
fn unpack(head: &mut Head) -> Result<bool, tulle_http::Error> {
    let bridged = head.version() == Version::Http2 && head.get(l5d::ORIG_PROTO).is_some();
    if bridged {
        translate::request_to_h1(head)?;
        l5d::unbridge(head);
    }
    Ok(bridged)
}

/// Agrees to a CONNECT: what the client says next is detected and routed as if it had been redirected here.
fn open_tunnel(down: &mut Downstream<'_>, head: &mut Head, target: Rc<State>) -> Handled<Tunnel> {
    head.clear();
    let opened = head
        .set_status(200)
        .map_err(Fault::Malformed)
        .and_then(|()| down.send_head(head, Answer::Tunnel));
    match opened {
        Ok(()) => Handled::Tunnel(Tunnel::Target(target)),
        Err(_) => Handled::Cut,
    }
}
