//! One conversation of the real Codex, begun with one model, gone on with another, and taken back to the first, for every
//! ordered pair of hosts. The hosts refuse what the real services refuse; see `support/strict/`. What a change costs is kept
//! in `tests/golden/matrix.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{
    PIXEL_PNG,
    codex::Codex,
    events::DEADLINE,
    golden::Differences,
    proxy::Proxy,
    root,
    strict::{Call, Given, Host, Step, Told, Tool, Vendor},
    upstream::{Recorded, Reply, Upstream},
};

const VENDORS: [Vendor; 6] =
    [Vendor::OpenAi, Vendor::OpenRouter, Vendor::DeepSeek, Vendor::Anthropic, Vendor::Haiku, Vendor::Google];

/// How many conversations are under way at once.
const WORKERS: usize = 3;

const PATCH: &str = "*** Begin Patch\n*** Add File: notes.txt\n+one \"größe\"\n*** End Patch\n";

/// What a conversation holds when its last turn is asked for, a line each; pictures are counted apart.
const ALL: [&str; 18] = [
    "user: TURN-ONE",
    "assistant: I look.",
    "call exec_command {\"cmd\":\"echo OUT-ONE\"}",
    "call echo_it {\"text\":\"hey\"}",
    "call pic {}",
    "result: OUT-ONE",
    "result: echo: hey",
    "result: one pixel",
    "assistant: Now the file.",
    "call apply_patch \"*** Begin Patch\\n*** Add File: notes.txt\\n+one \\\"größe\\\"\\n*** End Patch\\n\"",
    "result: Success. Updated the following files",
    "assistant: The first turn is done.",
    "user: TURN-TWO",
    "assistant: Again.",
    "call exec_command {\"cmd\":\"echo OUT-TWO\"}",
    "result: OUT-TWO",
    "assistant: The second turn is done.",
    "user: TURN-THREE",
];

/// How many of [`ALL`] there are after the first results, after the patch, and with the second prompt.
const RESULTS: usize = 8;
const PATCHED: usize = 11;
const TWO: usize = 13;

/// The step that a conversation is to go on with, by its turn and by how many results it holds.
fn step(vendor: Vendor, told: &[Told]) -> Step {
    let turn = told.iter().filter(|told| line(told).is_some_and(|line| line.starts_with("user: "))).count();
    let results = told.iter().filter(|told| matches!(told, Told::Result(_))).count();
    let (text, tools): (&'static str, &[Tool]) = match (turn, results) {
        (1, 0) => ("I look.", &[Tool::Exec("echo OUT-ONE"), Tool::Echo("hey"), Tool::Pic]),
        (1, 3) => ("Now the file.", &[Tool::Patch(PATCH)]),
        (1, 4) => ("The first turn is done.", &[]),
        (2, 4) => ("Again.", &[Tool::Exec("echo OUT-TWO")]),
        (2, 5) => ("The second turn is done.", &[]),
        (3, 5) => ("And again.", &[Tool::Exec("echo OUT-THREE")]),
        (3, 6) => ("The third turn is done.", &[]),
        other => panic!("no step for turn and results {other:?}: {told:#?}"),
    };
    let n = 10 * turn + results;
    let thought = format!("{} thinks {n}: what now, \"größe\"?\n\nAh.", vendor.name());
    let seal = match vendor {
        Vendor::OpenAi => format!("gAAAAABp-{}-{n}", vendor.name()),
        // It wants the thoughts themselves.
        Vendor::DeepSeek => thought.clone(),
        Vendor::OpenRouter | Vendor::Anthropic | Vendor::Haiku | Vendor::Google => {
            STANDARD.encode(format!("{} made this of thought {n}", vendor.name()))
        }
    };
    let calls = tools.iter().enumerate();
    let calls = calls.map(|(at, tool)| Call { id: vendor.call_id(10 * n + at), tool: *tool }).collect();
    Step { thought, seal, text, calls }
}

/// A line of [`ALL`]; nothing for pictures and for what Codex says of itself.
fn line(told: &Told) -> Option<String> {
    match told {
        // A host that takes no pictures is given one text, with what Codex says of the picture.
        Told::User(words) => words.lines().find(|line| line.starts_with("TURN-")).map(|line| format!("user: {line}")),
        Told::Picture => None,
        Told::Assistant(words) => Some(format!("assistant: {words}")),
        Told::Call(name, input) => Some(format!("call {name} {input}")),
        Told::Result(words) => {
            let known = ALL.iter().filter_map(|line| line.strip_prefix("result: ")).find(|known| words.contains(known));
            Some(format!("result: {}", known.unwrap_or(words)))
        }
    }
}

