//! What every presence store must do, written once and run against each.

mod handover;
mod life;
mod outage;
mod reads;
mod restart;
pub mod site;
mod ttl;

use site::Site;

/// Runs each test against each store.
macro_rules! contract {
    ($($module:ident { $($test:ident),* $(,)? })*) => {
        mod etcd {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$module::$test(super::Site::etcd().await).await;
                }
            )*)*
        }
        mod kubernetes {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$module::$test(super::Site::kubernetes().await).await;
                }
            )*)*
        }
    };
}

contract! {
    life {
        a_dead_rep_is_gone_one_ttl_after_its_last_renewal,
        a_renewed_presence_outlives_its_ttl,
        a_presence_given_back_is_seen_as_released,
        a_phase_still_on_its_way_never_hides_that_the_presence_was_given_back,
        a_phase_is_published_under_the_same_epoch,
        a_second_rep_under_the_same_name_is_refused,
        a_rep_without_proof_gets_the_name_once_its_holder_is_dead,
        a_presence_that_is_taken_away_is_registered_again,
        a_cell_that_was_judged_lost_goes_on_under_a_new_epoch,
        a_rep_whose_threads_are_all_busy_stays_present,
    }
    restart {
        the_same_incarnation_goes_on_with_its_epoch,
        the_first_epoch_of_an_incarnation_lasts_over_a_takeover,
        a_new_incarnation_ends_the_old_one_without_a_loss,
        a_copy_of_the_work_directory_takes_the_name_once_and_not_in_turns,
        a_rep_that_returns_after_its_loss_has_a_new_epoch,
    }
    handover {
        a_newer_rep_of_the_same_boot_takes_over_at_once,
        a_rep_that_stops_leaves_a_full_ttl_to_its_successor,
        a_superseded_rep_goes_on_when_its_successor_is_dead,
        a_superseded_rep_begins_anew_when_its_successor_has_left,
        a_rep_of_another_boot_does_not_wait_for_the_old_ones_end,
    }
    reads {
        reads_tell_what_the_store_holds_now,
        a_value_that_can_not_be_read_is_present_but_unknown,
        reads_and_registrations_are_in_one_order,
        a_roll_call_names_who_is_late_before_it_is_gone,
    }
    ttl {
        a_ttl_that_is_chosen_falls_and_rises_and_nobody_is_lost,
        no_promise_outlasts_a_shorter_ttl,
        a_ttl_that_changes_over_a_bad_network_loses_nobody,
    }
    outage {
        a_store_that_is_away_for_longer_than_the_ttl_loses_nobody,
        who_dies_while_the_store_is_away_is_gone_a_ttl_after_it_is_back,
    }
}
