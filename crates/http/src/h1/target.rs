//! The four forms of a request target (RFC 9112 §3.2): which one it is, whether the method may have it, what it says.

use crate::error::Error;
use crate::grammar;
use crate::head::{Head, MethodKind, Span, TargetForm, Version};

/// Offsets into the block that a slice was cut from: `Head` holds a copy of that block.
#[derive(Clone, Copy)]
pub(super) struct Block<'b>(pub(super) &'b [u8]);

impl Block<'_> {
    pub(super) fn span(&self, part: &[u8]) -> Span {
        // An empty slice may come from anywhere.
        let start = if part.is_empty() {
            0
        } else {
            part.as_ptr() as usize - self.0.as_ptr() as usize
        };
        Span::new(start, part.len())
    }
}

/// RFC 9112 §3.2: which form, and what it says.
pub(super) fn load(
    block: &Block<'_>,
    head: &mut Head,
    method: &[u8],
    target: &[u8],
) -> Result<(), Error> {
    let none = Span::default();
    let kind = MethodKind::of(method);
    if kind == MethodKind::Connect {
        if head.version() == Version::Http10 || !grammar::is_authority_with_port(target) {
            return Err(Error::Connect);
        }
        head.load_target(TargetForm::Authority, none, Some(block.span(target)), none);
        return Ok(());
    }
    if target[0] == b'/' {
        head.load_target(TargetForm::Origin, none, None, block.span(target));
        return Ok(());
    }
    if target == b"*" {
        let allowed = kind == MethodKind::Options;
        head.load_target(TargetForm::Asterisk, none, None, block.span(target));
        return if allowed {
            Ok(())
        } else {
            Err(Error::TargetForm)
        };
    }
    let Some(colon) = target.windows(3).position(|w| w == b"://") else {
        return Err(Error::TargetForm);
    };
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Error::Scheme);
    }
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !grammar::is_authority(authority) {
        return Err(Error::Authority);
    }
    head.load_target(
        TargetForm::Absolute,
        block.span(scheme),
        Some(block.span(authority)),
        block.span(path),
    );
    match path.first() {
        Some(b'/') => Ok(()),
        None if kind == MethodKind::Options => head
            .set_path(b"*")
            .map(|()| head.set_target_form(TargetForm::Absolute)),
        None => head.set_path(b"/"),
        Some(_) => {
            let path = [b"/", path].concat();
            head.set_path(&path)
        }
    }
}
