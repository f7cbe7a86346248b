//! What differs between models, as a table. PURE.
//!
//! A model is known by how its id begins. One that is newer than the table is taken for the newest generation: each so
//! far kept the rules of the one before.

use super::wire;

/// Facts about one model or a generation of them.
#[derive(Debug)]
pub(super) struct Model {
    /// How the last segment of the model's id begins; the longest that fits wins.
    prefix: &'static str,
    /// Where the row comes from, with the date read.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader; a test wants it filled"))]
    source: &'static str,
    /// How its thinking is steered.
    thinking: Thinking,
    /// A step of the model that calls functions is refused unless its first call bears a signature.
    pub signatures_required: bool,
    /// It heeds `temperature` and `topP`.
    pub sampling: bool,
    /// The form of the answer may be fixed while functions are declared.
    pub format_with_tools: bool,
    /// Pictures may stand inside a function's response; otherwise they stand behind it.
    pub pictures_in_results: bool,
    /// It fetches pictures from `https:` addresses.
    pub fetches_urls: bool,
}

/// How a model's thinking is steered.
#[derive(Debug)]
enum Thinking {
    /// It does not think, and refuses `thinkingConfig`.
    Never,
    /// By `thinkingBudget`, in tokens; `off`: 0 is allowed.
    Budget { min: u32, max: u32, off: bool },
    /// By `thinkingLevel`, weakest first.
    Level(&'static [Step]),
}

/// Steps of effort, in the words of both APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Minimal,
    Low,
    Medium,
    High,
    /// Beyond what any row offers.
    Beyond,
}

use Step::{High, Low, Medium, Minimal};

impl Step {
    fn of(effort: &str) -> Option<Self> {
        Some(match effort {
            "minimal" => Minimal,
            "low" => Low,
            "medium" => Medium,
            "high" => High,
            "xhigh" | "max" | "ultra" => Self::Beyond,
            _ => return None,
        })
    }

    fn level(self) -> &'static str {
        match self {
            Minimal => "MINIMAL",
            Low => "LOW",
            Medium => "MEDIUM",
            High | Self::Beyond => "HIGH",
        }
    }

    /// Google's own translation of `reasoning_effort`: 1K, 8K and 24K (its announcement, quoted at
    /// <https://feedback.typingmind.com/p/easy-as-pie-update-support-reasoning-effort-none-low-medium>; the numbers as in
    /// <https://help.router-for.me/configuration/thinking>; read 2026-11-21).
    fn budget(self) -> u32 {
        match self {
            Minimal | Low => 1024,
            Medium => 8192,
            High => 24_576,
            Self::Beyond => u32::MAX,
        }
    }
}

/// The newest generation's rules, and those of ids that no row knows.
const NEWEST: Model = Model {
    prefix: "",
    source: "https://ai.google.dev/gemini-api/docs/generate-content/latest-model (Gemini 4 Argon), read 2026-11-21",
    thinking: Thinking::Level(&[Low, Medium, High]),
    signatures_required: true,
    sampling: true,
    format_with_tools: true,
    pictures_in_results: true,
    fetches_urls: true,
};

const OLDER: Model = Model {
    prefix: "gemini-2",
    source: "https://github.com/googleapis/python-genai/issues/867 (no JSON beside functions), \
             https://hexdocs.pm/gemini_ex/0.11.0/Gemini.Validation.ThinkingConfig.md (budgets) and \
             https://ai.google.dev/gemini-api/docs/file-input-methods (addresses: not for 2.0), read 2026-11-21",
    thinking: Thinking::Never,
    signatures_required: false,
    sampling: true,
    format_with_tools: false,
    pictures_in_results: false,
    fetches_urls: false,
};

