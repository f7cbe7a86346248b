//! Sums of the record of usage, as a table and as JSON. PURE.
//!
//! A sum says what it leaves out: requests without a price, without a count, or counted by estimate.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::usage::Usage;
use crate::proxy::ledger::read::{Key, Seen};

/// Rows, added up.
#[derive(Debug, Default)]
pub struct Tally {
    groups: BTreeMap<Option<String>, Group>,
    total: Group,
}

/// Rows of one day, model, provider or route.
#[derive(Debug, Clone, Default)]
struct Group {
    requests: u64,
    completed: u64,
    incomplete: u64,
    failed: u64,
    cancelled: u64,
    client_gone: u64,
    tokens: Usage,
    /// Requests whose tokens somebody counted, and those of them that we estimated.
    counted: u64,
    estimated: u64,
    /// Requests that a provider was asked for and whose tokens nobody counted.
    uncounted: u64,
    /// Requests with tokens and without a price; the demo needs none.
    unpriced: u64,
    /// Millionths, by currency.
    cost: BTreeMap<String, u64>,
    /// Milliseconds, of those that got so far.
    first_ms: Vec<u32>,
}

impl Tally {
    /// Adds a row.
    pub fn add(&mut self, row: Seen) {
        self.total.add(&row);
        match self.groups.get_mut(&row.key) {
            Some(group) => group.add(&row),
            None => {
                let mut group = Group::default();
                group.add(&row);
                self.groups.insert(row.key, group);
            }
        }
    }
}

impl Group {
    fn add(&mut self, row: &Seen) {
        self.requests += 1;
        let outcome = match row.outcome.as_str() {
            "completed" => &mut self.completed,
            "incomplete" => &mut self.incomplete,
            "cancelled" => &mut self.cancelled,
            "client_gone" => &mut self.client_gone,
            _ => &mut self.failed,
        };
        *outcome += 1;
        if let Some(first_ms) = row.first_ms {
            self.first_ms.push(u32::try_from(first_ms).unwrap_or(u32::MAX));
        }
        let Some(usage) = &row.usage else {
            self.uncounted += u64::from(row.asked);
            return;
        };
        self.counted += 1;
        self.estimated += u64::from(usage.estimated);
        for (sum, count) in [
            (&mut self.tokens.input, usage.input),
            (&mut self.tokens.cached, usage.cached),
            (&mut self.tokens.cache_write, usage.cache_write),
            (&mut self.tokens.output, usage.output),
            (&mut self.tokens.reasoning, usage.reasoning),
        ] {
            *sum = sum.saturating_add(count);
        }
        match &row.cost {
            Some((micro, currency)) => {
                let sum = self.cost.entry(currency.clone()).or_default();
                *sum = sum.saturating_add(*micro);
            }
            None => self.unpriced += u64::from(!row.demo),
        }
    }

    /// The value that so many per cent do not exceed (nearest rank); `first_ms` is sorted.
    fn first_ms(&self, percent: usize) -> Option<u32> {
        let rank = (self.first_ms.len() * percent).div_ceil(100);
        self.first_ms.get(rank.max(1) - 1).copied()
    }

    /// Whole per cent, rounded up: one that is estimated shows.
    fn estimated_percent(&self) -> u64 {
        (self.estimated * 100)
            .checked_div(self.counted)
            .map_or(0, |whole| if whole * self.counted == self.estimated * 100 { whole } else { whole + 1 })
    }
}

/// What is told.
#[derive(Debug)]
pub struct Report {
    by: Key,
    groups: Vec<(String, Group)>,
    total: Group,
}

/// For programs.
#[derive(Debug, Serialize)]
pub struct Json {
    since_s: u64,
    until_s: Option<u64>,
    by: &'static str,
    groups: Vec<JsonGroup>,
    total: JsonGroup,
}

#[derive(Debug, Serialize)]
struct JsonGroup {
    /// Absent: of the total, or of requests that did not get so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    requests: u64,
    completed: u64,
    incomplete: u64,
    failed: u64,
    cancelled: u64,
    client_gone: u64,
    input_tokens: u64,
    cached_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    counted: u64,
    estimated: u64,
    uncounted: u64,
    unpriced: u64,
    first_ms_median: Option<u32>,
    first_ms_p95: Option<u32>,
    /// By currency.
    cost_micro: BTreeMap<String, u64>,
}

impl JsonGroup {
    fn of(key: Option<String>, group: &Group) -> Self {
        Self {
            key,
            requests: group.requests,
            completed: group.completed,
            incomplete: group.incomplete,
            failed: group.failed,
            cancelled: group.cancelled,
            client_gone: group.client_gone,
            input_tokens: group.tokens.input,
            cached_tokens: group.tokens.cached,
            cache_write_tokens: group.tokens.cache_write,
            output_tokens: group.tokens.output,
            reasoning_tokens: group.tokens.reasoning,
            counted: group.counted,
            estimated: group.estimated,
            uncounted: group.uncounted,
            unpriced: group.unpriced,
            first_ms_median: group.first_ms(50),
            first_ms_p95: group.first_ms(95),
            cost_micro: group.cost.clone(),
        }
    }
}

