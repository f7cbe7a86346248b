//! What is read out of providers' lists of models: `tests/golden/listings/<case>/*.json`, shaped as `origin.md` says, and
//! what is made of it in `listed.txt`. `UPDATE_GOLDEN=1` rewrites the latter.

use std::{fmt::Write as _, fs, path::Path};

use codex_proxy::{codec::listing, model::listed::Facts};

use crate::support::root;

fn words(facts: &Facts) -> String {
    let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    let flag = |flag: Option<bool>| flag.map_or("?", |flag| if flag { "yes" } else { "no" });
    format!(
        "window {} of {}, output {}, tools {}, images {}",
        number(facts.context_window),
        number(facts.context_window_max),
        number(facts.output_tokens_max),
        flag(facts.tools),
        flag(facts.images)
    )
}

fn listed(case: &Path) -> String {
    let read = |name: &str| fs::read(case.join(format!("{name}.json"))).ok();
    let mut models = Vec::new();
    let mut next = None;
    let mut out = String::new();
    if let Some(body) = read("models") {
        models = listing::openai(&body).unwrap();
    } else if let Some(body) = read("lmstudio") {
        models = listing::lm_studio(&body).unwrap();
    } else if let Some(page) = read("anthropic").map(|body| listing::anthropic(&body).unwrap()) {
        (models, next) = (page.models, page.next);
    } else if let Some(page) = read("gemini").map(|body| listing::gemini(&body).unwrap()) {
        (models, next) = (page.models, page.next);
    }
    for model in models {
        let title = model.title.map(|title| format!(" {title:?}")).unwrap_or_default();
        writeln!(out, "{}{title}: {}", model.id, words(&model.facts)).unwrap();
    }
    if let Some(body) = read("tags") {
        let loaded = listing::ollama_loaded(&read("ps").unwrap_or_default());
        for name in listing::ollama_tags(&body).unwrap() {
            let show = read(&format!("show.{name}")).unwrap();
            let facts = listing::ollama_show(&show, loaded.get(&name).copied());
            writeln!(out, "{name}: {}", facts.map_or_else(|none| none.to_string(), |facts| words(&facts))).unwrap();
        }
    }
    if let Some(body) = read("props") {
        writeln!(out, "props: {}", words(&listing::llama_props(&body).unwrap())).unwrap();
    }
    if let Some(next) = next {
        writeln!(out, "next page: {next}").unwrap();
    }
    out
}

#[test]
fn lists_are_read_as_written() {
    let directory = root().join("tests/golden/listings");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 12, "the cases are missing");
    let mut wrong = Vec::new();
    for case in cases {
        assert!(case.join("origin.md").exists(), "{}: where is it from?", case.display());
        let found = listed(&case);
        let expected = case.join("listed.txt");
        if update {
            fs::write(&expected, found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "read otherwise than expected (UPDATE_GOLDEN=1 accepts it):\n{}", wrong.join("\n"));
}
