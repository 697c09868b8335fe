//! What is sold, bought and spent: `/v1/plans`, `/v1/coupons`, `/v1/credits`, `/v1/subscription`.

pub mod coupons;
pub mod credits;
pub mod limits;
pub mod plans;
pub mod subscriptions;