/// Stands for a key that a request did not get to.
const NONE: &str = "(none)";

impl Report {
    /// Days in their order, all else with the most used first.
    pub fn of(tally: Tally, by: Key) -> Self {
        let sorted = |mut group: Group| {
            group.first_ms.sort_unstable();
            group
        };
        let named = |(key, group): (Option<String>, Group)| (key.unwrap_or_else(|| NONE.to_owned()), sorted(group));
        let mut groups: Vec<(String, Group)> = tally.groups.into_iter().map(named).collect();
        if by != Key::Day {
            groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.requests));
        }
        Self { by, groups, total: sorted(tally.total) }
    }

    fn by(&self) -> &'static str {
        match self.by {
            Key::Day => "day",
            Key::Model => "model",
            Key::Provider => "provider",
            Key::Route => "route",
        }
    }

    /// For programs.
    pub fn json(&self, since_s: u64, until_s: Option<u64>) -> Json {
        let groups =
            self.groups.iter().map(|(key, group)| JsonGroup::of(Some(key.clone()).filter(|key| key != NONE), group));
        Json { since_s, until_s, by: self.by(), groups: groups.collect(), total: JsonGroup::of(None, &self.total) }
    }

    /// For people. `span`: of which time.
    pub fn text(&self, span: &str) -> String {
        if self.total.requests == 0 {
            return format!("no request is recorded {span}; --since 400d shows all that is kept by default\n");
        }
        let heads = [
            self.by(),
            "requests",
            "failed",
            "left",
            "input",
            "cached",
            "output",
            "reasoning",
            "estimated",
            "first median",
            "p95",
            "cost",
        ];
        let mut table = vec![heads.map(str::to_owned)];
        table.extend(self.groups.iter().map(|(key, group)| line(key, group)));
        if self.groups.len() > 1 {
            table.push(line("total", &self.total));
        }
        let mut text = format!("{span}; tokens\n");
        text.push_str(&aligned(&table));
        for note in self.notes() {
            text.push_str(&note);
            text.push('\n');
        }
        text
    }

    /// What the sums leave out.
    fn notes(&self) -> Vec<String> {
        let total = &self.total;
        let mut notes = Vec::new();
        let requests =
            |count: u64| if count == 1 { "1 request".to_owned() } else { format!("{} requests", grouped(count)) };
        if total.unpriced > 0 {
            notes.push(format!(
                "No price: {} of {}; the cost is without them. What is put into [prices] of the configuration counts \
                 from then on.",
                grouped(total.unpriced),
                requests(total.counted)
            ));
        }
        if total.uncounted > 0 {
            notes.push(format!(
                "No count: {} ended before the provider said what was used; neither tokens nor cost have that.",
                requests(total.uncounted)
            ));
        }
        if total.estimated > 0 {
            notes.push(format!(
                "Estimated: {}, for want of the provider's count: guesses from the size of the texts.",
                requests(total.estimated)
            ));
        }
        notes
    }
}

fn line(key: &str, group: &Group) -> [String; 12] {
    let tokens = &group.tokens;
    let cost = if group.cost.is_empty() {
        "-".to_owned()
    } else {
        // Something is missing from the sum.
        let open = if group.unpriced > 0 { "> " } else { "" };
        let sums: Vec<String> = group.cost.iter().map(|(currency, micro)| money(*micro, currency)).collect();
        format!("{open}{}", sums.join(" + "))
    };
    [
        key.to_owned(),
        grouped(group.requests),
        grouped(group.failed),
        grouped(group.cancelled + group.client_gone),
        grouped(tokens.input),
        grouped(tokens.cached),
        grouped(tokens.output),
        grouped(tokens.reasoning),
        format!("{} %", group.estimated_percent()),
        seconds(group.first_ms(50)),
        seconds(group.first_ms(95)),
        cost,
    ]
}

