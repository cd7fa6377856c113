//! What the fuzzer runs. The same functions run on the stable compiler in `tests/fuzz_smoke.rs`.

pub mod targets;
