use std::sync::Arc;

use burn::tensor::kind::Basic;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, KeyValue, Linear, Norm};
use llmkit_core::{Adapter, NoAdapter, Site};

use super::effect::Acting;
use super::{Effect, Place};
use crate::{Error, Method, Result};

/// A different adapter for each row of a batch, PEFT's `adapter_names`: each row is computed as if it were alone with its adapter.
///
/// The base's product is computed once for all rows where the adapters only add to it, as LoRAs do; elsewhere the rows of each adapter
/// are computed by themselves. It serves encoders and decoders, and generation with
/// [`CachedModel::with_rows`](llmkit_core::models::CachedModel::with_rows), where rows end and branch; gradients reach each row's adapter.
///
/// The batch must have as many rows as there are adapters: anything else is a panic that says so.
#[derive(Debug, Clone)]
pub struct RowAdapters {
    shared: Arc<Shared>,
    /// Which method each row has.
    rows: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Shared {
    methods: Vec<Arc<dyn Method>>,
    acting: Acting,
}

impl RowAdapters {
    /// One entry for each row: the name of the adapter, for errors, and the adapter, or none for the base as it is. An adapter of several
    /// rows may be named several times.
    ///
    /// # Errors
    /// [`Error::Together`] where rows cannot be told apart or have no common shape: adapters that act on the experts of a mixture (whose
    /// input is no longer in rows), prompts or prefixes of different lengths.
    pub fn new<S: AsRef<str>>(
        model: &dyn Model,
        rows: impl IntoIterator<Item = Option<(S, Arc<dyn Method>)>>,
    ) -> Result<Self> {
        let mut names: Vec<String> = Vec::new();
        let mut methods: Vec<Arc<dyn Method>> = Vec::new();
        let rows: Vec<Option<usize>> = rows
            .into_iter()
            .map(|row| {
                row.map(|(name, method)| {
                    let known = methods.iter().position(|known| Arc::ptr_eq(known, &method));
                    known.unwrap_or_else(|| {
                        names.push(name.as_ref().to_owned());
                        methods.push(method);
                        methods.len() - 1
                    })
                })
            })
            .collect();
        let acting = Acting::new(model, methods.iter().map(AsRef::as_ref));
        let adapters = Self { shared: Arc::new(Shared { methods, acting }), rows };
        adapters.check(&names)?;
        Ok(adapters)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn check(&self, names: &[String]) -> Result<()> {
        let Acting { prompt, prefix, .. } = &self.shared.acting;
        let of = |acting: &[usize]| acting.iter().map(|index| names[*index].clone()).collect();
        let experts =
            self.shared.acting.layers().find(|(path, _)| path.split('.').any(|part| part == "experts"));
        if let Some((path, acting)) = experts {
            return Err(Error::Together {
                adapters: of(acting),
                place: Place::Layer(path).to_string(),
                reason:
                    "an expert's input is no longer in rows, so no row can have an adapter of its own there"
                        .into(),
            });
        }
        for (place, acting, len) in [
            (Place::Prompt, prompt, (|adapter| adapter.prompt_len()) as fn(&dyn Adapter) -> usize),
            (Place::Prefix, prefix, |adapter| adapter.prefix_len()),
        ] {
            let lengths = self.lengths(len);
            if !acting.is_empty() && lengths.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(Error::Together {
                    adapters: names.to_vec(),
                    place: place.to_string(),
                    reason: format!("the rows of one batch must all get as many positions, not {lengths:?}"),
                });
            }
        }
        Ok(())
    }

    /// What `measure` says of each row's adapter.
    fn lengths(&self, measure: impl Fn(&dyn Adapter) -> usize) -> Vec<usize> {
        self.groups().iter().map(|group| measure(group.adapter)).collect()
    }

    /// The rows of each adapter, and those of the base.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (row, index) in self.rows.iter().enumerate() {
            match groups.iter_mut().find(|group| group.index == *index) {
                Some(group) => group.rows.push(row),
                None => {
                    let method = index.map(|index| self.shared.methods[index].as_ref());
                    let adapter: &dyn Adapter = match method {
                        Some(method) => method,
                        None => &NoAdapter,
                    };
                    groups.push(Group { index: *index, method, adapter, rows: vec![row] });
                }
            }
        }
        groups
    }

    fn assert_rows(&self, batch: usize) {
        let rows = self.rows.len();
        assert_eq!(batch, rows, "a batch of {batch} rows for the adapters of {rows} rows");
    }

    /// Computes the rows of each adapter by themselves.
    fn apart<const D: usize>(&self, mut compute: impl FnMut(&Group<'_>) -> Tensor<D>) -> Tensor<D> {
        let groups = self.groups();
        if let [group] = groups.as_slice() {
            return compute(group);
        }
        let results = Tensor::cat(groups.iter().map(&mut compute).collect(), 0);
        let order: Vec<usize> = groups.iter().flat_map(|group| group.rows.iter().copied()).collect();
        if order.is_sorted() {
            return results;
        }
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, row)| places[*row] = place);
        take(results, &places)
    }
}

