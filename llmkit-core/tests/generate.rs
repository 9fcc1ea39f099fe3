//! Generation with models of known logits, against what transformers makes of the same logits
//! (`scripts/make_logits_fixtures.py`).
#![cfg(feature = "models")]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use llmkit_core::generate::{
    Decoding, Dry, Event, Generated, GenerationConfig, Logprobs, Mirostat, NextToken, PREFILL_CHUNK, Sampler,
    Sampling, TextDecoder, generate,
};
use llmkit_core::{Error, FinishReason, Result, Tokenizer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

const BARRED: f32 = f32::NEG_INFINITY;

/// The next token's logits are a row of a table, by the last token.
struct Table {
    rows: Vec<Vec<f32>>,
    max_positions: usize,
    fed: Vec<Vec<u32>>,
}

impl Table {
    fn new(rows: Vec<Vec<f32>>) -> Self {
        Self { rows, max_positions: 10_000, fed: Vec::new() }
    }

    /// Token `i` is always followed by `i + 1`, the last by the first.
    fn counter(vocabulary: usize) -> Self {
        let row =
            |last: usize| (0..vocabulary).map(move |id| f32::from(u8::from(id == (last + 1) % vocabulary)));
        Self::new((0..vocabulary).map(|last| row(last).collect()).collect())
    }

    fn with_max_positions(mut self, max_positions: usize) -> Self {
        self.max_positions = max_positions;
        self
    }
}

impl NextToken for Table {
    fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()> {
        self.fed.push(tokens.to_vec());
        assert!(self.position() <= self.max_positions, "fed beyond the context");
        let last = tokens.last().expect("fed nothing");
        logits.clone_from(&self.rows[*last as usize]);
        Ok(())
    }

    fn position(&self) -> usize {
        self.fed.iter().map(Vec::len).sum()
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }
}

/// Writes token `i` as the `i`th piece of bytes, and keeps back what is not yet a character.
struct Pieces {
    pieces: Vec<&'static [u8]>,
    bytes: Vec<u8>,
}

impl Pieces {
    fn new<const N: usize>(pieces: [&'static str; N]) -> Self {
        Self { pieces: pieces.map(str::as_bytes).to_vec(), bytes: Vec::new() }
    }
}

impl TextDecoder for Pieces {
    fn step(&mut self, id: u32) -> Result<Option<String>> {
        self.bytes.extend_from_slice(self.pieces[id as usize]);
        match String::from_utf8(self.bytes.clone()) {
            Ok(text) => {
                self.bytes.clear();
                Ok(Some(text))
            }
            Err(_) => Ok(None),
        }
    }

    fn finish(&mut self) -> Result<Option<String>> {
        let rest = std::mem::take(&mut self.bytes);
        Ok((!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned()))
    }
}

/// Writes nothing.
struct Silent;

impl TextDecoder for Silent {
    fn step(&mut self, _id: u32) -> Result<Option<String>> {
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

const LETTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn run(
    next: &mut Table,
    decoder: &mut dyn TextDecoder,
    prompt: &[u32],
    config: &GenerationConfig,
) -> (Generated, Vec<Event>) {
    let mut events = Vec::new();
    let answer = generate(next, decoder, prompt, config, &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    })
    .unwrap();
    let streamed: String = events.iter().map(Event::text).collect();
    assert_eq!(streamed, answer.text, "the events' texts are the answer");
    (answer, events)
}

fn texts(events: &[Event]) -> Vec<&str> {
    events.iter().filter(|event| matches!(event, Event::Token { .. })).map(Event::text).collect()
}

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logits").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Distributions {
    seen: Vec<u32>,
    repeated: Vec<u32>,
    /// Null stands for minus infinity.
    logits: HashMap<String, Vec<Option<f32>>>,
    cases: Vec<Case>,
}

impl Distributions {
    fn logits(&self, name: &str) -> Vec<f32> {
        self.logits[name].iter().map(|logit| logit.unwrap_or(BARRED)).collect()
    }
}

#[derive(Deserialize)]
struct Case {
    logits: String,
    setting: Map<String, Value>,
    kept: Vec<u32>,
    probabilities: Vec<f64>,
}

impl Case {
    /// The settings are named as in `generation_config.json`, and so they are read.
    fn config(&self) -> GenerationConfig {
        let mut fields = self.setting.clone();
        fields.remove("seen");
        if let Some(ids) = fields.remove("eos_token_ids") {
            fields.insert("eos_token_id".into(), ids);
        }
        fields.insert("do_sample".into(), true.into());
        fields.entry("top_k").or_insert(0.into());
        let config: GenerationConfig = serde_json::from_value(fields.into()).unwrap();
        assert!(config.extra.is_empty(), "not read: {:?}", config.extra);
        config
    }
}

fn assert_probabilities(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < tolerance * expected, "{what}: {found}, expected {expected}");
    }
}

