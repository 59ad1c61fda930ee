//! Why something was refused, as both ends say it.

use crate::Code;
use crate::convert::schema;
use crate::limits::ERROR_DETAIL_BYTES_MAX;

/// What a request or a send is refused with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{detail}", code.text(), if detail.is_empty() { "" } else { ": " })]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// When the same may be tried again; 0: not unchanged.
    pub retry_after_ms: u64,
    /// What a person may want to know.
    pub detail: String,
}

impl Refusal {
    /// A refusal that nothing but the code explains.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self { code, retry_after_ms: 0, detail: String::new() }
    }

    /// A refusal with a sentence for a person.
    #[must_use]
    pub fn with_detail(code: Code, detail: impl Into<String>) -> Self {
        Self { code, retry_after_ms: 0, detail: detail.into() }.cut(ERROR_DETAIL_BYTES_MAX)
    }

    /// The same with at most so many bytes of detail.
    pub(super) fn cut(mut self, detail_bytes_max: usize) -> Self {
        if self.detail.len() > detail_bytes_max {
            let end = (0..=detail_bytes_max).rev().find(|at| self.detail.is_char_boundary(*at)).unwrap_or(0);
            self.detail.truncate(end);
        }
        self
    }

    /// The same, to be tried again after a while.
    #[must_use]
    pub const fn retry_after_ms(mut self, after: u64) -> Self {
        self.retry_after_ms = after;
        self
    }

    pub(crate) fn read(error: schema::Error) -> Self {
        let code = Code::from_number(u64::from(error.code)).unwrap_or(Code::Internal);
        Self { retry_after_ms: error.retry_after_ms, ..Self::with_detail(code, error.detail) }
    }

    pub(crate) fn write(&self) -> schema::Error {
        schema::Error {
            code: self.code.number(),
            retry_after_ms: self.retry_after_ms,
            detail: self.clone().cut(ERROR_DETAIL_BYTES_MAX).detail,
        }
    }
}
