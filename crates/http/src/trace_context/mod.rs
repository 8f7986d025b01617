//! The trace that a request belongs to, as its caller's headers say: read, and handed on with another span as parent.
//!
//! Three forms are understood: W3C Trace Context (`traceparent`), the binary form of gRPC's first tracing
//! (`grpc-trace-bin`), and B3 in one header or in several. The first that is well-formed decides, in this order; others
//! that speak of the same trace are kept in step with it. What is not well-formed is as if it were not there, and is
//! handed on untouched: a proxy that took part in a trace that it cannot read would break it for those who can.
//!
//! No trace is begun here, ever: without a context there is nothing to hand on. Nothing is allocated but the head's own
//! room.

mod b3;
mod binary;
mod hex;
mod w3c;

use crate::{Error, Head};

/// The number of a trace: never all zero.
pub type TraceId = [u8; 16];
/// The number of a span: never all zero.
pub type SpanId = [u8; 8];

/// The form of a context in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    W3c = 1,
    Binary = 2,
    B3 = 4,
    B3Several = 8,
}

const FORMS: [Form; 4] = [Form::W3c, Form::Binary, Form::B3, Form::B3Several];

/// What a caller says of the trace that its request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span, of which the next one is a child.
    pub parent: SpanId,
    /// The caller records the trace, and wants us to. A caller that leaves it open has not decided for it.
    pub sampled: bool,
    /// The W3C flags that have a meaning, or those that another form amounts to.
    pub flags: u8,
    forms: u8,
}

/// One form of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Read {
    trace: TraceId,
    parent: SpanId,
    flags: u8,
}

/// W3C: the caller may have recorded the trace.
const SAMPLED: u8 = 1;
/// W3C level 2: the trace's number is random.
const RANDOM: u8 = 2;

impl Form {
    fn read(self, head: &Head) -> Option<Read> {
        let read = match self {
            Form::W3c => w3c::read(only(head, w3c::FIELD)?),
            Form::Binary => binary::read(only(head, binary::FIELD)?),
            Form::B3 => b3::read(only(head, b3::FIELD)?),
            Form::B3Several => b3::read_several(head),
        }?;
        (read.trace != [0; 16] && read.parent != [0; 8]).then_some(read)
    }
}

/// The value of a field that is there once: two contexts are none (W3C Trace Context §3.2.2.5 for its own).
fn only<'h>(head: &'h Head, name: &'h str) -> Option<&'h [u8]> {
    let mut values = head.get_all(name.as_bytes());
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

impl TraceContext {
    /// What the head says; `None` when it says nothing that can be understood.
    #[must_use]
    pub fn read(head: &Head) -> Option<Self> {
        let mut context: Option<Self> = None;
        for form in FORMS {
            let Some(read) = form.read(head) else {
                continue;
            };
            match &mut context {
                None => {
                    context = Some(TraceContext {
                        trace: read.trace,
                        parent: read.parent,
                        sampled: read.flags & SAMPLED != 0,
                        flags: read.flags,
                        forms: form as u8,
                    });
                }
                Some(context) if context.trace == read.trace => context.forms |= form as u8,
                // It speaks of another trace, which is its readers' affair.
                Some(_) => {}
            }
        }
        context
    }

    /// Writes `span` into the head as the parent of what the next hop does, in every form that the trace came in.
    /// # Errors
    /// Those of [`Head::set`]: there is no room.
    pub fn hand_on(&self, head: &mut Head, span: SpanId) -> Result<(), Error> {
        for form in FORMS {
            if self.forms & form as u8 == 0 {
                continue;
            }
            match form {
                Form::W3c => head.set(w3c::FIELD, w3c::write(&self.trace, &span, self.flags))?,
                Form::Binary => {
                    head.set(binary::FIELD, binary::write(&self.trace, &span, self.flags))?;
                }
                Form::B3 => b3::hand_on(head, &span)?,
                Form::B3Several => b3::hand_on_several(head, &span)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