static MODELS: &[Model] = &[
    NEWEST,
    Model {
        prefix: "gemini-4",
        source: "https://ai.google.dev/gemini-api/docs/generate-content/latest-model and \
                 https://dev.to/aihubmix/moving-gemini-3x-code-to-gemini-4-argon-failure-modes-and-fixes-4h1p, read \
                 2026-11-21: sampling parameters are ignored without a word",
        sampling: false,
        ..NEWEST
    },
    Model {
        prefix: "gemini-3-pro",
        source: "https://hexdocs.pm/gemini_ex/Gemini.Types.GenerationConfig.ThinkingConfig.html, read 2026-11-21: low and \
                 high only",
        thinking: Thinking::Level(&[Low, High]),
        ..NEWEST
    },
    Model {
        prefix: "gemini-3-flash",
        source: "https://hexdocs.pm/gemini_ex/Gemini.Types.GenerationConfig.ThinkingConfig.html, read 2026-11-21",
        thinking: Thinking::Level(&[Minimal, Low, Medium, High]),
        ..NEWEST
    },
    Model {
        prefix: "gemini-3.1-flash",
        source: "https://hexdocs.pm/gemini_ex/Gemini.Types.GenerationConfig.ThinkingConfig.html, read 2026-11-21",
        thinking: Thinking::Level(&[Minimal, Low, Medium, High]),
        ..NEWEST
    },
    Model {
        prefix: "gemini-3.5-flash",
        source: "https://docs.rs/adk-model/1.0.0/adk_model/gemini/enum.ThinkingLevel.html, read 2026-11-21",
        thinking: Thinking::Level(&[Minimal, Low, Medium, High]),
        ..NEWEST
    },
    Model {
        // 3.1 Pro, 3.7 Flash and 3.8 Flash refuse `minimal`.
        prefix: "gemini-3",
        source: "https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/guides/gemini-3-8-flash and \
                 https://github.com/dzivkovi/video-intel/releases/tag/v2.7.1, read 2026-11-21",
        ..NEWEST
    },
    OLDER,
    Model {
        prefix: "gemini-2.5-pro",
        thinking: Thinking::Budget { min: 128, max: 32_768, off: false },
        fetches_urls: true,
        ..OLDER
    },
    Model {
        prefix: "gemini-2.5-flash",
        thinking: Thinking::Budget { min: 1, max: 24_576, off: true },
        fetches_urls: true,
        ..OLDER
    },
    Model {
        prefix: "gemini-2.5-flash-lite",
        thinking: Thinking::Budget { min: 512, max: 24_576, off: true },
        fetches_urls: true,
        ..OLDER
    },
    Model { prefix: "gemini-1", ..OLDER },
    Model {
        prefix: "gemma",
        source: "no page was found that says more of it on this API than https://ai.google.dev/gemma, 2026-11-21",
        ..OLDER
    },
];

/// How well a wish for effort could be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// As asked.
    Exact,
    /// By the nearest step.
    Nearest,
    /// Thinking cannot be switched off.
    StillOn,
    /// Not at all.
    None,
}

