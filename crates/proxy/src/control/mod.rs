//! The control side: follows the control plane on one thread and publishes what it says.

mod backoff;
mod channel;
mod dns;
mod dns_message;
mod identity;
mod watch;