/// Losses of one request: action, place and reason, and how often.
type Losses = BTreeMap<String, usize>;

/// What became of a pair.
struct Outcome {
    pair: (Vendor, Vendor),
    /// Of the first and the last request of the first turn, at the first host.
    alone: [Losses; 2],
    /// Of the first request to the second host.
    there: Losses,
    /// Of the first request back at the first host.
    back: Losses,
}

/// A host at work; the request of number `fails` it answers with an error of its own.
fn host(vendor: Vendor, fails: Option<usize>) -> (Arc<Mutex<Host>>, Upstream) {
    let host = Arc::new(Mutex::new(Host::new(vendor)));
    let at_work = Arc::clone(&host);
    let upstream = Upstream::start(move |request| {
        if Some(request.index) == fails {
            return Reply::error(500, "server_error", "server_error", "SCRIPTED");
        }
        let step = step(vendor, &vendor.told(&request.json));
        at_work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).answer(request, step)
    });
    (host, upstream)
}

/// A Codex that thinks hard: without a word of it, some models do not think at all.
fn client(proxy: &Proxy) -> Option<Codex> {
    let mut codex = Codex::new(proxy.endpoint())?.with_mcp_echo();
    codex.keys += "model_reasoning_effort = \"high\"\n";
    fs::write(codex.work().join("given.png"), PIXEL_PNG).unwrap();
    Some(codex)
}

fn converse(a: Vendor, b: Vendor) -> Option<Outcome> {
    let ((host_a, at_a), (host_b, at_b)) = (host(a, None), host(b, None));
    let config = a.config(at_a.address()) + &b.config(at_b.address());
    let proxy = Proxy::start_logging(&config, &[("UP_KEY", "sk-test-upstream")], "debug");
    let mut codex = client(&proxy)?;
    let mut turn = |vendor: Vendor, prompt: &str, more: &[&str], said: &str| {
        codex.model = vendor.name().to_owned();
        let run = codex.exec_with(prompt, more);
        for host in [&host_a, &host_b] {
            let refusals = &host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).refusals;
            assert!(refusals.is_empty(), "{a:?} to {b:?}, {prompt}: refused: {refusals:#?}");
        }
        assert_eq!((run.exit, run.message()), (Some(0), Some(said)), "{a:?} to {b:?}: {run:#?}");
    };
    turn(a, "TURN-ONE", &["-i", "given.png"], "The first turn is done.");
    turn(b, "TURN-TWO", &["resume", "--last"], "The second turn is done.");
    turn(a, "TURN-THREE", &["resume", "--last"], "The third turn is done.");
    assert_eq!(codex.file("notes.txt").as_deref(), Some("one \"größe\"\n"));

    let (to_a, to_b) = (at_a.exactly(5), at_b.exactly(2));
    let (given_a, given_b) = (&host_a.lock().unwrap().given, &host_b.lock().unwrap().given);
    // Of a picture that a tool gave, Codex keeps a word only, if the model it was given to sees none.
    let pictures = |to: Vendor| if to.sees() { 1 + usize::from(a.sees()) } else { 0 };
    check_told(b, &to_b[0], &ALL[..TWO], pictures(b));
    check_told(a, &to_a[3], &ALL, pictures(a));
    keep_to_themselves(b, &to_b, given_a);
    keep_to_themselves(a, &to_a[3..], given_b);
    // Each gets back all of its own, as it was.
    for (request, own) in [(&to_a[3], &given_a[..3]), (&to_b[1], &given_b[..1])] {
        for given in own {
            let seal = serde_json::to_string(&given.step.seal).unwrap();
            assert!(request.json.to_string().contains(&seal), "{a:?} to {b:?}: {seal} is gone: {:#}", request.json);
        }
    }
    // Hosts that refuse nothing would prove nothing.
    for (vendor, request, given) in [(a, &to_a[4], &given_a[..4]), (b, &to_b[1], &given_b[..1])] {
        assert_eq!(vendor.check(&request.json, given), Ok(()));
        for (what, body) in vendor.spoilt(&request.json) {
            assert!(vendor.check(&body, given).is_err(), "{vendor:?} takes {what}");
        }
    }
    keep(a, b, a, &to_a[4]);
    keep(a, b, b, &to_b[1]);
    // The last line of the log may come after the answer that it is about.
    let told = proxy.wait_told(DEADLINE, |log| <[Losses; 7]>::try_from(losses(log)).ok());
    let Some([first, _, last, there, _, back, _]) = told else { panic!("{}", proxy.log()) };
    Some(Outcome { pair: (a, b), alone: [first, last], there, back })
}