impl Model {
    /// The row for a model's id, with or without a path before it.
    pub fn of(id: &str) -> &'static Self {
        let last = id.rsplit('/').next().unwrap_or(id).to_ascii_lowercase();
        MODELS.iter().filter(|row| last.starts_with(row.prefix)).max_by_key(|row| row.prefix.len()).unwrap_or(&NEWEST)
    }

    /// What is said about thinking. Thoughts are always asked for: the client shows them.
    pub fn thinking(&self, effort: Option<&str>) -> (Option<wire::ThinkingConfig>, Fit) {
        let config = |budget, level| {
            Some(wire::ThinkingConfig { include_thoughts: true, thinking_budget: budget, thinking_level: level })
        };
        let step = match effort {
            None if matches!(self.thinking, Thinking::Never) => return (None, Fit::Exact),
            None => return (config(None, None), Fit::Exact),
            Some("none" | "off") => None,
            Some(effort) => match Step::of(effort) {
                Some(step) => Some(step),
                None if matches!(self.thinking, Thinking::Never) => return (None, Fit::None),
                None => return (config(None, None), Fit::None),
            },
        };
        match (&self.thinking, step) {
            (Thinking::Never, None) => (None, Fit::Exact),
            (Thinking::Never, Some(_)) => (None, Fit::None),
            (Thinking::Budget { off: true, .. }, None) => {
                let off =
                    wire::ThinkingConfig { include_thoughts: false, thinking_budget: Some(0), thinking_level: None };
                (Some(off), Fit::Exact)
            }
            (Thinking::Budget { min, .. }, None) => (config(Some(*min), None), Fit::StillOn),
            (Thinking::Budget { min, max, .. }, Some(step)) => {
                let fit = if step == Step::Beyond { Fit::Nearest } else { Fit::Exact };
                (config(Some(step.budget().clamp(*min, *max)), None), fit)
            }
            (Thinking::Level(steps), None) => (config(None, steps.first().map(|s| s.level())), Fit::StillOn),
            (Thinking::Level(steps), Some(step)) => {
                let nearest = steps.iter().find(|s| **s >= step).or(steps.last()).copied();
                let fit = if nearest == Some(step) { Fit::Exact } else { Fit::Nearest };
                (config(None, nearest.map(Step::level)), fit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_its_source() {
        for row in MODELS {
            assert!(row.source.contains("https://") && row.source.contains("2026-"), "{}", row.prefix);
        }
    }

    #[test]
    fn the_longest_beginning_wins() {
        for (id, prefix) in [
            ("gemini-2.5-flash-lite-preview", "gemini-2.5-flash-lite"),
            ("models/gemini-2.5-flash", "gemini-2.5-flash"),
            ("gemini-2.0-flash", "gemini-2"),
            ("gemini-3-pro-preview", "gemini-3-pro"),
            ("google/Gemini-3.8-flash", "gemini-3"),
            ("gemini-3.1-flash-lite", "gemini-3.1-flash"),
            ("gemini-4-argon", "gemini-4"),
            ("gemini-flash-latest", ""),
            ("gemma-3-27b-it", "gemma"),
        ] {
            assert_eq!(Model::of(id).prefix, prefix, "{id}");
        }
    }

    #[test]
    fn efforts_become_what_the_model_knows() {
        let said = |id: &str, effort: Option<&str>| {
            let (config, fit) = Model::of(id).thinking(effort);
            let config = config.map(|c| match (c.thinking_budget, c.thinking_level) {
                (Some(budget), _) => budget.to_string(),
                (None, level) => level.unwrap_or("on").to_owned(),
            });
            (config.unwrap_or_default(), fit)
        };
        for (id, effort, expected, fit) in [
            ("gemini-4-argon", None, "on", Fit::Exact),
            ("gemini-4-argon", Some("medium"), "MEDIUM", Fit::Exact),
            ("gemini-4-argon", Some("minimal"), "LOW", Fit::Nearest),
            ("gemini-4-argon", Some("xhigh"), "HIGH", Fit::Nearest),
            ("gemini-4-argon", Some("none"), "LOW", Fit::StillOn),
            ("gemini-4-argon", Some("turbo"), "on", Fit::None),
            ("gemini-3-pro-preview", Some("medium"), "HIGH", Fit::Nearest),
            ("gemini-3-flash-preview", Some("off"), "MINIMAL", Fit::StillOn),
            ("gemini-2.5-pro", Some("medium"), "8192", Fit::Exact),
            ("gemini-2.5-pro", Some("off"), "128", Fit::StillOn),
            ("gemini-2.5-pro", Some("max"), "32768", Fit::Nearest),
            ("gemini-2.5-flash", Some("none"), "0", Fit::Exact),
            ("gemini-2.0-flash", Some("high"), "", Fit::None),
            ("gemini-2.0-flash", None, "", Fit::Exact),
        ] {
            assert_eq!(said(id, effort), (expected.to_owned(), fit), "{id} {effort:?}");
        }
    }
}
