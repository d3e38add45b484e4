#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = prefork_fuzz::agreement::check_head(input);
});
