//! Whether a watch that broke may go on: asked beside everything else, for the answer may take its time.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::failure::Failure;

/// A question that is under way, if there is one.
#[derive(Default)]
pub struct Probe(Option<BoxFuture<'static, Result<(), Failure>>>);

impl Probe {
    /// Asks, unless it is asked already.
    pub fn ask(&mut self, question: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        self.0.get_or_insert_with(|| question.boxed());
    }

    /// The answer, when there is one. Nothing is lost when it is not waited for to its end.
    ///
    /// # Errors
    /// The failure that the answer is.
    pub async fn answer(&mut self) -> Result<(), Failure> {
        let answer = match &mut self.0 {
            Some(question) => question.await,
            None => std::future::pending().await,
        };
        self.0 = None;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_outlives_who_stops_to_wait() {
        let mut probe = Probe::default();
        let (answers, answer) = tokio::sync::oneshot::channel();
        probe.ask(async move { answer.await.expect("an answer comes") });
        assert_eq!(probe.answer().now_or_never(), None);
        // Asked already: this one is not begun.
        probe.ask(async { Ok(()) });
        assert_eq!(probe.answer().now_or_never(), None);
        let told = Err(Failure::Failed("no".into()));
        answers.send(told.clone()).expect("it is waited for");
        assert_eq!(probe.answer().await, told);
        probe.ask(async { Ok(()) });
        assert_eq!(probe.answer().await, Ok(()));
    }
}
