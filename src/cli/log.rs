//! Messages: one line per event on stderr, which is PostgreSQL's server log.
//!
//! Errors of writing are ignored: a closed stderr must not change what becomes of a segment.

use crate::config::LogFormat;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

struct Sink {
    program: &'static str,
}

static SINK: OnceLock<Sink> = OnceLock::new();
/// Whether the terminal's line has something that a message takes the place of.
pub(super) static LINE_BELOW: AtomicBool = AtomicBool::new(false);

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Errors and warnings as text, until more is known.
pub(super) fn install(program: &'static str) {
    let sink = SINK.get_or_init(|| Sink { program });
    if log::set_logger(sink).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// `-v` shows what was done, `-vv` everything.
pub(super) fn set_verbosity(count: u8) {
    log::set_max_level(match count {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
}

/// The first call counts.
pub(super) fn set_format(format: LogFormat) {
    let _ = FORMAT.set(format);
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        // One event, one line, whatever a file name or a system message contains.
        let plain = |text: String| text.replace(['\n', '\r'], " ");
        let message = plain(record.args().to_string());
        let hint = record.key_values().get("hint".into()).map(|hint| plain(hint.to_string()));
        let line = match FORMAT.get().unwrap_or(&LogFormat::Text) {
            LogFormat::Text => {
                // In a log one event is one line; a person finds what to do at the begin of one.
                let gap = if std::io::stderr().is_terminal() { '\n' } else { ' ' };
                let hint = hint.map_or_else(String::new, |hint| format!("{gap}HINT: {hint}"));
                format!("{}: {level}: {message}{hint}\n", self.program)
            }
            LogFormat::Json => {
                let time = humantime::format_rfc3339_millis(SystemTime::now().max(SystemTime::UNIX_EPOCH))
                    .to_string();
                let mut event = serde_json::json!({
                    "time": time, "program": self.program, "level": level, "message": message,
                });
                if let (Some(hint), Some(fields)) = (hint, event.as_object_mut()) {
                    fields.insert("hint".to_owned(), hint.into());
                }
                format!("{event}\n")
            }
        };
        let clear = if LINE_BELOW.load(Ordering::Relaxed) { "\r\x1b[K" } else { "" };
        let _ = std::io::stderr().write_all(format!("{clear}{line}").as_bytes());
    }

    fn flush(&self) {}
}
