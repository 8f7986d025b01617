//! Metrics: what the proxy counts, where the numbers live, how they are shown.
//!
//! A series is a family (`families`) and a rendered label set. A worker resolves the series it will need when its
//! configuration changes and keeps **handles**; on the request path it only does a relaxed load and store on a cell
//! that no other thread writes: no lock, no hash, no locked instruction. The registry sums the writers' cells at
//! scrape time.
//!
//! Bounds (they have their home in [`Limits`]): at most `max_series` series, and `max_family` of one family, after which
//! new ones are counted as refused and go to the family's series `overflow="true"`; a series that no handle refers to
//! and that has not changed for `retain_idle` is forgotten.

pub mod balancer;
pub mod errors;
pub mod exemplar;
pub mod families;
pub mod gzip;
mod handles;
mod histogram;
pub mod http;
mod labels;
pub mod process;
pub mod profile;
mod registry;
pub mod route;
mod series;
pub mod tcp;
pub mod text;

pub use families::{Family, Kind};
pub use handles::{Counter, Gauge, Shard};
pub use histogram::{Bounds, Histogram};
pub use labels::{Labels, LabelsBuilder, same_value};
pub use registry::{Limits, Registry};
pub use text::{Format, render};
