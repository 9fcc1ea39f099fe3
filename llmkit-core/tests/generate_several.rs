//! Several sequences at once: batches give what each prompt gives alone, and beam search gives what transformers' gives
//! (`scripts/make_beam_fixtures.py`).
#![cfg(feature = "models")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::generate::{
    BatchRequest, BeamSearch, Dry, Event, Generated, GenerationConfig, Mirostat, NextToken, NextTokens,
    PREFILL_CHUNK, Sampling, TextDecoder, generate, generate_batch, generate_beams,
};
use llmkit_core::models::{CachedModel, CausalLm, Pretrained, load_causal_lm};
use llmkit_core::{Device, Error, FinishReason, Message, NoAdapter, Result};
use serde::Deserialize;

const VOCABULARY: usize = 11;

/// Logits that depend on every token read, so that a row that was mixed up with another is seen at once.
fn scramble(history: &[u32]) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for &id in history {
        state = (state ^ u64::from(id + 1)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 29;
    }
    (0..VOCABULARY)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 * 4.0
        })
        .collect()
}

/// One sequence over [`scramble`].
struct One(Vec<u32>);

impl NextToken for One {
    fn feed(&mut self, tokens: &[u32], logits: &mut Vec<f32>) -> Result<()> {
        self.0.extend(tokens);
        *logits = scramble(&self.0);
        Ok(())
    }

    fn position(&self) -> usize {
        self.0.len()
    }

    fn max_positions(&self) -> usize {
        60
    }
}

/// Several.
struct Several {
    rows: Vec<Vec<u32>>,
    max_positions: usize,
    /// How many tokens each call fed to each row.
    fed: Vec<Vec<usize>>,
}

impl Several {
    fn new(rows: usize) -> Self {
        Self { rows: vec![Vec::new(); rows], max_positions: 60, fed: Vec::new() }
    }
}

impl NextTokens for Several {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn feed_rows(&mut self, tokens: &[&[u32]], logits: &mut [Vec<f32>]) -> Result<()> {
        assert_eq!((tokens.len(), logits.len()), (self.rows.len(), self.rows.len()));
        self.fed.push(tokens.iter().map(|tokens| tokens.len()).collect());
        for ((row, tokens), logits) in self.rows.iter_mut().zip(tokens).zip(logits) {
            row.extend(*tokens);
            assert!(row.len() <= self.max_positions, "fed beyond the context");
            if !tokens.is_empty() {
                *logits = scramble(row);
            }
        }
        Ok(())
    }

    fn select(&mut self, parents: &[usize]) -> Result<()> {
        assert!(!parents.is_empty(), "a model has at least one row");
        self.rows = parents.iter().map(|&parent| self.rows[parent].clone()).collect();
        Ok(())
    }

    fn row_position(&self, row: usize) -> usize {
        self.rows[row].len()
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }
}

/// Writes each token as a letter.
struct Letters;

impl TextDecoder for Letters {
    fn step(&mut self, id: u32) -> Result<Option<String>> {
        Ok(char::from_u32('a' as u32 + id).map(String::from))
    }

    fn finish(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

fn on(_: usize, _: Event) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn alone(prompt: &[u32], config: &GenerationConfig) -> (Generated, Vec<Event>) {
    let mut events = Vec::new();
    let answer = generate(&mut One(Vec::new()), &mut Letters, prompt, config, &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    });
    (answer.unwrap(), events)
}

/// Prompts of different lengths, each with settings of its own.
fn mixed() -> Vec<(Vec<u32>, GenerationConfig)> {
    let sampled = |seed| GenerationConfig::new().with_sampling(Sampling::new(1.2)).with_seed(seed);
    vec![
        (vec![1, 2, 3], GenerationConfig::new().with_max_new_tokens(9)),
        (vec![4], sampled(5).with_max_new_tokens(30).with_eos_token_ids([2, 7])),
        (vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2], sampled(6).with_max_new_tokens(1)),
        (vec![9; 20], GenerationConfig::new().with_repetition_penalty(1.4).with_dry(Dry::new(0.5))),
        (vec![3, 3], sampled(7).with_stop(["ab", "c", "fg", "k"]).with_logprobs(3)),
        (vec![8, 1], sampled(8).with_frequency_penalty(0.7).with_presence_penalty(0.1).with_logprobs(0)),
        (vec![0], sampled(9).with_no_repeat_ngram_size(2).with_max_new_tokens(25)),
        (vec![5, 5, 5, 5], {
            let mirostat = Sampling::default().with_mirostat(Mirostat::new(2.0, 0.4));
            GenerationConfig::new().with_sampling(mirostat).with_seed(10).with_max_new_tokens(40)
        }),
    ]
}

