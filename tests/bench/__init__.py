"""`make bench`: what Tulle costs, measured; numbers are reported, only counts are gated (in the crates' tests)."""