#[test]
fn distributions_are_those_of_transformers() {
    let fixture: Distributions = fixture("distributions.json");
    assert_eq!(fixture.cases.len(), 185);
    for case in &fixture.cases {
        let seen = if case.setting.contains_key("seen") { &fixture.repeated } else { &fixture.seen };
        let sampler = Sampler::new(&case.config(), seen).unwrap();
        let found = sampler.distribution(&mut fixture.logits(&case.logits)).unwrap();
        let what = format!("{} {:?}", case.logits, case.setting);
        let (ids, mut probabilities): (Vec<u32>, Vec<f64>) = found.into_iter().unzip();
        let mut expected = case.probabilities.clone();
        // Which of several tokens alike is the last of the nucleus is an accident of torch's unstable sort: there, only how many are
        // kept and how likely they are can agree.
        let sorts = case.setting.contains_key("top_p") || case.setting.contains_key("top_h");
        if sorts && matches!(case.logits.as_str(), "tied" | "equal") {
            probabilities.sort_by(f64::total_cmp);
            expected.sort_by(f64::total_cmp);
        } else {
            assert_eq!(ids, case.kept, "{what}");
        }
        assert_probabilities(&probabilities, &expected, 5e-6, &what);
    }
}

#[derive(Deserialize)]
struct LlamaCpp {
    dry: After<DrySetting>,
    penalties: After<CountSetting>,
    top_n_sigma: Vec<TopNSigma>,
}

#[derive(Deserialize)]
struct After<S> {
    logits: Vec<f32>,
    cases: Vec<AfterCase<S>>,
}

#[derive(Deserialize)]
struct AfterCase<S> {
    setting: S,
    history: Vec<u32>,
    kept: Vec<u32>,
    probabilities: Vec<f64>,
}

#[derive(Deserialize, Debug)]
struct DrySetting {
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    last_n: i64,
    breakers: Vec<Vec<u32>>,
}

#[derive(Deserialize, Debug)]
struct CountSetting {
    frequency_penalty: f32,
    presence_penalty: f32,
}

#[derive(Deserialize)]
struct TopNSigma {
    logits: String,
    n: f32,
    kept: Vec<u32>,
    probabilities: Vec<f64>,
}

#[test]
fn dry_is_that_of_llama_cpp() {
    let After { logits, cases } = fixture::<LlamaCpp>("llama_cpp.json").dry;
    assert_eq!(cases.len(), 30);
    let mut changed = 0;
    for AfterCase { setting, history, kept, probabilities } in cases {
        let mut dry = Dry::new(setting.multiplier)
            .with_base(setting.base)
            .with_allowed_length(setting.allowed_length)
            .with_breakers(setting.breakers.clone());
        dry.last_n = usize::try_from(setting.last_n).ok();
        let config = GenerationConfig::new().with_sampling(Sampling::default()).with_dry(dry);
        // Prompt and answer count alike: the history is the one, then half of each.
        for split in [history.len(), history.len() / 2] {
            let mut sampler = Sampler::new(&config, &history[..split]).unwrap();
            force(&mut sampler, &history[split..], logits.len());
            let (ids, found): (Vec<u32>, Vec<f64>) =
                sampler.distribution(&mut logits.clone()).unwrap().into_iter().unzip();
            assert_eq!(ids, kept);
            assert_probabilities(&found, &probabilities, 2e-5, &format!("{setting:?} after {history:?}"));
            let plain =
                Sampler::new(&GenerationConfig::new().with_sampling(Sampling::default()), &[0]).unwrap();
            let plain = plain.distribution(&mut logits.clone()).unwrap();
            changed += usize::from((plain[0].1 - found[0]).abs() > 1e-9);
        }
    }
    assert!(changed > 40, "only {changed} are penalised at all");
}

