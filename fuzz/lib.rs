//! The drivers, by the names of their targets.

mod drivers;

/// Runs one driver.
///
/// # Panics
/// Where a promise is broken, and when there is no such driver.
pub fn run(target: &str, bytes: &[u8]) {
    let found = drivers::ALL.iter().find(|(name, _)| *name == target);
    let (_, driver) = found.expect("a driver of that name");
    driver(bytes);
}
