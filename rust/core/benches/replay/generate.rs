//! Generated workloads, for a bench that needs no file: seeded, so every run prints the same table.
//!
//! Calibration: token counts are log-normal with the medians and spreads of public LLM inference
//! traces (input about 1,000, output about 130 tokens), `size = 4 x output + 200` bytes, `cost =
//! 3 x input + 15 x output` micro-USD times the price tier of the key's model: 60 % at a twentieth,
//! 30 % at one, 10 % at five. With `mixed == false` every key has the middle price.

use crate::workload::Trace;

/// `splitmix64`: enough randomness for a workload, no dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        // Twelve uniforms minus six: normal enough, and without trigonometry.
        let normal: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        median * (normal * spread).exp()
    }
}

/// Cumulative zipf weights; `draw` gives a rank.
struct Zipf(Vec<f64>);

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    fn new(n: usize, alpha: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|rank| {
                    sum += (rank as f64).powf(-alpha);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let at = random.unit() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|&sum| sum < at) as u64
    }
}

/// Size and cost of one response.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and small"
)]
fn price(input: f64, output: f64, id: u64, mixed: bool) -> (u64, u64) {
    let tier = match Random(id ^ 0x5bd1).below(10) {
        _ if !mixed => 1.0,
        0..6 => 0.05,
        6..9 => 1.0,
        _ => 5.0,
    };
    let size = 4.0 * output.clamp(1.0, 32_000.0).round() + 200.0;
    (
        size as u64,
        ((3.0 * input + 15.0 * output) * tier).max(1.0) as u64,
    )
}

fn ordinary(id: u64, mixed: bool) -> (u64, u64, u64) {
    let mut random = Random(id.wrapping_mul(0x2545_F491_4F6C_DD1D));
    let (size, cost) = price(
        random.log_normal(1000.0, 1.2),
        random.log_normal(130.0, 1.0),
        id,
        mixed,
    );
    (id, size, cost)
}

const REQUESTS: u64 = 120_000;

/// API traffic: zipf popularity whose favourites drift, prices independent of popularity.
fn api(mixed: bool) -> Trace {
    let (mut random, zipf) = (Random(1), Zipf::new(40_000, 0.9));
    let rows = (0..REQUESTS).map(|at| {
        let rank = zipf.draw(&mut random);
        // Every 30,000 requests a third of the ranks belong to new keys.
        let era = if rank % 3 == 0 { at / 30_000 } else { 0 };
        ordinary(rank + era * 1_000_000, mixed)
    });
    Trace::build(named("api", mixed), rows)
}

/// Agents: interleaved sessions that repeat their own recent steps, with inputs that grow, and then
/// fall silent for ever.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn agents(mixed: bool) -> Trace {
    struct Session {
        id: u64,
        steps: u64,
        left: u64,
        log: Vec<u64>,
    }
    let mut random = Random(2);
    let mut started = 0;
    let mut sessions: Vec<Session> = Vec::new();
    let mut rows = Vec::new();
    while rows.len() < 40_000 {
        if sessions.len() < 8 {
            started += 1;
            let left = 10 + random.below(120);
            sessions.push(Session {
                id: started,
                steps: 0,
                left,
                log: Vec::new(),
            });
        }
        let at = random.below(sessions.len() as u64) as usize;
        let session = &mut sessions[at];
        let step = if session.log.is_empty() || random.unit() < 0.5 {
            session.steps += 1;
            session.steps
        } else {
            // Recent steps most of all: retries, resumed runs, branches from an earlier step.
            let back = (random.log_normal(3.0, 1.2) as usize).min(session.log.len() - 1);
            session.log[session.log.len() - 1 - back]
        };
        session.log.push(step);
        session.left -= 1;
        let id = session.id << 20 | step;
        let mut own = Random(id);
        let (size, _) = price(0.0, own.log_normal(200.0, 1.0), id, mixed);
        let (_, cost) = price(
            1500.0 + 600.0 * step as f64,
            (size - 200) as f64 / 4.0,
            session.id,
            mixed,
        );
        rows.push((id, size, cost));
        if session.left == 0 {
            sessions.swap_remove(at);
        }
    }
    Trace::build(named("agents", mixed), rows.into_iter())
}

/// Evaluation re-runs over popular traffic: three passes over a fixed set of prompts now and then,
/// and half of the rest asked once only.
fn scans(mixed: bool) -> Trace {
    let (mut random, zipf) = (Random(3), Zipf::new(15_000, 1.0));
    let mut rows = Vec::new();
    let mut once = 10_000_000;
    while (rows.len() as u64) < REQUESTS {
        for _ in 0..15_000 {
            let id = if random.unit() < 0.5 {
                once += 1;
                once
            } else {
                zipf.draw(&mut random)
            };
            rows.push(ordinary(id, mixed));
        }
        let set = 1_000_000 + random.below(3) * 10_000;
        for _ in 0..3 {
            rows.extend((0..2_000).map(|prompt| ordinary(set + prompt, mixed)));
        }
    }
    Trace::build(named("scans", mixed), rows.into_iter())
}

/// Popular requests have short answers, unpopular ones long answers.
#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
fn correlated(mixed: bool) -> Trace {
    let (mut random, zipf) = (Random(4), Zipf::new(40_000, 0.8));
    let rows = (0..REQUESTS).map(|_| {
        let rank = zipf.draw(&mut random);
        let mut own = Random(rank ^ 0xabcd_ef01);
        let output = own.log_normal(20.0 * (1.0 + rank as f64).powf(0.35), 0.7);
        let (size, cost) = price(own.log_normal(1000.0, 1.2), output, rank, mixed);
        (rank, size, cost)
    });
    Trace::build(named("correlated", mixed), rows)
}

fn named(name: &str, mixed: bool) -> String {
    format!(
        "{name} ({})",
        if mixed {
            "mixed prices"
        } else {
            "single price"
        }
    )
}

/// The workloads of one price regime.
pub(crate) fn all(mixed: bool) -> Vec<Trace> {
    vec![api(mixed), agents(mixed), scans(mixed), correlated(mixed)]
}