#[test]
fn dry_breakers_are_found_in_a_tokenizer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer/byte_level");
    let tokenizer = Tokenizer::from_folder(folder).unwrap();
    let dry = Dry::new(0.8).with_breaker_texts(&tokenizer, ["e", "the"]).unwrap();
    let text = |ids: &[u32]| tokenizer.decode(ids, false).unwrap();
    for id in 0..tokenizer.vocab_size() as u32 {
        assert_eq!(dry.breakers.contains(&vec![id]), text(&[id]).contains('e'), "{:?}", text(&[id]));
    }
    let longer: Vec<String> = dry.breakers.iter().filter(|ids| ids.len() > 1).map(|ids| text(ids)).collect();
    assert!(!longer.is_empty() && longer.iter().all(|text| text.ends_with("the")), "{longer:?}");
    assert!(Dry::new(0.8).with_breaker_texts(&tokenizer, [""]).is_err());
}

#[test]
fn mirostat_keeps_the_surprise_near_its_target() {
    // 64 tokens alike have 6 bits of surprise each; these fall off slowly, and without a border have 5.5 on average.
    let logits: Vec<f32> = (0..64).map(|id| id as f32 / -20.0).collect();
    let surprise = |tau: f32| {
        let sampling = Sampling::default().with_mirostat(Mirostat::new(tau, 0.1));
        let config = GenerationConfig::new().with_sampling(sampling).with_seed(2);
        let mut sampler = Sampler::new(&config, &[0]).unwrap();
        let mut bits = Vec::new();
        for _ in 0..3000 {
            let kept = sampler.distribution(&mut logits.clone()).unwrap();
            let chosen = sampler.choose(&mut logits.clone()).unwrap();
            let (_, probability) = kept.into_iter().find(|(id, _)| *id == chosen).unwrap();
            bits.push(-probability.log2());
        }
        bits[500..].iter().sum::<f64>() / 2500.0
    };
    for tau in [2.0, 3.5, 5.0] {
        let found = surprise(tau);
        assert!((found - f64::from(tau)).abs() < 0.05, "{found} bits for {tau}");
    }
}

/// Makes `sampler` choose `ids`, by barring all others.
fn force(sampler: &mut Sampler, ids: &[u32], vocabulary: usize) {
    for &id in ids {
        let mut logits = vec![BARRED; vocabulary];
        logits[id as usize] = 0.0;
        assert_eq!(sampler.choose(&mut logits).unwrap(), id);
    }
}

#[test]
fn counted_penalties_are_those_of_llama_cpp_on_the_answer() {
    let After { logits, cases } = fixture::<LlamaCpp>("llama_cpp.json").penalties;
    assert_eq!(cases.len(), 8);
    for AfterCase { setting, history, kept, probabilities } in cases {
        let config = GenerationConfig::new()
            .with_sampling(Sampling::default())
            .with_frequency_penalty(setting.frequency_penalty)
            .with_presence_penalty(setting.presence_penalty);
        // The prompt does not count.
        let mut sampler = Sampler::new(&config, &[3, 3, 0, 1]).unwrap();
        force(&mut sampler, &history, logits.len());
        let (ids, found): (Vec<u32>, Vec<f64>) =
            sampler.distribution(&mut logits.clone()).unwrap().into_iter().unzip();
        assert_eq!(ids, kept);
        assert_probabilities(&found, &probabilities, 1e-5, &format!("{setting:?} after {history:?}"));
    }
}

