//! What is sold, bought and spent: `/v1/plans`, `/v1/coupons`, `/v1/credits`, `/v1/subscription`; and paid for: `/v1/payments`,
//! `/v1/refunds`, `/v1/invoices`, `/v1/gateways`.

pub mod callbacks;
pub mod coupons;
pub mod credits;
pub mod decisions;
pub mod differences;
pub mod gateways;
mod invoice_pdf;
pub mod invoices;
pub mod limits;
pub mod payments;
pub mod plans;
pub mod refunds;
pub mod subscriptions;