/// Columns as wide as what is in them: names to the left, numbers to the right.
fn aligned(table: &[[String; 12]]) -> String {
    let width = |column: usize| table.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 12] = std::array::from_fn(width);
    let mut text = String::new();
    for line in table {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(&cells.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    text
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12.3457 USD`, rounded to four digits.
fn money(micro: u64, currency: &str) -> String {
    let rounded = micro.saturating_add(50) / 100;
    format!("{}.{:04} {currency}", grouped(rounded / 10_000), rounded % 10_000)
}

/// `0.25 s`
fn seconds(ms: Option<u32>) -> String {
    ms.map_or("-".to_owned(), |ms| format!("{}.{:02} s", ms / 1000, ms % 1000 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(key: &str, outcome: &str) -> Seen {
        Seen { key: Some(key.to_owned()), outcome: outcome.to_owned(), asked: true, ..Seen::default() }
    }

    fn report(rows: Vec<Seen>, by: Key) -> Report {
        let mut tally = Tally::default();
        rows.into_iter().for_each(|row| tally.add(row));
        Report::of(tally, by)
    }

    fn rows() -> Vec<Seen> {
        let usage = Usage { input: 1000, cached: 900, cache_write: 0, output: 234_567, reasoning: 7, estimated: false };
        let answered = |key: &str, first_ms, cost: Option<u64>| Seen {
            usage: Some(usage),
            first_ms: Some(first_ms),
            cost: cost.map(|micro| (micro, "USD".to_owned())),
            ..seen(key, "completed")
        };
        vec![
            answered("2026-11-20", 250, Some(1_234_550)),
            answered("2026-11-20", 1_000, Some(50)),
            Seen { usage: Some(Usage { estimated: true, ..usage }), ..answered("2026-11-21", 90, None) },
            seen("2026-11-21", "client_gone"),
            Seen { asked: false, ..seen("2026-11-21", "failed") },
            Seen { key: None, asked: false, ..seen("", "failed") },
        ]
    }

    #[test]
    fn the_table_says_what_its_sums_leave_out() {
        let text = report(rows(), Key::Day).text("since 2026-11-20 00:00");
        let expected = "\
since 2026-11-20 00:00; tokens
day         requests  failed  left  input  cached   output  reasoning  estimated  first median     p95          cost
(none)             1       1     0      0       0        0          0        0 %             -       -             -
2026-11-20         2       0     0  2,000   1,800  469,134         14        0 %        0.25 s  1.00 s    1.2346 USD
2026-11-21         3       1     1  1,000     900  234,567          7      100 %        0.09 s  0.09 s             -
total              6       2     1  3,000   2,700  703,701         21       34 %        0.25 s  1.00 s  > 1.2346 USD
No price: 1 of 3 requests; the cost is without them. What is put into [prices] of the configuration counts from then on.
No count: 1 request ended before the provider said what was used; neither tokens nor cost have that.
Estimated: 1 request, for want of the provider's count: guesses from the size of the texts.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_get_the_same() {
        let json = serde_json::to_value(report(rows(), Key::Model).json(5, None)).unwrap();
        assert_eq!((&json["by"], &json["since_s"], &json["until_s"]), (&"model".into(), &5.into(), &().into()));
        let keys: Vec<_> = json["groups"].as_array().unwrap().iter().map(|group| group["key"].clone()).collect();
        assert_eq!(keys, ["2026-11-21".into(), "2026-11-20".into(), serde_json::Value::Null], "the most used first");
        let total = &json["total"];
        assert_eq!((&total["cost_micro"]["USD"], &total["unpriced"]), (&1_234_600.into(), &1.into()));
        assert_eq!((&total["first_ms_median"], &total["first_ms_p95"]), (&250.into(), &1000.into()));
    }

    #[test]
    fn the_demo_costs_nothing_and_lacks_no_price() {
        let usage = Some(Usage { input: 1, estimated: true, ..Usage::default() });
        let text =
            report(vec![Seen { demo: true, asked: false, usage, ..seen("demo", "completed") }], Key::Model).text("x");
        assert!(!text.contains("No price") && text.contains("Estimated: 1 request,"), "{text}");
    }

    #[test]
    fn several_currencies_are_not_added() {
        let cost = |micro, currency: &str| Seen {
            usage: Some(Usage::default()),
            cost: Some((micro, currency.to_owned())),
            ..seen("m", "completed")
        };
        let text = report(vec![cost(1_500_000, "USD"), cost(2_000_049, "EUR"), cost(1, "EUR")], Key::Model).text("x");
        assert!(text.contains("2.0001 EUR + 1.5000 USD"), "{text}");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(money(1_234_567_890, "JPY"), "1,234.5679 JPY");
        let ranks = Group { first_ms: (1..=100).collect(), ..Group::default() };
        assert_eq!((ranks.first_ms(50), ranks.first_ms(95)), (Some(50), Some(95)));
        let one = Group { first_ms: vec![7], ..Group::default() };
        assert_eq!((one.first_ms(50), one.first_ms(95), Group::default().first_ms(50)), (Some(7), Some(7), None));
        let few = Group { counted: 1000, estimated: 1, ..Group::default() };
        assert_eq!((few.estimated_percent(), Group::default().estimated_percent()), (1, 0));
    }
}
