//! Sockets, and what is made of them: listeners and dialling (`listen`, `dial`, `reach`), a byte stream that may be TLS
//! and may have bytes read ahead (`io`), the opaque relay (`relay`), a look at a ClientHello (`hello`), what it speaks
//! (`sniff`, `server_first`), who a load balancer says it is (`proxy_protocol`), TLS handshakes (`tls`). Nothing here
//! knows HTTP, a route or a policy.

pub mod dial;
pub mod hello;
pub mod io;
pub mod listen;
pub mod proxy_protocol;
pub mod reach;
pub mod relay;
pub mod server_first;
pub mod sniff;
pub mod tls;
