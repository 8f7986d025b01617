//! The `tulle-proxy` binary.
fn main() {}
