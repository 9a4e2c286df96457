//! Numbers of any precision on their way to integers of 128 bits: from groups of four digits, as they are kept, and from
//! text, as JSON has them.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use bridge_core::decimal::{Decimal, rescale, unscaled_of_groups};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const COUNT: u16 = 1_000;

fn groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("number from groups");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    for (name, groups, weight, scale) in [
        ("12 digits, 2 decimals", 3, 1, 2),
        ("38 digits, 10 decimals", 10, 6, 10),
    ] {
        let numbers: Vec<Vec<u16>> = (0..COUNT)
            .map(|n| {
                let mut digits: Vec<u16> =
                    (0..groups).map(|i| (n * 7 + i * 1_009) % 10_000).collect();
                // The digits of the last group beyond the scale are zeros.
                let kept = (groups - 1 - weight) * 4 - scale;
                if let Some(last) = digits.last_mut() {
                    *last -= *last % 10_u16.pow(u32::from(kept));
                }
                digits
            })
            .collect();
        let (weight, scale) = (i32::from(weight), u8::try_from(scale).unwrap());
        let read =
            |digits: &[u16]| unscaled_of_groups(false, digits.iter().copied(), weight, scale);
        assert!(numbers.iter().all(|digits| read(digits).is_some()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for digits in &numbers {
                    black_box(read(black_box(digits)));
                }
            });
        });
    }
    group.finish();
}

fn text(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("number from text");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    for (name, whole) in [
        ("12 digits, 2 decimals", 48_271_u64),
        ("30 digits, 2 decimals", u64::MAX / 2_000),
    ] {
        let numbers: Vec<String> = (0..COUNT)
            .map(|n| format!("{}.{:02}", u128::from(whole) * u128::from(n + 1), n % 100))
            .collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for text in &numbers {
                    black_box(
                        Decimal::parse(black_box(text))
                            .unwrap()
                            .unscaled(38, 2)
                            .unwrap(),
                    );
                }
            });
        });
    }
    group.bench_function("brought to another scale", |bencher| {
        bencher.iter(|| {
            for n in 0..i128::from(COUNT) {
                black_box(rescale(black_box(n * 123_456_789), 2, 10, 38).unwrap());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, groups, text);
criterion_main!(benches);
