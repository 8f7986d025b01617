//! `/ready`: the first certificate and the policies of all declared ports. Also, later, whether the certificate is
//! still good and whether the proxy is ending.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::SystemTime;

use crate::identity::Epochs;

/// Declared ports whose policy the controller has not told yet.
#[derive(Clone, Debug)]
pub struct PortsPending(Rc<RefCell<BTreeSet<u16>>>);

impl PortsPending {
    /// All ports are pending at first.
    pub fn new(ports: BTreeSet<u16>) -> Self {
        Self(Rc::new(RefCell::new(ports)))
    }

    /// The controller has spoken about a port.
    pub fn answered(&self, port: u16) {
        self.0.borrow_mut().remove(&port);
    }
}

/// Everything `/ready` looks at.
#[derive(Clone, Debug)]
pub struct Readiness {
    identity: Option<Epochs>,
    ports: PortsPending,
    draining: Rc<Cell<bool>>,
}

impl Readiness {
    /// `identity` is `None` when identity is disabled.
    pub fn new(identity: Option<Epochs>, ports: PortsPending) -> Self {
        Self {
            identity,
            ports,
            draining: Rc::default(),
        }
    }

    /// The proxy is ending.
    pub fn drain(&self) {
        self.draining.set(true);
    }

    /// What the proxy is waiting for.
    ///
    /// # Errors
    /// It is not ready: the reason, one line.
    pub fn check(&self, now: SystemTime) -> Result<(), String> {
        if self.draining.get() {
            return Err("draining: this proxy is ending".to_owned());
        }
        if let Some(epochs) = &self.identity {
            match &*epochs.borrow() {
                None => {
                    return Err(
                        "not ready: no certificate from the identity service yet".to_owned()
                    );
                }
                Some(epoch) if epoch.is_expired(now) => {
                    return Err(
                        "not ready: the certificate has expired and could not be renewed"
                            .to_owned(),
                    );
                }
                Some(_) => {}
            }
        }
        let pending = self.ports.0.borrow();
        if pending.is_empty() {
            return Ok(());
        }
        let ports: Vec<String> = pending.iter().map(u16::to_string).collect();
        Err(format!(
            "not ready: no policy yet for port {}",
            ports.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_a_certificate_and_every_port() {
        let (epochs, received) = tokio::sync::watch::channel(None);
        let pending = PortsPending::new(BTreeSet::from([80, 8080]));
        let readiness = Readiness::new(Some(received), pending.clone());
        let check = || readiness.check(SystemTime::now());
        assert!(check().expect_err("no certificate").contains("certificate"));
        drop(epochs);

        let readiness = Readiness::new(None, pending.clone());
        let check = || readiness.check(SystemTime::now());
        pending.answered(80);
        assert_eq!(
            check().expect_err("a port is missing"),
            "not ready: no policy yet for port 8080"
        );
        pending.answered(8080);
        assert_eq!(check(), Ok(()));
        readiness.drain();
        assert!(check().is_err());
    }
}