#[test]
fn a_batch_gives_what_each_prompt_gives_alone() {
    let cases = mixed();
    let requests: Vec<BatchRequest<'_>> =
        cases.iter().map(|(prompt, config)| BatchRequest { prompt, config }).collect();
    let mut events: BTreeMap<usize, Vec<Event>> = BTreeMap::new();
    let mut next = Several::new(1);
    let answers = generate_batch(&mut next, &requests, &mut || Letters, &mut |index, event| {
        events.entry(index).or_default().push(event);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(answers.len(), cases.len());
    for (index, (prompt, config)) in cases.iter().enumerate() {
        let (answer, heard) = alone(prompt, config);
        assert_eq!(answers[index], answer, "prompt {index}");
        assert_eq!(events[&index], heard, "prompt {index}");
    }
    // They end at different times and for both reasons, and rows that are done are not fed.
    assert!(answers.iter().any(|answer| answer.finish_reason == FinishReason::Stop));
    assert!(answers.iter().any(|answer| answer.finish_reason == FinishReason::Length));
    let rows: Vec<usize> = next.fed.iter().map(Vec::len).collect();
    assert!(rows.is_sorted_by(|one, next| one >= next), "{rows:?}");
    assert_eq!((rows[0], *rows.last().unwrap()), (cases.len(), 1));
    let fed: usize = next.fed.iter().flatten().sum();
    let needed: usize = answers.iter().map(|answer| answer.prompt_tokens + answer.ids.len() - 1).sum();
    assert_eq!(fed, needed);

    // The same with as many rows as prompts, in another order.
    let backwards: Vec<BatchRequest<'_>> = requests.iter().rev().copied().collect();
    let mut again =
        generate_batch(&mut Several::new(cases.len()), &backwards, &mut || Letters, &mut on).unwrap();
    again.reverse();
    assert_eq!(again, answers);
}

#[test]
fn several_answers_to_a_prompt_read_it_once() {
    let prompts = [vec![1, 2, 3, 4], vec![7]];
    let config =
        GenerationConfig::new().with_sampling(Sampling::new(1.5)).with_seed(3).with_max_new_tokens(12);
    let three = config.clone().with_num_return_sequences(3);
    let requests = [
        BatchRequest { prompt: &prompts[0], config: &three },
        BatchRequest { prompt: &prompts[1], config: &config },
    ];
    let mut next = Several::new(1);
    let answers = generate_batch(&mut next, &requests, &mut || Letters, &mut on).unwrap();
    assert_eq!(next.fed[..2], [vec![4, 1], vec![1, 1, 1, 1]]);
    let seeded = |prompt: &[u32], seed| alone(prompt, &config.clone().with_seed(seed)).0;
    let expected =
        [seeded(&prompts[0], 3), seeded(&prompts[0], 4), seeded(&prompts[0], 5), seeded(&prompts[1], 3)];
    assert_eq!(answers, expected);
    assert_ne!(answers[0].ids, answers[1].ids);
}

#[test]
fn a_common_beginning_is_read_once() {
    let (start, ends) = ([6, 5, 4, 3], [vec![1], vec![2, 2]]);
    let config = GenerationConfig::new().with_max_new_tokens(10);
    let mut next = Several::new(1);
    next.feed_rows(&[&start], &mut [Vec::new()]).unwrap();
    let requests = ends.each_ref().map(|prompt| BatchRequest { prompt, config: &config });
    let answers = generate_batch(&mut next, &requests, &mut || Letters, &mut on).unwrap();
    for (end, answer) in ends.iter().zip(answers) {
        let whole: Vec<u32> = start.iter().chain(end).copied().collect();
        assert_eq!(answer.ids, alone(&whole, &config).0.ids);
    }
}

#[test]
fn a_break_ends_one_answer_only() {
    let config = GenerationConfig::new().with_max_new_tokens(6);
    let prompts = [vec![1], vec![2], vec![3]];
    let requests = prompts.each_ref().map(|prompt| BatchRequest { prompt, config: &config });
    let mut seen = [0; 3];
    let answers = generate_batch(&mut Several::new(3), &requests, &mut || Letters, &mut |index, _| {
        seen[index] += 1;
        // The first while it is read, the second after two tokens, the third never.
        let breaks = matches!((index, seen[index]), (0, 1) | (1, 3));
        if breaks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    let lengths: Vec<(usize, FinishReason)> =
        answers.iter().map(|answer| (answer.ids.len(), answer.finish_reason)).collect();
    use FinishReason::{Cancelled, Length};
    assert_eq!(lengths, [(0, Cancelled), (2, Cancelled), (6, Length)]);
    assert_eq!(seen, [1, 3, 7]);
    let whole = alone(&prompts[1], &config).0.ids;
    assert_eq!(answers[1].ids, whole[..2]);
}

#[test]
fn prompts_are_read_in_parts_that_bound_the_memory() {
    let prompts = [vec![1; PREFILL_CHUNK], vec![2; 30], vec![3]];
    let config = GenerationConfig::new().with_max_new_tokens(1);
    let requests = prompts.each_ref().map(|prompt| BatchRequest { prompt, config: &config });
    let mut next = Several { max_positions: PREFILL_CHUNK, ..Several::new(1) };
    generate_batch(&mut next, &requests, &mut || Letters, &mut on).unwrap();
    let third = PREFILL_CHUNK / 3;
    assert_eq!(next.fed[0], [third, 30, 1]);
    assert_eq!(next.fed[1..], [[third, 0, 0], [third, 0, 0], [PREFILL_CHUNK - 3 * third, 0, 0]]);
}

#[test]
fn what_cannot_be_batched_is_refused_before_the_model_runs() {
    let refused = |rows: usize, prompts: &[Vec<u32>], config: &GenerationConfig| {
        let requests: Vec<BatchRequest<'_>> =
            prompts.iter().map(|prompt| BatchRequest { prompt, config }).collect();
        let mut next = Several::new(rows);
        match generate_batch(&mut next, &requests, &mut || Letters, &mut on) {
            Err(Error::Generation { setting, .. }) if next.fed.is_empty() => setting,
            other => panic!("{other:?}"),
        }
    };
    let config = GenerationConfig::new();
    assert_eq!(refused(2, &[vec![1], vec![1], vec![1]], &config), "requests");
    assert_eq!(refused(2, &[vec![1], vec![]], &config), "prompt");
    assert_eq!(refused(1, &[vec![1], vec![1; 61]], &config), "prompt");
    assert_eq!(refused(1, &[vec![1]], &config.clone().with_beams(BeamSearch::new(2))), "num_beams");
    assert_eq!(refused(1, &[vec![1]], &config.with_num_return_sequences(2)), "num_return_sequences");
    assert_eq!(generate_batch(&mut Several::new(1), &[], &mut || Letters, &mut on).unwrap(), []);

    // And one sequence at a time does one sequence.
    let beams = GenerationConfig::new().with_beams(BeamSearch::new(2));
    let twice = GenerationConfig::new().with_sampling(Sampling::default()).with_num_return_sequences(2);
    for (config, name) in [(beams, "num_beams"), (twice, "num_return_sequences")] {
        let answer =
            generate(&mut One(Vec::new()), &mut Letters, &[1], &config, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(answer, Err(Error::Generation { setting, .. }) if setting == name), "{answer:?}");
    }
}

/// A model without a cache, which reads every row anew at each step.
struct Uncached<'a> {
    model: &'a dyn CausalLm,
    rows: Vec<Vec<u32>>,
}

impl NextTokens for Uncached<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn feed_rows(&mut self, tokens: &[&[u32]], logits: &mut [Vec<f32>]) -> Result<()> {
        for ((row, tokens), logits) in self.rows.iter_mut().zip(tokens).zip(logits) {
            row.extend(*tokens);
            if tokens.is_empty() {
                continue;
            }
            let ids: Vec<i32> = row.iter().map(|id| *id as i32).collect();
            let ids = TensorData::new::<i32, _>(ids, [1, row.len()]);
            let ids = Tensor::<2, Int>::from_data(ids, &self.model.device());
            let scores = self.model.forward(ids, &NoAdapter).into_data();
            let scores = scores.as_slice::<f32>().unwrap();
            *logits = scores[scores.len() - self.model.vocab_size()..].to_vec();
        }
        Ok(())
    }

    fn select(&mut self, parents: &[usize]) -> Result<()> {
        self.rows = parents.iter().map(|&parent| self.rows[parent].clone()).collect();
        Ok(())
    }

    fn row_position(&self, row: usize) -> usize {
        self.rows[row].len()
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }
}

#[derive(Deserialize)]
struct BeamFixture {
    cases: Vec<BeamCase>,
}

#[derive(Deserialize)]
struct BeamCase {
    model: String,
    prompt: Vec<u32>,
    config: GenerationConfig,
    ids: Vec<Vec<u32>>,
    scores: Vec<f32>,
}

fn beam_fixture() -> Vec<BeamCase> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/beams.json");
    serde_json::from_slice::<BeamFixture>(&std::fs::read(path).unwrap()).unwrap().cases
}

fn tiny(name: &str) -> std::sync::Arc<dyn CausalLm> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name);
    let device = Device::from_env().unwrap().resolve().unwrap();
    load_causal_lm(&Checkpoint::open(folder).unwrap(), &device).unwrap()
}

