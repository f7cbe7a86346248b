//! Figures of all rounds, and how they are told: medians, spread, and ratios within a round.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What is measured, for a line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    measure: &'static str,
    figure: String,
    unit: &'static str,
}

/// By lane and round.
type Values = BTreeMap<(usize, usize), f64>;

/// By lane: how often, and of how many.
type Counts = BTreeMap<usize, (usize, usize)>;

/// All figures.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order they came.
    figures: Vec<(Name, Values)>,
    /// What went wrong, in words.
    pub errors: Vec<String>,
    /// Promises that were looked at.
    holds: Vec<(String, Counts)>,
}

/// The middle of some values.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which that part of all values lies.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let at = part * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

impl Results {
    /// Keeps a figure.
    pub fn put(
        &mut self,
        measure: &'static str,
        figure: &str,
        unit: &'static str,
        lane: usize,
        round: usize,
        value: f64,
    ) {
        let name = Name { measure, figure: figure.to_owned(), unit };
        let at = self.figures.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            // Beside its own kind.
            let last = self.figures.iter().rposition(|(known, _)| known.measure == measure);
            let at = last.map_or(self.figures.len(), |last| last + 1);
            self.figures.insert(at, (name, BTreeMap::new()));
            at
        });
        self.figures[at].1.insert((lane, round), value);
    }

    /// Keeps whether a promise was held.
    pub fn held(&mut self, promise: &str, lane: usize, held: bool) {
        let at = self.holds.iter().position(|(known, _)| known == promise).unwrap_or_else(|| {
            self.holds.push((promise.to_owned(), BTreeMap::new()));
            self.holds.len() - 1
        });
        let (yes, all) = self.holds[at].1.entry(lane).or_default();
        *yes += usize::from(held);
        *all += 1;
    }

    /// The table for people, in Markdown. `lanes`: names, and whether it is a build of ours.
    pub fn table(&self, lanes: &[(&str, bool)]) -> String {
        let columns = columns(lanes);
        let mut rows = vec![vec!["measure".to_owned(), "figure".to_owned()]];
        rows[0].extend(lanes.iter().map(|(name, _)| (*name).to_owned()));
        rows[0].extend(columns.iter().map(|(of, to)| format!("{} ÷ {}", lanes[*of].0, lanes[*to].0)));
        for (name, values) in &self.figures {
            let mut row = vec![name.measure.to_owned(), format!("{}, {}", name.figure, name.unit)];
            for lane in 0..lanes.len() {
                let all = of_lane(values, lane);
                row.push(if all.is_empty() { "–".to_owned() } else { cell(&all) });
            }
            for (of, to) in &columns {
                let ratios = ratios(values, *of, *to);
                row.push(if ratios.is_empty() { "–".to_owned() } else { ratio_cell(&ratios) });
            }
            rows.push(row);
        }
        let mut text = markdown(&rows);
        text.push_str(
            "\n±: spread over the rounds, (max − min) ÷ median. Ratios: median (least–most) of the rounds.\n\n",
        );
        for (promise, by_lane) in &self.holds {
            let told: Vec<_> =
                by_lane.iter().map(|(lane, (yes, all))| format!("{} {yes}/{all}", lanes[*lane].0)).collect();
            text.push_str(&format!("{promise}: {}\n", told.join(", ")));
        }
        text.push_str(&format!("errors: {}\n", self.errors.len()));
        self.errors.iter().take(20).for_each(|error| text.push_str(&format!("  {error}\n")));
        text
    }

    /// Everything for programs: the keys are only ever added.
    pub fn json(&self, lanes: &[(&str, bool)], rounds: usize) -> Value {
        let figures = self.figures.iter().map(|(name, values)| {
            let by_lane: serde_json::Map<String, Value> = (0..lanes.len())
                .filter_map(|lane| {
                    let all = of_lane(values, lane);
                    let summary = json!({"median": median(&all), "spread": spread(&all), "rounds": all});
                    (!all.is_empty()).then(|| (lanes[lane].0.to_owned(), summary))
                })
                .collect();
            let to: serde_json::Map<String, Value> = columns(lanes)
                .into_iter()
                .filter_map(|(of, to)| {
                    let ratios = ratios(values, of, to);
                    let summary = json!({"median": median(&ratios), "min": quantile(&ratios, 0.0), "max": quantile(&ratios, 1.0)});
                    (!ratios.is_empty()).then(|| (format!("{}/{}", lanes[of].0, lanes[to].0), summary))
                })
                .collect();
            json!({"measure": name.measure, "figure": name.figure, "unit": name.unit, "targets": by_lane, "ratios": to})
        });
        let holds = self.holds.iter().map(|(promise, by_lane)| {
            let by_lane: serde_json::Map<String, Value> = by_lane
                .iter()
                .map(|(lane, (yes, all))| (lanes[*lane].0.to_owned(), json!({"held": yes, "of": all})))
                .collect();
            json!({"promise": promise, "targets": by_lane})
        });
        json!({
            "rounds": rounds,
            "figures": figures.collect::<Vec<_>>(),
            "holds": holds.collect::<Vec<_>>(),
            "errors": self.errors,
        })
    }
}

/// Which lanes are compared: ours to each yardstick, and later builds of ours to the first.
fn columns(lanes: &[(&str, bool)]) -> Vec<(usize, usize)> {
    let mut columns = Vec::new();
    for (of, _) in lanes.iter().enumerate().filter(|(_, (_, ours))| *ours) {
        columns.extend((0..of).rev().filter(|to| !lanes[*to].1).map(|to| (of, to)));
        let first = lanes.iter().position(|(_, ours)| *ours);
        columns.extend(first.filter(|first| *first != of).map(|first| (of, first)));
    }
    columns
}

fn of_lane(values: &Values, lane: usize) -> Vec<f64> {
    values.iter().filter(|((of, _), _)| *of == lane).map(|(_, value)| *value).collect()
}

/// Within each round.
fn ratios(values: &Values, of: usize, to: usize) -> Vec<f64> {
    let of = values.iter().filter(|((lane, _), _)| *lane == of);
    of.filter_map(|((_, round), value)| Some(value / values.get(&(to, *round)).filter(|base| **base > 0.0)?)).collect()
}

fn spread(values: &[f64]) -> f64 {
    (quantile(values, 1.0) - quantile(values, 0.0)) / median(values)
}

fn digits(value: f64) -> String {
    let places = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.places$}")
}

fn cell(values: &[f64]) -> String {
    if values.len() < 2 {
        return digits(median(values));
    }
    format!("{} ±{:.0}%", digits(median(values)), spread(values) * 100.0)
}

fn ratio_cell(ratios: &[f64]) -> String {
    if ratios.len() < 2 {
        return digits(median(ratios));
    }
    let [least, middle, most] = [0.0, 0.5, 1.0].map(|part| digits(quantile(ratios, part)));
    format!("{middle} ({least}–{most})")
}

fn markdown(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (value, width) in row.iter().zip(&widths) {
            text.push_str(&format!("| {value:width$} "));
        }
        text.push_str("|\n");
        if at == 0 {
            widths.iter().for_each(|width| text.push_str(&format!("|{}", "-".repeat(width + 2))));
            text.push_str("|\n");
        }
    }
    text
}
