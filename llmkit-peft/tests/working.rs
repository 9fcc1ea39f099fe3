//! Several adapters of one base: stacked, switched, one for each row, as PEFT does it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use common::{
    Expected, all_linear, base, fixtures, ids, largest_difference, logits, random_lora, some_ids, values,
};
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::generate::{
    BatchRequest, GenerationConfig, Sampling, TextDecoder, generate, generate_batch,
};
use llmkit_core::models::{CachedModel, CausalLm, Encoder, Model, load_encoder};
use llmkit_core::{Adapter, NoAdapter};
use llmkit_peft::{
    AdaLora, AdaLoraConfig, AdapterSet, Error, Ia3, Ia3Config, InitLora, Lora, LoraConfig, Method,
    PrefixTuning, PrefixTuningConfig, PromptTuning, PromptTuningConfig, RowAdapters, Scope, StackedAdapters,
    Targets, Vera, VeraConfig, load_adapter, merge,
};

/// A base of the fixtures, which computes something of ids.
enum Base {
    Decoder(Arc<dyn CausalLm>),
    Encoder(Arc<dyn Encoder>),
}

impl Base {
    fn open(name: &str) -> Self {
        let base_name = std::fs::read_to_string(folder(name).join("base.txt")).unwrap();
        if base_name.contains("encoders") {
            let path = fixtures().join("../../../llmkit-core/tests/fixtures/llama").join(base_name.trim());
            Self::Encoder(load_encoder(&Checkpoint::open(path).unwrap(), &common::device()).unwrap())
        } else {
            Self::Decoder(base(base_name.trim()))
        }
    }

