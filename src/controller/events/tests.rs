//! What is told first, and what becomes of too much.

use super::*;
use kube::client::Body;
use serde_json::Value;

#[tokio::test]
async fn a_recovery_that_does_not_end_holds_events_back_once() {
    let recoveries = watch::Sender::new(1);
    let mut held = recoveries.subscribe();
    let mut patience = Duration::from_millis(50);
    wait_for_recoveries(&mut held, &mut patience).await;
    wait_for_recoveries(&mut held, &mut patience).await;
    let began = Instant::now();
    for _ in 0..100 {
        wait_for_recoveries(&mut held, &mut patience).await;
    }
    assert!(
        began.elapsed() < LONGEST_HOLD,
        "each Event is held back anew"
    );
    recoveries.send_replace(0);
    wait_for_recoveries(&mut held, &mut patience).await;
    assert_eq!(
        patience, LONGEST_HOLD,
        "the next recovery may hold them back again"
    );
}

/// A client whose API server takes every Event, and what it was told.
fn recording() -> (Client, Arc<Mutex<Vec<Value>>>) {
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let tell = told.clone();
    let server = tower::service_fn(move |request: http::Request<Body>| {
        let tell = tell.clone();
        async move {
            let body = request.into_body().collect_bytes().await?;
            locked(&tell).push(serde_json::from_slice(&body).expect("an Event"));
            Ok::<_, tower::BoxError>(http::Response::new(Body::from(body.to_vec())))
        }
    });
    (Client::new(server, "default"), told)
}

#[tokio::test]
async fn too_many_events_are_counted_and_summed_up_and_those_of_cells_come_first() {
    let (client, told) = recording();
    let dropped = Counter::default();
    let (sink, publisher) = EventSink::new(client, dropped.clone());
    for n in 0..QUEUE + 100 {
        let name = format!("web-{n}");
        let about = reference("ActualLRP", Some("apps"), &name, &name);
        sink.normal(about, "ActualLRPPlaced", "Place", "Placed.".into());
    }
    let cell = reference("Cell", None, "a", "a");
    sink.warning(cell, "CellRecoveryPartlyFailed", "Recover", "Done.".into());
    assert_eq!(dropped.get(), 100);
    drop(sink);
    publisher.await;
    let told = locked(&told);
    assert_eq!(told.len(), 1 + QUEUE + 1);
    assert_eq!(told[0]["reason"], "CellRecoveryPartlyFailed");
    assert_eq!(told[1]["reason"], "ActualLRPPlaced");
    let last = &told[told.len() - 1];
    assert_eq!(last["reason"], "EventsDropped");
    assert_eq!(last["regarding"]["name"], "apps");
    assert_eq!(last["metadata"]["namespace"], "apps");
    let note = last["note"].as_str().unwrap_or_default();
    assert!(note.contains("100 more Events ActualLRPPlaced"), "{note}");
}
