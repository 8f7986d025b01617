//! Prints docs/reference/reasons.md.

fn main() {
    print!("{}", tulle_engine::Reason::reference_page());
}