/// Begins a turn at `a`, has `b` take it over, and `a` end it.
fn take_over(a: Vendor, b: Vendor) -> Option<()> {
    let ((host_a, at_a), (host_b, at_b)) = (host(a, Some(1)), host(b, None));
    let routes = format!("[models.work]\nroutes = [\"{}/{}\", \"{}/{}\"]\n", a.name(), a.model(), b.name(), b.model());
    let config = a.config(at_a.address()) + &b.config(at_b.address()) + &routes;
    let proxy = Proxy::start(&config, &[("UP_KEY", "sk-test-upstream")]);
    let codex = client(&proxy)?;
    let run = codex.exec_with("TURN-ONE", &["-i", "given.png"]);
    for host in [&host_a, &host_b] {
        let refusals = &host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).refusals;
        assert!(refusals.is_empty(), "{a:?} to {b:?}: refused: {refusals:#?}");
    }
    run.succeeded_with("The first turn is done.");
    assert_eq!(codex.file("notes.txt").as_deref(), Some("one \"größe\"\n"));
    let (to_a, to_b) = (at_a.exactly(3), at_b.exactly(1));
    let (given_a, given_b) = (&host_a.lock().unwrap().given, &host_b.lock().unwrap().given);
    let pictures = |to: Vendor| if to.sees() && a.sees() { 2 } else { 0 };
    check_told(b, &to_b[0], &ALL[..RESULTS], pictures(b));
    check_told(a, &to_a[2], &ALL[..PATCHED], pictures(a));
    keep_to_themselves(b, &to_b, given_a);
    keep_to_themselves(a, &to_a[2..], given_b);
    let seal = serde_json::to_string(&given_a[0].step.seal).unwrap();
    assert!(to_a[2].json.to_string().contains(&seal), "{a:?} to {b:?}: {seal} is gone: {:#}", to_a[2].json);
    Some(())
}

/// Nobody is given what another thought; only a host that insists on thoughts gets those that were shown to the user.
fn keep_to_themselves(to: Vendor, requests: &[Recorded], others: &[Given]) {
    for (request, other) in requests.iter().flat_map(|request| others.iter().map(move |other| (request, other))) {
        let body = request.json.to_string();
        let shown = other.step.thought.split(':').next().unwrap();
        assert!(to == Vendor::DeepSeek || !body.contains(shown), "{shown} is told to {to:?}");
        let sealed = other.step.seal != other.step.thought;
        assert!(!sealed || !body.contains(&other.step.seal), "{to:?} is given a seal: {shown}");
    }
}

/// Whether the host is told these lines and no others, and so many pictures, the user's before anything is answered.
fn check_told(to: Vendor, request: &Recorded, wanted: &[&str], pictures: usize) {
    let told = to.told(&request.json);
    assert_eq!(told.iter().filter_map(line).collect::<Vec<_>>(), wanted, "{to:?}: {told:#?}");
    let found: Vec<usize> = (0..told.len()).filter(|at| told[*at] == Told::Picture).collect();
    let spoke = told.iter().position(|told| matches!(told, Told::Assistant(_))).unwrap();
    assert_eq!(found.len(), pictures, "{to:?}: {told:#?}");
    assert!(found.first().is_none_or(|first| *first < spoke), "{to:?}: {told:#?}");
}

/// Keeps a request for those who read it with the vendor's own types: `tests/anthropic_parse.py`, `tests/gemini_parse.py`.
fn keep(a: Vendor, b: Vendor, to: Vendor, request: &Recorded) {
    let dir = root().join("target/matrix");
    fs::create_dir_all(&dir).unwrap();
    let name = format!("{}-{}.{}.{}.json", a.name(), b.name(), to.name(), to.protocol());
    fs::write(dir.join(name), request.json.to_string()).unwrap();
}

/// The losses of each request in the log of a proxy, in the order in which the requests were answered.
fn losses(log: &str) -> Vec<Losses> {
    let mut all: BTreeMap<String, Losses> = BTreeMap::new();
    let mut answered = Vec::new();
    for line in log.lines() {
        let Some(id) = field(line, "codex_request_id") else { continue };
        if line.contains("part of the request could not pass") {
            let [path, action, why] =
                ["codex_path", "codex_action", "codex_why"].map(|name| field(line, name).unwrap());
            let place: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
            *all.entry(id).or_default().entry(format!("{action} `{place}`: {why}")).or_default() += 1;
        } else if line.contains("request answered") {
            answered.push(id);
        }
    }
    answered.into_iter().map(|id| all.remove(&id).unwrap_or_default()).collect()
}

