//! `[prices]`: what tokens cost. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{
    defaults::PRICE_MAX,
    error::Report,
    section::{Entry, Section},
    settings::{Price, Prices},
};

/// `provider/model`, both of which may be long.
const NAME_BYTES_MAX: usize = 400;

/// Reads the whole section.
pub fn read(mut section: Section<'_>, report: &mut Report) -> Prices {
    let mut prices = Prices::default();
    if let Some((entry, text)) = section.text("currency", report) {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            text.clone_into(&mut prices.currency);
        } else {
            report.refuse_value(&entry.node.place, &entry.key, text, "must be three capital letters, such as \"EUR\"");
        }
    }
    for (name, entry) in section.all().filter(|(name, _)| *name != "currency") {
        if let Some(price) = price(name, &entry, report) {
            prices.by_name.insert(name.to_owned(), price);
        }
    }
    prices
}

fn price(name: &str, entry: &Entry<'_>, report: &mut Report) -> Option<Price> {
    let mut section = entry.section(report)?;
    let unspeakable = |c: char| c.is_whitespace() || c.is_control();
    let stem = name.strip_suffix('*').unwrap_or(name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(unspeakable) || stem.contains('*') {
        let why = format!(
            "a price is for \"provider/model\" or \"model\", 1 to {NAME_BYTES_MAX} bytes without white space, with a `*` \
             at the end if at all"
        );
        entry.refuse(why, report);
    }
    let mut required = |key: &'static str, report: &mut Report| {
        if !section.holds(key) {
            report.refuse(section.place, &section.path_of(key), "missing; must be the price of a million tokens");
        }
        amount(&mut section, key, report)
    };
    let (input, output) = (required("input", report), required("output", report));
    let cached = amount(&mut section, "cached", report);
    let cache_write = amount(&mut section, "cache_write", report);
    section.finish(report);
    let input = input?;
    Some(Price { input, cached: cached.unwrap_or(input), cache_write: cache_write.unwrap_or(input), output: output? })
}

/// Millionths of the currency.
fn amount(section: &mut Section<'_>, key: &'static str, report: &mut Report) -> Option<u64> {
    let amount = section.amount(key, report)?;
    let entry = section.entry(key)?;
    let millionths = amount * 1e6;
    // What six digits, written in decimal, are off by in binary.
    let tolerance = 1e-3 + millionths * 1e-15;
    let why = if amount > PRICE_MAX {
        format!("must be at most {PRICE_MAX}, for a million tokens")
    } else if (millionths - millionths.round()).abs() > tolerance {
        "must have at most six digits after the point".to_owned()
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^14, and whole")]
        return Some(millionths.round() as u64);
    };
    report.refuse_value(&entry.node.place, &entry.key, amount, why);
    None
}