fn check_beams(case: &BeamCase, next: &mut dyn NextTokens) {
    let found =
        generate_beams(next, &mut || Letters, &case.prompt, &case.config, &mut |_| ControlFlow::Continue(()))
            .unwrap();
    let ids: Vec<&[u32]> = found.iter().map(|beam| beam.generated.ids.as_slice()).collect();
    assert_eq!(ids, case.ids, "{} {:?}", case.model, case.config);
    for (beam, expected) in found.iter().zip(&case.scores) {
        assert!((beam.score - expected).abs() < 2e-4 * expected.abs().max(1.0), "{} {expected}", beam.score);
        let last = beam.generated.ids.last().unwrap();
        let ended = case.config.eos_token_ids.contains(last);
        let reason = if ended { FinishReason::Stop } else { FinishReason::Length };
        assert_eq!(beam.generated.finish_reason, reason);
        assert_eq!(beam.generated.text.chars().count(), beam.generated.ids.len() - usize::from(ended));
    }
}

#[test]
fn beam_search_is_that_of_transformers() {
    let cases = beam_fixture();
    assert_eq!(cases.len(), 72);
    for name in ["gqa-tied", "untied-llama3"] {
        let model = tiny(name);
        for case in cases.iter().filter(|case| case.model == name) {
            check_beams(case, &mut Uncached { model: model.as_ref(), rows: vec![Vec::new()] });
            check_beams(case, &mut CachedModel::new(model.as_ref(), &NoAdapter));
        }
    }
}

