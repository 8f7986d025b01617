//! Log lines: levels per part of the program, plain or JSON, changed at run time through the admin server.
//!
//! Levels are `LEVEL` or `PART=LEVEL`, separated by commas, the longest matching part wins. Linkerd's part `linkerd`
//! is read as ours, and its span filters (`[{headers}]=off`) are dropped: they silence lines that quote headers, and
//! no line of this proxy does.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::{Layer as _, fmt};

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest accepted list of levels, in bytes.
pub const MAX_LEVELS: usize = 4_096;

/// Checks a list of levels and returns it in our terms.
///
/// # Errors
/// The item that is not a level.
pub fn levels(text: &str) -> Result<String, String> {
    if text.len() > MAX_LEVELS {
        return Err(format!("it is longer than {MAX_LEVELS} bytes"));
    }
    let mut kept = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty() && !item.contains('['))
    {
        let (part, level) = item.split_once('=').unwrap_or(("", item));
        if LevelFilter::from_str(level).is_err() || level.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("`{item}` is not a level"));
        }
        let level = level.to_ascii_lowercase();
        kept.push(match part.trim() {
            "" => level,
            "linkerd" | "linkerd2_proxy" => format!("tulle={level}"),
            part => format!("{part}={level}"),
        });
    }
    if kept.is_empty() {
        Err("it names no level".to_owned())
    } else {
        Ok(kept.join(","))
    }
}

/// Whether the format is JSON.
///
/// # Errors
/// It is neither `plain` nor `json`.
pub fn format_is_json(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "plain" => Ok(false),
        "json" => Ok(true),
        _ => Err("there is no such format".to_owned()),
    }
}

/// Reads and changes the levels while the program runs.
#[derive(Clone, Debug)]
pub struct LogLevels {
    handle: Option<reload::Handle<Targets, Registry>>,
    current: Arc<Mutex<String>>,
}

impl LogLevels {
    /// The levels in force.
    pub fn current(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts other levels in force.
    ///
    /// # Errors
    /// The text is not a list of levels.
    pub fn change(&self, text: &str) -> Result<(), String> {
        let checked = levels(text)?;
        let targets = Targets::from_str(&checked).map_err(|error| error.to_string())?;
        if let Some(handle) = &self.handle {
            handle.reload(targets).map_err(|error| error.to_string())?;
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = checked;
        Ok(())
    }
}

/// Starts logging to standard error. `levels` have been checked by [`levels`]. Call it once; a second call (tests)
/// leaves the first in place and returns levels that change nothing.
pub fn start(levels: &str, json: bool) -> LogLevels {
    let targets = Targets::from_str(levels)
        .unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let (filter, handle) = reload::Layer::new(targets);
    let writer = std::io::stderr;
    let lines = if json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .boxed()
    } else {
        fmt::layer().with_ansi(false).with_writer(writer).boxed()
    };
    let subscriber = Registry::default().with(filter).with(lines);
    let installed = tracing::subscriber::set_global_default(subscriber).is_ok();
    LogLevels {
        handle: installed.then_some(handle),
        current: Arc::new(Mutex::new(levels.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkerds_default_is_read_in_our_terms() {
        assert_eq!(
            levels("warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off").as_deref(),
            Ok("warn,tulle=info,hickory=error")
        );
    }

    #[test]
    fn what_is_not_a_level_is_named() {
        assert_eq!(
            levels("warn,tulle=loud"),
            Err("`tulle=loud` is not a level".to_owned())
        );
        assert!(levels("").is_err());
        assert!(levels("3").is_err());
    }

    #[test]
    fn levels_change_and_bad_ones_leave_the_old_in_force() {
        let log = LogLevels {
            handle: None,
            current: Arc::new(Mutex::new("warn".into())),
        };
        assert!(log.change("tulle=debug").is_ok());
        assert!(log.change("nonsense").is_err());
        assert_eq!(log.current(), "tulle=debug");
    }
}
