//! One thing that a check has found.

use crate::config::one_line;
use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something may not work, or is unwise.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The code of the check, such as `E-CLOCK`.
    pub code: &'static str,
    /// What is found, in one line.
    pub message: String,
    /// What to do, in one line.
    pub hint: Option<String>,
}

impl Finding {
    fn new(severity: Severity, message: impl fmt::Display) -> Self {
        Self {
            severity,
            code: "",
            message: one_line(&message.to_string()),
            hint: None,
        }
    }

    /// Something does not work.
    pub fn error(message: impl fmt::Display) -> Self {
        Self::new(Severity::Error, message)
    }

    /// Something may not work, or is unwise.
    pub fn warning(message: impl fmt::Display) -> Self {
        Self::new(Severity::Warning, message)
    }

    /// Good to know.
    pub fn note(message: impl fmt::Display) -> Self {
        Self::new(Severity::Note, message)
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        // Names of others' tables are in it, and these may be anything.
        let hint = Some(one_line(&hint.to_string()));
        Self { hint, ..self }
    }

    /// Whether something does not work.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    /// One line, and another with the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        write!(f, "{severity}: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
