//! Replays traces against every eviction policy, all inside the shipped shard code, and prints the
//! share of the offline optimum's dollars that each saves.
//!
//! `cargo bench -p llmcache-core --bench replay -- [FILES.csv.gz]`; files have the header
//! `t,id,size_bytes,cost_microusd`. Without files it generates workloads of its own.

mod generate;
mod optimum;
mod workload;

use std::num::NonZeroU64;

use llmcache_core::l1::eviction::{Gdsf, Lru, Ours, Policy, S3Fifo, Sieve, WTinyLfu};
use llmcache_core::l1::{Config, L1, Lookup, NEVER, NewEntry};
use workload::Trace;

/// Capacities as fractions of a trace's unique bytes.
const SIZES: [f64; 4] = [0.001, 0.01, 0.05, 0.10];

/// Each share is the mean over capacities this far around the size: a cache of thirty entries gains or
/// loses 0.01 with a single entry more or less, whatever the policy.
const AROUND: [f64; 5] = [0.9, 0.95, 1.0, 1.05, 1.1];

/// The traces' sizes hold 200 bytes for bookkeeping; here the real bookkeeping is charged instead.
const MODELLED: u64 = 200;

/// Dollars (micro) saved by a policy. `scale` > 1 multiplies sizes and capacity, which makes the
/// bookkeeping negligible: the idealised model of most papers.
fn replay<P: Policy>(trace: &Trace, capacity: u64, scale: u64) -> u64 {
    let modelled = if scale == 1 { MODELLED } else { 0 };
    let l1 = L1::<NonZeroU64, (), P>::new(Config {
        capacity: capacity * scale,
        shards: Some(1),
    });
    let mut saved = 0;
    for (now, request) in (0_i64..).zip(&trace.requests) {
        let item = &trace.items[request.item as usize];
        let (key, size, cost) = (&item.key, item.size, item.cost);
        match l1.get(key, now, 0, |_| true) {
            Lookup::Fresh(_) | Lookup::Stale(_) => saved += cost,
            Lookup::Miss => {
                let _ = l1.insert(
                    NewEntry {
                        key: *key,
                        value: NonZeroU64::MIN,
                        payload_bytes: size.saturating_sub(modelled) * scale,
                        facts: None,
                        facts_bytes: 0,
                        created: now,
                        fresh_until: NEVER,
                        stale_until: NEVER,
                        cost,
                        epoch: 0,
                        snap: 0,
                        checked: 0,
                    },
                    now,
                );
            }
        }
    }
    saved
}

type Runner = fn(&Trace, u64, u64) -> u64;
const POLICIES: [(&str, Runner); 6] = [
    ("LRU", replay::<Lru>),
    ("SIEVE", replay::<Sieve>),
    ("S3-FIFO", replay::<S3Fifo>),
    ("W-TinyLFU", replay::<WTinyLfu>),
    ("GDSF", replay::<Gdsf>),
    ("ours", replay::<Ours>),
];

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares"
)]
fn main() {
    let scale = if std::env::args().any(|arg| arg == "--ideal") {
        256
    } else {
        1
    };
    let files: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let traces: Vec<Trace> = if files.is_empty() {
        [generate::all(true), generate::all(false)]
            .into_iter()
            .flatten()
            .collect()
    } else {
        files.iter().map(|file| Trace::read(file)).collect()
    };
    let mut sums = [[0.0; SIZES.len()]; POLICIES.len()];
    for trace in &traces {
        println!(
            "\n{}: {} requests, {} keys, {} unique bytes",
            trace.name,
            trace.requests.len(),
            trace.items.len(),
            trace.unique_bytes
        );
        let caps = SIZES
            .map(|share| AROUND.map(|factor| (trace.unique_bytes as f64 * share * factor) as u64));
        let best = caps.map(|around| around.map(|capacity| optimum::saved(trace, capacity)));
        println!(
            "  optimum saves {:?} of the cost",
            best.map(
                |around| (around[AROUND.len() / 2] as f64 / trace.total_cost() as f64 * 1000.0)
                    .round()
                    / 1000.0
            )
        );
        for (row, (name, run)) in POLICIES.iter().enumerate() {
            print!("  {name:10}");
            for (column, around) in caps.iter().enumerate() {
                let shares = around.iter().zip(best[column]);
                let share = shares
                    .map(|(&capacity, best)| run(trace, capacity, scale) as f64 / best as f64)
                    .sum::<f64>()
                    / AROUND.len() as f64;
                sums[row][column] += share;
                print!(" {share:.4}");
            }
            println!();
        }
    }
    println!("\nmean");
    for ((name, _), sum) in POLICIES.iter().zip(sums) {
        println!(
            "  {name:10} {}",
            sum.map(|s| format!("{:.4}", s / traces.len() as f64))
                .join(" ")
        );
    }
}