    fn model(&self) -> Arc<dyn Model> {
        match self {
            Self::Decoder(model) => model.clone(),
            Self::Encoder(model) => model.clone(),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>, adapter: &dyn Adapter) -> Vec<f32> {
        let [batch, seq] = ids.dims();
        match self {
            Self::Decoder(model) => values(model.forward(ids, adapter)),
            Self::Encoder(model) => values(model.forward(ids, &vec![seq; batch], None, adapter)),
        }
    }

    fn set(&self, name: &str) -> AdapterSet {
        let set = AdapterSet::new(self.model());
        for adapter in ["first", "second"] {
            set.load(adapter, folder(name).join(adapter)).unwrap();
        }
        set
    }
}

fn folder(name: &str) -> PathBuf {
    fixtures().join("working").join(name)
}

const ROWS: [Option<&str>; 4] = [Some("first"), None, Some("second"), Some("first")];

fn check_together(name: &str) {
    let base = Base::open(name);
    let set = base.set(name);
    let expected = Expected::open(folder(name).join("expected.safetensors"));
    let (input, shape) = expected.ints("input_ids");
    let input = || ids(&input, shape);
    let close = |ours: &[f32], theirs: &str| {
        let difference = largest_difference(ours, &expected.floats(theirs));
        assert!(difference < 1e-4, "{name}: {theirs} differs by {difference}");
    };

    let plain = base.forward(input(), set.active().as_ref());
    assert_eq!(plain, base.forward(input(), &NoAdapter), "{name}: nothing is active yet");
    set.activate(&["first"]).unwrap();
    close(&base.forward(input(), set.active().as_ref()), "first");
    set.activate(&["first", "second"]).unwrap();
    let stacked = base.forward(input(), set.active().as_ref());
    close(&stacked, "stacked");
    set.disable();
    assert_eq!(base.forward(input(), set.active().as_ref()), plain);
    set.enable();
    assert_eq!(base.forward(input(), set.active().as_ref()), stacked);

    let rows = base.forward(input(), &set.rows(&ROWS).unwrap());
    close(&rows, "rows");
    // Each row is what it is alone.
    let width = rows.len() / 4;
    for (row, adapter) in ROWS.into_iter().enumerate() {
        set.activate(adapter.as_slice()).unwrap();
        let alone = base.forward(input().narrow(0, row, 1), set.active().as_ref());
        let difference = largest_difference(&alone, &rows[row * width..(row + 1) * width]);
        assert!(difference < 2e-5, "{name}: row {row} alone differs by {difference}");
    }
}

#[test]
fn adapters_of_llama_together() {
    check_together("llama");
}

#[test]
fn adapters_of_an_embedding_together() {
    check_together("llama-embedding");
}

#[test]
fn adapters_of_qwen3_together() {
    check_together("qwen3");
}

#[test]
fn adapters_of_bert_together() {
    check_together("bert");
}

fn lora(model: &dyn CausalLm, targets: Targets, seed: u64) -> Lora {
    Lora::new(model, LoraConfig::new(targets).with_rank(3).with_alpha(5.0).with_init(InitLora::Random), seed)
        .unwrap()
}

fn arc(lora: &Lora) -> Arc<dyn Method> {
    Arc::new(lora.clone())
}

#[test]
fn a_set_is_managed_by_name_and_shared() {
    let model = base("gqa-tied");
    let adapter = |seed| arc(&lora(model.as_ref(), Targets::names(["q_proj"]), seed));
    let set = AdapterSet::new(model.clone());
    let other = set.clone();
    std::thread::spawn(move || {
        let lora = lora(base("gqa-tied").as_ref(), Targets::names(["q_proj"]), 1);
        other.add("a", Arc::new(lora)).unwrap();
    })
    .join()
    .unwrap();
    set.add("b", adapter(2)).unwrap();
    assert_eq!(set.names(), ["a", "b"]);
    set.activate(&["b", "a"]).unwrap();
    assert_eq!(set.active_names(), ["b", "a"]);

    for (error, part) in [
        (set.add("a", adapter(3)).unwrap_err(), "no adapter of the set has; there are: a, b"),
        (set.activate(&["c"]).unwrap_err(), "adapter `c`: expected the name of an adapter"),
        (set.activate(&["a", "a"]).unwrap_err(), "each name once"),
        (set.delete("c").unwrap_err(), "adapter `c`"),
        (set.replace("c", adapter(3)).unwrap_err(), "adapter `c`"),
        (set.rows(&[Some("c")]).unwrap_err(), "adapter `c`"),
    ] {
        assert!(matches!(error, Error::AdapterName { .. }));
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(set.active_names(), ["b", "a"]);

    // What is in use stays as it is, whatever becomes of the set.
    let ids = || some_ids(101);
    let in_use = set.active();
    let before = logits(model.as_ref(), ids(), in_use.as_ref());
    set.replace("a", adapter(4)).unwrap();
    assert_eq!(logits(model.as_ref(), ids(), in_use.as_ref()), before);
    assert!(largest_difference(&logits(model.as_ref(), ids(), set.active().as_ref()), &before) > 1e-2);
    set.delete("a").unwrap();
    assert_eq!(set.active_names(), ["b"]);
    assert_eq!(set.names(), ["b"]);
}

#[test]
fn what_cannot_act_together_is_refused_by_name() {
    let model = base("untied-llama3");
    let whole = LoraConfig::new(Scope::new(Targets::names(["q_proj"])).with_modules_to_save(["lm_head"]));
    let set = AdapterSet::new(model.clone());
    set.add("plain", arc(&lora(model.as_ref(), Targets::names(["q_proj", "lm_head"]), 1))).unwrap();
    for name in ["whole", "wholly"] {
        set.add(name, arc(&Lora::new(model.as_ref(), whole.clone(), 2).unwrap())).unwrap();
    }
    for pair in [["plain", "whole"], ["whole", "plain"], ["whole", "wholly"]] {
        let error = set.activate(&pair).unwrap_err();
        let Error::Together { adapters, place, .. } = &error else { panic!("{error}") };
        assert!(pair.iter().all(|name| adapters.contains(&(*name).to_owned())), "{error}");
        assert_eq!(place, "`lm_head`");
    }
    // One at a time, and one for each row, they all act.
    set.activate(&["whole"]).unwrap();
    set.rows(&[Some("whole"), Some("plain"), None]).unwrap();

    let experts = base("../decoders/qwen3-moe");
    let moe = |targets: &[&str]| arc(&lora(experts.as_ref(), Targets::names(targets.iter().copied()), 1));
    let error = RowAdapters::new(experts.as_ref(), [Some(("a", moe(&["up_proj"]))), None]).unwrap_err();
    assert!(error.to_string().contains("experts") && error.to_string().contains("`a`"), "{error}");
    RowAdapters::new(experts.as_ref(), [Some(("a", moe(&["q_proj"]))), None]).unwrap();
}

#[test]
fn methods_that_add_stack_with_each_other_and_not_with_those_that_scale() {
    let model = base("gqa-tied");
    let lora = arc(&lora(model.as_ref(), Targets::AllLinear, 1));
    let vera = VeraConfig::new(Targets::AllLinear).with_rank(8);
    let vera: Arc<dyn Method> = Arc::new(shift(Vera::new(model.as_ref(), vera, 2).unwrap()));
    let ada = AdaLoraConfig::new(Targets::names(["q_proj", "down_proj"]), 10);
    let ada: Arc<dyn Method> = Arc::new(shift(AdaLora::new(model.as_ref(), ada, 3).unwrap()));
    // One after the other, each worked into the weights that the next one acts on.
    let merged = merge(model.as_ref(), lora.as_ref()).unwrap();
    let merged = merge(merged.as_ref(), vera.as_ref()).unwrap();
    let expected = logits(merged.as_ref(), some_ids(101), ada.as_ref());
    let stack = [("lora", lora.clone()), ("vera", vera), ("ada", ada)];
    let stack = StackedAdapters::new(model.as_ref(), stack).unwrap();
    let difference = largest_difference(&logits(model.as_ref(), some_ids(101), &stack), &expected);
    assert!(difference < 1e-4, "{difference}");

    let ia3 = Ia3::new(model.as_ref(), Ia3Config::new(Targets::names(["k_proj"])), 0).unwrap();
    let error = StackedAdapters::new(model.as_ref(), [("lora", lora), ("ia3", Arc::new(ia3))]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`lora` and `ia3`") && message.contains("k_proj"), "{message}");
}

#[test]
fn prompts_and_prefixes_go_with_updates_and_one_for_each_row() {
    let model = base("gqa-tied");
    let lora = arc(&lora(model.as_ref(), Targets::AllLinear, 1));
    let prompt = |len: usize, seed| -> Arc<dyn Method> {
        Arc::new(PromptTuning::new(model.as_ref(), PromptTuningConfig::new(len), seed).unwrap())
    };
    let prefix = |len: usize, seed| -> Arc<dyn Method> {
        Arc::new(shift(PrefixTuning::new(model.as_ref(), PrefixTuningConfig::new(len), seed).unwrap()))
    };
    let merged = merge(model.as_ref(), lora.as_ref()).unwrap();
    for other in [prompt(3, 1), prefix(3, 1)] {
        let stack = [("lora", lora.clone()), ("other", other.clone())];
        let stack = StackedAdapters::new(model.as_ref(), stack).unwrap();
        let expected = logits(merged.as_ref(), some_ids(101), other.as_ref());
        let difference = largest_difference(&logits(model.as_ref(), some_ids(101), &stack), &expected);
        assert!(difference < 1e-4, "{}: {difference}", other.kind());
        check_generation(&model, &other, &stack, merged.as_ref());
    }
    for (first, second) in [(prompt(3, 1), prompt(3, 2)), (prefix(3, 1), prefix(3, 2))] {
        check_rows(model.as_ref(), &[Some(&first), Some(&second), Some(&first)]);
        let pair = [("first", first), ("second", second)];
        let error = StackedAdapters::new(model.as_ref(), pair).unwrap_err();
        assert!(matches!(error, Error::Together { .. }), "{error}");
    }
    for rows in [[Some(prompt(3, 1)), Some(prompt(4, 1))], [Some(prefix(2, 1)), None]] {
        let named = rows.map(|row| row.map(|method| ("some", method)));
        let error = RowAdapters::new(model.as_ref(), named).unwrap_err();
        assert!(error.to_string().contains("as many positions"), "{error}");
    }
}

/// What is generated with a stack is what the merged model generates with the part that does not merge.
fn check_generation(
    model: &Arc<dyn CausalLm>,
    other: &Arc<dyn Method>,
    stack: &StackedAdapters,
    merged: &dyn CausalLm,
) {
    let config = GenerationConfig::new().with_greedy().with_max_new_tokens(8);
    let tokens = |model: &dyn CausalLm, adapter: &dyn Adapter| {
        let mut next = CachedModel::new(model, adapter);
        generate(&mut next, &mut Words, &[5, 9, 30], &config, &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap()
            .ids
    };
    assert_eq!(tokens(model.as_ref(), stack), tokens(merged, other.as_ref()));
}

#[test]
fn rows_work_where_adapters_replace_layers_and_past_experts() {
    let model = base("untied-llama3");
    let scope =
        Scope::new(Targets::AllLinear).with_modules_to_save(["embed_tokens", "model.norm", "lm_head"]);
    let whole = Lora::new(model.as_ref(), LoraConfig::new(scope).with_init(InitLora::Random), 1).unwrap();
    // Far from the base: every number of the whole layers changes.
    let whole = arc(&shift(whole));
    let plain = arc(&random_lora(model.as_ref(), all_linear()));
    check_rows(model.as_ref(), &[Some(&plain), Some(&whole), None, Some(&whole), Some(&plain)]);

    let model = base("../decoders/qwen3-moe");
    let q = arc(&lora(model.as_ref(), Targets::names(["q_proj", "gate"]), 1));
    let v = arc(&lora(model.as_ref(), Targets::names(["v_proj"]), 2));
    check_rows(model.as_ref(), &[Some(&q), None, Some(&v)]);
}

/// Adds to every parameter.
fn shift<M: Module>(module: M) -> M {
    struct Shift;
    impl burn::module::ModuleMapper for Shift {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|value| value * 0.9 + 0.01)
        }
    }
    module.map(&mut Shift)
}

/// Every row of a batch is what it is alone.
fn check_rows(model: &dyn CausalLm, rows: &[Option<&Arc<dyn Method>>]) {
    let named = rows.iter().map(|row| row.map(|method| ("some", method.clone())));
    let adapters = RowAdapters::new(model, named).unwrap();
    let batch = rows.len();
    let values: Vec<i32> =
        (0..batch as i32 * 7).map(|i| (i * i * 5 + 3 * i + 2) % model.vocab_size() as i32).collect();
    let together = logits(model, ids(&values, [batch, 7]), &adapters);
    let width = together.len() / batch;
    for (row, method) in rows.iter().enumerate() {
        let one = ids(&values[row * 7..(row + 1) * 7], [1, 7]);
        let alone = match method {
            Some(method) => logits(model, one, method.as_ref()),
            None => logits(model, one, &NoAdapter),
        };
        let difference = largest_difference(&alone, &together[row * width..(row + 1) * width]);
        assert!(difference < 2e-5, "row {row} differs by {difference}");
    }
}

#[test]
fn rows_of_an_encoder_may_train_positions_and_norms() {
    let Base::Encoder(model) = Base::open("bert") else { panic!("an encoder") };
    let scope = Scope::new(Targets::names(["query"])).with_modules_to_save([
        "position_embeddings",
        "word_embeddings",
        "LayerNorm",
    ]);
    let whole = Lora::new(model.as_ref(), LoraConfig::new(scope).with_init(InitLora::Random), 1).unwrap();
    let whole = arc(&shift(whole));
    let rows = RowAdapters::new(model.as_ref(), [None, Some(("whole", whole.clone()))]).unwrap();
    let input = || ids(&[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [2, 5]);
    let together = values(model.forward(input(), &[5, 5], None, &rows));
    for (row, adapter) in [&NoAdapter as &dyn Adapter, whole.as_ref()].into_iter().enumerate() {
        let alone = values(model.forward(input().narrow(0, row, 1), &[5], None, adapter));
        let difference = largest_difference(&alone, &together[row * 120..(row + 1) * 120]);
        assert!(difference < 2e-5, "row {row} differs by {difference}");
    }
}

#[test]
#[should_panic(expected = "a batch of 2 rows for the adapters of 3 rows")]
fn another_number_of_rows_is_a_panic_that_says_so() {
    let model = base("gqa-tied");
    let adapter = arc(&random_lora(model.as_ref(), all_linear()));
    let rows = RowAdapters::new(model.as_ref(), [Some(("a", adapter)), None, None]).unwrap();
    model.forward(some_ids(101), &rows);
}

#[test]
fn gradients_of_a_batch_reach_each_row_s_adapter() {
    let model = base("gqa-tied");
    let [first, second] = [1, 2].map(|seed| lora(model.as_ref(), Targets::AllLinear, seed).train());
    let input = || some_ids(101);
    let rows = [Some(("first", arc(&first))), Some(("second", arc(&second)))];
    let rows = RowAdapters::new(model.as_ref(), rows).unwrap();
    let together = model.forward(input(), &rows).powf_scalar(2.0).sum().backward();
    for (row, lora) in [&first, &second].into_iter().enumerate() {
        let alone = model.forward(input().narrow(0, row, 1), lora).powf_scalar(2.0).sum().backward();
        for layer in lora.layers() {
            for named in llmkit_peft::TunedLayer::tensors(layer) {
                let llmkit_peft::ParamRef::Matrix(param) = named.param else { continue };
                let of = |tape: &burn::tensor::Gradients| values(param.val().grad(tape).unwrap());
                let (a, b) = (of(&together), of(&alone));
                let size = b.iter().fold(0.0f32, |size, value| size.max(value.abs()));
                assert!(size > 0.0);
                let difference = largest_difference(&a, &b);
                assert!(difference < 1e-4 * size, "{}: {difference} of {size}", named.key);
            }
        }
    }
}

/// Writes ids as words.
struct Words;

impl TextDecoder for Words {
    fn step(&mut self, id: u32) -> llmkit_core::Result<Option<String>> {
        Ok(Some(format!(" {id}")))
    }

    fn finish(&mut self) -> llmkit_core::Result<Option<String>> {
        Ok(None)
    }
}

#[test]
fn a_batch_is_generated_with_an_adapter_for_each_row() {
    let model = base("gqa-tied");
    let [first, second] = [1, 2].map(|seed| arc(&lora(model.as_ref(), Targets::AllLinear, seed)));
    let rows: [Option<&Arc<dyn Method>>; 4] = [Some(&first), None, Some(&second), Some(&first)];
    let prompts: [&[u32]; 4] = [&[5, 9, 30], &[7], &[11, 12, 13, 14, 15], &[40, 41]];
    // Of different lengths, so that rows end one by one.
    let configs =
        [4, 12, 7, 9].map(|tokens| GenerationConfig::new().with_greedy().with_max_new_tokens(tokens));
    let alone: Vec<Vec<u32>> = (0..4)
        .map(|row| {
            let adapter: &dyn Adapter = match rows[row] {
                Some(method) => method.as_ref(),
                None => &NoAdapter,
            };
            let mut next = CachedModel::new(model.as_ref(), adapter);
            generate(&mut next, &mut Words, prompts[row], &configs[row], &mut |_| {
                std::ops::ControlFlow::Continue(())
            })
            .unwrap()
            .ids
        })
        .collect();
    assert!(alone.iter().zip(&alone[1..]).all(|(a, b)| a[..4] != b[..4]));

    let named = rows.map(|row| row.map(|method| ("some", method.clone())));
    let adapters = RowAdapters::new(model.as_ref(), named).unwrap();
    let mut next = CachedModel::new(model.as_ref(), &adapters).with_rows(4);
    let requests: Vec<_> =
        (0..4).map(|row| BatchRequest { prompt: prompts[row], config: &configs[row] }).collect();
    let together =
        generate_batch(&mut next, &requests, &mut || Words, &mut |_, _| std::ops::ControlFlow::Continue(()))
            .unwrap();
    let together: Vec<Vec<u32>> = together.into_iter().map(|generated| generated.ids).collect();
    assert_eq!(together, alone);

    // A row that answers several times takes its adapter along.
    let sampled = configs[1].clone().with_sampling(Sampling::default()).with_seed(7);
    let mut drawn = [7, 8].map(|seed| {
        let mut next = CachedModel::new(model.as_ref(), first.as_ref());
        generate(&mut next, &mut Words, prompts[0], &sampled.clone().with_seed(seed), &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap()
        .ids
    });
    assert_ne!(drawn[0], drawn[1]);
    let twice = sampled.with_num_return_sequences(2);
    let named = [Some(("second", second.clone())), Some(("first", first.clone()))];
    let adapters = RowAdapters::new(model.as_ref(), named).unwrap();
    let mut next = CachedModel::new(model.as_ref(), &adapters).with_rows(2);
    let requests = [
        BatchRequest { prompt: prompts[2], config: &configs[2] },
        BatchRequest { prompt: prompts[0], config: &twice },
    ];
    let together =
        generate_batch(&mut next, &requests, &mut || Words, &mut |_, _| std::ops::ControlFlow::Continue(()))
            .unwrap();
    let together: Vec<Vec<u32>> = together.into_iter().map(|generated| generated.ids).collect();
    assert_eq!(together, [alone[2].clone(), std::mem::take(&mut drawn[0]), std::mem::take(&mut drawn[1])]);
}

#[test]
fn a_stack_of_one_is_that_one() {
    let model = base("gqa-tied");
    let folder = folder("llama").join("first");
    let one: Arc<dyn Method> = load_adapter(model.as_ref(), folder).unwrap().into();
    let stack = StackedAdapters::new(model.as_ref(), [("one", one.clone())]).unwrap();
    let input = || some_ids(101);
    assert_eq!(logits(model.as_ref(), input(), &stack), logits(model.as_ref(), input(), one.as_ref()));
}
