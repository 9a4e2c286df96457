#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bridge_core::snowflake::fuzzing::put_answer(input));
