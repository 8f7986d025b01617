//! The server's answer on its way to the caller, and what becomes of the server's connection.

use tulle_engine::Reason;
use tulle_http::hop::UpgradeField;
use tulle_http::{Head, hop, l5d, translate};

use crate::clock;
use crate::http::Fault;
use crate::http::account::Account;
use crate::http::answer;
use crate::http::decision;
use crate::http::exchange::{Exchange, Failure};
use crate::http::serve::Handled;
use crate::http::side::{Answer, Downstream, Upstream};
use crate::observe::request_id;
use crate::outbound::Tunnel;
use crate::outbound::backend::InUse;
use crate::outbound::http::plan::Plan;

/// The answer has begun: passes it on, keeps the account. False when it had to be cut.
pub async fn pass_on(
    exchange: &mut Exchange<'_, '_>,
    answer: Answer,
    plan: &Plan<'_>,
    in_use: &InUse,
    head: &mut Head,
    account: &mut Account,
) -> bool {
    let metrics = &in_use.member.metrics;
    metrics.request();
    if let Some(tap) = account.watched() {
        let (at, labels, proof) = in_use.member.as_watched();
        tap.answered_by(at, labels, proof);
    }
    in_use.answered(clock::nanos(account.answered(head)), head);
    let prepared = prepare_answer(head, answer, in_use, plan, account.bridged, exchange.down);
    if let Err(fault) = prepared.and_then(|()| exchange.down.send_head(head, answer)) {
        account.end(metrics, "cancelled");
        exchange.down.cut(fault);
        exchange.up.cancel(fault.to_code());
        return false;
    }
    if answer == Answer::Tunnel {
        account.end(metrics, "");
        return true;
    }
    let moved = exchange.bodies().await;
    account.exchanged(exchange);
    match moved {
        Ok(()) => {
            let now = clock::nanos(account.end(metrics, ""));
            in_use.ended(now, exchange.grpc_status());
            true
        }
        Err(failure) => {
            // A caller that takes nothing says nothing about the endpoint.
            let by_caller = Failure::Deadline(Reason::ReceiverStalled);
            if !matches!(failure, Failure::Downstream(_)) && failure != by_caller {
                in_use.broke(clock::now());
            }
            account.fail(metrics, failure);
            exchange.cut(failure);
            false
        }
    }
}

/// What becomes of the server's connection after a whole answer.
pub fn conclude(up: Upstream, answer: Answer, in_use: &InUse) -> Handled<Tunnel> {
    match (up, answer) {
        (Upstream::H1(connection), Answer::Tunnel) => {
            Handled::Tunnel(Tunnel::Server(Box::new(connection.into_tunnel())))
        }
        (Upstream::H2(_), Answer::Tunnel) => Handled::Cut,
        (Upstream::H1(connection), _) => {
            let now = in_use.over().unwrap_or_else(clock::now);
            in_use.member.origin.give_back(connection, now);
            Handled::Answered
        }
        (Upstream::H2(_), _) => Handled::Answered,
    }
}

/// Rewrites the answer's head for the caller.
fn prepare_answer(
    head: &mut Head,
    answer: Answer,
    in_use: &InUse,
    plan: &Plan<'_>,
    bridged: bool,
    down: &mut Downstream<'_>,
) -> Result<(), Fault> {
    if in_use.member.origin.reach().is_meshed() {
        // The peer proxy's word about its connection to us: ours to the caller goes with it.
        if head
            .get("l5d-proxy-connection")
            .is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
        {
            down.close_after();
        }
        l5d::unbridge(head);
        head.remove("l5d-proxy-connection");
        l5d::strip_controls(head);
    } else {
        l5d::strip_all(head);
        head.remove(answer::REASON);
        head.remove(request_id::FIELD);
    }
    if bridged {
        l5d::bridge(head)?;
    }
    hop::strip(head, UpgradeField::of(answer == Answer::Tunnel));
    if matches!(down, Downstream::H2(_)) {
        translate::response_to_h2(head);
    }
    decision::modify_response(&plan.rule.filters, head)?;
    decision::modify_response(&plan.backend.filters, head)?;
    if let Some(origin) = &plan.origin {
        origin.mark(head)?;
    }
    in_use.stick(head).map_err(Fault::Malformed)
}
