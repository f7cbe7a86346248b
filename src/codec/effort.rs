//! The words for how much a model is to think, and the nearest one a provider knows. PURE.

/// A ladder's step for an effort: the same word, or the nearest step, towards `high` if two are as near; `None` if the
/// word is unknown or the ladder empty. `none` never becomes a step that thinks.
pub fn nearest(ladder: &[&'static str], wanted: &str) -> Option<&'static str> {
    if let Some(same) = ladder.iter().find(|step| **step == wanted) {
        return Some(same);
    }
    let wanted = rank(wanted).filter(|rank| *rank > 0)?;
    let high = rank("high").unwrap_or_default();
    let steps = ladder.iter().filter_map(|step| Some((rank(step).filter(|rank| *rank > 0)?, *step)));
    steps.min_by_key(|(rank, _)| (rank.abs_diff(wanted), rank.abs_diff(high))).map(|(_, step)| step)
}

/// The usual words, in order; `None` if there is no such word.
pub fn rank(word: &str) -> Option<u8> {
    match word {
        "none" | "off" => Some(0),
        "minimal" => Some(1),
        "low" => Some(2),
        "medium" => Some(3),
        "high" => Some(4),
        "xhigh" => Some(5),
        "max" => Some(6),
        "ultra" => Some(7),
        _ => None,
    }
}
