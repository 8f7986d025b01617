//! A block of lines that ends in an empty one (a head, a trailer section): finding its end, octet by octet if need be.
//! Line ends and sizes are judged while looking, so the verdict does not depend on how the bytes were cut into reads,
//! and nothing is waited for that is over its bound already.

use memchr::memchr;

use crate::error::Error;
use crate::limits::Limits;

/// How far a block was looked through. Each octet is looked at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// No LF in these first octets beyond the lines counted.
    scanned: usize,
    /// Where the current line begins.
    line: usize,
    /// Complete lines so far.
    count: usize,
}

/// What a block may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    bytes: usize,
    lines: usize,
    /// Octets of the first line; over it the target is too long.
    request_line: usize,
}

impl Bounds {
    /// A head: a start line and fields.
    pub(super) fn of_head(limits: &Limits, is_request: bool) -> Self {
        let request_line = limits.target_bytes + Limits::REQUEST_LINE_SLACK + 2;
        Self {
            bytes: limits.head_bytes,
            lines: limits.fields + 1,
            request_line: if is_request { request_line } else { usize::MAX },
        }
    }

    /// A trailer section: fields only.
    pub(super) fn of_trailers(limits: &Limits) -> Self {
        let lines = limits.fields.min(Limits::MAX_TRAILER_FIELDS);
        Self {
            bytes: limits.trailer_bytes,
            lines,
            request_line: usize::MAX,
        }
    }
}

impl Lines {
    /// True until a first line was complete.
    pub(super) fn no_line_yet(self) -> bool {
        self.count == 0
    }

    /// Goes on looking; `bytes` begins with the block and has grown since the last time. The length of the block, its
    /// empty line included, once that is there.
    /// # Errors
    /// [`Error::BareLf`], [`Error::TargetTooLong`], [`Error::HeadTooLarge`], [`Error::TooManyFields`].
    pub(super) fn find_end(
        &mut self,
        bytes: &[u8],
        bounds: Bounds,
    ) -> Result<Option<usize>, Error> {
        while let Some(lf) = memchr(b'\n', &bytes[self.scanned..]).map(|at| at + self.scanned) {
            if lf == 0 || bytes[lf - 1] != b'\r' {
                return Err(Error::BareLf);
            }
            self.check_size(lf + 1, bounds)?;
            if lf - 1 == self.line {
                return Ok(Some(lf + 1));
            }
            self.count += 1;
            if self.count > bounds.lines {
                return Err(Error::TooManyFields);
            }
            (self.line, self.scanned) = (lf + 1, lf + 1);
        }
        self.check_size(bytes.len(), bounds)?;
        self.scanned = bytes.len();
        Ok(None)
    }

    fn check_size(self, end: usize, bounds: Bounds) -> Result<(), Error> {
        if self.count == 0 && end - self.line > bounds.request_line {
            return Err(Error::TargetTooLong);
        }
        if end > bounds.bytes {
            Err(Error::HeadTooLarge)
        } else {
            Ok(())
        }
    }
}