#[test]
fn top_n_sigma_is_that_of_llama_cpp() {
    let fixture_of_logits: Distributions = fixture("distributions.json");
    let cases = fixture::<LlamaCpp>("llama_cpp.json").top_n_sigma;
    assert_eq!(cases.len(), 15);
    for TopNSigma { logits, n, kept, probabilities } in cases {
        // The temperature does not change what is kept.
        let config = GenerationConfig::new().with_sampling(Sampling::default().with_top_n_sigma(n));
        let sampler = Sampler::new(&config, &[0]).unwrap();
        let found = sampler.distribution(&mut fixture_of_logits.logits(&logits)).unwrap();
        let (ids, found): (Vec<u32>, Vec<f64>) = found.into_iter().unzip();
        assert_eq!(ids, kept, "{logits} {n}");
        assert_probabilities(&found, &probabilities, 1e-5, &format!("{logits} {n}"));
        let hot = GenerationConfig::new().with_sampling(Sampling::new(3.0).with_top_n_sigma(n));
        let hot =
            Sampler::new(&hot, &[0]).unwrap().distribution(&mut fixture_of_logits.logits(&logits)).unwrap();
        assert_eq!(hot.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), kept);
    }
}

#[test]
fn a_bias_or_bad_word_of_another_vocabulary_is_refused() {
    let logit_bias = GenerationConfig::new().with_logit_bias([(1, 1.0), (4, -1.0)]);
    let bad_word = GenerationConfig::new().with_bad_words_ids([vec![4, 0]]);
    for (config, name) in [(logit_bias, "sequence_bias"), (bad_word, "bad_words_ids")] {
        let error = Sampler::new(&config, &[0]).unwrap().choose(&mut [0.0; 4]).unwrap_err();
        let Error::Generation { setting, found, .. } = error else { panic!("{error:?}") };
        assert_eq!((setting, found.as_str()), (name, "token 4, where the model knows 4"));
    }
}

#[test]
fn the_nucleus_takes_the_lowest_ids_of_tokens_alike() {
    let config = GenerationConfig::new().with_sampling(Sampling::default().with_top_p(0.5));
    let sampler = Sampler::new(&config, &[0]).unwrap();
    assert_eq!(sampler.distribution(&mut [1.0; 4]).unwrap(), [(0, 0.5), (1, 0.5)]);
}

#[derive(Deserialize)]
struct Greedy {
    table: Vec<Vec<f32>>,
    runs: Vec<GreedyRun>,
}

#[derive(Deserialize)]
struct GreedyRun {
    prompt: Vec<u32>,
    config: GenerationConfig,
    ids: Vec<u32>,
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    let fixture: Greedy = fixture("greedy.json");
    assert_eq!(fixture.runs.len(), 32);
    for case in &fixture.runs {
        let (answer, _) =
            run(&mut Table::new(fixture.table.clone()), &mut Silent, &case.prompt, &case.config);
        assert_eq!(answer.ids, case.ids, "{:?} {:?}", case.prompt, case.config);
        let ended = case.config.eos_token_ids.contains(case.ids.last().unwrap());
        assert_eq!(answer.finish_reason, if ended { FinishReason::Stop } else { FinishReason::Length });
        assert_eq!(answer.usage().prompt_tokens, case.prompt.len());
        assert_eq!(answer.usage().completion_tokens, case.ids.len());
    }
}

