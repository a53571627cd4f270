//! The target for libFuzzer. `tests/fuzz/run` builds and starts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    holdfast_fuzz::judge(input);
});
