//! What requests lead to: on the data plane, in answers, and in what is told.

#[path = "service/acquire.rs"]
mod acquire;
#[path = "service/journal.rs"]
mod journal;
#[path = "service/lab.rs"]
mod lab;
#[path = "service/larval.rs"]
mod larval;
#[path = "service/live.rs"]
mod live;
#[path = "service/numbers.rs"]
mod numbers;
#[path = "service/plane.rs"]
mod plane;
#[path = "service/plans.rs"]
mod plans;
#[path = "service/rekey.rs"]
mod rekey;
#[path = "service/words.rs"]
mod words;