#[test]
fn the_settings_that_transformers_writes_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logits");
    let config = GenerationConfig::from_file(folder.join("generation_config.json")).unwrap();
    // 50 is what transformers samples from where the file does not say.
    assert_eq!(config.decoding, Decoding::Sample(Sampling::new(0.6).with_top_k(50).with_top_p(0.95)));
    assert_eq!(config.repetition_penalty, 1.05);
    assert_eq!(config.max_new_tokens, 64);
    assert_eq!(config.eos_token_ids, [151645, 151643]);
    assert_eq!(config.stop, ["\n\n"]);
    let extra: Vec<&str> = config.extra.keys().map(String::as_str).collect();
    assert_eq!(extra, ["bos_token_id", "max_length", "pad_token_id", "transformers_version"]);
}

#[test]
fn of_tokens_alike_the_lowest_is_taken() {
    let mut sampler = Sampler::new(&GenerationConfig::new(), &[0]).unwrap();
    assert_eq!(sampler.choose(&mut [0.0, 2.0, 1.0, 2.0]).unwrap(), 1);
    assert_eq!(sampler.choose(&mut [-0.0, 0.0]).unwrap(), 0);
    assert_eq!(sampler.choose(&mut [BARRED, -5.0]).unwrap(), 1);
}

#[test]
fn draws_have_the_frequencies_of_the_distribution() {
    let probabilities = [0.5f32, 0.25, 0.15, 0.07, 0.03];
    let logits = probabilities.map(f32::ln);
    let frequencies = |sampling: Sampling| {
        let mut sampler =
            Sampler::new(&GenerationConfig::new().with_sampling(sampling).with_seed(1), &[0]).unwrap();
        let mut counts = [0u32; 5];
        for _ in 0..10_000 {
            counts[sampler.choose(&mut logits.clone()).unwrap() as usize] += 1;
        }
        counts.map(|count| f64::from(count) / 10_000.0)
    };
    let close = |found: [f64; 5], expected: [f64; 5]| {
        for (found, expected) in found.iter().zip(expected) {
            // Four standard deviations of a binomial share; a barred token must not appear at all.
            let tolerance = 4.0 * (expected * (1.0 - expected) / 10_000.0).sqrt();
            assert!((found - expected).abs() <= tolerance, "{found} for {expected} (tolerance {tolerance})");
        }
    };
    close(frequencies(Sampling::default()), probabilities.map(f64::from));
    close(frequencies(Sampling::default().with_top_k(2)), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0]);
    close(frequencies(Sampling::default().with_top_p(0.8)), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0, 0.0]);
    // At temperature 0.5 probabilities are squared.
    let squares = probabilities.map(|p| f64::from(p * p));
    let total: f64 = squares.iter().sum();
    close(frequencies(Sampling::new(0.5)), squares.map(|square| square / total));
}

#[test]
fn a_seed_repeats_its_answer_and_another_gives_another() {
    let answer = |seed| {
        let config =
            GenerationConfig::new().with_sampling(Sampling::new(1.0)).with_max_new_tokens(50).with_seed(seed);
        run(&mut Table::new(vec![vec![0.0; 6]; 6]), &mut Silent, &[0], &config).0.ids
    };
    assert_eq!(answer(7), answer(7));
    assert_ne!(answer(7), answer(8));
    // Pinned, so that neither a new version of a dependency nor another platform changes what a seed gives.
    assert_eq!(answer(7)[..12], [0, 1, 4, 4, 3, 2, 0, 5, 2, 5, 1, 2]);
}

#[test]
fn unusable_logits_are_an_error() {
    let choose = |logits: &[f32], config: GenerationConfig| {
        let error = Sampler::new(&config, &[0]).unwrap().choose(&mut logits.to_vec()).unwrap_err();
        let Error::Logits { step: 0, found, .. } = error else { panic!("{error:?}") };
        found
    };
    for config in [GenerationConfig::new(), GenerationConfig::new().with_sampling(Sampling::new(0.7))] {
        assert_eq!(choose(&[0.0, f32::NAN], config.clone()), "NaN for token 1");
        assert_eq!(choose(&[0.0, 1.0, f32::INFINITY], config.clone()), "inf for token 2");
        assert_eq!(choose(&[BARRED, BARRED], config.clone()), "all 2 barred");
        assert_eq!(choose(&[], config.clone()), "no logits at all");
        let only_end = config.with_eos_token_ids([0]).with_min_new_tokens(1);
        assert_eq!(choose(&[1.0], only_end), "all 1 barred");
    }
}