/// The same with a real model and its cache, whose rows stand at different lengths.
#[test]
fn a_batch_on_a_model_gives_what_each_prompt_gives_alone() {
    for name in ["gqa-tied", "untied-llama3"] {
        let model = tiny(name);
        let three = GenerationConfig::new()
            .with_sampling(Sampling::new(0.9).with_top_p(0.95))
            .with_seed(4)
            .with_num_return_sequences(3)
            .with_max_new_tokens(20);
        let mut cases = mixed();
        cases.push((vec![50, 60, 70, 80, 90, 100], three));
        let requests: Vec<BatchRequest<'_>> =
            cases.iter().map(|(prompt, config)| BatchRequest { prompt, config }).collect();
        let mut next = CachedModel::new(model.as_ref(), &NoAdapter);
        let answers = generate_batch(&mut next, &requests, &mut || Letters, &mut on).unwrap();
        assert_eq!(answers.len(), cases.len() + 2);

        let mut answers = answers.into_iter();
        for (prompt, config) in &cases {
            for sequence in 0..config.num_return_sequences {
                let config =
                    config.clone().with_seed(config.seed + sequence as u64).with_num_return_sequences(1);
                let mut next = CachedModel::new(model.as_ref(), &NoAdapter);
                let expected =
                    generate(&mut next, &mut Letters, prompt, &config, &mut |_| ControlFlow::Continue(()))
                        .unwrap();
                let found = answers.next().unwrap();
                assert_eq!((&found.ids, &found.text), (&expected.ids, &expected.text), "{name} {prompt:?}");
                assert_eq!(found.finish_reason, expected.finish_reason);
                assert_eq!(found.logprobs.len(), expected.logprobs.len());
                for (found, expected) in found.logprobs.iter().zip(&expected.logprobs) {
                    assert!((found.logprob - expected.logprob).abs() < 1e-4);
                }
            }
        }
    }
}

