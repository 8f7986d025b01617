//! The fields of a [`Head`]: reading, adding, replacing, removing. Every way in passes through `push_bytes`.

use super::{Head, Slot, Span, check, slice, write_field};
use crate::error::Error;
use crate::grammar;
use crate::known::{Known, KnownSet};
use crate::limits::Limits;

impl Head {
    /// All fields in order, names in lower case. A request's Host is not among them, it is [`Head::authority`].
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.slots
            .iter()
            .map(|slot| (self.at(slot.name), self.at(slot.value)))
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True without fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The first value of a field; `name` in lower case. `host` of a request gives its authority.
    #[must_use]
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        if name == b"host" && !self.is_response() {
            return self.authority();
        }
        self.slots
            .iter()
            .find(|slot| self.at(slot.name) == name)
            .map(|slot| self.at(slot.value))
    }

    /// Every value of a field, in order; `name` in lower case.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.slots
            .iter()
            .filter(move |slot| self.at(slot.name) == name)
            .map(|slot| self.at(slot.value))
    }

    /// True if a field of this name is there: one bit test.
    #[must_use]
    pub fn has(&self, known: Known) -> bool {
        self.present.contains(known)
    }

    /// The first value of a well-known field; one bit test when it is absent.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.known_all(known).next()
    }

    /// Every value of a well-known field.
    pub fn known_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let slots: &[Slot] = if self.present.contains(known) {
            &self.slots
        } else {
            &[]
        };
        slots
            .iter()
            .filter(move |slot| slot.known == Some(known))
            .map(|slot| self.at(slot.value))
    }

    /// True if one of these names is present: one test for the lot.
    pub(crate) fn has_any(&self, set: KnownSet) -> bool {
        self.present.intersects(set)
    }

    /// True if a list field (Connection, Te, Upgrade, …) has this element, in any case.
    #[must_use]
    pub fn lists(&self, known: Known, element: &[u8]) -> bool {
        self.known_all(known)
            .flat_map(grammar::list)
            .any(|e| e.eq_ignore_ascii_case(element))
    }

    /// Appends a field; the name is kept in lower case. `host` in a request becomes the authority if there is none yet.
    /// # Errors
    /// [`Error::EmptyName`], [`Error::Name`], [`Error::Value`]; [`Error::BufferFull`] beyond
    /// [`Limits::MAX_HEAD_BUFFER`]; for `host` [`Error::Authority`], or [`Error::HostConflict`] when it contradicts
    /// the authority.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.push_bytes(name.as_ref(), value.as_ref())
    }

    /// [`Head::push`] for a field off an HTTP/2 connection, where an upper-case name makes the message malformed
    /// (RFC 9113 §8.2.1).
    /// # Errors
    /// Those of `push`, and [`Error::Name`] for an upper-case name.
    pub fn push_h2(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        check(!name.iter().any(u8::is_ascii_uppercase), Error::Name)?;
        self.push_bytes(name, value)
    }

    /// The field that was appended last must not enter a compression table on any hop.
    pub(crate) fn mark_sensitive(&mut self) {
        if let Some(slot) = self.slots.last_mut() {
            slot.sensitive = true;
        }
    }

    /// All fields with their tags, and whether they are sensitive.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&[u8], &[u8], Option<Known>, bool)> {
        self.slots.iter().map(|slot| {
            (
                self.at(slot.name),
                self.at(slot.value),
                slot.known,
                slot.sensitive,
            )
        })
    }

    /// Replaces every field of this name by one, appended at the end. `host` in a request sets the authority.
    /// # Errors
    /// Those of [`Head::push`]; the head is unchanged then.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let (name, value) = (name.as_ref(), value.as_ref());
        if name.eq_ignore_ascii_case(b"host") && !self.is_response() {
            return self.set_authority(value);
        }
        let before = self.slots.len();
        self.push_bytes(name, value)?;
        let added = self.slots[before];
        let mut at = 0;
        let (buf, slots) = (&self.buf, &mut self.slots);
        slots.retain(|slot| {
            at += 1;
            at > before || slice(buf, slot.name) != slice(buf, added.name)
        });
        Ok(())
    }

    /// Removes every field of this name (lower case); tells whether there was one. The authority is not a field.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> bool {
        let name = name.as_ref();
        if let Some(known) = Known::of(name) {
            return self.remove_known(known);
        }
        let before = self.slots.len();
        let buf = &self.buf;
        self.slots.retain(|slot| slice(buf, slot.name) != name);
        self.slots.len() != before
    }

    /// Removes every field of a well-known name; one bit test when it is absent.
    pub fn remove_known(&mut self, known: Known) -> bool {
        let there = self.present.contains(known);
        if there {
            self.slots.retain(|slot| slot.known != Some(known));
            self.present.remove(known);
        }
        there
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        self.retain_known(|name, value, _| keep(name, value));
    }

    pub(crate) fn retain_known(
        &mut self,
        mut keep: impl FnMut(&[u8], &[u8], Option<Known>) -> bool,
    ) {
        let buf = &self.buf;
        let mut present = KnownSet::default();
        self.slots.retain(|slot| {
            let kept = keep(slice(buf, slot.name), slice(buf, slot.value), slot.known);
            if let (true, Some(known)) = (kept, slot.known) {
                present.insert(known);
            }
            kept
        });
        self.present = present;
    }

    fn push_bytes(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        check(!name.is_empty(), Error::EmptyName)?;
        check(grammar::is_token(name), Error::Name)?;
        check(grammar::is_field_value(value), Error::Value)?;
        if name.eq_ignore_ascii_case(b"host") && !self.is_response() {
            return self.push_host(value);
        }
        let line = name.len() + value.len() + 4;
        check(
            self.buf.len() + line <= Limits::MAX_HEAD_BUFFER,
            Error::BufferFull,
        )?;
        let start = self.buf.len();
        write_field(name, value, &mut self.buf);
        let (name, value) = (
            Span::new(start, name.len()),
            Span::new(start + name.len() + 2, value.len()),
        );
        let range = start..name.end();
        grammar::lower_case(&mut self.buf[range.clone()]);
        let known = Known::of(&self.buf[range]);
        if let Some(known) = known {
            self.present.insert(known);
        }
        self.slots.push(Slot {
            name,
            value,
            known,
            raw: true,
            sensitive: false,
        });
        Ok(())
    }

    fn push_host(&mut self, value: &[u8]) -> Result<(), Error> {
        self.host_field = true;
        match self.authority() {
            None => self.set_authority(value),
            Some(authority) if authority.eq_ignore_ascii_case(value) => Ok(()),
            Some(_) if value.is_empty() || grammar::is_authority(value) => Err(Error::HostConflict),
            Some(_) => Err(Error::Authority),
        }
    }
}
