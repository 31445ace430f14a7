//! What is known of Pods, whatever the order in which it is heard.

use super::super::{Local, PodIndex};
use super::{pod, read, ready};

#[test]
fn an_older_version_never_replaces_a_newer_one_and_the_gone_stay_gone() {
    let mut index = PodIndex::default();
    let (mut old, mut new) = (read(ready()), read(ready()));
    (old.revision, new.revision) = (7, 8);
    new.ready = false;
    assert!(index.put(new.clone()));
    assert!(!index.put(old.clone()));
    assert_eq!(index.of(&new.work), [&new]);
    assert_eq!(index.on_cell("a").len(), 1);
    assert_eq!(index.remove(&new.key, "another"), None);
    assert_eq!(index.remove(&new.key, &new.uid), Some(new.work.clone()));
    assert!(
        !index.put(old),
        "the answer of its creation came after its end"
    );
    assert!(index.of(&new.work).is_empty() && index.on_cell("a").is_empty());
}

#[test]
fn a_relist_drops_what_it_does_not_show() {
    let mut index = PodIndex::default();
    let pod = read(ready());
    index.put(pod.clone());
    index.begin_relist();
    assert!(!index.put(pod.clone()), "no news, but it is there");
    assert!(index.end_relist().is_empty());
    index.begin_relist();
    assert_eq!(index.end_relist(), std::slice::from_ref(&pod.work));
    assert!(index.of(&pod.work).is_empty());
}

#[test]
fn nothing_is_held_of_an_instance_that_has_its_pod() {
    let mut index = PodIndex::default();
    let pod = read(ready());
    index.hold(&pod.work, &pod.guid, Local::SetAside);
    assert_eq!(index.off_cells().len(), 1);
    index.put(pod.clone());
    assert_eq!(index.local(&pod.work), None);
}

#[test]
fn a_pod_whose_label_is_taken_away_is_out_and_may_come_back() {
    let mut index = PodIndex::default();
    let labelled = |revision: &str, label: bool| {
        let mut pod = pod("g1", ready());
        pod.metadata.resource_version = Some(revision.into());
        if !label {
            pod.metadata.labels = None;
        }
        pod
    };
    let work = read(ready()).work;
    assert_eq!(index.enter(&labelled("7", true)), Some(work.clone()));
    assert_eq!(index.enter(&labelled("8", false)), Some(work.clone()));
    assert!(index.of(&work).is_empty());
    assert_eq!(index.enter(&labelled("7", true)), None, "older than that");
    assert_eq!(index.enter(&labelled("9", true)), Some(work.clone()));
    assert_eq!(index.leave(&labelled("8", false)), None, "older than that");
    // The watch, which selects by the label, tells of a deletion.
    assert_eq!(index.leave(&labelled("10", false)), Some(work.clone()));
    assert_eq!(index.enter(&labelled("11", true)), Some(work.clone()));
    assert_eq!(index.remove(&read(ready()).key, "pod-g1"), Some(work));
    assert_eq!(index.enter(&labelled("12", true)), None, "gone for ever");
}
