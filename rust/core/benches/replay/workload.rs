//! Workloads: traces read from files, and calibrated ones generated from a seed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

pub(crate) struct Item {
    pub(crate) key: [u8; 32],
    pub(crate) size: u64,
    pub(crate) cost: u64,
}

pub(crate) struct Request {
    pub(crate) item: u32,
}

pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) items: Vec<Item>,
    pub(crate) requests: Vec<Request>,
    pub(crate) unique_bytes: u64,
}

impl Trace {
    pub(crate) fn build(name: String, rows: impl Iterator<Item = (u64, u64, u64)>) -> Self {
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let (mut items, mut requests, mut unique_bytes) = (Vec::new(), Vec::new(), 0);
        for (id, size, cost) in rows {
            let next = u32::try_from(items.len()).expect("fewer than 2^32 keys");
            let item = *seen.entry(id).or_insert(next);
            if item == next {
                unique_bytes += size;
                items.push(Item {
                    key: *blake3::hash(&id.to_le_bytes()).as_bytes(),
                    size,
                    cost,
                });
            }
            requests.push(Request { item });
        }
        Self {
            name,
            items,
            requests,
            unique_bytes,
        }
    }

    /// Reads `t,id,size_bytes,cost_microusd`, gzipped if the name ends in `.gz`; size and cost of
    /// an id are those of its first row.
    pub(crate) fn read(path: &str) -> Self {
        let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let reader: Box<dyn Read> = if std::path::Path::new(path)
            .extension()
            .is_some_and(|end| end == "gz")
        {
            Box::new(flate2::read::GzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let rows = BufReader::new(reader)
            .lines()
            .enumerate()
            .skip(1)
            .map(|(at, line)| {
                let line = line.unwrap_or_else(|error| panic!("{path}, line {}: {error}", at + 1));
                let field = |n: usize| -> u64 {
                    let text = line.split(',').nth(n).unwrap_or_default();
                    text.trim().parse().unwrap_or_else(|_| {
                        panic!("{path}, line {}: field {n} is not a number", at + 1)
                    })
                };
                (field(1), field(2), field(3))
            });
        let name = path.rsplit('/').next().unwrap_or(path);
        Self::build(
            name.trim_end_matches(".gz")
                .trim_end_matches(".csv")
                .to_owned(),
            rows,
        )
    }

    pub(crate) fn total_cost(&self) -> u64 {
        self.requests
            .iter()
            .map(|request| self.items[request.item as usize].cost)
            .sum()
    }
}
