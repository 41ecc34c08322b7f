//! What can go wrong for a client, and what it means for what was asked.

use std::time::Duration;

use thiserror::Error;

use crate::net::CallError;
use crate::protocol::batch::BatchError;
use crate::protocol::codec::Malformed;
use crate::protocol::error::ApiError;
use crate::types::Offset;

/// Why a client could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// Nobody could be reached. Nothing happened.
    #[error("{what} cannot be reached: {reason}")]
    Unreachable {
        /// Who.
        what: String,
        /// What was tried and how it failed.
        reason: String,
    },
    /// The request may or may not have been carried out. Look before you repeat it.
    #[error("the outcome is unknown: {reason}")]
    OutcomeUnknown {
        /// What happened.
        reason: String,
    },
    /// It took too long. Nothing happened.
    #[error("{what} took longer than {} ms", after.as_millis())]
    TimedOut {
        /// What did.
        what: String,
        /// The patience.
        after: Duration,
    },
    /// The publisher or subscriber has ended. Nothing happened.
    #[error("it is closed")]
    Closed,
    /// Records are missing and the host did not say why: no record after them was handed out.
    #[error("offset {found} came where {expected} was expected, and nothing explains the gap")]
    UnexplainedGap {
        /// The offset that should have come.
        expected: Offset,
        /// The one that came.
        found: Offset,
    },
    /// An answer that makes no sense. Nothing of it was used.
    #[error("{what} is not what it should be: {reason}")]
    Malformed {
        /// Of what kind.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A node refused.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// The stable number and name; those of [`ApiError`] are its own.
    const fn identity(&self) -> (u16, &'static str) {
        match self {
            Self::Unreachable { .. } => (90, "Unreachable"),
            Self::OutcomeUnknown { .. } => (91, "OutcomeUnknown"),
            Self::TimedOut { .. } => (92, "TimedOut"),
            Self::Closed => (93, "Closed"),
            Self::UnexplainedGap { .. } => (94, "UnexplainedGap"),
            Self::Malformed { .. } => (95, "MalformedAnswer"),
            Self::Api(error) => (error.code(), error.name()),
        }
    }

    /// The stable number.
    pub const fn code(&self) -> u16 {
        self.identity().0
    }

    /// The stable name.
    pub const fn name(&self) -> &'static str {
        self.identity().1
    }

    /// Whether the same call may succeed later. [`OutcomeUnknown`](Self::OutcomeUnknown) is not:
    /// repeating it may do it twice.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::OutcomeUnknown { .. }
            | Self::Closed
            | Self::UnexplainedGap { .. }
            | Self::Malformed { .. } => false,
            Self::Api(error) => error.is_retryable(),
        }
    }

    /// The refusal, if it is one.
    pub const fn as_api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// For a request that changes something: what is not known is said to be unknown.
    pub(super) fn of_change(error: CallError) -> Self {
        if error.may_have_taken_effect() {
            return Self::OutcomeUnknown {
                reason: error.to_string(),
            };
        }
        Self::of_read(error)
    }

    /// For a request that changes nothing: it may as well not have been made.
    pub(super) fn of_read(error: CallError) -> Self {
        match error {
            CallError::Unreachable { address, reason } | CallError::Lost { address, reason } => {
                Self::Unreachable {
                    what: address.to_string(),
                    reason,
                }
            }
            CallError::TimedOut { address, after, .. } => Self::TimedOut {
                what: format!("the answer of {address}"),
                after,
            },
            CallError::Malformed { error, .. } => error.into(),
            CallError::Api(error) => Self::Api(error),
        }
    }
}

impl From<Malformed> for ClientError {
    fn from(error: Malformed) -> Self {
        Self::Malformed {
            what: error.what.to_owned(),
            reason: error.reason,
        }
    }
}

impl From<BatchError> for ClientError {
    fn from(error: BatchError) -> Self {
        Self::Malformed {
            what: "a record batch".to_owned(),
            reason: error.to_string(),
        }
    }
}
