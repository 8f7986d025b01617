//! Buffers for what is on its way through this thread: a piece of a body, a message that is being written.
//!
//! Whoever needs one takes the last that was given back, which is still in the processor's cache, and gives it back as
//! soon as it is empty. So they are as many as there are pieces on their way at once, not as there are streams and
//! connections, and none of these keeps what its largest message made of it.

use std::cell::RefCell;

/// Buffers for bodies and messages on their way that a thread keeps.
const KEPT: usize = 16;
/// Octets of the largest buffer that is kept for another body or message.
const LARGEST: usize = 24 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with room as a rule.
pub fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes one back; what is in it is of no interest.
pub fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=LARGEST).contains(&buffer.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_within_bounds() {
        let buffer = Vec::with_capacity(1000);
        let place = buffer.as_ptr();
        give(buffer);
        let again = take();
        assert_eq!(again.as_ptr(), place);
        give(vec![0; LARGEST + 1]);
        assert_eq!(take().capacity(), 0, "it was too large");
        (0..2 * KEPT).for_each(|_| give(vec![0; 10]));
        let kept = (0..2 * KEPT).filter(|_| take().capacity() > 0).count();
        assert_eq!(kept, KEPT);
    }
}