#[test]
fn an_end_token_ends_the_answer_and_is_not_in_the_text() {
    let config = GenerationConfig::new().with_eos_token_ids([9, 4]);
    let mut next = Table::counter(6);
    let (answer, events) = run(&mut next, &mut Pieces::new(LETTERS), &[0, 1], &config);
    assert_eq!((answer.ids.as_slice(), answer.text.as_str()), (&[2, 3, 4][..], "cd"));
    assert_eq!((answer.finish_reason, answer.prompt_tokens), (FinishReason::Stop, 2));
    assert_eq!(next.fed, [vec![0, 1], vec![2], vec![3]], "the end token is not fed");
    let expected = [
        Event::Prefill { fed: 2, total: 2 },
        Event::Token { id: 2, text: "c".into(), logprobs: None },
        Event::Token { id: 3, text: "d".into(), logprobs: None },
        Event::Token { id: 4, text: String::new(), logprobs: None },
    ];
    assert_eq!(events, expected);
}

#[test]
fn an_end_token_waits_for_min_new_tokens() {
    // Every row prefers the end token 0 and likes 1 second.
    let rows = vec![vec![2.0, 1.0, 0.0]; 3];
    let answer = |min_new_tokens, decoding: Option<Sampling>| {
        let mut config = GenerationConfig::new().with_eos_token_ids([0]).with_min_new_tokens(min_new_tokens);
        if let Some(sampling) = decoding {
            config = config.with_sampling(sampling);
        }
        run(&mut Table::new(rows.clone()), &mut Silent, &[2], &config).0.ids
    };
    assert_eq!(answer(0, None), [0]);
    assert_eq!(answer(3, None), [1, 1, 1, 0]);
    assert_eq!(answer(3, Some(Sampling::default().with_top_k(1))), [1, 1, 1, 0]);
}

#[test]
fn a_stop_text_over_several_tokens_ends_the_answer_before_it() {
    let config = GenerationConfig::new().with_stop(["xyz", "de"]);
    let (answer, events) = run(&mut Table::counter(6), &mut Pieces::new(LETTERS), &[0], &config);
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("bc", FinishReason::Stop));
    assert_eq!(answer.ids, [1, 2, 3, 4]);
    assert_eq!(texts(&events), ["b", "c", "", ""]);

    // It starts and ends within tokens.
    let pieces = ["-", "Hello", " wor", "ld\nUs", "er: no", "-"];
    let config = GenerationConfig::new().with_stop(["\nUser:"]);
    let (answer, events) = run(&mut Table::counter(6), &mut Pieces::new(pieces), &[0], &config);
    assert_eq!(answer.text, "Hello world");
    assert_eq!(texts(&events), ["Hello", " wor", "ld", ""]);
}

#[test]
fn what_was_held_back_comes_with_the_last_token() {
    // "d" may start the stop text; the limit comes before it is known.
    let config = GenerationConfig::new().with_stop(["dx"]).with_max_new_tokens(3);
    let (answer, events) = run(&mut Table::counter(6), &mut Pieces::new(LETTERS), &[0], &config);
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("bcd", FinishReason::Length));
    assert_eq!(texts(&events), ["b", "c", "d"]);

    let config = GenerationConfig::new().with_stop(["dx"]).with_eos_token_ids([4]);
    let (answer, events) = run(&mut Table::counter(6), &mut Pieces::new(LETTERS), &[0], &config);
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("bcd", FinishReason::Stop));
    assert_eq!(texts(&events), ["b", "c", "", "d"]);
}

