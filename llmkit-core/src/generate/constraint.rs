use crate::Result;

/// Holds an answer to a form while it is written, token by token.
///
/// [`generate_constrained`](super::generate_constrained) calls [`mask`](Self::mask) before each choice and [`accept`](Self::accept) after it.
/// `GrammarCompiler` (feature `constrained`) makes constraints of JSON schemas, regular expressions and grammars; a
/// form of your own needs the three methods.
///
/// ```
/// use llmkit_core::Result;
/// use llmkit_core::generate::Constraint;
///
/// /// Tokens rise, from 0 to 3.
/// struct Rising(usize);
///
/// impl Constraint for Rising {
///     fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
///         let allowed = self.0..4;
///         let barred = logits.iter_mut().enumerate().filter(|(id, _)| !allowed.contains(id));
///         barred.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
///         Ok(())
///     }
///     fn accept(&mut self, token: u32) -> Result<()> {
///         self.0 = token as usize + 1;
///         Ok(())
///     }
///     fn is_over(&self) -> bool {
///         self.0 >= 4
///     }
/// }
///
/// let mut logits = [0.5; 6];
/// let mut rising = Rising(0);
/// rising.accept(1)?;
/// rising.mask(&mut logits)?;
/// assert_eq!(logits.iter().filter(|logit| logit.is_finite()).count(), 2);
/// # Ok::<(), llmkit_core::Error>(())
/// ```
pub trait Constraint: Send {
    /// Sets the logits of the tokens that may not come next to minus infinity, and leaves the others. An end token may come where the
    /// answer is complete.
    ///
    /// # Errors
    /// Whatever keeps it from knowing them.
    fn mask(&mut self, logits: &mut [f32]) -> Result<()>;

    /// Takes the token that was chosen, which is no end token.
    ///
    /// # Errors
    /// When it may not come here.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Whether the answer is complete and nothing can follow; it ends there, without an end token.
    fn is_over(&self) -> bool;
}

impl<T: Constraint + ?Sized> Constraint for Box<T> {
    fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        (**self).mask(logits)
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        (**self).accept(token)
    }

    fn is_over(&self) -> bool {
        (**self).is_over()
    }
}
