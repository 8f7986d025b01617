//! HTTP/2.

mod code;

pub use code::Code;