#[test]
fn half_a_character_waits_for_its_other_half() {
    let mut decoder =
        Pieces { pieces: vec![b"-", b"caf", b"\xc3", b"\xa9", b"!\xc3", b"-"], bytes: Vec::new() };
    let config = GenerationConfig::new().with_max_new_tokens(4);
    let (answer, events) = run(&mut Table::counter(6), &mut decoder, &[0], &config);
    assert_eq!(texts(&events), ["caf", "", "é", "!\u{fffd}"]);
    assert_eq!(answer.text, "café!\u{fffd}");
}

#[test]
fn a_stop_text_completed_by_the_decoders_remainder_counts() {
    let mut decoder = Pieces { pieces: vec![b"-", b"ab", b"!\xc3", b"-"], bytes: Vec::new() };
    let config = GenerationConfig::new().with_max_new_tokens(2).with_stop(["b!"]);
    let (answer, _) = run(&mut Table::counter(4), &mut decoder, &[0], &config);
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("a", FinishReason::Stop));
}

#[test]
fn the_context_limits_the_answer() {
    let config = GenerationConfig::new();
    let mut next = Table::counter(6).with_max_positions(5);
    let (answer, _) = run(&mut next, &mut Pieces::new(LETTERS), &[0, 1], &config);
    // Three more are fed, and one is chosen after the last place is taken.
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("cdef", FinishReason::Length));
    assert_eq!(next.position(), 5);

    let mut full = Table::counter(6).with_max_positions(2);
    let (answer, _) = run(&mut full, &mut Pieces::new(LETTERS), &[0, 1], &config);
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("c", FinishReason::Length));
}

#[test]
fn a_prompt_that_is_empty_or_does_not_fit_is_refused() {
    let refused = |next: &mut Table, prompt: &[u32]| {
        let error =
            generate(next, &mut Silent, prompt, &GenerationConfig::new(), &mut |_| ControlFlow::Continue(()));
        match error {
            Err(Error::Generation { setting: "prompt", found, .. }) => found,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&mut Table::counter(6), &[]).starts_with("none"));
    let mut next = Table::counter(6).with_max_positions(4);
    assert!(refused(&mut next, &[0; 5]).starts_with("5 tokens, with room for 4 of 4"));
    assert!(next.fed.is_empty(), "nothing is fed before the check");
    // What was fed before takes room.
    next.feed(&[0, 1], &mut Vec::new()).unwrap();
    assert!(refused(&mut next, &[0; 3]).starts_with("3 tokens, with room for 2 of 4"));
    let (answer, _) = run(&mut next, &mut Pieces::new(LETTERS), &[2, 3], &GenerationConfig::new());
    assert_eq!(answer.text, "e");
}

#[test]
fn settings_are_checked_before_the_model_runs() {
    let mut next = Table::counter(6);
    let config = GenerationConfig::new().with_sampling(Sampling::new(-1.0));
    let error = generate(&mut next, &mut Silent, &[0], &config, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(Error::Generation { setting: "temperature", .. })), "{error:?}");
    assert!(next.fed.is_empty());
}

#[test]
fn a_long_prompt_is_fed_in_parts() {
    let prompt: Vec<u32> = (0..2 * PREFILL_CHUNK as u32 + 3).map(|i| i % 6).collect();
    let mut next = Table::counter(6);
    let config = GenerationConfig::new().with_max_new_tokens(1);
    let (answer, events) = run(&mut next, &mut Silent, &prompt, &config);
    assert_eq!(next.fed.iter().map(Vec::len).collect::<Vec<_>>(), [PREFILL_CHUNK, PREFILL_CHUNK, 3]);
    assert_eq!(next.fed.concat(), prompt);
    assert_eq!(answer.ids, [(prompt[prompt.len() - 1] + 1) % 6]);
    let total = prompt.len();
    let read = [PREFILL_CHUNK, 2 * PREFILL_CHUNK, total].map(|fed| Event::Prefill { fed, total });
    assert_eq!(events[..3], read);
}

