//! The series that a request is counted in, remembered from the connection's last one; and what a tap is told of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tulle_engine::inbound::{Protocol, Server};
use tulle_engine::tap::Labels;
use tulle_http::Head;

use crate::inbound::http::Requests;
use crate::inbound::port::{RouteLabels, Series, SeriesKey};
use crate::inbound::session::ClientTls;
use crate::inbound::{labels, sweep};
use crate::metrics::families;
use crate::metrics::http::HttpMetrics;
use crate::metrics::route::Edge;
use crate::observe::Direction;
use crate::tap::{self, Tls, Watched};

/// No route, or no authorization: no such place in the policy's lists.
pub const NONE: usize = usize::MAX;

/// The series of a connection's last request.
pub struct Known {
    server: Arc<Server>,
    key: SeriesKey,
    series: Rc<Series>,
}

impl Requests {
    pub(super) fn series(
        &self,
        server: &Arc<Server>,
        head: &Head,
        route: usize,
        authorization: usize,
    ) -> Rc<Series> {
        let service = server.service(head.authority().unwrap_or_default());
        let authority = match head.authority() {
            Some(authority) if self.inbound.config.inbound.authority_labels => {
                String::from_utf8_lossy(authority)
            }
            _ => "".into(),
        };
        let mut last = self.last.borrow_mut();
        if let Some(known) = &*last {
            let same = Arc::ptr_eq(&known.server, server)
                && (known.key.route, known.key.authorization) == (route, authorization)
                && *known.key.service == *service
                && *known.key.authority == *authority;
            if same {
                return known.series.clone();
            }
        }
        let peer = self.session.peer();
        let key = SeriesKey {
            route,
            authorization,
            service: service.into(),
            authority: authority.into(),
            client: match self.session.tls() {
                ClientTls::None(why) => (*why).into(),
                ClientTls::Passthrough(name) => (**name).into(),
                ClientTls::Unauthenticated => "tls".into(),
                ClientTls::Peer(peer) => peer.name.as_str().into(),
            },
            client_pod: peer.map_or("", |peer| &peer.pod).into(),
        };
        let resolve = |key: &SeriesKey| {
            let labels = labels::requests(&self.inbound, &self.session, server, key);
            let allowed = self
                .inbound
                .shard
                .counter(&families::INBOUND_HTTP_AUTHZ_ALLOW_TOTAL, &labels.linkerd);
            let route = RouteLabels {
                grpc: matches!(server.protocol, Protocol::Grpc(_)),
                labels: labels::route(&self.session, server, key.route),
            };
            Series {
                edge: Rc::new(route.edge(&self.inbound.shard)),
                allowed,
                http: HttpMetrics::new(&self.inbound.shard, labels),
                route,
                profiled: RefCell::default(),
            }
        };
        let series = self.session.port().series(key.clone(), resolve);
        sweep::begin(&self.inbound);
        *last = Some(Known {
            server: server.clone(),
            key,
            series: series.clone(),
        });
        series
    }

    /// Where a request is counted as one of its route, and of its profile's if there is one.
    pub(super) fn edge(&self, series: &Series, head: &Head) -> Rc<Edge> {
        match self.profile.route(&self.inbound, &self.session, head) {
            Some((routes, rule)) => series.profiled(&self.inbound.shard, &routes, rule),
            None => series.edge.clone(),
        }
    }

    /// Who watches this request, for which [`Requests::series`] has just been found.
    #[cold]
    pub(super) fn watched(&self, head: &Head, bridged: bool) -> Option<Box<Watched>> {
        let last = self.last.borrow();
        let Known { server, key, .. } = last.as_ref()?;
        let route = server.routes.get(key.route).map(|route| &*route.meta);
        let authorization = server.authorizations.get(key.authorization);
        let labels = labels::watched(&server.meta, route, authorization.map(|by| &*by.meta));
        self.inbound.observer.taps.watch(&tap::Seen {
            direction: Direction::Inbound,
            source: Some(self.session.client()),
            source_tls: match self.session.tls() {
                ClientTls::None(why) => Tls::None(why),
                ClientTls::Passthrough(_) => Tls::None("opaque"),
                ClientTls::Unauthenticated => Tls::Peer(""),
                ClientTls::Peer(peer) => Tls::Peer(&peer.name),
            },
            destination: Some(self.session.port().application.reach().address()),
            destination_tls: Tls::None("loopback"),
            destination_labels: Labels::List(&labels),
            route,
            head,
            bridged,
        })
    }
}