#[test]
fn beams_keep_within_the_context() {
    let config = GenerationConfig::new().with_beams(BeamSearch::new(3)).with_num_return_sequences(3);
    let mut next = Several { max_positions: 9, ..Several::new(1) };
    let mut steps = Vec::new();
    let found = generate_beams(&mut next, &mut || Letters, &[1, 2, 3], &config, &mut |step| {
        steps.push(step);
        ControlFlow::Continue(())
    })
    .unwrap();
    // Six are fed, and one is chosen after the last place is taken.
    assert!(found.iter().all(|beam| beam.generated.ids.len() == 7));
    assert!(found.is_sorted_by(|one, next| one.score >= next.score));
    assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6]);

    // Full already: one token.
    let mut next = Several { max_positions: 3, ..Several::new(1) };
    let found =
        generate_beams(&mut next, &mut || Letters, &[1, 2, 3], &config, &mut |_| ControlFlow::Continue(()))
            .unwrap();
    assert_eq!(found.iter().map(|beam| beam.generated.ids.len()).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn beams_end_at_stop_texts_as_at_end_tokens() {
    let search = |config: &GenerationConfig| {
        let proceed = &mut |_| ControlFlow::Continue(());
        generate_beams(&mut Several::new(1), &mut || Letters, &[3, 1], config, proceed).unwrap()
    };
    let beams = BeamSearch::new(4).with_length_penalty(0.7);
    let config =
        GenerationConfig::new().with_beams(beams).with_num_return_sequences(4).with_max_new_tokens(12);
    // The letter of token 5.
    let by_text = search(&config.clone().with_stop(["f"]));
    assert_eq!(by_text, search(&config.clone().with_eos_token_ids([5])));
    assert!(by_text.iter().any(|beam| beam.generated.finish_reason == FinishReason::Stop));
    assert_ne!(by_text, search(&config));
    // One of two tokens: only where the second follows the first.
    for beam in search(&config.with_stop(["ab", "cd", "fg", "hi"])) {
        let ids = beam.generated.ids.as_slice();
        let pairs = ids.windows(2).filter(|pair| matches!(pair, [0, 1] | [2, 3] | [5, 6] | [7, 8])).count();
        let stopped = beam.generated.finish_reason == FinishReason::Stop;
        assert_eq!(pairs, usize::from(stopped), "{ids:?}");
        assert_eq!(beam.generated.text.len(), ids.len() - 2 * usize::from(stopped));
    }
}

#[test]
fn a_reply_with_beams_is_the_best_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/gguf/model.gguf");
    let device = Device::from_env().unwrap().resolve().unwrap();
    let pretrained = Pretrained::load(path, &device).unwrap();
    let question = [Message::user("Hello!")];
    let config = pretrained.generation.clone().with_max_new_tokens(8).with_beams(BeamSearch::new(3));
    let mut texts = Vec::new();
    let answer = pretrained.reply(&NoAdapter, &question, &config, &mut |text| {
        texts.push(text.to_owned());
        ControlFlow::Continue(())
    });
    let answer = answer.unwrap();
    assert_eq!(texts.pop().unwrap(), answer.text);
    assert!(texts.len() > 1 && texts.iter().all(String::is_empty), "{texts:?}");

    let prompt = pretrained.chat_template.render(&question, true).unwrap();
    let prompt = pretrained.tokenizer.encode(&prompt, false).unwrap();
    let all = config.clone().with_num_return_sequences(3);
    let mut next = CachedModel::new(pretrained.model.as_ref(), &NoAdapter);
    let new_decoder = &mut || pretrained.tokenizer.decode_stream(true);
    let found =
        generate_beams(&mut next, new_decoder, &prompt, &all, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found[0].generated, answer);
    assert_eq!(found.len(), 3);

    let stopped = pretrained.reply(&NoAdapter, &question, &config, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((stopped.finish_reason, stopped.ids.len()), (FinishReason::Cancelled, 0));
    let several = pretrained.reply(&NoAdapter, &question, &all, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(several, Err(Error::Generation { setting: "num_return_sequences", .. })), "{several:?}");
}

#[test]
fn a_break_ends_beam_search_with_what_is_finished() {
    let config =
        GenerationConfig::new().with_beams(BeamSearch::new(2)).with_eos_token_ids([0, 1, 2, 3, 4, 5]);
    let break_at = |step| {
        let mut at = |now| if now == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        generate_beams(&mut Several::new(1), &mut || Letters, &[1, 2], &config, &mut at).unwrap()
    };
    assert_eq!(break_at(0), []);
    let found = break_at(1);
    assert!(found.iter().all(|beam| beam.generated.finish_reason == FinishReason::Stop), "{found:?}");
}

#[test]
fn what_beam_search_does_not_know_is_refused() {
    let beams = GenerationConfig::new().with_beams(BeamSearch::new(2));
    for (config, rows, name) in [
        (GenerationConfig::new(), 1, "num_beams"),
        (beams.clone().with_logprobs(1), 1, "logprobs"),
        (beams, 2, "beams"),
    ] {
        let found = generate_beams(&mut Several::new(rows), &mut || Letters, &[1], &config, &mut |_| {
            ControlFlow::Continue(())
        });
        assert!(matches!(found, Err(Error::Generation { setting, .. }) if setting == name), "{found:?}");
    }
}

#[test]
fn unusable_logits_end_beam_search_with_an_error() {
    struct Broken(f32, usize);
    impl NextTokens for Broken {
        fn rows(&self) -> usize {
            self.1
        }
        fn feed_rows(&mut self, _: &[&[u32]], logits: &mut [Vec<f32>]) -> Result<()> {
            logits.fill(vec![self.0; 4]);
            Ok(())
        }
        fn select(&mut self, parents: &[usize]) -> Result<()> {
            self.1 = parents.len();
            Ok(())
        }
        fn row_position(&self, _: usize) -> usize {
            0
        }
        fn max_positions(&self) -> usize {
            10
        }
    }
    let config = GenerationConfig::new().with_beams(BeamSearch::new(2));
    let barred = config.clone().with_suppress_tokens([0, 1, 2, 3]);
    for (value, config) in
        [(f32::NAN, &config), (f32::INFINITY, &config), (f32::NEG_INFINITY, &config), (0.0, &barred)]
    {
        let found = generate_beams(&mut Broken(value, 1), &mut || Letters, &[1], config, &mut |_| {
            ControlFlow::Continue(())
        });
        assert!(matches!(found, Err(Error::Logits { step: 0, .. })), "{value}: {found:?}");
    }
}