#[test]
fn a_break_cancels() {
    let cancel_at = |prompt: &[u32], config: &GenerationConfig, nth: usize| {
        let mut next = Table::counter(6);
        let mut seen = 0;
        let answer = generate(&mut next, &mut Pieces::new(LETTERS), prompt, config, &mut |_| {
            seen += 1;
            if seen == nth { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(seen, nth, "nothing is reported after a break");
        (answer.text, answer.finish_reason, next.position())
    };
    let config = GenerationConfig::new().with_stop(["cx"]);
    // While reading the prompt.
    let long = vec![0; PREFILL_CHUNK + 1];
    assert_eq!(cancel_at(&long, &config, 1), (String::new(), FinishReason::Cancelled, PREFILL_CHUNK));
    assert_eq!(cancel_at(&[0], &config, 1), (String::new(), FinishReason::Cancelled, 1));
    // While answering; "c" is held back for the stop text and stays so.
    assert_eq!(cancel_at(&[0], &config, 3), ("b".to_owned(), FinishReason::Cancelled, 2));
    // At the last token there is nothing left to cancel.
    let short = config.with_max_new_tokens(2);
    assert_eq!(cancel_at(&[0], &short, 3), ("bc".to_owned(), FinishReason::Length, 2));
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let rows = vec![[0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec(); 4];
    // The temperature and the bias change what is chosen and not what is reported.
    let config = GenerationConfig::new()
        .with_sampling(Sampling::new(0.01))
        .with_logit_bias([(1, 5.0)])
        .with_max_new_tokens(2)
        .with_logprobs(3);
    let (answer, events) = run(&mut Table::new(rows.clone()), &mut Silent, &[0], &config);
    assert_eq!(answer.ids, [1, 1]);
    let expected = Logprobs::new(&rows[0], 1, 3);
    assert!((expected.logprob - 0.25f32.ln()).abs() < 1e-6);
    assert_eq!(expected.top.iter().map(|top| top.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(answer.logprobs, [expected.clone(), expected.clone()]);
    let reported: Vec<&Logprobs> = events
        .iter()
        .filter_map(|event| match event {
            Event::Token { logprobs, .. } => logprobs.as_ref(),
            Event::Prefill { .. } => None,
        })
        .collect();
    assert_eq!(reported, [&expected, &expected]);
    let mut silent = config;
    silent.logprobs = None;
    assert_eq!(run(&mut Table::new(rows), &mut Silent, &[0], &silent).0.logprobs, []);
}

#[test]
fn the_penalty_counts_each_token_once_and_the_answer_too() {
    let config = GenerationConfig::new().with_repetition_penalty(2.0);
    let mut sampler = Sampler::new(&config, &[0, 0, 0]).unwrap();
    // 3 is halved once to 1.5, not three times.
    assert_eq!(sampler.choose(&mut [3.0, 1.4, 1.0]).unwrap(), 0);
    assert_eq!(sampler.choose(&mut [3.0, 1.6, 1.0]).unwrap(), 1);
    // Now 1 counts as well; negative logits are doubled.
    assert_eq!(sampler.choose(&mut [-1.0, -1.0, -1.5]).unwrap(), 2);
    // All have been seen but 3: small positive logits are halved too.
    assert_eq!(sampler.choose(&mut [0.4, 0.1, 0.0, 0.3]).unwrap(), 3);
}

#[test]
fn probabilities_sum_to_one() {
    let logits: Vec<f32> = (0..1000u32).map(|id| (id * 7919 % 1000) as f32 / 100.0).collect();
    let sampling = Sampling::new(0.8).with_top_k(100).with_top_p(0.9);
    let sampler = Sampler::new(&GenerationConfig::new().with_sampling(sampling), &[0]).unwrap();
    let distribution: BTreeMap<u32, f64> =
        sampler.distribution(&mut logits.clone()).unwrap().into_iter().collect();
    assert!((distribution.values().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(distribution.len() > 10 && distribution.len() < 100, "{}", distribution.len());
}
