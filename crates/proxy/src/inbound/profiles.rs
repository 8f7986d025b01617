//! ServiceProfiles as a server sees them: the routes by which requests that come in are counted (`route_*`).
//!
//! A request's profile is that of the name it was sent to: what a client's proxy says it is (`l5d-dst-canonical`), else
//! its authority. Only names below the configured suffixes are asked about, no request waits for the answer, and a name
//! that no connection has used for the idle time is forgotten. Cost of a request for such a name: a comparison with the
//! connection's last one; and where there is a profile, finding its route and the counting itself.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tulle_engine::outbound::ProfileRoutes;
use tulle_engine::route::RuleId;
use tulle_http::{Head, l5d};

use crate::config::values;
use crate::discovery::MAX_PROFILES;
use crate::http::decision::Fields;
use crate::inbound::session::Session;
use crate::inbound::{Inbound, sweep};
use crate::metrics::Shard;
use crate::metrics::profile::{self, ProfileRoute};
use crate::metrics::route::Classified;

/// The port of a name without one.
const DEFAULT_PORT: u16 = 80;

/// The profiles that connections of this worker have asked for.
#[derive(Default)]
pub struct Profiles {
    known: HashMap<Box<str>, Rc<Profile>>,
}

/// The profile of one name.
pub struct Profile {
    said: RefCell<watch::Receiver<Option<Arc<ProfileRoutes>>>>,
    current: RefCell<Option<Rc<Routes>>>,
    used: Cell<Instant>,
    /// Discovery was full when it was asked for, so nobody watches it: to be asked for anew.
    unwatched: Cell<bool>,
}

/// Its routes and their series.
pub struct Routes {
    routes: Arc<ProfileRoutes>,
    series: RefCell<HashMap<RuleId, Rc<ProfileRoute>>>,
}

/// The name that a connection's last request was sent to, and its profile; nothing where none is asked for.
#[derive(Default)]
pub struct Last(RefCell<Option<Asked>>);

type Asked = (Box<[u8]>, Rc<Profile>);

impl Last {
    /// The route that takes a request, of the profile of the name that it was sent to.
    pub fn route(
        &self,
        inbound: &Rc<Inbound>,
        session: &Session,
        head: &Head,
    ) -> Option<(Rc<Routes>, RuleId)> {
        let suffixes = &inbound.config.inbound.profile_suffixes;
        if suffixes.is_empty() {
            return None;
        }
        let told = session.peer().and_then(|_| head.get(l5d::DST_CANONICAL));
        let name = told.or(head.authority())?;
        let (host, port) = split(name);
        if !values::has_suffix(host, suffixes) {
            return None;
        }
        let routes = self.routes(inbound, name, host, port)?;
        let rule = routes.routes.route(&Fields(head).view())?;
        Some((routes, rule))
    }

    fn routes(
        &self,
        inbound: &Rc<Inbound>,
        name: &[u8],
        host: &[u8],
        port: Option<&[u8]>,
    ) -> Option<Rc<Routes>> {
        let mut last = self.0.borrow_mut();
        if let Some((known, profile)) = &*last {
            if **known == *name && !profile.unwatched.get() {
                return profile.routes();
            }
        }
        let profile = Profiles::get(inbound, host, port)?;
        let routes = profile.routes();
        *last = Some((name.into(), profile));
        routes
    }
}

impl Profiles {
    /// The profile of a name, which is watched from now on; `None` for what is no name.
    fn get(inbound: &Rc<Inbound>, host: &[u8], port: Option<&[u8]>) -> Option<Rc<Profile>> {
        let host = values::dns_name(std::str::from_utf8(host).ok()?).ok()?;
        let port = match port {
            Some(port) => std::str::from_utf8(port).ok()?.parse().ok()?,
            None => DEFAULT_PORT,
        };
        let path = format!("{}:{port}", host.trim_end_matches('.'));
        let mut profiles = inbound.profiles.borrow_mut();
        if let Some(known) = profiles.known.get(path.as_str()) {
            return Some(known.clone());
        }
        if profiles.known.len() >= MAX_PROFILES {
            let unused = |profile: &Rc<Profile>| Rc::strong_count(profile) == 1;
            profiles.known.retain(|_, profile| !unused(profile));
            if profiles.known.len() >= MAX_PROFILES {
                return None;
            }
        }
        let profile = Rc::new(Profile::new(inbound.discovery.profile(&path)));
        profiles.known.insert(path.into(), profile.clone());
        sweep::begin(inbound);
        Some(profile)
    }

    /// Lets go of names that no connection has used for `idle`. Returns whether there are others.
    pub fn sweep(&mut self, idle: Duration) -> bool {
        self.known.retain(|_, profile| {
            if Rc::strong_count(profile) > 1 {
                profile.used.set(Instant::now());
            }
            let unwatched = profile.said.borrow().has_changed().is_err();
            profile.unwatched.set(unwatched);
            !unwatched && profile.used.get().elapsed() < idle
        });
        !self.known.is_empty()
    }
}

impl Profile {
    fn new(said: watch::Receiver<Option<Arc<ProfileRoutes>>>) -> Self {
        let profile = Profile {
            said: RefCell::new(said),
            current: RefCell::new(None),
            used: Cell::new(Instant::now()),
            unwatched: Cell::new(false),
        };
        profile.read();
        profile
    }

    /// The newest routes. Without a change that costs one atomic load.
    fn routes(&self) -> Option<Rc<Routes>> {
        if self.said.borrow().has_changed().unwrap_or(false) {
            self.read();
        }
        self.current.borrow().clone()
    }

    fn read(&self) {
        let routes = self.said.borrow_mut().borrow_and_update().clone();
        *self.current.borrow_mut() = routes.map(|routes| {
            Rc::new(Routes {
                routes,
                series: RefCell::default(),
            })
        });
    }
}

impl Routes {
    /// How requests of a route are counted, and their outcomes judged.
    pub fn classified(&self, shard: &Shard, rule: RuleId) -> Classified {
        let mut series = self.series.borrow_mut();
        let series = series.entry(rule).or_insert_with(|| {
            let labels = profile::labels("inbound", &self.routes, rule);
            Rc::new(ProfileRoute::new(shard, labels, false))
        });
        Classified {
            series: series.clone(),
            routes: self.routes.clone(),
            rule,
        }
    }
}

/// A name and its port, as text.
fn split(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) => (&authority[..colon], authority.get(colon + 1..)),
        None => (authority, None),
    }
}