/// A field of a line of the log.
fn field(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!(" {name}="))?;
    if rest.starts_with('"') {
        return serde_json::Deserializer::from_str(rest).into_iter().next()?.ok();
    }
    rest.split_whitespace().next().map(str::to_owned)
}

/// What is in `losses` beyond `usual`, as a cell.
fn beyond(losses: &Losses, usual: &Losses) -> String {
    let more = losses.iter().filter_map(|(loss, count)| {
        let more = count.saturating_sub(usual.get(loss).copied().unwrap_or_default());
        (more > 0).then(|| if more == 1 { loss.clone() } else { format!("{loss} (×{more})") })
    });
    let cell = more.collect::<Vec<_>>().join("<br>");
    if cell.is_empty() { "nothing".to_owned() } else { cell }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut alone: BTreeMap<Vendor, &[Losses; 2]> = BTreeMap::new();
    for outcome in outcomes {
        let known = alone.entry(outcome.pair.0).or_insert(&outcome.alone);
        assert_eq!(**known, outcome.alone, "the same turn costs the same: {:?}", outcome.pair);
    }
    let mut text = String::from(
        "# What cannot be told to another model\n\nMade by `tests/it/matrix.rs`: a conversation of Codex with a picture, thoughts, \
         parallel calls, a call of an MCP server\nand a patch. It is begun at one host, gone on with at another, and then taken \
         back. All texts, calls, results and pictures\narrive, in order (DeepSeek takes no pictures, so Codex leaves them \
         out), and no host refuses anything. `Drop`: left out;\n`Approximate`: said in another way.\n\n## Whoever is asked\n\n\
         Of a conversation that has only ever been at one host.\n\n| host | protocol | at its first request | and when it has \
         thought and called |\n| --- | --- | --- | --- |\n",
    );
    let none = Losses::new();
    for (vendor, [first, last]) in &alone {
        let (name, protocol) = (vendor.name(), vendor.protocol());
        writeln!(text, "| {name} | {protocol} | {} | {} |", beyond(first, &none), beyond(last, first)).unwrap();
    }
    text += "\n## When the model is changed\n\nBeyond that.\n\n| from | to | there | and back |\n| --- | --- | --- | --- |\n";
    for Outcome { pair: (a, b), there, back, .. } in outcomes {
        let (there, back) = (beyond(there, &alone[b][0]), beyond(back, &alone[a][1]));
        writeln!(text, "| {} | {} | {there} | {back} |", a.name(), b.name()).unwrap();
    }
    text
}

/// Does it for every ordered pair, some at a time, and gives what came of it; fails with the pairs that failed.
fn for_each_pair<T: Send>(what: impl Fn(Vendor, Vendor) -> Option<T> + Sync) -> Vec<T> {
    let others = |a: &Vendor| VENDORS.into_iter().filter(|b| b != a).map(|b| (*a, b)).collect::<Vec<_>>();
    let pairs: Vec<(Vendor, Vendor)> = VENDORS.iter().flat_map(others).collect();
    let waiting = Mutex::new(pairs.iter().copied());
    let done: Mutex<BTreeMap<(Vendor, Vendor), T>> = Mutex::default();
    let work = || loop {
        let Some((a, b)) = waiting.lock().unwrap().next() else { return };
        // A panic is told by the hook for panics; the others are to be seen, too.
        if let Ok(Some(outcome)) = catch_unwind(AssertUnwindSafe(|| what(a, b))) {
            done.lock().unwrap().insert((a, b), outcome);
        }
    };
    std::thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(work))));
    let done = done.into_inner().unwrap();
    let bad: Vec<&(Vendor, Vendor)> = pairs.iter().filter(|pair| !done.contains_key(pair)).collect();
    assert!(bad.is_empty(), "see above for {bad:?}");
    done.into_values().collect()
}

#[test]
fn a_conversation_goes_on_at_every_other_host_and_back() {
    if crate::support::codex_bin().is_none() {
        return;
    }
    let outcomes = for_each_pair(converse);
    let protocols = outcomes.iter().map(|outcome| (outcome.pair.0.protocol(), outcome.pair.1.protocol()));
    assert_eq!(protocols.collect::<BTreeSet<_>>().len(), 14, "twelve changes, and two between hosts of one protocol");
    let table = table(&outcomes);
    fs::write(root().join("target/matrix.md"), &table).unwrap();
    eprintln!("{table}");
    let mut differences = Differences::default();
    differences.compare(&root().join("tests/golden/matrix.md"), &table);
    differences.none();
}

#[test]
fn another_host_takes_over_within_a_turn_and_gives_it_back() {
    if crate::support::codex_bin().is_some() {
        for_each_pair(take_over);
    }
}
