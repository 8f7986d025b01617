//! How a [`Head`] meets the HTTP/1 wire. In: one copy of the block, then offsets into it; what the parser hands in was
//! checked by it (httparse, then `grammar`), so nothing is checked twice. Out: field lines that lie in the buffer as they
//! are to be written, one after the other, go out in one copy; most heads are two or three such runs.

use super::{Head, Slot, Span, TargetForm, Version};
use crate::grammar;
use crate::known::Known;

impl Head {
    /// Copies a whole wire block; later spans point into it.
    pub(crate) fn load(&mut self, block: &[u8]) {
        self.clear();
        self.buf.extend_from_slice(block);
    }

    /// Registers a field inside the loaded block, lower-casing its name in place. `Host` is the caller's.
    pub(crate) fn load_field(&mut self, name: Span, value: Span) -> Option<Known> {
        let range = name.start as usize..name.end();
        grammar::lower_case(&mut self.buf[range.clone()]);
        let known = Known::of(&self.buf[range]);
        if let Some(known) = known {
            if known == Known::Host {
                return Some(known);
            }
            self.present.insert(known);
        }
        // As we would write it ourselves, so that it can go out as it lies there.
        let (colon, end) = (name.end(), value.end());
        let raw = value.start as usize == colon + 2
            && self.buf[colon + 1] == b' '
            && self.buf.get(end..end + 2) == Some(b"\r\n");
        self.slots.push(Slot {
            name,
            value,
            known,
            raw,
            sensitive: false,
        });
        known
    }

    /// Writes the field lines whose tag is wanted.
    pub(crate) fn write_fields(&self, wanted: impl Fn(Option<Known>) -> bool, out: &mut Vec<u8>) {
        let mut run = 0..0;
        for slot in self.slots.iter().filter(|slot| wanted(slot.known)) {
            if slot.raw && run.end == slot.name.start as usize {
                run.end = slot.value.end() + 2;
                continue;
            }
            out.extend_from_slice(&self.buf[run]);
            if slot.raw {
                run = slot.name.start as usize..slot.value.end() + 2;
            } else {
                run = 0..0;
                write_field(self.at(slot.name), self.at(slot.value), out);
            }
        }
        out.extend_from_slice(&self.buf[run]);
    }

    pub(crate) fn load_request(&mut self, method: Span, version: Version) {
        self.method = method;
        self.version = version;
    }

    pub(crate) fn load_target(
        &mut self,
        form: TargetForm,
        scheme: Span,
        authority: Option<Span>,
        path: Span,
    ) {
        (self.form, self.scheme, self.authority, self.path) = (form, scheme, authority, path);
        self.buf[scheme.start as usize..scheme.end()].make_ascii_lowercase();
    }

    pub(crate) fn load_host(&mut self, host: Span) {
        self.authority = Some(host);
    }
}

/// One field line.
pub(crate) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