/// The rows that have one adapter.
struct Group<'a> {
    index: Option<usize>,
    method: Option<&'a dyn Method>,
    adapter: &'a dyn Adapter,
    rows: Vec<usize>,
}

impl Group<'_> {
    /// The rows of the group.
    fn of<const D: usize, K: Basic>(&self, x: &Tensor<D, K>) -> Tensor<D, K> {
        if self.rows.len() == x.dims()[0] { x.clone() } else { take(x.clone(), &self.rows) }
    }
}

/// The rows `rows` of `x`.
fn take<const D: usize, K: Basic>(x: Tensor<D, K>, rows: &[usize]) -> Tensor<D, K> {
    match *rows {
        [first, ..] if rows.windows(2).all(|pair| pair[1] == pair[0] + 1) => x.narrow(0, first, rows.len()),
        _ => {
            let device = x.device().without_autodiff();
            x.select(0, indices(rows, &device))
        }
    }
}

fn indices(rows: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let values: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
    Tensor::from_data(TensorData::new(values, [rows.len()]), device)
}

impl Adapter for RowAdapters {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, _] = ids.dims();
        let of_words = self.shared.acting.words.as_deref() == Some(base.path());
        if of_words {
            self.assert_rows(batch);
        }
        if self.shared.acting.on(base.path()).is_empty() {
            return base.forward(ids);
        }
        // Positions are embedded once for all rows.
        let ids = if !of_words && batch == 1 { ids.repeat_dim(0, self.rows.len()) } else { ids };
        self.assert_rows(ids.dims()[0]);
        self.apart(|group| group.adapter.embed(base, group.of(&ids)))
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let acting = self.shared.acting.on(base.path());
        if acting.is_empty() {
            return base.forward(input);
        }
        self.assert_rows(input.dims()[0]);
        let place = Place::Layer(base.path());
        let groups = self.groups();
        let here = |group: &Group<'_>| group.index.is_some_and(|index| acting.contains(&index));
        let adds =
            |group: &Group<'_>| group.method.is_none_or(|method| method.effect(place) != Effect::Replaces);
        if groups.len() == 1 || !groups.iter().all(adds) {
            return self.apart(|group| group.adapter.linear(base, group.of(&input)));
        }
        let output = base.forward(input.clone());
        groups.iter().filter(|group| here(group)).fold(output, |output, group| match group.method {
            Some(method) => {
                let update = method.linear_update(base, group.of(&input));
                let rows = indices(&group.rows, &output.device().without_autodiff());
                output.select_assign(0, rows, update, IndexingUpdateOp::Add)
            }
            None => output,
        })
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        if self.shared.acting.on(base.path()).is_empty() {
            return base.forward(input);
        }
        self.assert_rows(input.dims()[0]);
        self.apart(|group| group.adapter.norm(base, group.of(&input)))
    }

    fn join(&self, site: Site, output: Tensor<3>, residual: Tensor<3>, norm: Option<&Norm>) -> Tensor<3> {
        if self.shared.acting.join.is_empty() {
            let sum = output + residual;
            return match norm {
                Some(norm) => self.norm(norm, sum),
                None => sum,
            };
        }
        self.assert_rows(output.dims()[0]);
        self.apart(|group| group.adapter.join(site, group.of(&output), group.of(&residual), norm))
    }

    fn prefix(&self, layer: usize, batch: usize) -> Option<KeyValue> {
        if self.shared.acting.prefix.is_empty() {
            return None;
        }
        self.assert_rows(batch);
        // All have one, of one length, or none has: it was checked.
        let of = |group: &Group<'_>| group.adapter.prefix(layer, group.rows.len());
        self.groups().first().and_then(of)?;
        let part = |group: &Group<'_>| of(group).expect("all rows have a prefix where one has");
        Some(KeyValue {
            key: self.apart(|group| part(group).key),
            value: self.apart(|group| part(group).value),
        })
    }

    fn prompt(&self, embeddings: Tensor<3>) -> Tensor<3> {
        if self.shared.acting.prompt.is_empty() {
            return embeddings;
        }
        self.assert_rows(embeddings.dims()[0]);
        self.apart(|group| group.adapter.prompt(group.of(&embeddings)))
    }

    fn prefix_len(&self) -> usize {
        self.lengths(|adapter| adapter.prefix_len()).first().copied().unwrap_or(0)
    }

    fn prompt_len(&self) -> usize {
        self.lengths(|adapter| adapter.prompt_len()).first().copied().unwrap_or(0)
    }

    fn select(&self, parents: &[usize]) -> Option<Arc<dyn Adapter>> {
        let rows = parents.iter().map(|parent| self.rows[*parent]).collect();
        Some(Arc::new(Self { shared: self.shared.clone(), rows }))
    }
}
