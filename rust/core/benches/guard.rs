//! What judging a candidate costs: two questions of 500 characters, with the stored one taken apart before and not;
//! and the texts that cost most.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use llmcache_core::guard::{Question, judge};

const ASKED: &str = "I moved into a flat on the third floor in April 2023 and the radiator in the bedroom has made a \
    knocking noise every morning since October. The landlord sent a plumber, who let the air out of the pipes and \
    changed a valve, but after two days the noise was back. I work at night and need to sleep until noon, so it is \
    more than a nuisance. A neighbor on the second floor hears nothing. Is there anything that I can do about the \
    knocking radiator myself, or do I have the right to pay less rent until Mr. Keller has it repaired?";
const STORED: &str = "The heating in my bedroom has been knocking each morning since October 2023. My landlord, Mr. \
    Keller, had a plumber come who replaced a valve and bled the pipes, and two days later it knocked again. My flat \
    is on the third floor; below, on the second, nobody hears it. Because I do shift work at night I have to sleep \
    until twelve, and the noise wakes me up at six every time. May I reduce the rent as long as the radiator is not \
    fixed, and is there something I could try on my own to stop the knocking before I write him a letter?";

fn candidates(criterion: &mut Criterion) {
    let (asked, stored) = (Question::new(ASKED), Question::new(STORED));
    let mut group = criterion.benchmark_group("guard");
    group.bench_function("judge, both taken apart before", |bencher| {
        bencher.iter(|| judge(black_box(&asked), black_box(&stored), 0.9));
    });
    group.bench_function("judge, the stored one taken apart now", |bencher| {
        bencher.iter(|| judge(black_box(&asked), &Question::new(black_box(STORED)), 0.9));
    });
    group.bench_function("take a question apart", |bencher| {
        bencher.iter(|| Question::new(black_box(ASKED)));
    });
    let words: Vec<String> = (0..4000).map(|n| format!("w{n}")).collect();
    let strange = words.join(" ");
    let one = Question::new(&strange);
    let two = Question::new(&strange.replace('w', "x"));
    group.bench_function("judge, as many other words as are looked at", |bencher| {
        bencher.iter(|| judge(black_box(&one), black_box(&two), 0.9));
    });
    group.finish();
}

criterion_group!(benches, candidates);
criterion_main!(benches);
