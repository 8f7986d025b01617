//! How the HTTP/1 parser fills a [`Head`]: one copy of the wire block, then offsets into it. What it hands in was
//! checked by it (httparse, then `grammar`), so nothing is checked twice.

use super::{Head, Slot, Span, TargetForm, Version};
use crate::known::Known;

impl Head {
    /// Copies a whole wire block; later spans point into it.
    pub(crate) fn load(&mut self, block: &[u8]) {
        self.clear();
        self.buf.extend_from_slice(block);
    }

    /// Registers a field inside the loaded block, lower-casing its name in place. `Host` is the caller's.
    pub(crate) fn load_field(&mut self, name: Span, value: Span) -> Option<Known> {
        let range = name.start as usize..(name.start + name.len) as usize;
        self.buf[range.clone()].make_ascii_lowercase();
        let known = Known::of(&self.buf[range]);
        if let Some(known) = known {
            if known == Known::Host {
                return Some(known);
            }
            self.present.insert(known);
        }
        self.slots.push(Slot { name, value, known });
        known
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
        let scheme = scheme.start as usize..(scheme.start + scheme.len) as usize;
        self.buf[scheme].make_ascii_lowercase();
    }

    pub(crate) fn load_host(&mut self, host: Span) {
        self.authority = Some(host);
    }
}
