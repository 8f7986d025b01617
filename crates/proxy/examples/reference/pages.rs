//! The pages by their file names.

use super::{headers, limits};

pub fn all() -> [(&'static str, String); 5] {
    [
        ("environment.md", tulle_proxy::config::help::markdown()),
        ("headers.md", headers::markdown()),
        ("limits.md", limits::markdown()),
        ("metrics.md", tulle_proxy::metrics::families::markdown()),
        ("reasons.md", tulle_engine::Reason::reference_page()),
    ]
}
